"""The processes that read packages.

Each runs `reader` behind a pair of pipes and is asked for a batch of files at a time, by a thread that waits
for it. When one dies, each of its files is asked of a new one alone; a package that ends two of them is
rejected.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import logging
import os
import signal
import subprocess
import sys
import threading
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice, pairwise
from multiprocessing.connection import Connection, Pipe
from typing import Any, TypeVar

from repowatch.errors import BadPackage, ChangedWhileRead, RepowatchError
from repowatch.model.catalog import cuts, order_key
from repowatch.model.digests import Inspection
from repowatch.model.formats import Format, Piece
from repowatch.model.package import Entry, Package, Rejected, Stamp
from repowatch.model.recipe import Recipe
from repowatch.model.segment import KINDS, Run, Segment
from repowatch.system import logs
from repowatch.system.memory import give_back

log = logging.getLogger(__name__)

T = TypeVar("T")

_PR_SET_PDEATHSIG = 1  # prctl(2)

# Bytes of the files of a batch: large ones are read one by one, by all readers.
MOST_BYTES = 64 << 20

# Seconds without a question after which a process gives back what memory it can, and so many more after
# which it leaves. One stays, for the next package.
GIVE_BACK = 1.0
RETIRE = 5.0

_BOOT = "import sys; sys.path[:] = sys.argv[4:]; from {0} import _serve; _serve(*map(int, sys.argv[1:4]))"


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


Unlisted = Rejected | Gone | Unsettled
Outcome = Package | Unlisted


@dataclass(frozen=True, slots=True)
class Batch:
    """What came of files that were read together."""

    run: Run | None  # those that are packages, in the order of the files
    unlisted: tuple[Unlisted, ...] = ()

    def __len__(self) -> int:
        return len(self.unlisted) + (len(self.run.entries) if self.run else 0)


def in_batches(files: Sequence[ToRead]) -> Iterator[Sequence[ToRead]]:
    """Files in order, cut where segments begin if all are packages, and where many bytes come together."""
    ordered = sorted(files, key=lambda file: order_key(file.location_href))
    edges = [*cuts([file.location_href for file in ordered]), len(ordered)] if ordered else []
    for start, end in pairwise(edges):
        batch: list[ToRead] = []
        size = 0
        for file in ordered[start:end]:
            size += file.stamp.size if file.stamp else 0
            if batch and size > MOST_BYTES:
                yield batch
                batch, size = [], file.stamp.size if file.stamp else 0
            batch.append(file)
        yield batch


class Readers:
    """A few processes that read packages for whoever asks."""

    def __init__(self, *, processes: int | None = None) -> None:
        self.processes = processes or os.cpu_count() or 1
        self._pool = ThreadPoolExecutor(self.processes, thread_name_prefix="reader")
        self._children: set[_Child] = set()
        self._idle: list[_Child] = []  # the one that was asked last is asked first
        self._one_stays = False  # the others leave when they are idle for long
        self._lock = threading.Lock()
        self._closed = False

    def start(self) -> None:
        """Start the processes now, not when they are first needed.

        Raises RepowatchError when they can not work on this machine.
        """
        for started in [self._pool.submit(self._start) for _ in range(self.processes)]:
            self._idle.append(started.result())

    def read(
        self, batches: Iterable[Sequence[ToRead]], recipe: Recipe, *, compress: bool = False
    ) -> Iterator[Batch]:
        """What came of the files of each batch, in the order they are done, compressed if that is asked for.

        A few batches are under way at once, so that askers with long lists take turns with the others.
        """
        return self._each(batches, lambda files: self._read(files, recipe, compress))

    def read_one(self, files: Sequence[ToRead], recipe: Recipe) -> Future[Batch]:
        """What came of the files of one batch, later."""
        return self._pool.submit(self._read, files, recipe, False)

    def adopt(self, texts: Iterable[Sequence[bytes]], recipe: Recipe) -> Iterator[Batch]:
        """The packages that another tool described, compressed: see `reader.Reader.adopt`.

        Raises BadPackage, and ChangedWhileRead when the readers are closed.
        """
        return self._each(texts, lambda each: _unpacked(self._ask("adopt", each, recipe), recipe.form))

    def _each(self, questions: Iterable[T], answer: Callable[[T], Batch]) -> Iterator[Batch]:
        waiting = iter(questions)
        running: set[Future[Batch]] = set()
        try:
            while True:
                for question in islice(waiting, 2 * self.processes - len(running)):
                    running.add(self._pool.submit(answer, question))
                if not running:
                    return
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
        finally:
            for future in running:
                future.cancel()

    def describe(
        self, inspection: Inspection, *, location_href: str, stamp: Stamp, recipe: Recipe, path: str
    ) -> Package:
        """What is published of a package whose bytes were seen already, at `path`. Raises BadPackage, and
        ChangedWhileRead when they are others by now."""
        asked = (inspection, location_href, stamp, recipe, path)
        answer = self._pool.submit(self._ask, "describe", *asked).result()
        return Package(Entry.of_row(answer[0]), *answer[1])

    def close(self) -> None:
        """End the processes. A package that is being read is given up."""
        with self._lock:
            self._closed = True
            children = list(self._children)
        for child in children:
            child.end()
        self._pool.shutdown(cancel_futures=True)

    def _read(self, files: Sequence[ToRead], recipe: Recipe, compress: bool) -> Batch:
        if len(files) == 1:
            return self._read_alone(files[0], recipe, compress)
        try:
            return _unpacked(self._ask_once("read", files, recipe, compress), recipe.form)
        except ChangedWhileRead:
            return Batch(None, tuple(Unsettled(file.location_href) for file in files))
        except (EOFError, BadPackage):
            log.info("the files that it was asked for are read one by one")
        alone = [self._read_alone(file, recipe, compress) for file in files]
        packages = [package for each in alone if each.run for package in each.run.packages()]
        run = Run.of(packages, recipe.form) if packages else None
        return Batch(run, tuple(one for each in alone for one in each.unlisted))

    def _read_alone(self, file: ToRead, recipe: Recipe, compress: bool) -> Batch:
        try:
            return _unpacked(self._ask("read", [file], recipe, compress), recipe.form)
        except ChangedWhileRead:
            return Batch(None, (Unsettled(file.location_href),))
        except BadPackage as error:
            return Batch(None, (Rejected(file.location_href, file.stamp, str(error)),))

    def _ask(self, question: str, *arguments: Any) -> Any:
        """Ask a process. One that ended may have been killed by anybody: what is asked for is to blame when
        it ends a second one."""
        for _ in range(2):
            try:
                return self._ask_once(question, *arguments)
            except EOFError as error:
                how = str(error)
        raise BadPackage(f"the process that reads it ends ({how}): it is damaged in an unknown way")

    def _ask_once(self, question: str, *arguments: Any) -> Any:
        """Raises EOFError, which says how the process ended, and what reading raised in it."""
        while True:
            child = self._take()
            try:
                answer = child.ask(question, *arguments)
            except _Retired:
                self._forget(child)
            except EOFError:
                how = self._forget(child)
                told = _told(question, arguments)
                log.warning("a reader process ended (%s) when it was asked to %s", how, told)
                raise EOFError(how) from None
            else:
                self._idle.append(child)
                if isinstance(answer, BaseException):
                    raise answer
                return answer

    def _take(self) -> _Child:
        """A process that is idle, or a new one. What ended while it was idle, nobody is to blame for."""
        with contextlib.suppress(IndexError):
            while True:
                child = self._idle.pop()
                if not child.has_ended():
                    return child
                self._forget(child)
        return self._start()

    def _forget(self, child: _Child) -> str:
        with self._lock:
            self._children.discard(child)
            self._one_stays = self._one_stays and not child.stays
            if self._closed:
                raise ChangedWhileRead("the readers were stopped")
        return child.end()

    def _start(self) -> _Child:
        with self._lock:
            stays, self._one_stays = not self._one_stays, True
        child = _Child(stays=stays)
        with self._lock:
            if self._closed:
                child.end()
                raise ChangedWhileRead("the readers were stopped")
            self._children.add(child)
        return child


class _Retired(Exception):
    """The process was idle for so long that it left."""


class _Child:
    """One reader process."""

    def __init__(self, *, stays: bool) -> None:
        """Start it, to stay or to leave when it is idle. Raises RepowatchError when it can not work here."""
        self.stays = stays
        self._pipe, theirs = Pipe()
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                [
                    sys.executable,
                    "-c",
                    _BOOT.format(__name__),
                    str(theirs.fileno()),
                    str(int(stays)),
                    str(int(logs.is_json())),
                    *sys.path,
                ],
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

    def ask(self, question: str, *arguments: object) -> Any:
        """The answer, or the error that is it. Raises EOFError when the process ended, _Retired when it
        left."""
        try:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it may have said why
                self._pipe.send((question, arguments))
            answer = self._pipe.recv()
        except (OSError, EOFError):
            raise EOFError from None
        if answer is None:
            raise _Retired
        return answer

    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def end(self) -> str:
        """End the process and say how it ended."""
        self._pipe.close()
        if self._process.poll() is None:
            self._process.kill()
        code = self._process.wait()
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def _serve(descriptor: int, stays: int, as_json: int) -> None:
    """The life of a reader process: answer until the asker closes the pipe, or nobody asks for long."""
    logs.set_up(as_json=bool(as_json))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(AttributeError, OSError):
        # The asker's end ends this process too, even in the middle of a large file. It is the end of
        # the thread that started it, so only the pool's own threads, which stay, may start one.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    pipe: Connection[Any, Any] = Connection(descriptor)
    try:
        from repowatch.repository.reader import Reader  # noqa: PLC0415 - may fail, and that is an answer
    except ImportError as error:
        pipe.send(
            f"createrepo_c can not be loaded ({error}); it needs the system's glib2 "
            f"(Debian: libglib2.0-0) and rpm's own files (Debian: rpm-common, others: rpm)"
        )
        return
    reader = Reader()
    gc.freeze()
    gc.set_threshold(50_000)  # a batch makes thousands of objects, and hardly a cycle
    pipe.send("")
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            if not pipe.poll(GIVE_BACK):
                give_back()
                if not pipe.poll(None if stays else RETIRE):
                    pipe.send(None)
                    return
            question, arguments = pipe.recv()
            pipe.send(_answer(reader, question, arguments))


def _answer(reader: Any, question: str, arguments: tuple[Any, ...]) -> Any:
    try:
        if question == "read":
            files, recipe, compress = arguments
            outcomes = [_outcome(reader, file, recipe) for file in files]
            return _packed(_batch(outcomes, recipe.form), compress)
        if question == "adopt":
            texts, recipe = arguments
            return _packed(_batch(reader.adopt(texts, recipe), recipe.form), True)
        package = reader.describe(*arguments)
        return package.entry.row(), (package.primary, package.filelists, package.other)
    except RepowatchError as error:
        return error
    except Exception as error:  # one odd package must not stop the others; the log has the traceback
        log.exception("unexpected error, asked to %s", _told(question, arguments))
        return BadPackage(f"unexpected error while reading it: {error!r}")


def _outcome(reader: Any, file: ToRead, recipe: Recipe) -> Outcome:
    try:
        return reader.read(file.path, file.location_href, recipe)  # type: ignore[no-any-return]
    except ChangedWhileRead:
        return Unsettled(file.location_href)
    except BadPackage as error:
        return Rejected(file.location_href, file.stamp, str(error))
    except (FileNotFoundError, NotADirectoryError):
        return Gone(file.location_href)
    except OSError as error:
        stamp = file.stamp if isinstance(error, PermissionError) else None
        return Rejected(file.location_href, stamp, f"not readable: {(error.strerror or str(error)).lower()}")
    except Exception as error:
        log.exception("unexpected error while reading %s", file.location_href)
        return Rejected(file.location_href, file.stamp, f"unexpected error while reading it: {error!r}")


def _batch(outcomes: Sequence[Outcome], form: Format) -> Batch:
    packages = [each for each in outcomes if isinstance(each, Package)]
    unlisted = tuple(each for each in outcomes if not isinstance(each, Package))
    return Batch(Run.of(packages, form) if packages else None, unlisted)


def _packed(batch: Batch, compress: bool) -> tuple[Any, ...]:
    """A batch for the pipe, flat: thousands of objects would take longer than the packages themselves."""
    if batch.run is None:
        return batch.unlisted, None
    segment = batch.run.segment
    kinds = range(len(KINDS))
    pieces = [segment.piece(kind) for kind in kinds] if compress else []
    return (
        batch.unlisted,
        [entry.row() for entry in batch.run.entries],
        [lengths.tobytes() for lengths in segment.lengths],
        [segment.opened(kind) for kind in kinds],
        [(piece.packed, piece.length, piece.crc) for piece in pieces],
    )


def _unpacked(answer: tuple[Any, ...], form: Format) -> Batch:
    if answer[1] is None:
        return Batch(None, answer[0])
    unlisted, rows, lengths, elements, pieces = answer
    entries = tuple(map(Entry.of_row, rows))
    segment = Segment(
        [entry.location_href for entry in entries],
        [array("L", each) for each in lengths],
        form,
        elements=elements,
        pieces=[Piece(*each) for each in pieces],
    )
    return Batch(Run(entries, segment), unlisted)


def _told(question: str, arguments: Sequence[Any]) -> str:
    """What was asked, for the log."""
    match question:
        case "read":
            names = [file.location_href for file in arguments[0]]
            return f"read {names[0]}" + (f" and {len(names) - 1} more" if names[1:] else "")
        case "describe":
            return f"describe {arguments[1]}"
    return "read the metadata of another tool"
