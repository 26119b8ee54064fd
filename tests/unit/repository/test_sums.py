"""Checksums of opened metadata go on from the last ones, and are those of all bytes."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from repowatch.model.formats import FORMATS
from repowatch.model.segment import Segment
from repowatch.repository import sums
from repowatch.repository.sums import OpenSums

GZIP = FORMATS["compatible"]
FOOT = b"</end>"


class Read(Segment):
    """A segment that knows how often it was read."""

    times = 0

    def opened(self, kind: int) -> bytes:
        self.times += 1
        return super().opened(kind)


@pytest.fixture(autouse=True)
def a_hash_is_kept_after_each_segment() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sums, "STEP", 1)
        yield


def segment(text: str) -> Read:
    return Read([text], [array("L", [len(text)])], GZIP, elements=[text.encode()])


def ask(
    known: OpenSums, segments: Sequence[Segment], *, head: bytes = b"<2>", algorithm: str = "sha256"
) -> None:
    """Ask, and compare with a hash of all."""
    expected = head + b"".join(Segment.opened(each, 0) for each in segments) + FOOT
    found = known.of(0, segments, algorithm, head=head, foot=FOOT)
    assert found == (hashlib.new(algorithm, expected).hexdigest(), len(expected))


def times(segments: Sequence[Read]) -> list[int]:
    return [each.times for each in segments]


def test_what_stands_before_the_first_change_is_not_read_again() -> None:
    known, segments = OpenSums(), [segment(text) for text in "abcdef"]
    ask(known, segments)
    segments[3] = segment("new")
    ask(known, segments)
    assert times(segments) == [1, 1, 1, 1, 2, 2]
    segments[4] = segment("newer")
    ask(known, segments)
    assert times(segments) == [1, 1, 1, 1, 1, 3]


@pytest.mark.parametrize(("head", "algorithm"), [(b"<3>", "sha256"), (b"<2>", "sha512")])
def test_another_head_or_algorithm_begins_anew(head: bytes, algorithm: str) -> None:
    known, segments = OpenSums(), [segment(text) for text in "abc"]
    ask(known, segments)
    ask(known, segments, head=head, algorithm=algorithm)
    assert times(segments) == [2, 2, 2]
    ask(known, segments)


def test_marks_are_as_far_apart_as_they_should_be() -> None:
    known, segments = OpenSums(), [segment(text) for text in "abcdef"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sums, "STEP", 3)
        ask(known, segments)
        segments[5] = segment("new")
        ask(known, segments)
    assert times(segments) == [1, 1, 1, 2, 2, 1]


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 3), st.integers(0, 3)), max_size=12))
def test_any_history_gives_the_checksum_of_all_bytes(history: list[tuple[int, int, int]]) -> None:
    known, segments = OpenSums(), [segment(text) for text in "abcdef"]
    for number, (at, gone, come) in enumerate(history):
        segments[at : at + gone] = [segment(f"{number}-{each}") for each in range(come)]
        ask(known, list(segments), head=b"<%d>" % len(segments))
