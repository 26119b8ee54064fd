"""How much is tried: a sample that fits into every run, or everything."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")

# REPOWATCH_FAULTS=all tries every step and streams for minutes; without it a sample is taken.
ALL = os.environ.get("REPOWATCH_FAULTS") == "all"


def sample(steps: Sequence[T], *, most: int) -> list[T]:
    """As many of the steps as fit a usual run, evenly spread, the first and the last among them."""
    if ALL or len(steps) <= most:
        return list(steps)
    spacing = (len(steps) - 1) / (most - 1)
    return [steps[round(number * spacing)] for number in range(most)]
