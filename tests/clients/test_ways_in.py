"""The hard ways in and out for files. Nothing but events tells of them: the next rescan is minutes away."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import quote

import createrepo_c
import pytest

from tests.clients.conftest import Corner, run
from tests.kit.daemon import Daemon, wait_until
from tests.kit.loopfs import memory_disk, require_mounts
from tests.kit.machine import LIKE_A_USER, bytes_read, held_while_read, launched_by, readers_of
from tests.kit.metadata import listed, locations
from tests.kit.oracle import createrepo
from tests.kit.rpms import make_rpm

HELLO = "hello-1.0-1.noarch.rpm"
OTHER = "other-1.0-1.noarch.rpm"

# Repositories in one daemon: rpm for nearly all tests, calm where a writer needs time to be quiet in.
CONFIGURATION = """
repositories:
  rpm: {{path: {0}/rpm, follow: [{0}/pool], settle: 0.1s}}
  calm: {{path: {0}/calm, settle: 1s, deadline: 2s}}
"""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    scratch = tmp_path_factory.mktemp("shared")
    for name in ("rpm", "calm", "pool"):
        (scratch / name).mkdir()
    with Daemon(scratch=scratch, configuration=CONFIGURATION.format(scratch)) as daemon:
        yield daemon


@pytest.fixture
def pool(corner: Corner) -> Path:
    """A test's own directory below what `follow` names."""
    path = corner.root.parent / "pool" / corner.name
    path.mkdir()
    return path


def twins(directory: Path) -> tuple[Path, Path]:
    """Two packages that differ in content, and in neither size nor mtime."""
    one, two = (make_rpm(directory / summary, summary=summary) for summary in ("Castor", "Pollux"))
    os.utime(one, (1_600_000_000, 1_600_000_000))
    os.utime(two, (1_600_000_000, 1_600_000_000))
    assert one.read_bytes() != two.read_bytes()
    assert one.stat().st_size == two.stat().st_size
    return one, two


def summary_of(corner: Corner, name: str) -> str | None:
    """The summary that clients see of a package; None when they see no such package."""
    package = listed(corner.daemon, "rpm").get(f"{corner.name}/{name}")
    return package.summary if package else None


# -- files ---------------------------------------------------------------------------------------


def test_a_file_moved_in_from_another_file_system_is_listed(corner: Corner, tmp_path: Path) -> None:
    require_mounts()
    with memory_disk(tmp_path / "other", kilobytes=1024) as other:
        run("mv", make_rpm(other), corner.path)
        corner.await_listed(HELLO)


def test_a_package_with_two_names_is_listed_under_both(corner: Corner) -> None:
    make_rpm(corner.path)
    corner.await_listed(HELLO)
    run("ln", corner.path / HELLO, corner.path / OTHER)
    corner.await_listed(HELLO, OTHER)
    run("rm", corner.path / HELLO)
    corner.await_listed(OTHER)


def test_a_hard_link_put_over_a_package_takes_its_place(corner: Corner, tmp_path: Path) -> None:
    castor, pollux = twins(tmp_path)
    run("ln", castor, corner.path)
    wait_until(lambda: summary_of(corner, HELLO) == "Castor")
    run("ln", "-f", pollux, corner.path)
    wait_until(lambda: summary_of(corner, HELLO) == "Pollux")


REPLACEMENTS = {
    "cp -p": ("cp", "-p"),
    "mv": ("mv", "-f"),
    "ln": ("ln", "-f"),
    "rsync": ("rsync", "-t", "--ignore-times"),
    "rsync in place": ("rsync", "-t", "--ignore-times", "--inplace"),
}


@pytest.mark.client("rsync")
@pytest.mark.parametrize("command", REPLACEMENTS.values(), ids=REPLACEMENTS)
def test_a_package_of_the_same_size_and_mtime_is_seen_to_be_another(
    corner: Corner, tmp_path: Path, command: tuple[str, ...]
) -> None:
    castor, pollux = twins(tmp_path)
    run("cp", "-p", castor, corner.path)
    wait_until(lambda: summary_of(corner, HELLO) == "Castor")
    run(*command, pollux, corner.path / HELLO)
    assert (corner.path / HELLO).stat().st_mtime == 1_600_000_000
    wait_until(lambda: summary_of(corner, HELLO) == "Pollux")


