"""The most memory that a server takes while it is measured."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.processes import descent

PAUSE = 0.05  # seconds


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of all processes of a server: anonymous ones, and with them those of the files that are mapped.

    The files are those of the process that maps most. (PSS, see proc_pid_smaps(5), would not do: it counts
    less of Python the more other programs in Python run.)
    """

    resident: int = 0
    anonymous: int = 0

    def or_more(self, other: Memory) -> Memory:
        return Memory(max(self.resident, other.resident), max(self.anonymous, other.anonymous))


def memory_of(pid: int) -> Memory:
    """Of a process and its living descendants, which share pages since they were forked."""
    anonymous = mapped = 0
    for each in descent(pid):
        with contextlib.suppress(OSError):  # it ended
            sizes = _sizes(each)
            anonymous += sizes["Pss_Anon"] + sizes["Pss_Shmem"]
            mapped = max(mapped, sizes["Rss"] - sizes["Anonymous"])
    return Memory(anonymous + mapped, anonymous)


def _sizes(pid: int) -> Counter[str]:
    sizes = Counter[str]()
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, _, rest = line.partition(":")
        sizes[name] = 1024 * int(rest.split()[0])
    return sizes


class Watch:
    """Keeps the peak over all times that it watched."""

    def __init__(self) -> None:
        self.peak = Memory()

    @contextlib.contextmanager
    def over(self, pid: int) -> Iterator[None]:
        end = threading.Event()
        watcher = threading.Thread(target=self._watch, args=(pid, end))
        watcher.start()
        try:
            yield
        finally:
            end.set()
            watcher.join()

    def _watch(self, pid: int, end: threading.Event) -> None:
        while True:
            self.peak = self.peak.or_more(memory_of(pid))
            if end.wait(PAUSE):
                return
