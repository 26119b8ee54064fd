"""Makes several renames one: written down before the first, so that a death between them can be put right.

    1. keep each file that will be replaced (a hard link), and write down what will be renamed where
    2. the renames, then repomd.xml: done by `publisher`, and whoever dies there leaves a part of it
    3. if repomd.xml is the one that was written down, finish what is left to do; else take everything back

Whoever opens the repository next does step 3 before it looks at the tree. What somebody else put under one
of the names meanwhile is left alone.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import astuple, dataclass
from typing import Any

from repowatch.errors import Conflict
from repowatch.repository.tree import PRIVATE
from repowatch.system.files import fsync_directory, make_directories, remove_if_there, write_durably
from repowatch.system.second import NO_LINKS, give_second_place

log = logging.getLogger(__name__)

NO_METADATA = "none"  # in the place of a checksum: no repomd.xml will tell that all is done

_STAGING = f"{PRIVATE}/staging/"  # cleared at each start


@dataclass(frozen=True, slots=True)
class Step:
    """One file that comes or leaves. All paths are relative to the root."""

    target: str
    staged: str | None  # where the file comes from; None: it leaves
    held: str | None  # what `target` was before, kept
    inode: int  # of the file that comes or leaves
    size: int  # bytes of it


@dataclass(frozen=True, slots=True)
class _Plan:
    steps: tuple[Step, ...]
    repomd: str  # the SHA-256 of the repomd.xml that tells that all have come
    scratch: str | None  # a directory to be removed when all is done


class Journal:
    """What is in hand in one repository. Used by the thread that publishes."""

    def __init__(self, root: str, *, leave: Callable[[Sequence[str]], None]) -> None:
        """`leave` removes files of the tree, by their paths, durably."""
        self._root = root
        self._directory = os.path.join(root, PRIVATE, "together")
        self._path = os.path.join(self._directory, "journal")
        self._leave = leave
        self._plan: _Plan | None = None
        self._is_inherited = False  # the process before began it

    def load(self) -> None:
        """Take up what the process before left. Raises OSError."""
        self._plan, self._is_inherited = None, True
        try:
            with open(self._path, encoding="ascii") as file:
                self._plan = _read(file.read())
        except FileNotFoundError:
            return
        except (ValueError, TypeError, LookupError) as error:
            log.error(
                "%s is damaged (%s): what was published together may be there in part; it is kept as %s.bad",
                self._path,
                error,
                self._path,
            )
            os.rename(self._path, f"{self._path}.bad")

    def begin(
        self,
        arrivals: Iterable[tuple[str, str]],
        departures: Iterable[str],
        *,
        scratch: str | None,
        repomd: str,
    ) -> None:
        """Write down, durably, that files will be renamed (path, target) and others removed.

        Raises OSError when that can not be, or when a rename could not succeed; Conflict where a directory
        has a name.
        """
        make_directories(self._directory, below=self._root)
        self._clear()
        steps = [self._arrival(number, *each) for number, each in enumerate(arrivals)]
        steps += [step for path in departures if (step := self._departure(path))]
        if any(step.held for step in steps):
            fsync_directory(self._directory)
        plan = _Plan(tuple(steps), repomd, scratch and os.path.relpath(scratch, self._root))
        # In hand before it is written: what can not be made sure of may be found by the next start.
        self._plan, self._is_inherited = plan, False
        self._write(plan)

    def _arrival(self, number: int, staged: str, target: str) -> Step:
        coming, held = os.lstat(staged), None
        if os.path.isdir(target) and not os.path.islink(target):
            raise Conflict(f"{self._relative(target)} is a directory now; remove that first")
        if os.path.lexists(target):
            held = os.path.join(self._directory, str(number))
            _keep(target, held)
        return Step(
            self._relative(target),
            self._relative(staged),
            held and self._relative(held),
            coming.st_ino,
            coming.st_size,
        )

    def _departure(self, path: str) -> Step | None:
        try:
            going = os.lstat(path)
        except FileNotFoundError:
            return None
        if not os.access(os.path.dirname(path), os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return Step(self._relative(path), None, None, going.st_ino, going.st_size)

    def _write(self, plan: _Plan) -> None:
        text = json.dumps(
            {
                "steps": [astuple(step) for step in plan.steps],
                "repomd": plan.repomd,
                "scratch": plan.scratch,
            }
        )
        aside = f"{self._path}.new"
        write_durably(aside, [text.encode()])
        os.rename(aside, self._path)
        fsync_directory(self._directory)

    def settle(self, repomd: str) -> bool | None:
        """Finish or take back what is in hand, as the checksum of the repomd.xml that stands tells.

        Whether it was finished, None where nothing is in hand. Raises OSError, RepowatchError: then it
        stays in hand.
        """
        if self._plan is None:
            return None
        if self._plan.repomd == repomd:
            self.finish()
            return True
        self._take_back(self._plan)
        return False

    def finish(self) -> None:
        """All that was to come is there: remove what was to leave, and forget it. Raises as `settle`."""
        if self._plan is None:
            return
        leaving = [step for step in self._plan.steps if step.staged is None and self._is_at_target(step)]
        self._leave([self._absolute(step.target) for step in leaving])
        if self._plan.scratch:
            shutil.rmtree(self._absolute(self._plan.scratch), ignore_errors=True)
        self._end()

    def _take_back(self, plan: _Plan) -> None:
        """Give each file that came its old place, and what it replaced its name."""
        directories = set()
        for step in reversed(plan.steps):
            if step.staged is not None and self._is_at_target(step):
                self._undo(step, step.staged)
                directories |= {os.path.dirname(self._absolute(each)) for each in (step.target, step.staged)}
        for directory in filter(os.path.isdir, directories):
            fsync_directory(directory)
        self._end()

    def _undo(self, step: Step, staged: str) -> None:
        """In an order in which every death leaves what can be undone again, and no moment without a file."""
        target = self._absolute(step.target)
        held = self._absolute(step.held) if step.held else None
        if not (self._is_inherited and staged.startswith(_STAGING)):
            with contextlib.suppress(FileExistsError, FileNotFoundError):
                _put_back(target, self._absolute(staged))
        if held and os.path.lexists(held):
            os.rename(held, target)
        else:
            remove_if_there(target)

    def _is_at_target(self, step: Step) -> bool:
        """Whether the file that the step is about has the name, and not another one."""
        try:
            found = os.lstat(self._absolute(step.target))
        except (FileNotFoundError, NotADirectoryError):
            return False
        return (found.st_ino, found.st_size) == (step.inode, step.size)

    def _end(self) -> None:
        remove_if_there(self._path)
        fsync_directory(self._directory)
        self._plan = None
        self._clear()

    def _clear(self) -> None:
        """Remove files that were kept, and that no journal names."""
        for name in os.listdir(self._directory):
            if not name.endswith(".bad"):
                remove_if_there(os.path.join(self._directory, name))

    def _relative(self, path: str) -> str:
        return os.path.relpath(path, self._root)

    def _absolute(self, path: str) -> str:
        return os.path.join(self._root, path)


def _put_back(path: str, staged: str) -> None:
    """Give a file its old place as well, or at least that. Raises OSError."""
    try:
        os.link(path, staged, follow_symlinks=False)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        os.rename(path, staged)


def _keep(path: str, held: str) -> None:
    """Keep what has a name now: by a second one, where the file system knows that. Raises OSError."""
    try:
        os.link(path, held, follow_symlinks=False)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        give_second_place(path, held, may_link=False)


def _read(text: str) -> _Plan:
    """Raises ValueError, TypeError and LookupError for what `_write` did not write."""
    said: dict[str, Any] = json.loads(text)
    steps = tuple(Step(*row) for row in said["steps"])
    return _Plan(steps, str(said["repomd"]), said["scratch"])