def test_a_directory_just_made_is_watched_however_fast_it_is_filled(corner: Corner, tmp_path: Path) -> None:
    make_rpm(tmp_path)
    script = f"for i in $(seq 40); do mkdir -p $i/b/c && cp '{tmp_path / HELLO}' $i/b/c; done"
    run("sh", "-c", script, cwd=corner.path)
    names = {f"{number}/b/c/{HELLO}" for number in range(1, 41)}
    corner.await_listed(*names)
    make_rpm(corner.path / "40" / "b" / "c", "other")
    corner.await_listed(*names, f"40/b/c/{OTHER}")


def test_a_name_that_comes_and_goes_ends_as_what_came_last(corner: Corner, tmp_path: Path) -> None:
    castor, pollux = (path.read_bytes() for path in twins(tmp_path))
    coming, going = corner.path / HELLO, corner.path / OTHER
    for _ in range(200):
        for content in (castor, pollux):
            coming.unlink(missing_ok=True)
            coming.write_bytes(content)
            going.write_bytes(content)
            going.unlink()
    wait_until(lambda: summary_of(corner, HELLO) == "Pollux")
    assert corner.listed() == {HELLO}
    assert corner.rejected() == {}


def large(directory: Path) -> Path:
    """A package that takes a while to read."""
    return make_rpm(directory, files={"/usr/share/large": bytes(50 << 20)}, payload="none")


def test_a_package_removed_while_it_is_read_is_neither_listed_nor_rejected(corner: Corner) -> None:
    with held_while_read(corner.daemon.pid, corner.path / HELLO, partial(large, corner.path)):
        os.unlink(corner.path / HELLO)
    make_rpm(corner.path, "other")
    corner.await_listed(OTHER)
    wait_until(lambda: corner.daemon.repository("rpm")["waiting"] == 0)
    assert corner.listed() == {OTHER}
    assert corner.rejected() == {}


def test_a_package_replaced_while_it_is_read_is_listed_as_its_successor(
    corner: Corner, tmp_path: Path
) -> None:
    with held_while_read(corner.daemon.pid, corner.path / HELLO, partial(large, corner.path)):
        os.replace(make_rpm(tmp_path, summary="Successor"), corner.path / HELLO)
    wait_until(lambda: summary_of(corner, HELLO) == "Successor")


# -- files that are written to ---------------------------------------------------------------------


def calm_root(daemon: Daemon) -> Path:
    return Path(daemon.repository("calm")["path"])


def test_a_file_that_grows_is_left_alone_and_holds_nobody_up(shared: Daemon, tmp_path: Path) -> None:
    content = make_rpm(tmp_path, files={"/usr/share/large": bytes(20 << 20)}, payload="none").read_bytes()
    root = calm_root(shared)
    readers = readers_of(shared.pid)
    before = bytes_read(readers)
    with open(root / HELLO, "wb", buffering=0) as file:
        make_rpm(root, "other")
        seen = set()
        for piece in _slowly(content, seconds=2.5):
            file.write(piece)
            seen.update(locations(shared, "calm"))
        assert bytes_read(readers) - before < len(content) // 10
        assert seen == {OTHER}, "the file, or not the one beside it"
        assert shared.rejected("calm") == {}
    wait_until(lambda: locations(shared, "calm") == {HELLO, OTHER})
    assert bytes_read(readers) - before < 1.2 * len(content)


def test_a_listed_file_that_is_overwritten_stays_as_it_was_until_it_is_quiet(
    shared: Daemon, tmp_path: Path
) -> None:
    castor, pollux = twins(tmp_path)
    path = calm_root(shared) / "twin.rpm"
    path.write_bytes(castor.read_bytes())

    def summary() -> str:
        return str(listed(shared, "calm")["twin.rpm"].summary)

    wait_until(lambda: "twin.rpm" in locations(shared, "calm"))
    with open(path, "r+b", buffering=0) as file:
        for piece in _slowly(pollux.read_bytes(), seconds=2.5):
            file.write(piece)
            assert summary() == "Castor"
            assert shared.rejected("calm") == {}
    wait_until(lambda: summary() == "Pollux")


