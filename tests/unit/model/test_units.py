"""Sizes as people read them."""

from __future__ import annotations

import pytest

from repowatch.model.units import in_units


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1024**2 - 1, "1.0 MiB"),
        (5 * 1024**3, "5.0 GiB"),
        (3 * 1024**5, "3072.0 TiB"),
    ],
)
def test_a_size_is_shown_in_binary_units(size: int, shown: str) -> None:
    assert in_units(size) == shown
