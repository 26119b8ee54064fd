"""Moves and copies that fail leave everything as it was."""

from __future__ import annotations

import os
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path

import pytest

from repowatch.web.served import Served
from repowatch.web.uploads import Answer, Refusal
from repowatch.web.webdav import moves
from tests.kit.served import serve


def tree(root: Path) -> dict[str, str | None]:
    """What a directory holds: the text of its files, None for directories."""
    paths = root.rglob("*")
    return {str(each.relative_to(root)): each.read_text() if each.is_file() else None for each in paths}


def fill(root: Path) -> dict[str, str | None]:
    for name in ("file", "d/file", "e/file"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(name)
    return tree(root)


@pytest.mark.parametrize("act", [moves.move_file, moves.copy_file])
def test_a_directory_in_the_way_of_a_file_is_back_after_a_refusal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, act: Callable[[Served, str, str], Answer]
) -> None:
    def refuse(*arguments: object, **named: object) -> None:
        assert not (tmp_path / "d").exists()
        raise Refusal(HTTPStatus.INSUFFICIENT_STORAGE, "no space")

    before = fill(tmp_path)
    monkeypatch.setattr(moves, "publish", refuse)
    with pytest.raises(Refusal):
        act(serve(tmp_path), "file", "d")
    assert tree(tmp_path) == before


def test_a_directory_in_the_way_of_a_directory_is_back_after_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = fill(tmp_path)
    rename = os.rename

    def fail(source: str, target: str) -> None:
        if source.endswith("/d"):
            raise OSError(28, "No space left on device")
        rename(source, target)

    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(OSError, match="No space"):
        moves.move_directory(serve(tmp_path), "d", "e")
    assert tree(tmp_path) == before


@pytest.mark.parametrize(("whole", "copied"), [(True, {"c", "c/file", "c/link"}), (False, {"c"})])
def test_a_copy_has_files_and_links_and_nothing_that_can_not_be_read(
    tmp_path: Path, whole: bool, copied: set[str]
) -> None:
    before = set(fill(tmp_path))
    (tmp_path / "d" / "link").symlink_to("file")
    os.mkfifo(tmp_path / "d" / "fifo")
    answer = moves.copy_directory(serve(tmp_path), "d", "c", whole=whole)
    assert answer.status == 201
    assert {*tree(tmp_path)} == before | {"d/link", "d/fifo"} | copied
    assert (tmp_path / "c" / "link").is_symlink() == whole