def _slowly(content: bytes, *, seconds: float) -> Iterator[bytes]:
    """The content in pieces, the last of them after so many seconds."""
    started = time.monotonic()
    done = 0
    while done < len(content):
        due = int(len(content) * min(1, (time.monotonic() - started) / seconds))
        if due > done:
            yield content[done:due]
            done = due


# -- directories -----------------------------------------------------------------------------------


def test_a_directory_is_followed_through_all_its_life(corner: Corner, tmp_path: Path) -> None:
    make_rpm(tmp_path / "d" / "sub")
    run("mv", tmp_path / "d", corner.path)
    corner.await_listed(f"d/sub/{HELLO}")
    make_rpm(corner.path / "d" / "sub", "other")
    corner.await_listed(f"d/sub/{HELLO}", f"d/sub/{OTHER}")
    run("mv", corner.path / "d", corner.path / "e")
    corner.await_listed(f"e/sub/{HELLO}", f"e/sub/{OTHER}")
    run("mv", corner.path / "e", tmp_path / "away")
    corner.await_listed()
    run("mv", tmp_path / "away", corner.path / "f")
    corner.await_listed(f"f/sub/{HELLO}", f"f/sub/{OTHER}")
    run("rm", corner.path / "f" / "sub" / HELLO)
    corner.await_listed(f"f/sub/{OTHER}")
    run("rm", "-r", corner.path / "f")
    corner.await_listed()


def test_a_directory_that_takes_the_name_of_another_is_watched_in_its_place(
    corner: Corner, tmp_path: Path
) -> None:
    make_rpm(corner.path / "d")
    corner.await_listed(f"d/{HELLO}")
    run("mv", corner.path / "d", tmp_path / "old")
    run("mkdir", corner.path / "d")
    corner.await_listed()
    make_rpm(tmp_path / "old", "other")
    make_rpm(corner.path / "d", "new")
    corner.await_listed("d/new-1.0-1.noarch.rpm")


def test_directories_that_change_places_are_both_followed(corner: Corner) -> None:
    make_rpm(corner.path / "d"), make_rpm(corner.path / "e", "other")
    corner.await_listed(f"d/{HELLO}", f"e/{OTHER}")
    run("sh", "-c", "mv d x && mv e d && mv x e", cwd=corner.path)
    corner.await_listed(f"e/{HELLO}", f"d/{OTHER}")
    run("mv", corner.path / "d" / OTHER, corner.path / "d" / "new.rpm")
    corner.await_listed(f"e/{HELLO}", "d/new.rpm")


def test_a_directory_emptied_at_once_is_unlisted_and_its_emptiness_believed(corner: Corner) -> None:
    for number in range(50):
        make_rpm(corner.path / "d", f"p{number}")
    wait_until(lambda: len(corner.listed()) == 50)
    run("sh", "-c", "rm d/*.rpm", cwd=corner.path)
    corner.await_listed()
    assert corner.daemon.repository("rpm")["trouble"] is None


# -- symbolic links --------------------------------------------------------------------------------


def link(target: str | Path, path: Path) -> None:
    run("ln", "-sfn", target, path)


def test_a_link_follows_what_becomes_of_a_file_in_the_tree(corner: Corner, tmp_path: Path) -> None:
    castor, pollux = twins(tmp_path)
    run("cp", castor, corner.path / "file.rpm")
    link("file.rpm", corner.path / "link.rpm")
    wait_until(lambda: summary_of(corner, "link.rpm") == "Castor")
    run("mv", pollux, corner.path / "file.rpm")
    wait_until(lambda: summary_of(corner, "link.rpm") == "Pollux")
    run("rm", corner.path / "file.rpm")
    corner.await_listed()
    assert corner.rejected() == {"link.rpm": "a symbolic link to nothing"}


def test_a_link_follows_what_becomes_of_a_file_below_follow(
    corner: Corner, pool: Path, tmp_path: Path
) -> None:
    castor, pollux = twins(tmp_path)
    run("cp", castor, pool / "file.rpm")
    link(pool / "file.rpm", corner.path / "link.rpm")
    wait_until(lambda: summary_of(corner, "link.rpm") == "Castor")
    run("mv", pollux, pool / "file.rpm")
    wait_until(lambda: summary_of(corner, "link.rpm") == "Pollux")
    run("rm", pool / "file.rpm")
    corner.await_listed()


