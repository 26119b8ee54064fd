"""Uploads that come at once, and as many that come one after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Barrier

from benchmarks import corpus
from benchmarks.contenders import Http, Task
from benchmarks.uploads import KEEP_SPACE, Upload, packages, upload
from tests.kit.daemon import wait_until

SEED = 1
UPLOADS = 100


@dataclass(frozen=True, slots=True)
class Result:
    """`UPLOADS` packages in a tree of `size`, for each round: the uploads that came this way."""

    size: int
    at_once: Sequence[Sequence[Upload]]
    one_by_one: Sequence[Sequence[Upload]]


def lasted(uploads: Sequence[Upload]) -> float:
    """Seconds from the first request to the last answer."""
    return max(each.began + each.seconds for each in uploads) - min(each.began for each in uploads)


def publications(uploads: Sequence[Upload]) -> int:
    return len({each.revision for each in uploads})


def run(size: int, *, scratch: Path, rounds: int) -> Result:
    """Both ways in turns, each with packages of its own, which are removed after each round."""
    root = scratch / "served"
    corpus.make(root, size, seed=SEED)
    new = packages(root, 2 * UPLOADS, seed=SEED, size=size, aside=scratch / "arriving")
    server = Http(root, scratch=scratch / "daemon", keep_space=KEEP_SPACE)
    at_once, one_by_one = [], []
    try:
        for _ in range(rounds):
            server.finish()
            at_once.append(_at_once(server, new[:UPLOADS]))
            server.rest()
            one_by_one.append([upload(server, task) for task in new[UPLOADS:]])
            _remove(new, root=root, left=_lists(server, root.name, size))
    finally:
        server.close()
    return Result(size, at_once, one_by_one)


def _at_once(server: Http, tasks: Sequence[Task]) -> list[Upload]:
    """Each from a thread of its own; all begin together."""
    together = Barrier(len(tasks))

    def begin(task: Task) -> Upload:
        together.wait()
        return upload(server, task)

    with ThreadPoolExecutor(len(tasks)) as pool:
        return list(pool.map(begin, tasks))


def _lists(server: Http, name: str, count: int) -> Callable[[], bool]:
    return lambda: bool(server.daemon.repository(name)["packages"] == count)


def _remove(tasks: Sequence[Task], *, root: Path, left: Callable[[], bool]) -> None:
    for task in tasks:
        (root / task.location_href).unlink()
    wait_until(left, 60)
