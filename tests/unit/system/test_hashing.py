"""Bytes that are copied before they are hashed stay the same bytes."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from repowatch.system import hashing
from repowatch.system.hashing import hashed


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
@given(lengths=st.lists(st.integers(0, 3 * hashing.BLOCK), max_size=5))
def test_the_digest_is_that_of_all_parts_in_order(algorithm: str, lengths: list[int]) -> None:
    random = Random(str(lengths))
    parts = [random.randbytes(length) for length in lengths]
    expected = hashlib.new(algorithm, b"".join(parts)).hexdigest()
    assert hashed(algorithm, parts) == (expected, sum(lengths))


def test_threads_do_not_share_the_block_they_hash_in() -> None:
    contents = [bytes([number]) * 5 * hashing.BLOCK for number in range(8)]
    with ThreadPoolExecutor(len(contents)) as pool:
        found = list(pool.map(lambda content: hashed("sha256", [content] * 8), contents))
    assert found == [(hashlib.sha256(each * 8).hexdigest(), 8 * len(each)) for each in contents]