def test_a_link_that_is_turned_to_another_file_is_listed_as_that(corner: Corner, tmp_path: Path) -> None:
    castor, pollux = twins(tmp_path)
    run("cp", castor, corner.path / "castor.rpm")
    run("cp", pollux, corner.path / "pollux.rpm")
    link("castor.rpm", corner.path / "link.rpm")
    wait_until(lambda: summary_of(corner, "link.rpm") == "Castor")
    link("pollux.rpm", corner.path / "link.rpm")
    wait_until(lambda: summary_of(corner, "link.rpm") == "Pollux")
    run("rm", corner.path / "link.rpm")
    corner.await_listed("castor.rpm", "pollux.rpm")


def test_a_link_to_a_directory_shows_what_comes_to_it_and_goes(corner: Corner, pool: Path) -> None:
    make_rpm(pool)
    link(pool, corner.path / "d")
    corner.await_listed(f"d/{HELLO}")
    make_rpm(pool / "sub", "other")
    corner.await_listed(f"d/{HELLO}", f"d/sub/{OTHER}")
    run("rm", pool / HELLO)
    corner.await_listed(f"d/sub/{OTHER}")
    run("rm", corner.path / "d")
    corner.await_listed()


def test_a_link_that_is_turned_to_another_directory_shows_that(corner: Corner, pool: Path) -> None:
    make_rpm(pool / "one")
    make_rpm(pool / "two", "other")
    link(pool / "one", corner.path / "current")
    corner.await_listed(f"current/{HELLO}")
    link(pool / "two", corner.path / "next")
    run("mv", "-T", corner.path / "next", corner.path / "current")
    corner.await_listed(f"current/{OTHER}")


def test_a_directory_that_comes_with_links_in_it_shows_what_they_lead_to(
    corner: Corner, pool: Path, tmp_path: Path
) -> None:
    make_rpm(pool / "d")
    (tmp_path / "new").mkdir()
    link(pool / "d", tmp_path / "new" / "d")
    link(pool / "d" / HELLO, tmp_path / "new" / "link.rpm")
    run("mv", tmp_path / "new", corner.path)
    corner.await_listed(f"new/d/{HELLO}", "new/link.rpm")
    make_rpm(pool / "d", "other")
    corner.await_listed(f"new/d/{HELLO}", "new/link.rpm", f"new/d/{OTHER}")


def test_a_link_to_a_directory_out_of_the_tree_is_refused_with_the_reason(
    corner: Corner, tmp_path: Path
) -> None:
    make_rpm(corner.path)
    corner.await_listed(HELLO)
    make_rpm(tmp_path / "outside")
    link(tmp_path / "outside", corner.path / "d")
    wait_until(corner.rejected)
    assert "`follow` does not name" in corner.rejected()["d/"]
    assert corner.listed() == {HELLO}


def test_links_in_a_circle_are_told(corner: Corner) -> None:
    make_rpm(corner.path / "d")
    corner.await_listed(f"d/{HELLO}")
    link("..", corner.path / "d" / "up")
    link("self.rpm", corner.path / "self.rpm")
    wait_until(lambda: corner.rejected().keys() == {"d/up/", "self.rpm"})
    corner.await_listed(f"d/{HELLO}")


def test_a_directory_that_comes_with_a_circle_in_it_is_listed_once(corner: Corner, tmp_path: Path) -> None:
    make_rpm(corner.path)
    corner.await_listed(HELLO)
    make_rpm(tmp_path / "d", "other")
    link("..", tmp_path / "d" / "up")
    run("mv", tmp_path / "d", corner.path)
    corner.await_listed(HELLO, f"d/{OTHER}")
    assert corner.rejected().keys() == {"d/up/"}


def test_a_link_to_nothing_is_listed_when_its_file_comes(corner: Corner, pool: Path) -> None:
    link(pool / HELLO, corner.path / "link.rpm")
    wait_until(lambda: corner.rejected() == {"link.rpm": "a symbolic link to nothing"})
    make_rpm(pool)
    corner.await_listed("link.rpm")
    assert corner.rejected() == {}


