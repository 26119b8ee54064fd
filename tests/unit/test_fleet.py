from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from repowatch import fleet as module
from repowatch.config import Config, RepositoryConfig
from repowatch.config.file import parse
from repowatch.errors import RepowatchError
from repowatch.fleet import AGAIN, Fleet
from tests.kit.clock import FakeClock

FAMILY = '"el{{1}}": {{path: "{root}/el*"}}'


@dataclass
class Repository:
    """Nothing but what was done to it."""

    config: RepositoryConfig
    acts: list[str]
    is_published: bool = True

    def start(self) -> None:
        self.acts.append(f"start {self.config.name}")

    def stop(self) -> None:
        self.acts.append(f"stop {self.config.name}")


@dataclass
class Stage:
    """A fleet, and what happened."""

    root: Path
    acts: list[str] = field(default_factory=list)
    locked: set[str] = field(default_factory=set)
    clock: FakeClock = field(default_factory=FakeClock)
    published: bool = True
    fleet: Fleet[Repository] = field(init=False)

    def __post_init__(self) -> None:
        self.fleet = Fleet(self.config(FAMILY), open=self.open, changed=self.changed, clock=self.clock)

    def config(self, *lines: str) -> Config:
        body = "".join(f"  {line.format(root=self.root)}\n" for line in lines)
        return parse(f"repositories:\n{body}", source="c.yaml")

    def open(self, config: RepositoryConfig) -> Repository:
        if config.name in self.locked:
            raise RepowatchError("another process writes it")
        return Repository(config, self.acts, self.published)

    def changed(self) -> None:
        self.acts.append(f"serve {' '.join(each.config.name for each in self.fleet.running)}".strip())

    def done(self) -> list[str]:
        """What happened since the last time."""
        done = self.acts[:]
        self.acts.clear()
        return done

    def look(self) -> list[str]:
        self.fleet.look()
        return self.done()


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    (tmp_path / "el8").mkdir()
    stage = Stage(tmp_path)
    stage.fleet.start()
    assert stage.done() == ["start el8"]
    return stage


@pytest.fixture
def watched(stage: Stage) -> Iterator[Stage]:
    """Its thread runs."""
    thread = threading.Thread(target=stage.fleet.watch)
    thread.start()
    yield stage
    stage.fleet.end()
    thread.join()


def test_what_did_not_change_is_left_alone(stage: Stage) -> None:
    assert stage.look() == []


def test_a_directory_that_appears_is_started_and_then_served(stage: Stage) -> None:
    (stage.root / "el9").mkdir()
    assert stage.look() == ["start el9", "serve el8 el9"]


def test_one_that_disappears_is_served_no_more_and_then_stopped(stage: Stage) -> None:
    (stage.root / "el8").rmdir()
    assert stage.look() == ["serve", "stop el8"]
    (stage.root / "el8").mkdir()
    assert stage.look() == ["start el8", "serve el8"]


def test_of_a_renamed_directory_the_old_name_is_stopped_first_for_its_lock(stage: Stage) -> None:
    (stage.root / "el8").rename(stage.root / "el9")
    assert stage.look() == ["serve", "stop el8", "start el9", "serve el9"]


