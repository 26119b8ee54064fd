"""The way of an upload to disk: everything hashed in order, everything written, errors told."""

from __future__ import annotations

import hashlib
import os
import random
from pathlib import Path

import pytest

from repowatch.web.intake import ASIDE, EARLY, Intake


@pytest.mark.parametrize("size", [0, 1, ASIDE - 1, ASIDE, ASIDE + 1])
def test_blocks_of_all_sizes_are_written_and_hashed_in_order(tmp_path: Path, size: int) -> None:
    generator = random.Random(size)
    blocks = [
        generator.randbytes(size if generator.random() < 0.5 else generator.randrange(2 * ASIDE))
        for _ in range(40)
    ]
    digest = hashlib.sha256()
    intake = Intake(str(tmp_path / "f"), hash_with=digest.update)
    for block in blocks:
        intake.take(block)
    intake.finish_hashing()
    intake.sync()
    intake.close()
    content = b"".join(blocks)
    assert (tmp_path / "f").read_bytes() == content
    assert digest.digest() == hashlib.sha256(content).digest()


def test_what_hashing_finds_is_raised_before_the_file_counts(tmp_path: Path) -> None:
    def refuse(block: bytes) -> None:
        raise ValueError("no package")

    intake = Intake(str(tmp_path / "f"), hash_with=refuse)
    intake.take(bytes(ASIDE))
    with pytest.raises(ValueError, match="no package"):
        intake.finish_hashing()
    intake.close()


def test_a_bad_block_is_told_with_the_next_one(tmp_path: Path) -> None:
    def refuse(block: bytes) -> None:
        raise ValueError("no package")

    intake = Intake(str(tmp_path / "f"), hash_with=refuse)
    intake.take(bytes(ASIDE))
    with pytest.raises(ValueError, match="no package"):
        intake.take(bytes(ASIDE))
    intake.close()


def test_a_write_that_failed_early_is_told_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel tells it once, to whoever syncs first."""

    def fails(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", fails)
    intake = Intake(str(tmp_path / "f"), hash_with=lambda block: None)
    block = bytes(1 << 20)
    for _ in range(EARLY // len(block)):
        intake.take(block)
    with pytest.raises(OSError, match="Input/output error"):
        intake.sync()
    intake.close()


def test_a_name_that_exists_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"there")
    with pytest.raises(FileExistsError):
        Intake(str(tmp_path / "f"), hash_with=lambda block: None)
    assert (tmp_path / "f").read_bytes() == b"there"


def test_closing_again_does_nothing(tmp_path: Path) -> None:
    intake = Intake(str(tmp_path / "f"), hash_with=lambda block: None)
    intake.take(bytes(ASIDE))
    intake.close()
    other = os.open(tmp_path / "other", os.O_WRONLY | os.O_CREAT)
    intake.close()
    os.write(other, b"still open")
    os.close(other)
