"""Mirrors over rsync: conf/rsyncd.conf with a real rsync daemon, and the commands that it tells mirrors."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.clients.conftest import run
from tests.clients.test_dnf import Dnf
from tests.kit.daemon import Daemon, wait_until
from tests.kit.oracle import createrepo
from tests.kit.rpms import make_rpm
from tests.kit.views import BrokenView, Crowd, from_disk, read_view

pytestmark = pytest.mark.client("rsync")

CONFIGURATION = Path(__file__).parents[2] / "conf" / "rsyncd.conf"

# Allows a transfer to be seen: 6 MB of packages take two seconds.
SLOWLY = "--bwlimit=3000"


@dataclass(frozen=True, slots=True)
class Master:
    """A tree and the rsync daemon that offers it."""

    root: Path
    port: int

    @property
    def url(self) -> str:
        return f"rsync://127.0.0.1:{self.port}/rpm"

    def mirror(self, target: Path, *, slowly: bool = False, before_removals: str = "true") -> None:
        """Run what the configuration tells mirrors to run, and a command in the midst of it."""
        lines = re.findall(r"^#     (.*\n)", CONFIGURATION.read_text(), re.MULTILINE)
        changes = {
            "from=rsync://rpm.example.org/rpm": f"from={self.url}",
            "to=/srv/mirror/rpm": f"to='{target}'",
            'repodata/repomd.xml"\nsed': f'repodata/repomd.xml"\n{before_removals}\nsed',
            "rsync -rtl": f"rsync {SLOWLY} -rtl" if slowly else "rsync -rtl",
        }
        run("sh", "-c", replaced("".join(lines), changes))


def replaced(text: str, changes: dict[str, str]) -> str:
    """The text with old strings replaced by new ones. Raises AssertionError where one is not in it once."""
    for old, new in changes.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    scratch = tmp_path_factory.mktemp("shared")
    (scratch / "rpm").mkdir()
    with Daemon(scratch / "rpm", scratch=scratch) as daemon:
        for number in range(3):
            put_large(daemon, scratch, name=f"large{number}")
        yield daemon


def put_large(daemon: Daemon, scratch: Path, *, name: str) -> None:
    """Upload a package of 2 MB."""
    package = make_rpm(scratch, name, files={"/usr/lib/noise": os.urandom(2_000_000)})
    assert daemon.put(f"/rpm/{package.name}", package).status == 201


@pytest.fixture
def root(shared: Daemon) -> Path:
    """The tree of the daemon's repository."""
    return Path(shared.repository("rpm")["path"])


@pytest.fixture
def master(root: Path, tmp_path: Path) -> Iterator[Master]:
    with offered(root, tmp_path) as master:
        yield master


@contextmanager
def offered(root: Path, scratch: Path, changes: dict[str, str] | None = None) -> Iterator[Master]:
    """An rsync daemon with the configuration, changed in what this machine needs, and in `changes`."""
    needed = {
        "path = /var/www/repos/rpm-repo": f"path = {root}",
        "/run/repowatch-rsyncd.lock": str(scratch / "rsyncd.lock"),
    }
    if os.geteuid() != 0:
        needed |= {"uid = nobody\n": "", "use chroot = yes": "use chroot = no"}
    configuration, log, port = scratch / "rsyncd.conf", scratch / "rsyncd.log", free_port()
    configuration.write_text(replaced(CONFIGURATION.read_text(), needed | (changes or {})))
    process = subprocess.Popen(
        [
            *("rsync", "--daemon", "--no-detach", "--address=127.0.0.1", f"--port={port}"),
            *(f"--config={configuration}", f"--log-file={log}"),
        ]
    )
    try:
        wait_until(lambda: greets(port))
        yield Master(root, port)
    finally:
        process.terminate()
        process.wait()
        print(log.read_text(), file=sys.stderr)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
        return port


def greets(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            return connection.recv(9) == b"@RSYNCD: "
    except ConnectionRefusedError:
        return False


def take_place(port: int) -> socket.socket:
    """A mirror that has begun and says nothing more; its connection."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=5)
    with connection.makefile("rwb") as stream:
        greeting = stream.readline()
        stream.write(greeting + b"rpm\n")
        stream.flush()
        assert stream.readline() == b"@RSYNCD: OK\n"
    return connection


def files(root: Path) -> dict[str, bytes]:
    """Everything below a directory but metadata."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and not {".repowatch", "repodata"} & set(path.parts)
    }


