"""The ways to bring one change of a tree into its metadata: ours, and the peers'.

Each works on a copy of the same tree: packages in Packages/<letter>/, metadata in gzip.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from benchmarks.processes import cpu_seconds
from repowatch.model.digests import inspect
from repowatch.model.package import Stamp
from repowatch.repository.changes import Arrival, Change, Departure
from repowatch.repository.index import Index
from repowatch.repository.readers import Readers
from repowatch.system.clock import SystemClock
from repowatch.system.files import fsync_file
from repowatch.system.memory import settle
from tests.kit.daemon import Answer, Daemon, wait_until

CORES = os.cpu_count() or 1

# The fastest that keep the result the same: zstd, the default since 1.0, takes 1.4 times as long with it,
# one worker 1.25 times; --skip-stat gains nothing and misses replaced packages.
CREATEREPO_OPTIONS = ("--quiet", "--no-database", "--general-compress-type=gz", f"--workers={CORES}")

ARCH = "x86_64"  # createrepo-agent keeps a repository for each architecture


class Missing(Exception):
    """A contender can not run here."""


@dataclass(frozen=True, slots=True)
class Task:
    """One package to be added, replaced or removed."""

    kind: str  # one of KINDS
    location_href: str
    file: Path | None  # the package that comes, on the tree's file system; it may be moved away

    @property
    def package_name(self) -> str:
        return os.path.basename(self.location_href).rsplit("-", 2)[0]


KINDS = ("added", "replaced", "removed")


class Contender(Protocol):
    """Something that can do a task: when `do` returns, clients see the change."""

    label: str
    alone: (
        bool  # whether its processes do its work only, so that all their time counts, not just that in `do`
    )

    def do(self, task: Task) -> None: ...

    def cpu(self) -> float:
        """Processor seconds that its processes have used so far."""
        ...

    def finish(self) -> None:
        """Do, or wait for, the work that it put off."""
        ...

    def close(self) -> None: ...


def command(name: str) -> str:
    """The path of a command, first looked for beside Python. Raises Missing."""
    places = os.pathsep.join((os.path.dirname(sys.executable), os.environ.get("PATH", os.defpath)))
    if found := shutil.which(name, path=places):
        return found
    raise Missing(f"there is no {name} here")


def createrepo(root: Path, *options: str) -> None:
    """Run createrepo_c over a tree."""
    arguments = [command("createrepo_c"), *CREATEREPO_OPTIONS, *options, str(root)]
    subprocess.run(arguments, check=True)  # noqa: S603 - a tree of ours


class Engine:
    """One turn of our `Index` in this process, from a package that lies in staging."""

    label = "repowatch, engine alone"
    alone = False

    def __init__(self, root: Path) -> None:
        self._readers = Readers()
        self._readers.start()
        self._pool = ThreadPoolExecutor(self._readers.processes)
        self._index = Index(
            str(root), name="engine", readers=self._readers, pool=self._pool, clock=SystemClock()
        )
        self._index.hooks.rests = settle  # as in the daemon
        self._index.open()
        self._index.turn([], at_once=[""])

    def do(self, task: Task) -> None:
        change: Change
        if task.file is None:
            change = Departure(task.location_href, lambda: None)
        else:
            change = self._arrival(task.location_href, task.file)
        self._index.turn([], changes=[change])
        change.answer.result(0)
        self._index.sweep()

    def _arrival(self, location_href: str, staged: Path) -> Arrival:
        fsync_file(str(staged))
        stamp = Stamp.of(staged.stat())
        with open(staged, "rb", buffering=0) as stream:
            inspection = inspect(stream, size=stamp.size)
        package = self._index.describe(inspection, location_href=location_href, stamp=stamp, path=str(staged))
        return Arrival(location_href, str(staged), package, lambda: None)

    def cpu(self) -> float:
        return cpu_seconds(os.getpid())

    def finish(self) -> None:
        self._index.save()

    def close(self) -> None:
        self._index.close()
        self._pool.shutdown()
        self._readers.close()


class Http:
    """The daemon as a client sees it: PUT and DELETE."""

    label = "repowatch, PUT and DELETE"
    alone = True

    def __init__(self, root: Path, *, scratch: Path, keep_space: str | None = None) -> None:
        """Start it over a tree, and wait until that is published."""
        self._root = root
        self._changed_at = time.time()  # seconds since 1970
        if keep_space is None:
            self.daemon = Daemon(root, scratch=scratch)
        else:
            self.daemon = Daemon(scratch=scratch, configuration=_configuration(root, keep_space))
        self.daemon.start()
        wait_until(lambda: self.daemon.repository(root.name)["published_at"], 600)

    def do(self, task: Task) -> None:
        self.change(task)

    def change(self, task: Task) -> Answer:
        """Do a task; what the client is told when it is durable and listed."""
        path = f"/{self._root.name}/{task.location_href}"
        answer = self.daemon.put(path, task.file) if task.file else self.daemon.request("DELETE", path)
        if answer.status not in (201, 204):
            raise AssertionError(f"{task}: {answer.status} {answer.text}\n{self.daemon.log}")
        self._changed_at = time.time()
        return answer

    def cpu(self) -> float:
        return cpu_seconds(self.daemon.pid)

    def finish(self) -> None:
        """Wait until its cache knows the last change, and it does nothing."""
        cache = self._root / ".repowatch" / "cache" / "catalog"
        wait_until(lambda: cache.exists() and cache.stat().st_mtime >= self._changed_at, 60)
        self.rest()

    def rest(self) -> None:
        """Wait until it does nothing; the cache may still be owed."""
        used = -1.0
        while self.cpu() - used > 0.005:
            used = self.cpu()
            time.sleep(0.3)

    def close(self) -> None:
        self.daemon.terminate()


def _configuration(root: Path, keep_space: str) -> str:
    repository = {"path": str(root), "keep_space": keep_space}
    return json.dumps({"repositories": {root.name: repository}})  # JSON is YAML


class Createrepo:
    """createrepo_c --update after each change, with the options that are fastest."""

    label = "createrepo_c --update"
    alone = False

    def __init__(self, root: Path) -> None:
        self._root = root
        createrepo(root)

    def do(self, task: Task) -> None:
        target = self._root / task.location_href
        if task.file:
            task.file.rename(target)
        else:
            target.unlink()
        createrepo(self._root, "--update")

    def cpu(self) -> float:
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        return children.ru_utime + children.ru_stime

    def finish(self) -> None:
        pass

    def close(self) -> None:
        pass


class Agent:
    """createrepo-agent: its server in a process of its own, its client in this one."""

    label = "createrepo-agent"
    alone = True

    def __init__(self, cluster: Path, *, scratch: Path) -> None:
        """`cluster` holds the tree as `ARCH`. Raises Missing."""
        server = command("createrepo-agent")
        try:
            module: Any = importlib.import_module("createrepo_agent")
        except ImportError as error:
            raise Missing(str(error)) from error
        createrepo(cluster / ARCH)
        # With a key at hand it would sign; nobody else does here.
        scratch.mkdir(parents=True, mode=0o700)
        self._server = subprocess.Popen(  # noqa: S603 - a tree of ours
            [server, "--server", str(cluster)],
            env={**os.environ, "GNUPGHOME": str(scratch)},
            stderr=subprocess.DEVNULL,
        )
        try:
            wait_until((cluster / module.SOCK_NAME).exists)
            self._client = module.Client(str(cluster))
            self._client.connect()
        except BaseException:
            self._stop()
            raise

    def do(self, task: Task) -> None:
        if task.kind != "added":
            self._client.remove_name(task.package_name, (ARCH,))
        if task.file:
            self._client.add(str(task.file), (ARCH,))
        self._client.commit()

    def cpu(self) -> float:
        return cpu_seconds(self._server.pid)

    def finish(self) -> None:
        pass

    def close(self) -> None:
        self._client.disconnect()
        self._stop()

    def _stop(self) -> None:
        self._server.terminate()
        self._server.wait()
