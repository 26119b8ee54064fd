"""The processes that read packages.

Each runs `reader` behind a pair of pipes and is asked one package at a time, by a thread that waits for it.
When one dies, the package is asked of a new one; a package that ends that as well is rejected.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice
from multiprocessing.connection import Connection, Pipe
from typing import Any

from repowatch.errors import BadPackage, ChangedWhileRead, RepowatchError
from repowatch.model.digests import Inspection
from repowatch.model.package import Package, Rejected, Stamp

log = logging.getLogger(__name__)

_PR_SET_PDEATHSIG = 1  # prctl(2)

_BOOT = "import sys; sys.path[:] = sys.argv[2:]; from {0} import _serve; _serve(int(sys.argv[1]))"


@dataclass(frozen=True, slots=True)
class Gone:
    """The file is no longer there."""

    location_href: str


@dataclass(frozen=True, slots=True)
class Unsettled:
    """The file changed while it was read."""

    location_href: str


@dataclass(frozen=True, slots=True)
class ToRead:
    """A file to read. `stamp` is what it had when it was chosen."""

    path: str
    location_href: str
    stamp: Stamp | None


Outcome = Package | Rejected | Gone | Unsettled


class Readers:
    """A few processes that read packages for whoever asks."""

    def __init__(self, *, processes: int | None = None) -> None:
        self.processes = processes or os.cpu_count() or 1
        self._pool = ThreadPoolExecutor(self.processes, thread_name_prefix="reader")
        self._mine = threading.local()
        self._children: set[_Child] = set()
        self._lock = threading.Lock()
        self._closed = False

    def start(self) -> None:
        """Start the processes now, not when they are first needed.

        Raises RepowatchError when they can not work on this machine.
        """
        barrier = threading.Barrier(self.processes)  # one task for each thread
        for started in [self._pool.submit(self._begin, barrier) for _ in range(self.processes)]:
            started.result()

    def _begin(self, barrier: threading.Barrier) -> None:
        barrier.wait()
        self._mine.child = self._start()

    def read_each(self, files: Iterable[ToRead]) -> Iterator[Outcome]:
        """What came of each file, in the order they are done.

        A few files are under way at once, so that askers with long lists take turns with the others.
        """
        waiting = iter(files)
        running: set[Future[Outcome]] = set()
        try:
            while True:
                for file in islice(waiting, 2 * self.processes - len(running)):
                    running.add(self._pool.submit(self._read, file))
                if not running:
                    return
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
        finally:
            for future in running:
                future.cancel()

    def describe(self, inspection: Inspection, *, location_href: str, stamp: Stamp) -> Package:
        """What is published of a package whose bytes were seen already. Raises BadPackage."""
        return self._pool.submit(self._ask, "describe", inspection, location_href, stamp).result()

    def close(self) -> None:
        """End the processes. A package that is being read is given up."""
        with self._lock:
            self._closed = True
            children = list(self._children)
        for child in children:
            child.end()
        self._pool.shutdown(cancel_futures=True)

    def _read(self, file: ToRead) -> Outcome:
        try:
            return self._ask("read", file.path, file.location_href)
        except ChangedWhileRead:
            return Unsettled(file.location_href)
        except BadPackage as error:
            return Rejected(file.location_href, file.stamp, str(error))
        except (FileNotFoundError, NotADirectoryError):
            return Gone(file.location_href)
        except OSError as error:
            stamp = file.stamp if isinstance(error, PermissionError) else None
            return Rejected(
                file.location_href, stamp, f"not readable: {(error.strerror or str(error)).lower()}"
            )

    def _ask(self, question: str, *arguments: object) -> Package:
        """Ask this thread's process. One that ended may have been killed by anybody: a package is to blame
        when it ends a second one."""
        for _ in range(2):
            child: _Child | None = getattr(self._mine, "child", None)
            if child is None:
                child = self._mine.child = self._start()
            try:
                return child.ask(question, *arguments)
            except EOFError:
                self._mine.child = None
                how = self._forget(child)
                log.warning("a reader process ended (%s) when it was asked for %s", how, arguments[1])
        raise BadPackage(f"the process that reads it ends ({how}): it is damaged in an unknown way")

    def _forget(self, child: _Child) -> str:
        with self._lock:
            self._children.discard(child)
            if self._closed:
                raise ChangedWhileRead("the readers were stopped")
        return child.end()

    def _start(self) -> _Child:
        child = _Child()
        with self._lock:
            if self._closed:
                child.end()
                raise ChangedWhileRead("the readers were stopped")
            self._children.add(child)
        return child


class _Child:
    """One reader process."""

    def __init__(self) -> None:
        """Start it. Raises RepowatchError when it can not work here."""
        self._pipe, theirs = Pipe()
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                [sys.executable, "-c", _BOOT.format(__name__), str(theirs.fileno()), *sys.path],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                process_group=0,  # a terminal's Ctrl-C is the daemon's to handle
            )
        try:
            problem = self._pipe.recv()
        except EOFError:
            problem = f"the process that reads packages ended at once ({self.end()})"
        if problem:
            self.end()
            raise RepowatchError(problem)

    def ask(self, question: str, *arguments: object) -> Package:
        """Raises what reading raised in the process, EOFError when the process ended."""
        try:
            self._pipe.send((question, arguments))
            answer = self._pipe.recv()
        except (OSError, EOFError):
            raise EOFError from None
        if isinstance(answer, BaseException):
            raise answer
        if not isinstance(answer, Package):
            raise TypeError(f"a reader answered {answer!r}")
        return answer

    def end(self) -> str:
        """End the process and say how it ended."""
        self._pipe.close()
        if self._process.poll() is None:
            self._process.kill()
        code = self._process.wait()
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def _serve(descriptor: int) -> None:
    """The life of a reader process: answer until the asker closes the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(AttributeError, OSError):
        # The asker's end ends this process too, even in the middle of a large file. It is the end of
        # the thread that started it, so only the pool's own threads, which stay, may start one.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    pipe: Connection[Any, Any] = Connection(descriptor)
    try:
        from repowatch.repository import reader  # noqa: PLC0415 - may fail, and that is an answer
    except ImportError as error:
        pipe.send(
            f"createrepo_c can not be loaded ({error}); it needs the system's glib2 "
            f"(Debian: libglib2.0-0) and rpm's own files (Debian: rpm-common, others: rpm)"
        )
        return
    pipe.send("")
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            question, arguments = pipe.recv()
            pipe.send(_answer(reader, question, arguments))


def _answer(reader: Any, question: str, arguments: tuple[Any, ...]) -> Package | Exception:
    try:
        if question == "read":
            return reader.read(*arguments)  # type: ignore[no-any-return]
        inspection, location_href, stamp = arguments
        return reader.describe(inspection, location_href=location_href, stamp=stamp)  # type: ignore[no-any-return]
    except (RepowatchError, OSError) as error:
        return error
    except Exception as error:  # one odd package must not stop the others; the log has the traceback
        log.exception("unexpected error while reading %s", arguments[1])
        return BadPackage(f"unexpected error while reading it: {error!r}")