def test_a_link_to_no_directory_is_followed_when_the_directory_comes(corner: Corner, pool: Path) -> None:
    make_rpm(corner.path)
    link(pool / "late", corner.path / "d")
    corner.await_listed(HELLO)
    make_rpm(pool / "late", "other")
    corner.await_listed(HELLO, f"d/{OTHER}")


@pytest.mark.parametrize("way", ["middle", "middle/file.rpm"], ids=["file", "directory"])
def test_a_link_that_leads_over_another_follows_when_that_is_turned(
    corner: Corner, tmp_path: Path, way: str
) -> None:
    castor, pollux = twins(tmp_path)
    targets = []
    for package in (castor, pollux):
        target = corner.path / package.parent.name / "file.rpm"
        target.parent.mkdir()
        run("cp", package, target)
        targets.append(target if way == "middle" else target.parent)
    link(targets[0], corner.path / "middle")
    link(way, corner.path / "link.rpm")
    wait_until(lambda: summary_of(corner, "link.rpm") == "Castor")
    link(targets[1], corner.path / "middle")
    wait_until(lambda: summary_of(corner, "link.rpm") == "Pollux")
    run("rm", corner.path / "middle")
    corner.await_listed("Castor/file.rpm", "Pollux/file.rpm")


# -- the directory of the repository ---------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Story:
    """A repository whose own directory goes through something; with one package in it, unless it is late."""

    daemon: Daemon
    name: str
    scratch: Path  # of this story alone

    @property
    def root(self) -> Path:
        return self.scratch / "root"

    def await_trouble(self, told: str) -> None:
        _now_and_then(lambda: told in (self.daemon.repository(self.name)["trouble"] or ""))
        assert f"{self.name}: " in self.daemon.get("/healthz").text

    def await_listed(self, *names: str) -> None:
        """Wait until all is well and clients see just these."""
        _now_and_then(lambda: self.daemon.repository(self.name)["trouble"] is None)
        _now_and_then(lambda: self.is_seen() and locations(self.daemon, self.name) == set(names))

    def is_seen(self) -> bool:
        """Whether clients get any repomd.xml now."""
        return self.daemon.get(f"/{self.name}/repodata/repomd.xml").status == 200


def _now_and_then(condition: Callable[[], bool]) -> None:
    """Wait for what many wait for at once."""
    ends = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < ends, "not within 30 s"
        time.sleep(0.1)


def _renamed_away_and_back(story: Story) -> None:
    away = story.root.rename(story.scratch / "away")
    make_rpm(away, "other")
    story.await_trouble("no such directory")
    away.rename(story.root)
    story.await_listed(HELLO, OTHER)
    make_rpm(story.root, "new")
    story.await_listed(HELLO, OTHER, "new-1.0-1.noarch.rpm")


def _replaced(story: Story) -> None:
    old = story.root.rename(story.scratch / "old")
    make_rpm(story.root, "other")
    story.await_listed(OTHER)
    make_rpm(story.root, "new")
    make_rpm(old, "stray")
    story.await_listed(OTHER, "new-1.0-1.noarch.rpm")


def _removed_and_made_anew(story: Story) -> None:
    run("rm", "-r", story.root)
    story.await_trouble("no such directory")
    story.root.mkdir()
    story.await_listed()
    make_rpm(story.root)
    story.await_listed(HELLO)


def _late(story: Story) -> None:
    story.await_trouble("no such directory")
    make_rpm(story.root / "sub")
    story.await_listed(f"sub/{HELLO}")
    make_rpm(story.root / "sub", "other")
    story.await_listed(f"sub/{HELLO}", f"sub/{OTHER}")


def _covered(story: Story) -> None:
    """Something else is mounted over the directory: nothing is done to it."""
    with memory_disk(story.root, kilobytes=1024) as cover:
        story.await_trouble("another file system")
        assert not story.is_seen()
        assert os.listdir(cover) == []
    story.await_listed(HELLO)
    make_rpm(story.root, "other")
    story.await_listed(HELLO, OTHER)


def _unmounted(story: Story) -> None:
    """What was mounted on the directory is gone: the empty one below is not taken for the repository."""
    run("umount", "--lazy", story.root)
    story.await_trouble("another file system")
    assert not story.is_seen()
    assert os.listdir(story.root) == []
    run("mount", "--bind", story.scratch / "disk" / "root", story.root)
    story.await_listed(HELLO)
    make_rpm(story.root, "other")
    story.await_listed(HELLO, OTHER)


