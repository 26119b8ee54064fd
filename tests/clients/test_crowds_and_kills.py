"""Many uploads at once, and what a killed daemon leaves behind."""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import signal
import socket
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from tests.kit.daemon import Answer, Daemon, repowatch, wait_until
from tests.kit.machine import readers_of
from tests.kit.metadata import listed, locations
from tests.kit.rpms import make_rpm

CROWD = 200


def configured(tree: Path, scratch: Path, **settings: object) -> Daemon:
    """A daemon for one repository, called rpm."""
    tree.mkdir(exist_ok=True)
    more = "".join(f"    {key}: {value}\n" for key, value in settings.items())
    return Daemon(scratch=scratch, configuration=f"repositories:\n  rpm:\n    path: {tree}\n{more}")


def packages(directory: Path, count: int) -> list[Path]:
    return [make_rpm(directory, f"p{number}") for number in range(count)]


def staging(tree: Path) -> Path:
    return tree / ".repowatch" / "staging"


def staged_whole(tree: Path, sizes: set[int]) -> int:
    """How many files in staging have one of these sizes."""
    return sum(path.stat().st_size in sizes for path in staging(tree).iterdir())


@contextlib.contextmanager
def uploading(daemon: Daemon, files: Sequence[Path]) -> Iterator[list[Future[Answer]]]:
    """Upload all of them, each on a connection of its own. At the end none may still wait."""
    with ThreadPoolExecutor(len(files)) as pool:
        yield [pool.submit(daemon.put, f"/rpm/{path.name}", path) for path in files]


def test_two_hundred_uploads_that_wait_keep_no_get_waiting(tmp_path: Path) -> None:
    tree = tmp_path / "rpm"
    files = packages(tmp_path / "in", CROWD)
    sizes = {path.stat().st_size for path in files}
    # With no space for superseded metadata, the publication after the first one is a long time off.
    with configured(tree, tmp_path / "scratch", keep_space=1) as daemon, uploading(daemon, files) as uploads:
        wait_until(lambda: staged_whole(tree, sizes) == CROWD, deadline=20)
        for _ in range(20):
            assert daemon.get("/rpm/repodata/repomd.xml").status == 200
            assert daemon.get("/rpm/").status == 200
        assert daemon.get("/healthz").status == 200
        assert daemon.request("PROPFIND", "/rpm/", headers={"Depth": "1"}).status == 207
        assert locations(daemon, "rpm") == set()
        assert not any(upload.done() for upload in uploads)
        daemon.kill()
    assert all(upload.exception() for upload in uploads)


def test_uploads_at_once_share_publications_and_are_all_listed_when_answered(tmp_path: Path) -> None:
    tree = tmp_path / "rpm"
    files = packages(tmp_path / "in", 60)
    with configured(tree, tmp_path / "scratch") as daemon:
        with uploading(daemon, files) as uploads:
            answers = [upload.result() for upload in uploads]
        assert {answer.status for answer in answers} == {201}
        assert locations(daemon, "rpm") == {path.name for path in files}
        assert len({answer.headers["Repowatch-Revision"] for answer in answers}) < len(files) / 2


def test_uploads_of_one_name_at_once_end_with_one_of_them(tmp_path: Path) -> None:
    tree = tmp_path / "rpm"
    contents = [make_rpm(tmp_path / "in", summary=f"Number {number}").read_bytes() for number in range(20)]
    with configured(tree, tmp_path / "scratch") as daemon:
        with ThreadPoolExecutor(len(contents)) as pool:
            answers = list(pool.map(lambda content: daemon.put("/rpm/x.rpm", content), contents))
        assert sorted({answer.status for answer in answers}) == [201, 204]
        assert sum(answer.status == 201 for answer in answers) == 1
        assert (tree / "x.rpm").read_bytes() in contents
        etag = f'"{listed(daemon, "rpm")["x.rpm"].pkgId}"'
        assert daemon.get("/rpm/x.rpm").headers["ETag"] == etag
        assert etag in {answer.headers["ETag"] for answer in answers}
        assert daemon.terminate() == 0
    assert repowatch("verify", tree).returncode == 0


def test_readers_never_see_a_broken_view_while_packages_come_and_go(tmp_path: Path) -> None:
    tree = tmp_path / "rpm"
    files = packages(tmp_path / "in", 40)
    with configured(tree, tmp_path / "scratch") as daemon, ThreadPoolExecutor(4) as pool:

        def come_and_go(path: Path) -> None:
            assert daemon.put(f"/rpm/{path.name}", path).status == 201
            if path in files[::2]:
                assert daemon.request("DELETE", f"/rpm/{path.name}").status == 204

        changes = [pool.submit(come_and_go, path) for path in files]
        views = 0
        while not all(change.done() for change in changes):
            listed(daemon, "rpm")
            views += 1
        for change in changes:
            change.result()
        assert views
        assert locations(daemon, "rpm") == {path.name for path in files[1::2]}


