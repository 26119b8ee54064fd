"""What processes cost: the processor time and the memory of a whole tree of them, from Linux's /proc."""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path


def cpu_seconds(pid: int) -> float:
    """Processor time of a process and its descendants, to the nanosecond; of ended ones, to the tick."""
    return sum(map(_own_cpu_seconds, descent(pid))) + _ticks(pid, 15, 16)


def _own_cpu_seconds(pid: int) -> float:
    with contextlib.suppress(OSError):
        if _fields(pid)[2] == "Z":  # it ended, and nobody has waited for it yet
            return _ticks(pid, 13, 14)
        # clock_getcpuclockid(3): its number is made of the pid's complement and 2, "scheduler time".
        return time.clock_gettime((~pid << 3) | 2)
    return 0.0


def _ticks(pid: int, *fields: int) -> float:
    """Seconds in fields of proc(5)'s stat, counted from 0: 13 and 14 are its own, 15 and 16 those of children
    that it has waited for."""
    with contextlib.suppress(OSError):
        return sum(int(_fields(pid)[field]) for field in fields) / os.sysconf("SC_CLK_TCK")
    return 0.0


def _fields(pid: int) -> list[str]:
    head, _, rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")
    return [str(pid), head, *rest.split()]


def descent(pid: int) -> list[int]:
    """A process and its living descendants."""
    found = [pid]
    for parent in found:  # grows while it is walked
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{parent}/task").iterdir():
                with contextlib.suppress(OSError):  # a thread that ends
                    found += map(int, (task / "children").read_text().split())
    return found


def anonymous_bytes(pid: int) -> int:
    """Anonymous resident memory of a process and its living descendants."""
    return sum(map(_own_anonymous_bytes, descent(pid)))


def _own_anonymous_bytes(pid: int) -> int:
    with contextlib.suppress(OSError, StopIteration):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("RssAnon:")).split()[1])
    return 0


@contextlib.contextmanager
def memory_in_use(scratch: Path) -> Iterator[Callable[[], None]]:
    """Fill free memory with what can be dropped; what is returned does so again.

    A server that runs for long has no free memory: it is full of files that were read, and whoever needs a
    page takes one of theirs. A free page of a virtual machine may be one that the host took back, and to get
    it again costs 10 us for 4 kB, ten times what writing a file takes. That would be counted to whoever comes
    first, and more often the longer a run takes.
    """
    with tempfile.TemporaryFile(dir=scratch, buffering=0) as file:
        file.truncate(_available() * 19 // 20)  # a hole: it takes no room on the disk
        block = bytearray(1 << 20)

        def fill() -> None:
            file.seek(0)
            while os.readv(file.fileno(), [block]):
                pass

        fill()
        yield fill


def _available() -> int:
    lines = Path("/proc/meminfo").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1])


class Peak:
    """The most anonymous memory that processes were seen with that this one started meanwhile."""

    def __init__(self) -> None:
        self.bytes = 0
        self._others = set(descent(os.getpid()))
        self._end = threading.Event()

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        watcher = threading.Thread(target=self._watch)
        watcher.start()
        try:
            yield
        finally:
            self._end.set()
            watcher.join()

    def _watch(self) -> None:
        while not self._end.wait(0.01):
            started = set(descent(os.getpid())) - self._others
            self.bytes = max(self.bytes, sum(map(_own_anonymous_bytes, started)))