STORIES = [_renamed_away_and_back, _replaced, _removed_and_made_anew, _late, _covered, _unmounted]


@pytest.fixture(scope="module")
def stories(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, Future[None]]]:
    """All of them at once: a missing directory makes no event, so most of their time is waiting."""
    require_mounts()
    scratch = tmp_path_factory.mktemp("stories")
    roots = {tell.__name__.strip("_"): scratch / tell.__name__.strip("_") / "root" for tell in STORIES}
    configuration = "".join(f"  {name}: {{path: {root}}}\n" for name, root in roots.items())
    for name, root in roots.items():
        root.parent.mkdir()
        if name == "unmounted":
            root.mkdir()
        elif name != "late":
            make_rpm(root)
    disk = roots["unmounted"].parent / "disk"
    with memory_disk(disk, kilobytes=1024):
        make_rpm(disk / "root")
        run("mount", "--bind", disk / "root", roots["unmounted"])
        try:
            with (
                Daemon(scratch=scratch, configuration=f"repositories:\n{configuration}") as daemon,
                ThreadPoolExecutor(len(STORIES)) as threads,
            ):
                yield {
                    name: threads.submit(tell, Story(daemon, name, roots[name].parent))
                    for name, tell in zip(roots, STORIES, strict=True)
                }
        finally:
            run("umount", "--lazy", roots["unmounted"], check=False)


def test_a_directory_renamed_away_and_back_is_told_and_followed(stories: Mapping[str, Future[None]]) -> None:
    stories["renamed_away_and_back"].result()


def test_a_directory_replaced_by_another_is_followed_in_its_place(
    stories: Mapping[str, Future[None]],
) -> None:
    stories["replaced"].result()


def test_a_directory_removed_and_made_anew_is_told_and_followed(stories: Mapping[str, Future[None]]) -> None:
    stories["removed_and_made_anew"].result()


def test_a_directory_that_comes_late_is_told_and_followed(stories: Mapping[str, Future[None]]) -> None:
    stories["late"].result()


def test_a_directory_that_is_mounted_over_is_told_and_left_alone(
    stories: Mapping[str, Future[None]],
) -> None:
    stories["covered"].result()


def test_a_directory_whose_file_system_is_away_is_told_and_left_alone(
    stories: Mapping[str, Future[None]],
) -> None:
    stories["unmounted"].result()


def test_a_tree_found_empty_at_the_start_is_looked_at_once_more(tmp_path: Path) -> None:
    path = make_rpm(tmp_path / "rpm")
    with Daemon(tmp_path / "rpm", scratch=tmp_path) as daemon:
        assert locations(daemon, "rpm") == {HELLO}
        assert daemon.terminate() == 0
        path.unlink()
        daemon.start()
        wait_until(lambda: locations(daemon, "rpm") == set())
        assert "looked at once more" in daemon.log


# -- permissions -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon that may not read everything."""
    scratch = tmp_path_factory.mktemp("user")
    (scratch / "rpm").mkdir()
    with launched_by(*LIKE_A_USER), Daemon(scratch / "rpm", scratch=scratch) as daemon:
        yield daemon


@pytest.fixture
def guarded(user: Daemon, tmp_path: Path) -> Iterator[Corner]:
    """A corner where permissions count."""
    corner = Corner(user, Path(user.repository("rpm")["path"]), tmp_path.name)
    corner.path.mkdir()
    yield corner
    run("chmod", "-R", "u+rwX", corner.path)


def test_a_package_that_may_not_be_read_is_told_and_listed_when_it_may(guarded: Corner) -> None:
    path = make_rpm(guarded.path)
    guarded.await_listed(HELLO)
    path.chmod(0)
    guarded.await_listed()
    assert "permission denied" in guarded.rejected()[HELLO]
    path.chmod(0o644)
    guarded.await_listed(HELLO)
    assert guarded.rejected() == {}


