"""How much room a file system has."""

from __future__ import annotations

from pathlib import Path

from repowatch.system.space import space_at


def test_no_more_is_free_than_there_is(tmp_path: Path) -> None:
    space = space_at(str(tmp_path))
    assert space is not None
    free, size = space
    assert 0 <= free < size


def test_what_is_not_there_has_no_room(tmp_path: Path) -> None:
    assert space_at(str(tmp_path / "away")) is None
