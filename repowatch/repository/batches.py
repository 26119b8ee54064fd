"""Uploads that wait for each other: kept durably and unseen, until they are committed together or given up.

Each batch is a directory in `.repowatch/batches/`: its packages, and a file `members` with a line of JSON
for the batch and then one for each change, in the order they came; the last word on a name counts. A
batch without that file is one that is being removed.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import secrets
import shutil
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from repowatch.errors import Conflict, Misunderstood, Nameless
from repowatch.repository.home import Home
from repowatch.repository.tree import PRIVATE
from repowatch.system.clock import Clock
from repowatch.system.files import fsync_directory, make_directories, write_durably

log = logging.getLogger(__name__)

MOST_OPEN = 100  # batches of one repository
MOST_MEMBERS = 10_000  # changes of one batch

# Seconds that every batch has after a start, whatever the clock says by then of its age.
GRACE = 3600.0

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_MEMBERS = "members"


@dataclass(frozen=True, slots=True)
class Member:
    """The last word of a batch on one name."""

    location_href: str
    file: str | None  # in the directory of the batch; None: the package leaves
    pkgid: str | None
    size: int  # bytes
    # What stood under the name when a condition on it held: inode, size and mtime in ns, [] for nothing;
    # None where there was no condition.
    before: list[int] | None = None


class _Damaged(Exception):
    """What was written down of a batch can not be read."""


@dataclass(slots=True)
class _Batch:
    name: str
    directory: str
    who: str | None
    began_at: float  # seconds since 1970
    ends_at: float  # monotonic
    lock: threading.Lock = field(default_factory=threading.Lock)
    members: dict[str, Member] = field(default_factory=dict)  # by location_href
    lines: int = 0  # changes that were written down, overruled ones among them
    is_taken: bool = False  # it is being committed or discarded


@dataclass(frozen=True, slots=True)
class Taken:
    """A batch while it is committed: nobody adds to it."""

    directory: str
    members: tuple[Member, ...]

    def path(self, member: Member) -> str:
        return os.path.join(self.directory, member.file or "")


def check_name(name: str) -> None:
    """Raise Misunderstood for what can not be the name of a batch."""
    if not _NAME.fullmatch(name):
        raise Misunderstood("a batch is named by 1 to 64 letters, digits, dots, dashes and underscores")


class Batches:
    """The open batches of one repository. May be used from any thread."""

    def __init__(self, home: Home, *, clock: Clock, lasts: float) -> None:
        """`lasts`: seconds without a change after which a batch is given up."""
        self._home = home
        self._clock = clock
        self._lasts = lasts
        self._lock = threading.Lock()
        self._open: dict[str, _Batch] = {}

    @property
    def directory(self) -> str:
        return os.path.join(self._home.root, PRIVATE, "batches")

    def load(self) -> None:
        """Take up those that were open when the process before ended. Raises OSError."""
        found = {}
        with contextlib.suppress(FileNotFoundError):
            for name in os.listdir(self.directory):
                path = os.path.join(self.directory, name)
                try:
                    batch = self._loaded(name, path)
                except _Damaged as error:
                    log.error(
                        "%s is damaged (%s): the batch can not be committed, its files stay", path, error
                    )
                    continue
                if batch is None:
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    found[name] = batch
        with self._lock:
            self._open = found

    def _loaded(self, name: str, directory: str) -> _Batch | None:
        """One batch as its lines tell; None for what is left of one that ended. Raises _Damaged, OSError."""
        path = os.path.join(directory, _MEMBERS)
        try:
            idle = max(0.0, self._clock.now() - os.stat(path).st_mtime)
            with open(path, "rb") as file:
                content = file.read()
            whole = content[: content.rfind(b"\n") + 1]
            if whole != content:  # torn, so nobody was told of it
                os.truncate(path, len(whole))
            head, *rows = [json.loads(line) for line in whole.splitlines()]
            ends_at = self._clock.monotonic() + max(self._lasts - idle, min(self._lasts, GRACE))
            batch = _Batch(name, directory, head["who"], float(head["began_at"]), ends_at)
            batch.members = {row[0]: Member(*row) for row in rows}
            batch.lines = len(rows)
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            raise _Damaged(str(error)) from error
        return batch

    # -- what clients add --------------------------------------------------------------------

    def put(self, name: str, member: Member, *, staged: str | None, who: str | None) -> int:
        """Keep a change for the commit; how many the batch has by then. `staged` is renamed.

        Raises Misunderstood for a name that is none, Conflict when the batch is another's or full, OSError.
        """
        check_name(name)
        self._home.open_staging()  # raises where the directory is away
        batch = self._opened(name, who)
        with batch.lock:
            if batch.is_taken:
                raise Conflict(f"the batch {name} is being committed")
            if batch.lines >= MOST_MEMBERS:
                raise Conflict(f"the batch {name} has {MOST_MEMBERS} changes, the most that it may have")
            self._keep(batch, member, staged)
            return len(batch.members)

    def _opened(self, name: str, who: str | None) -> _Batch:
        with self._lock:
            batch = self._open.get(name)
            if batch is None:
                if len(self._open) >= MOST_OPEN:
                    raise Conflict(f"{MOST_OPEN} batches are open; commit or discard one first")
                batch = self._open[name] = self._begin(name, who)
        if batch.who != who:
            raise Conflict(f"the batch {name} is another's; take another name")
        return batch

    def _begin(self, name: str, who: str | None) -> _Batch:
        """Make its directory, and say durably whose it is."""
        directory = os.path.join(self.directory, name)
        if os.path.exists(os.path.join(directory, _MEMBERS)):
            raise Conflict(f"the batch {name} is damaged; take another name, or look at {directory}")
        shutil.rmtree(directory, ignore_errors=True)
        make_directories(directory, below=self._home.root)
        now = self._clock.now()
        head = json.dumps({"who": who, "began_at": now})
        write_durably(os.path.join(directory, _MEMBERS), [f"{head}\n".encode()])
        fsync_directory(directory)
        return _Batch(name, directory, who, now, self._clock.monotonic() + self._lasts)

    def _keep(self, batch: _Batch, member: Member, staged: str | None) -> None:
        if staged is not None:
            file = f"{batch.lines}.rpm"
            os.rename(staged, os.path.join(batch.directory, file))
            fsync_directory(batch.directory)
            member = Member(member.location_href, file, member.pkgid, member.size, member.before)
        self._write(batch, member)
        before = batch.members.pop(member.location_href, None)
        batch.members[member.location_href] = member
        batch.lines += 1
        batch.ends_at = self._clock.monotonic() + self._lasts
        if before and before.file:
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(batch.directory, before.file))

    def _write(self, batch: _Batch, member: Member) -> None:
        row = [member.location_href, member.file, member.pkgid, member.size, member.before]
        line = f"{json.dumps(row)}\n".encode()
        descriptor = os.open(os.path.join(batch.directory, _MEMBERS), os.O_WRONLY | os.O_CLOEXEC)
        try:
            end = os.lseek(descriptor, 0, os.SEEK_END)
            try:
                if os.write(descriptor, line) < len(line):
                    raise OSError(28, os.strerror(28))
                os.fsync(descriptor)
            except OSError:
                os.ftruncate(descriptor, end)
                raise
        finally:
            os.close(descriptor)

    # -- the end of a batch ------------------------------------------------------------------

    @contextlib.contextmanager
    def taken(self, name: str, *, who: str | None, is_operator: bool) -> Iterator[Taken]:
        """A batch that nobody adds to meanwhile; it is open again after that unless it was `forget`ten.

        Raises Nameless where there is none, or none of theirs, and Conflict when somebody has it.
        """
        with self._lock:
            batch = self._open.get(name)
        if batch is None or not (is_operator or batch.who == who):
            raise Nameless(f"there is no open batch {name[:64]}")
        with batch.lock:
            if batch.is_taken:
                raise Conflict(f"the batch {name} is being committed")
            batch.is_taken = True
        try:
            yield Taken(batch.directory, tuple(batch.members.values()))
        finally:
            batch.ends_at = self._clock.monotonic() + self._lasts
            batch.is_taken = self._open.get(name) is not batch  # for whoever found it a moment ago

    def forget(self, name: str) -> None:
        """Remove a batch that is taken. Raises OSError when it would come back with the next start."""
        gone = os.path.join(self.directory, f".{secrets.token_hex(8)}")
        with contextlib.suppress(FileNotFoundError):
            with self._lock:  # and out of the way of the next one with this name
                batch = self._open.pop(name)
                os.unlink(os.path.join(batch.directory, _MEMBERS))
                os.rename(batch.directory, gone)
            fsync_directory(gone)
        shutil.rmtree(gone, ignore_errors=True)

    def expire(self) -> None:
        """Give up those that nobody touched for long."""
        now = self._clock.monotonic()
        for batch in list(self._open.values()):
            if batch.ends_at > now:
                continue
            with (
                contextlib.suppress(Nameless, Conflict),
                self.taken(batch.name, who=None, is_operator=True),
            ):
                if batch.ends_at <= self._clock.monotonic():
                    self._give_up(batch)

    def _give_up(self, batch: _Batch) -> None:
        try:
            self.forget(batch.name)
        except OSError as error:
            log.error("the batch %s can not be removed: %s", batch.name, error)
            return
        log.warning(
            "%s: the batch %s of %s is given up, nobody touched it for %.0f s; %d changes are dropped",
            self._home.root,
            batch.name,
            batch.who or "anyone",
            self._lasts,
            len(batch.members),
        )

    def told(self) -> list[Mapping[str, Any]]:
        """The open ones, the oldest first: for the status. Times in seconds since 1970."""
        batches = sorted(self._open.values(), key=lambda each: each.began_at)
        return [
            {
                "batch": each.name,
                "who": each.who,
                "files": len(members),
                "bytes": sum(member.size for member in members),
                "began_at": each.began_at,
                "expires_in": max(0.0, each.ends_at - self._clock.monotonic()),
            }
            for each in batches
            for members in [tuple(each.members.values())]
        ]

    def __len__(self) -> int:
        return len(self._open)