def metadata_files(root: Path) -> set[str]:
    """The metadata files that a repository has, but repomd.xml."""
    return set(os.listdir(root / "repodata")) - {"repomd.xml"}


@contextmanager
def publications(daemon: Daemon, scratch: Path) -> Iterator[None]:
    """One publication after the other, some in a second, for as long as the context lasts."""
    ends, failed = threading.Event(), list[object]()

    def publish() -> None:
        number = 0
        while not ends.is_set():
            number += 1
            package = make_rpm(scratch, scratch.name, str(number))
            answer = daemon.put(f"/rpm/{package.name}", package)
            if answer.status != 201:
                failed.append(answer)
            ends.wait(0.05)

    thread = threading.Thread(target=publish)
    thread.start()
    try:
        yield
    finally:
        ends.set()
        thread.join()
    assert not failed


def test_a_mirror_is_the_tree_without_what_is_not_shown(master: Master, tmp_path: Path) -> None:
    names = (".treeinfo", ".hidden", "notes.txt", ".repowatch/staging/upload-unchecked")
    for name in names:
        (master.root / name).write_text(name)
    expected = {name: content for name, content in files(master.root).items() if name != ".hidden"}
    mirror = tmp_path / "mirror"
    master.mirror(mirror)
    for name in names:
        (master.root / name).unlink()
    assert files(mirror) == expected
    assert set(os.listdir(mirror)) & {".repowatch", ".hidden", ".repomd.xml"} == set()
    assert read_view(from_disk(mirror)) == read_view(from_disk(master.root))
    repomd = (mirror / "repodata" / "repomd.xml").read_text()
    assert all(name in repomd for name in metadata_files(mirror)), "superseded metadata was transferred"


@pytest.mark.parametrize("name", [".repowatch/lock", ".repowatch", "repodata/../.repowatch/lock"])
def test_a_hidden_name_is_not_there_for_who_asks_for_it(master: Master, tmp_path: Path, name: str) -> None:
    assert (master.root / name).exists()
    printed = run("rsync", "-r", f"{master.url}/{name}", tmp_path / "copy", check=False)
    assert "failed: No such file" in printed
    assert not (tmp_path / "copy").exists()


def test_the_next_run_removes_what_is_gone(shared: Daemon, master: Master, tmp_path: Path) -> None:
    mirror = tmp_path / "mirror"
    package = make_rpm(tmp_path, "leaving")
    assert shared.put(f"/rpm/{package.name}", package).status == 201
    master.mirror(mirror)
    (mirror / "repodata" / "removed-primary.xml.gz").touch()
    assert package.name in files(mirror)
    superseded = metadata_files(mirror) - {"removed-primary.xml.gz"}
    assert shared.request("DELETE", f"/rpm/{package.name}").status == 204
    master.mirror(mirror)
    assert files(mirror) == files(master.root)
    assert read_view(from_disk(mirror)) == read_view(from_disk(master.root))
    kept = set(os.listdir(mirror / "repodata"))
    assert "removed-primary.xml.gz" not in kept
    assert superseded <= kept, "slow clients have lost what they were reading"


def test_what_repomd_names_stays_on_a_mirror_that_is_too_slow(root: Path, tmp_path: Path) -> None:
    copy, mirror = tmp_path / "copy", tmp_path / "mirror"
    run("cp", "-a", root, copy)
    copy.chmod(0o755)
    with offered(copy, tmp_path) as master:
        master.mirror(mirror, before_removals=f"rm '{copy}'/repodata/*")
    assert os.listdir(copy / "repodata") == []
    assert read_view(from_disk(mirror)) == read_view(from_disk(root))