def test_one_whose_file_system_is_away_is_kept(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    (stage.root / "el8").rmdir()
    device = os.stat(stage.root).st_dev
    with monkeypatch.context() as patched:
        patched.setattr(module, "_device_of", lambda path: device + 1)
        assert stage.look() == []
    assert stage.look() == ["serve", "stop el8"]


def test_one_that_can_not_be_opened_is_told_and_tried_again_later(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    (stage.root / "el9").mkdir()
    stage.locked.add("el9")
    for _ in range(3):
        assert stage.look() == []
    [refused] = stage.fleet.refused
    assert (refused.path, refused.reason, refused.pattern) == (
        f"{stage.root}/el9",
        "another process writes it",
        "el{1}",
    )
    assert caplog.text.count("another process writes it") == 1
    stage.locked.clear()
    assert stage.look() == []
    stage.clock.advance(AGAIN)
    assert stage.look() == ["start el9", "serve el8 el9"]
    assert stage.fleet.refused == ()


def test_a_refused_directory_is_told_once_until_it_is_none_any_more(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    (stage.root / "el a").mkdir()
    for _ in range(3):
        assert stage.look() == []
    assert caplog.text.count(f"{stage.root}/el a is not served") == 1
    (stage.root / "el a").rmdir()
    stage.look()
    assert stage.fleet.refused == ()


def test_one_that_is_named_and_can_not_be_opened_ends_the_start(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    stage.locked.add("rpm")
    stage.fleet.take(stage.config("other: {{path: /srv/other}}", "rpm: {{path: /srv/rpm}}"))
    with pytest.raises(RepowatchError, match="another process"):
        stage.fleet.start()
    stage.fleet.close()
    assert stage.done() == ["start other", "stop other"]


def test_another_configuration_starts_and_stops_what_it_says(stage: Stage) -> None:
    stage.fleet.take(stage.config("rpm: {{path: /srv/rpm}}"))
    assert stage.look() == ["serve", "stop el8", "start rpm", "serve rpm"]
    stage.fleet.take(stage.config("rpm: {{path: /srv/rpm, settle: 1s}}", FAMILY))
    assert stage.look() == ["start el8", "serve rpm el8"]
    stage.fleet.take(stage.config("rpm: {{path: /srv/rpm, url: /new/}}", FAMILY))
    assert stage.look() == ["serve el8", "stop rpm", "start rpm", "serve el8 rpm"]


def test_all_are_stopped_in_reverse(stage: Stage) -> None:
    (stage.root / "el9").mkdir()
    stage.look()
    stage.fleet.close()
    assert stage.done() == ["stop el9", "stop el8"]


def test_what_a_client_makes_is_served_when_it_is_answered(watched: Stage) -> None:
    member = watched.fleet.at_url("/el9/")
    assert member
    assert watched.fleet.make(member)
    assert (watched.root / "el9").is_dir()
    assert [each.config.name for each in watched.fleet.running] == ["el8", "el9"]


def test_what_a_client_makes_is_tried_at_once_although_it_failed_before(watched: Stage) -> None:
    member = watched.fleet.at_url("/el9/")
    assert member
    watched.locked.add("el9")
    with pytest.raises(RepowatchError, match="another process writes it"):
        watched.fleet.make(member)
    watched.locked.clear()
    assert watched.fleet.make(member)


def gone(root: Path) -> None:
    shutil.rmtree(root)


@pytest.mark.parametrize(
    ("line", "url", "prepare", "reason"),
    [
        (
            '"{{1}}-{{2}}": {{path: "{root}/in/*/*", url: "/{{1}}/{{2}}/"}}',
            "/a/b/",
            gone,
            "is it not mounted",
        ),
        ('"{{1}}": {{path: "{root}/in/*"}}', "/metrics/", lambda root: None, "is reserved"),
        ('"{{1}}": {{path: "{root}/in/*"}}', "/lost+found/", lambda root: None, "belongs to the file system"),
        ('"{{1}}": {{path: "{root}/in/*"}}', "/file/", lambda root: (root / "file").touch(), "in the place"),
        (
            '"{{1}}-{{2}}": {{path: "{root}/in/*/*", url: "/{{1}}/{{2}}/"}}',
            "/out/b/",
            lambda root: (root / "out").symlink_to("/tmp"),
            "lies behind a symbolic link",
        ),
    ],
)
def test_what_can_be_no_repository_is_not_made(
    tmp_path: Path, line: str, url: str, prepare: Callable[[Path], None], reason: str
) -> None:
    (tmp_path / "in").mkdir()
    prepare(tmp_path / "in")
    stage = Stage(tmp_path)
    stage.fleet.take(stage.config(line))
    member = stage.fleet.at_url(url)
    assert member
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(RepowatchError, match=reason):
        stage.fleet.make(member)
    assert sorted(tmp_path.rglob("*")) == before


def test_nothing_is_made_where_another_patterns_rights_would_decide(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    lines = ('"p{{1}}": {{path: "{root}/a/*", url: "/a/{{1}}/"}}', '"px{{1}}": {{path: "{root}/b/*"}}')
    stage.fleet.take(stage.config(*lines))
    assert stage.fleet.at_url("/pxy/") is None
    made = stage.fleet.at_url("/a/y/")
    assert made
    assert made.name == "py"