def test_a_killed_daemon_has_kept_what_it_answered_and_the_next_one_converges(tmp_path: Path) -> None:
    tree = tmp_path / "rpm"
    files = packages(tmp_path / "in", 60)
    with configured(tree, tmp_path / "scratch") as daemon:
        for start in range(0, len(files), 20):
            answered = killed_while_uploading(daemon, files[start : start + 20], after=12)
            daemon.start()
            assert answered <= locations(daemon, "rpm")
            wait_until(lambda: locations(daemon, "rpm") == {path.name for path in tree.glob("*.rpm")})
            assert list(staging(tree).iterdir()) == []
        assert daemon.terminate() == 0
    assert repowatch("verify", tree).returncode == 0


def killed_while_uploading(daemon: Daemon, files: Sequence[Path], *, after: int) -> set[str]:
    """Upload, a few at a time, and kill the daemon after so many answers; the names that were answered."""
    answered: set[str] = set()

    def upload(path: Path) -> None:
        with contextlib.suppress(OSError, http.client.HTTPException):
            assert daemon.put(f"/rpm/{path.name}", path).status == 201
            answered.add(path.name)

    with ThreadPoolExecutor(4) as pool:
        uploads = [pool.submit(upload, path) for path in files]
        wait_until(lambda: len(answered) >= after)
        daemon.kill()
    for each in uploads:
        each.result()
    return answered


def test_a_daemon_killed_in_the_middle_of_an_upload_leaves_nothing_of_it(tmp_path: Path) -> None:
    tree = tmp_path / "rpm"
    content = make_rpm(tmp_path, files={"/usr/share/large": os.urandom(1 << 18)}).read_bytes()
    head = f"PUT /rpm/x.rpm HTTP/1.1\r\nHost: x\r\nContent-Length: {len(content)}\r\n\r\n"
    with configured(tree, tmp_path / "scratch") as daemon:
        with socket.create_connection(daemon.address) as connection:
            connection.sendall(head.encode() + content[: len(content) // 2])
            wait_until(lambda: list(staging(tree).iterdir()))
            daemon.kill()
        assert list(tree.glob("*.rpm")) == []
        daemon.start()
        assert list(staging(tree).iterdir()) == []
        assert locations(daemon, "rpm") == set()


def test_what_changed_while_no_daemon_ran_is_seen_at_the_next_start(tmp_path: Path) -> None:
    tree = tmp_path / "rpm"
    make_rpm(tree), make_rpm(tree, "other")
    with configured(tree, tmp_path / "scratch") as daemon:
        wait_until(lambda: len(locations(daemon, "rpm")) == 2)
        daemon.kill()
        (tree / "hello-1.0-1.noarch.rpm").unlink()
        make_rpm(tree / "d", "new")
        daemon.start()
        wanted = {"other-1.0-1.noarch.rpm", "d/new-1.0-1.noarch.rpm"}
        wait_until(lambda: locations(daemon, "rpm") == wanted)


def test_a_staging_directory_that_is_deleted_costs_no_upload(tmp_path: Path) -> None:
    tree = tmp_path / "rpm"
    [first, second] = packages(tmp_path / "in", 2)
    with configured(tree, tmp_path / "scratch") as daemon:
        shutil.rmtree(staging(tree))
        shutil.copyfile(first, tree / first.name)
        wait_until(lambda: locations(daemon, "rpm") == {first.name})
        shutil.rmtree(staging(tree), ignore_errors=True)
        assert daemon.put(f"/rpm/{second.name}", second).status == 201
        assert locations(daemon, "rpm") == {first.name, second.name}


def test_idle_readers_that_are_killed_harm_no_package(tmp_path: Path) -> None:
    tree = tmp_path / "rpm"
    [*uploads, copied] = packages(tmp_path / "in", 3)
    with configured(tree, tmp_path / "scratch") as daemon:
        kill_children(daemon)
        for path in uploads:
            assert daemon.put(f"/rpm/{path.name}", path).status == 201
        kill_children(daemon)
        shutil.copyfile(copied, tree / copied.name)
        wait_until(lambda: locations(daemon, "rpm") == {path.name for path in (*uploads, copied)})


def kill_children(daemon: Daemon) -> None:
    """Kill the processes that the daemon started, wherever it started them."""
    children = readers_of(daemon.pid)
    assert children
    for child in children:
        os.kill(child, signal.SIGKILL)
    wait_until(lambda: not any(map(_is_alive, children)))


def _is_alive(pid: int) -> bool:
    """Whether the process has not ended; one that nobody has waited for has ended."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False
