"""What costs time to start, shared by the tests of a module."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from repowatch.repository.readers import Readers


@pytest.fixture(scope="module")
def readers() -> Iterator[Readers]:
    readers = Readers(processes=1)
    readers.start()
    yield readers
    readers.close()


@pytest.fixture(scope="module")
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as pool:
        yield pool
