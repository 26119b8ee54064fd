"""The way of an upload to disk: everything hashed in order, everything written, errors told."""

from __future__ import annotations

import hashlib
import os
import random
import threading
from functools import partial
from pathlib import Path

import pytest

from repowatch.model.digests import Spread
from repowatch.web.intake import ASIDE, BEHIND, EARLY, Intake
from tests.kit.daemon import wait_until


def nothing(data: bytes, *, spread: Spread) -> None:
    """No hash at all."""


@pytest.mark.parametrize("size", [0, 1, ASIDE - 1, ASIDE, ASIDE + 1])
def test_blocks_of_all_sizes_are_written_and_hashed_in_order(tmp_path: Path, size: int) -> None:
    generator = random.Random(size)
    blocks = [
        generator.randbytes(size if generator.random() < 0.5 else generator.randrange(2 * ASIDE))
        for _ in range(40)
    ]
    digests = [hashlib.sha256(), hashlib.md5(usedforsecurity=False)]

    def feed(data: bytes, *, spread: Spread) -> None:
        spread([partial(digest.update, data) for digest in digests])

    intake = Intake(str(tmp_path / "f"), hash_with=feed)
    for block in blocks:
        intake.take(block)
    intake.finish_hashing()
    intake.sync()
    intake.close()
    content = b"".join(blocks)
    assert (tmp_path / "f").read_bytes() == content
    assert digests[0].digest() == hashlib.sha256(content).digest()
    assert digests[1].digest() == hashlib.md5(content, usedforsecurity=False).digest()


def test_what_hashing_finds_is_raised_before_the_file_counts(tmp_path: Path) -> None:
    def refuse(data: bytes, *, spread: Spread) -> None:
        raise ValueError("no package")

    intake = Intake(str(tmp_path / "f"), hash_with=refuse)
    intake.take(bytes(ASIDE))
    with pytest.raises(ValueError, match="no package"):
        intake.finish_hashing()
    intake.close()


def test_a_bad_block_is_told_with_one_of_the_next(tmp_path: Path) -> None:
    def refuse(data: bytes, *, spread: Spread) -> None:
        raise ValueError("no package")

    intake = Intake(str(tmp_path / "f"), hash_with=refuse)
    with pytest.raises(ValueError, match="no package"):
        for _ in range(1 + 2 * BEHIND // ASIDE):
            intake.take(bytes(ASIDE))
    intake.close()


def test_a_write_that_failed_early_is_told_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel tells it once, to whoever syncs first."""

    def fails(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", fails)
    intake = Intake(str(tmp_path / "f"), hash_with=nothing)
    block = bytes(1 << 20)
    for _ in range(EARLY // len(block)):
        intake.take(block)
    with pytest.raises(OSError, match="Input/output error"):
        intake.sync()
    intake.close()


def test_a_name_that_exists_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"there")
    with pytest.raises(FileExistsError):
        Intake(str(tmp_path / "f"), hash_with=nothing)
    assert (tmp_path / "f").read_bytes() == b"there"


def test_closing_again_does_nothing(tmp_path: Path) -> None:
    intake = Intake(str(tmp_path / "f"), hash_with=nothing)
    intake.take(bytes(ASIDE))
    intake.close()
    other = os.open(tmp_path / "other", os.O_WRONLY | os.O_CREAT)
    intake.close()
    os.write(other, b"still open")
    os.close(other)


def test_what_is_not_hashed_yet_is_bounded(tmp_path: Path) -> None:
    """A slow processor slows the client down; it does not fill the memory."""
    taken, gate = [0], threading.Event()

    def slow(data: bytes, *, spread: Spread) -> None:
        gate.wait(30)

    intake = Intake(str(tmp_path / "f"), hash_with=slow)

    def send() -> None:
        for _ in range(10 * BEHIND // ASIDE):
            intake.take(bytes(ASIDE))
            taken[0] += ASIDE

    sender = threading.Thread(target=send)
    sender.start()
    wait_until(lambda: taken[0] > BEHIND)
    assert taken[0] <= BEHIND + 2 * ASIDE
    gate.set()
    sender.join(30)
    intake.finish_hashing()
    intake.close()
    assert taken[0] == 10 * BEHIND