def test_a_directory_that_may_not_be_read_is_told_and_listed_when_it_may(guarded: Corner) -> None:
    make_rpm(guarded.path / "d")
    guarded.await_listed(f"d/{HELLO}")
    (guarded.path / "d").chmod(0)
    guarded.await_listed()
    assert "permission denied" in guarded.rejected()["d/"]
    (guarded.path / "d").chmod(0o755)
    guarded.await_listed(f"d/{HELLO}")
    make_rpm(guarded.path / "d", "other")
    guarded.await_listed(f"d/{HELLO}", f"d/{OTHER}")
    assert guarded.rejected() == {}


def test_a_directory_that_comes_unreadable_is_watched_when_it_may_be_read(
    guarded: Corner, tmp_path: Path
) -> None:
    make_rpm(tmp_path / "d")
    (tmp_path / "d").chmod(0)
    run("mv", tmp_path / "d", guarded.path)
    wait_until(lambda: "d/" in guarded.rejected())
    (guarded.path / "d").chmod(0o755)
    guarded.await_listed(f"d/{HELLO}")
    make_rpm(guarded.path / "d", "other")
    guarded.await_listed(f"d/{HELLO}", f"d/{OTHER}")


# -- time ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mtime", [0, 4_000_000_000], ids=["1970", "2096"])
def test_a_package_is_listed_whatever_its_mtime(corner: Corner, tmp_path: Path, mtime: int) -> None:
    path = make_rpm(tmp_path)
    os.utime(path, (mtime, mtime))
    run("cp", "-p", path, corner.path)
    corner.await_listed(HELLO)
    assert listed(corner.daemon, "rpm")[f"{corner.name}/{HELLO}"].time_file == mtime


def test_neither_revision_nor_timestamps_go_back_behind_published_ones_of_the_future(tmp_path: Path) -> None:
    root = tmp_path / "rpm"
    make_rpm(root)
    future = int(time.time()) + 1_000_000
    with Daemon(root, scratch=tmp_path) as daemon:
        assert daemon.terminate() == 0
        repomd = root / "repodata" / "repomd.xml"
        repomd.write_text(re.sub(r"(?<=>)1\d{9}(?=<)", str(future), repomd.read_text()))
        daemon.start()
        assert daemon.repository("rpm")["revision"] >= future
        make_rpm(root, "other")
        wait_until(lambda: locations(daemon, "rpm") == {HELLO, OTHER})
        published = createrepo_c.Repomd(str(repomd))
    assert int(published.revision) > future
    assert all(record.timestamp >= future for record in published.records)


# -- names -----------------------------------------------------------------------------------------

ODD = [
    "a b",
    "#a",
    "100%",
    "%41",
    "a&b",
    "'\"",
    "<a>",
    "a\nb",
    "a\tb",
    "a;b=c?d",
    "a+b~c^d",
    "é€",
    "a\\b",
    "*[a]",
    " a ",
]


def test_odd_names_are_listed_as_createrepo_lists_them_and_can_be_fetched(
    corner: Corner, tmp_path: Path
) -> None:
    package = make_rpm(tmp_path)
    names = [name for odd in ODD for name in (f"{odd}.rpm", f"{odd}/x.rpm")]
    for name in names:
        (corner.path / name).parent.mkdir(exist_ok=True)
        os.link(package, corner.path / name)
    corner.await_listed(*_as_createrepo_lists(names, package, tmp_path / "copy"))
    assert corner.rejected() == {}
    for name in names:
        answer = corner.daemon.get(corner.href + quote(name))
        assert (name, answer.status, answer.body) == (name, 200, package.read_bytes())


def _as_createrepo_lists(names: list[str], package: Path, tree: Path) -> set[str]:
    for name in names:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        os.link(package, tree / name)
    createrepo(tree, "--no-database")
    reader = createrepo_c.RepositoryReader.from_path(str(tree))
    return {each.location_href for each in reader.iter_packages()}


def test_names_that_no_client_could_ask_for_are_told(corner: Corner, tmp_path: Path) -> None:
    package = make_rpm(tmp_path)
    latin = os.fsdecode(b"caf\xe9.rpm")
    os.link(package, corner.path / latin)
    os.link(package, corner.path / HELLO)
    corner.await_listed(HELLO)
    assert "not UTF-8" in corner.rejected()[latin]
    os.rename(corner.path / latin, corner.path / "café.rpm")
    corner.await_listed(HELLO, "café.rpm")
    assert corner.rejected() == {}
