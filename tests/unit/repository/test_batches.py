"""Open batches: what they keep, for whom, for how long, and over a death."""

from __future__ import annotations

import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from repowatch.errors import Conflict, Misunderstood, Nameless
from repowatch.repository import batches as module
from repowatch.repository.batches import Batches, Member
from repowatch.repository.home import Home
from tests.kit.clock import FakeClock

LASTS = 100_000.0


class Store:
    """The batches of a repository, and a process before and after."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.clock = FakeClock()
        self.home = Home(str(root))
        self.home.take()
        self.start()

    def start(self) -> None:
        self.batches = Batches(self.home, clock=self.clock, lasts=LASTS)
        self.batches.load()

    def put(self, name: str, batch: str = "b", *, content: str = "content", who: str | None = "anna") -> int:
        staged = Path(self.home.open_staging(), name)
        staged.write_text(content)
        member = Member(name, None, "0" * 64, len(content))
        return self.batches.put(batch, member, staged=str(staged), who=who)

    def content(self, batch: str = "b", *, who: str | None = "anna") -> dict[str, str | None]:
        with self.batches.taken(batch, who=who, is_operator=False) as taken:
            return {
                each.location_href: Path(taken.path(each)).read_text() if each.file else None
                for each in taken.members
            }


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def test_changes_are_kept_and_outlive_the_process(store: Store) -> None:
    assert store.put("a.rpm") == 1
    assert store.put("b.rpm") == 2
    store.batches.put("b", Member("c.rpm", None, None, 0), staged=None, who="anna")
    store.start()
    assert store.content() == {"a.rpm": "content", "b.rpm": "content", "c.rpm": None}
    [told] = store.batches.told()
    assert (told["files"], told["bytes"], told["who"]) == (3, 14, "anna")


def test_the_last_word_on_a_name_counts(store: Store) -> None:
    store.put("a.rpm", content="first")
    assert store.put("a.rpm", content="second") == 1
    store.start()
    assert store.content() == {"a.rpm": "second"}
    store.batches.put("b", Member("a.rpm", None, None, 0), staged=None, who="anna")
    assert store.content() == {"a.rpm": None}


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "ä", "-x", "a" * 65, "a\n"])
def test_a_name_that_is_none_is_refused(store: Store, name: str) -> None:
    with pytest.raises(Misunderstood):
        store.put("a.rpm", name)
    assert len(store.batches) == 0


def test_a_batch_belongs_to_who_began_it(store: Store) -> None:
    store.put("a.rpm")
    with pytest.raises(Conflict, match="another's"):
        store.put("b.rpm", who="ben")
    with pytest.raises(Nameless):
        store.content(who=None)
    with store.batches.taken("b", who="root", is_operator=True) as taken:
        assert len(taken.members) == 1


def test_nobody_adds_to_a_batch_that_is_committed(store: Store) -> None:
    store.put("a.rpm")
    with store.batches.taken("b", who="anna", is_operator=False):
        with pytest.raises(Conflict, match="is being committed"):
            store.put("b.rpm")
        with pytest.raises(Conflict, match="is being committed"):
            store.content()
    assert store.put("b.rpm") == 2


def test_what_is_forgotten_is_gone_for_good(store: Store) -> None:
    store.put("a.rpm")
    with store.batches.taken("b", who="anna", is_operator=False):
        store.batches.forget("b")
    assert os.listdir(store.batches.directory) == []
    store.start()
    assert len(store.batches) == 0
    assert store.put("a.rpm", who="ben") == 1


def test_what_is_left_of_a_batch_that_ended_is_removed_by_the_next_start(store: Store) -> None:
    store.put("a.rpm")
    os.unlink(os.path.join(store.batches.directory, "b", "members"))
    store.start()
    assert os.listdir(store.batches.directory) == []


def test_a_line_that_was_torn_by_a_death_is_forgotten(store: Store) -> None:
    store.put("a.rpm")
    with open(os.path.join(store.batches.directory, "b", "members"), "ab") as file:
        file.write(b'["b.rpm", "1.rpm"')
    store.start()
    assert store.content() == {"a.rpm": "content"}
    store.put("b.rpm")
    store.start()
    assert store.content() == {"a.rpm": "content", "b.rpm": "content"}


def test_a_damaged_batch_keeps_its_files_and_is_told(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    store.put("a.rpm")
    path = Path(store.batches.directory, "b")
    (path / "members").write_bytes(b"\0\n")
    store.start()
    assert "can not be committed" in caplog.text
    assert (path / "0.rpm").exists()
    with pytest.raises(Conflict, match="is damaged"):
        store.put("a.rpm")


def test_a_batch_ends_when_nobody_touched_it_for_long(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    store.put("a.rpm")
    store.clock.advance(LASTS - 1)
    store.put("b.rpm")
    store.clock.advance(LASTS - 1)
    store.batches.expire()
    assert len(store.batches) == 1
    store.clock.advance(2)
    store.batches.expire()
    assert len(store.batches) == 0
    assert "the batch b of anna is given up" in caplog.text


def test_its_age_counts_over_a_start_and_a_clock_that_jumped_leaves_it_an_hour(store: Store) -> None:
    store.put("a.rpm")
    members = os.path.join(store.batches.directory, "b", "members")
    os.utime(members, (store.clock.now() - LASTS / 2,) * 2)
    store.start()
    [told] = store.batches.told()
    assert told["expires_in"] == pytest.approx(LASTS / 2)
    os.utime(members, (1, 1))
    store.start()
    store.clock.advance(module.GRACE - 1)
    store.batches.expire()
    assert len(store.batches) == 1
    os.utime(members, (store.clock.now() + 10 * LASTS,) * 2)
    store.start()
    [told] = store.batches.told()
    assert told["expires_in"] == pytest.approx(LASTS)


def test_batches_and_their_changes_are_bounded(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_OPEN", 2)
    monkeypatch.setattr(module, "MOST_MEMBERS", 3)
    for batch in ("b", "c"):
        store.put("a.rpm", batch)
    with pytest.raises(Conflict, match="2 batches are open"):
        store.put("a.rpm", "d")
    store.put("a.rpm")
    store.put("a.rpm")
    with pytest.raises(Conflict, match="the most"):
        store.put("a.rpm")


def test_a_change_that_can_not_be_written_down_is_not_kept(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put("a.rpm")
    monkeypatch.setattr("os.fsync", lambda descriptor: (_ for _ in ()).throw(OSError(28, "No space")))
    with pytest.raises(OSError, match="No space"):
        store.batches.put("b", Member("b.rpm", None, None, 0), staged=None, who="anna")
    monkeypatch.undo()
    store.start()
    assert store.content() == {"a.rpm": "content"}
    rows = Path(store.batches.directory, "b", "members").read_text().splitlines()
    assert [json.loads(row) for row in rows[1:]] == [["a.rpm", "0.rpm", "0" * 64, 7, None]]


def test_a_large_batch_that_goes_holds_up_no_other(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.put("a.rpm", "large")
    remove, counts = shutil.rmtree, list[int]()

    with ThreadPoolExecutor(1) as other:

        def slow(path: str, **how: Any) -> None:
            monkeypatch.setattr(shutil, "rmtree", remove)
            counts.append(other.submit(store.put, "b.rpm", "small").result(10))
            counts.append(other.submit(store.put, "c.rpm", "large").result(10))
            remove(path, **how)

        monkeypatch.setattr(shutil, "rmtree", slow)
        with store.batches.taken("large", who="anna", is_operator=False):
            store.batches.forget("large")
    assert counts == [1, 1]
    store.start()
    assert store.content("large").keys() == {"c.rpm"}
    assert store.content("small").keys() == {"b.rpm"}
