"""A large repository under a stream of uploads: no reader, however slow, meets a broken view, and the
superseded metadata stays within its space.

REPOWATCH_FAULTS=all makes it 10,000 packages, a thousand publications and readers that pause up to a minute.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from repowatch.repository.generations import DEFAULT_SPACE
from tests.faults.extent import ALL
from tests.kit.daemon import Daemon, repowatch, wait_until
from tests.kit.rpms import make_rpm
from tests.kit.views import Crowd, from_disk, over_http, read_view

PACKAGES = 10_000 if ALL else 300
PUBLICATIONS = 1_000 if ALL else 60
LONGEST_PAUSE = 60.0 if ALL else 2.0  # seconds
FILES = 60  # of each package: about as much metadata as a distribution's packages have


def make_package(directory: Path, number: int, version: str = "1") -> Path:
    name = f"p{number}"
    files = {f"/usr/share/{name}/{file}/some-file-of-it": b"" for file in range(FILES)}
    changelog = [(1_700_000_000 - entry, "Somebody <somebody@example>", "- changed") for entry in range(10)]
    return make_rpm(directory, name, version, files=files, changelog=changelog)


@contextmanager
def measured(tree: Path) -> Iterator[Callable[[], int]]:
    """The largest number of bytes that metadata took at once, looked at all the time."""
    largest = 0
    ends = threading.Event()

    def look() -> None:
        nonlocal largest
        while not ends.wait(0.05):
            sizes = []
            for path in (tree / "repodata").iterdir():
                try:
                    sizes.append(path.stat().st_size)
                except FileNotFoundError:
                    continue
            largest = max(largest, sum(sizes))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield lambda: largest
    finally:
        ends.set()
        thread.join()


def test_slow_readers_of_a_large_repository_meet_no_broken_view_under_a_stream_of_uploads(
    tmp_path: Path,
) -> None:
    tree = tmp_path / "rpm"
    for number in range(PACKAGES):
        make_package(tree / f"{number % 10}", number)
    with Daemon(tree, scratch=tmp_path / "scratch") as daemon:
        wait_until(lambda: daemon.get("/readyz").status == 200, 120)
        generation = sum(path.stat().st_size for path in (tree / "repodata").iterdir())
        fetch = over_http(daemon.repository_url("rpm"))
        with measured(tree) as largest, Crowd(fetch, longest_pause=LONGEST_PAUSE) as crowd:
            revisions = set()
            for number in range(PUBLICATIONS):
                package = make_package(tmp_path / "in", number * 7 % PACKAGES, f"{number + 2}")
                answer = daemon.put(f"/rpm/{number % 10}/{package.name}", package)
                package.unlink()
                assert answer.status == 201
                revisions.add(answer.headers["Repowatch-Revision"])
        assert len(revisions) == PUBLICATIONS
        assert (crowd.broken, crowd.absent) == ([], 0)
        assert crowd.views > crowd.readers
        assert largest() <= DEFAULT_SPACE + 2 * generation
        print(f"{crowd.views} views, metadata of {generation} bytes took {largest()} at most")
        assert daemon.terminate() == 0
    assert len(read_view(from_disk(tree)).packages) == PACKAGES + PUBLICATIONS
    assert repowatch("verify", tree).returncode == 0
