"""What the history tells of a publication, and by whom it came."""

from __future__ import annotations

from pathlib import Path

import pytest

from repowatch.model.package import Entry, Nevra, Stamp
from repowatch.repository.history import KEPT, MOST_CLAIMS, OWED, Event, History
from tests.kit.clock import FakeClock


def entry(location: str, *, content: str = "a", mtime: int = 0) -> Entry:
    name = location.rpartition("/")[2].removesuffix(".rpm")
    return Entry(location, content * 64, Nevra(name, "0", "1", "2", "noarch"), Stamp(7, mtime, 0, 0))


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def history(clock: FakeClock) -> History:
    return History(clock=clock)


def by(history: History, location: str) -> tuple[str | None, str]:
    """Whose a package is that is published now."""
    history.record([(None, entry(location))], revision=1, at=0.0)
    return history.events[0].who, history.events[0].how


def test_what_came_by_file_is_told_with_all_that_is_known_of_it(history: History) -> None:
    history.record([(None, entry("x/a.rpm"))], revision=5, at=10.0)
    assert history.events == (Event(10.0, 5, "added", "x/a.rpm", "a-1-2.noarch", 7, None, "file"),)


def test_the_newest_comes_first_and_equal_content_is_no_change(history: History) -> None:
    old, new = entry("a.rpm"), entry("a.rpm", content="b")
    history.record([(None, old)], revision=1, at=1.0)
    history.record([(old, new)], revision=2, at=2.0)
    history.record([(new, new), (None, None)], revision=3, at=3.0)
    history.record([(new, None)], revision=4, at=4.0)
    assert [(each.revision, each.change) for each in history.events] == [
        (4, "removed"),
        (2, "replaced"),
        (1, "added"),
    ]


def test_of_very_many_those_with_the_newest_files_are_kept(history: History) -> None:
    history.record([(None, entry(f"{n}.rpm", mtime=n)) for n in range(1000)], revision=1, at=0.0)
    assert [each.location for each in history.events] == [f"{n}.rpm" for n in range(999, 999 - KEPT, -1)]


def test_a_change_in_hand_is_told_with_its_client_and_later_ones_are_not(history: History) -> None:
    end = history.claim(["a.rpm"], who="anna", how="basic")
    assert by(history, "b.rpm") == (None, "file")
    assert by(history, "a.rpm") == ("anna", "basic")
    end(owed=False)
    assert by(history, "a.rpm") == (None, "file")


def test_whoever_has_a_directory_in_hand_has_all_that_is_in_it(history: History) -> None:
    history.claim(["x/y/", "z"], who="anna", how="basic")
    assert by(history, "x/y/deep/a.rpm") == ("anna", "basic")
    assert by(history, "z/a.rpm") == ("anna", "basic")
    assert by(history, "x/a.rpm") == (None, "file")


def test_who_was_answered_before_the_publication_is_still_told_once(
    history: History, clock: FakeClock
) -> None:
    history.claim(["a.rpm"], who=None, how="none")(owed=True)
    assert by(history, "a.rpm") == (None, "none")
    assert by(history, "a.rpm") == (None, "file")
    history.claim(["a.rpm"], who="anna", how="basic")(owed=True)
    clock.advance(OWED + 1)
    assert by(history, "a.rpm") == (None, "file")


def test_an_end_does_not_end_the_change_of_another_client(history: History) -> None:
    first = history.claim(["a.rpm"], who="anna", how="basic")
    history.claim(["a.rpm"], who="ben", how="basic")
    first(owed=False)
    assert by(history, "a.rpm") == ("ben", "basic")


def test_claims_that_are_never_met_do_not_pile_up(history: History) -> None:
    for number in range(MOST_CLAIMS + 1):
        history.claim([f"{number}.rpm"], who="anna", how="basic")(owed=True)
    assert by(history, "0.rpm") == (None, "file")
    assert by(history, "1.rpm") == ("anna", "basic")


def test_the_next_start_goes_on_from_what_was_saved(history: History, tmp_path: Path) -> None:
    history.claim(["b\udcff.rpm"], who="anna", how="basic")
    history.record([(None, entry("b\udcff.rpm"))], revision=1, at=1.5)
    history.save(str(tmp_path / "history"))
    again = History(clock=FakeClock())
    again.load(str(tmp_path / "history"))
    assert again.events == history.events


@pytest.mark.parametrize("content", ["", "{}", "[1]", "[{}]", '[{"at": "x"}]', "[" * 99999, "\xff"])
def test_what_is_damaged_is_forgotten(history: History, tmp_path: Path, content: str) -> None:
    (tmp_path / "history").write_text(content)
    history.record([(None, entry("a.rpm"))], revision=1, at=1.0)
    history.load(str(tmp_path / "history"))
    assert history.events == ()