def test_a_mirror_stays_as_it_is_when_something_that_repomd_names_can_not_be_had(
    root: Path, tmp_path: Path
) -> None:
    copy, mirror = tmp_path / "copy", tmp_path / "mirror"
    run("cp", "-a", root, copy)
    with offered(copy, tmp_path) as master:
        master.mirror(mirror)
        before = read_view(from_disk(mirror))
        createrepo(copy)
        for primary in (copy / "repodata").glob("*-primary.xml.*"):
            primary.unlink()
        with pytest.raises(AssertionError, match="No such file"):
            master.mirror(mirror)
    assert read_view(from_disk(mirror)) == before


@pytest.mark.client("dnf")
def test_dnf_reads_a_mirror(master: Master, tmp_path: Path) -> None:
    master.mirror(tmp_path / "mirror")
    (tmp_path / "dnf.conf").write_text("[main]\n")
    where = ("--setopt=reposdir=/nonexistent", f"--repofrompath=rpm,file://{tmp_path}/mirror")
    assert "large0-1.0-1.noarch" in Dnf(tmp_path, where).available()


def test_the_repository_is_in_the_list(master: Master) -> None:
    assert run("rsync", f"rsync://127.0.0.1:{master.port}/").split() == ["rpm", "RPM", "packages"]


def test_nobody_writes(master: Master, tmp_path: Path) -> None:
    package = make_rpm(tmp_path, "intruder")
    assert "module is read only" in run("rsync", package, f"{master.url}/", check=False)
    assert "module is read only" in run("rsync", "-r", "--delete", f"{tmp_path}/", master.url, check=False)
    assert not (master.root / package.name).exists()


def test_a_mirror_can_not_have_the_whole_tree_read_for_checksums(master: Master, tmp_path: Path) -> None:
    printed = run("rsync", "-rc", f"{master.url}/", tmp_path / "mirror", check=False)
    assert "configured to refuse --checksum" in printed


def test_a_host_that_is_not_allowed_is_refused(root: Path, tmp_path: Path) -> None:
    with offered(root, tmp_path, {"127.0.0.1 ::1 192.0.2.0/24": "192.0.2.1"}) as master:
        printed = run("rsync", "-r", f"{master.url}/", tmp_path / "mirror", check=False)
    assert "access denied to rpm" in printed
    assert not (tmp_path / "mirror").exists()


def test_one_mirror_more_than_may_connect_is_refused_until_another_is_done(
    root: Path, tmp_path: Path
) -> None:
    with offered(root, tmp_path, {"max connections = 20": "max connections = 2"}) as master:
        with ExitStack() as mirrors:
            for _ in range(2):
                mirrors.enter_context(take_place(master.port))
            assert "max connections (2) reached" in run("rsync", f"{master.url}/", check=False)
        wait_until(lambda: "repodata" in run("rsync", f"{master.url}/", check=False))


def test_clients_of_a_mirror_meet_no_broken_view_while_packages_are_published(
    shared: Daemon, master: Master, tmp_path: Path
) -> None:
    mirror = tmp_path / "mirror"
    master.mirror(mirror)
    with publications(shared, tmp_path), Crowd(from_disk(mirror)) as crowd:
        for number in range(3):
            put_large(shared, tmp_path, name=f"{tmp_path.name}-large{number}")
            master.mirror(mirror, slowly=True)
            behind = read_view(from_disk(master.root)).revision - read_view(from_disk(mirror)).revision
            assert behind > 3, "hardly anything was published meanwhile"
    assert crowd.broken == []
    assert crowd.absent == 0


OTHER_ORDERS = {
    "in one go": [("-a", "--delete", SLOWLY)],
    "repomd.xml last": [("-a", "--exclude=/repodata/repomd.xml", SLOWLY), ("-a", "--exclude=*-*.xml.gz")],
}


@pytest.mark.parametrize("passes", OTHER_ORDERS.values(), ids=OTHER_ORDERS)
def test_in_another_order_a_mirror_is_broken_by_what_is_published_meanwhile(
    shared: Daemon, master: Master, tmp_path: Path, passes: list[tuple[str, ...]]
) -> None:
    mirror = tmp_path / "mirror"
    with publications(shared, tmp_path):
        for options in passes:
            run("rsync", *options, f"{master.url}/", mirror)
    with pytest.raises(BrokenView):
        read_view(from_disk(mirror))
