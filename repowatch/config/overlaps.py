"""What must not lie inside something else: repositories in each other, and our own files in a repository."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations
from typing import TypeAlias

from repowatch.config.places import shown
from repowatch.config.settings import RepositoryConfig

_Pair: TypeAlias = tuple[RepositoryConfig, RepositoryConfig]


def conflicts(repositories: Sequence[RepositoryConfig]) -> Iterator[tuple[str, _Pair, str]]:
    """Yield the key, the two repositories, and how the second lies to the first by it. "" lies nowhere."""
    for key, place in (("path", real), ("url", str)):
        placed = [(place(getattr(each, key)), each) for each in repositories if getattr(each, key)]
        for (outer, first), (inner, second) in combinations(placed, 2):
            if inner == outer:
                yield key, (first, second), "is the same as"
            elif inner.startswith(outer):
                yield key, (first, second), "lies inside"
            elif outer.startswith(inner):
                yield key, (first, second), "contains"


def refuse_inside(path: str, trees: Iterable[str], *, why: str) -> None:
    """Raise ValueError where the file at `path` lies, or is found, in one of the trees (as of `real`)."""
    # A link in a tree that leads out of it is as bad as a link from elsewhere that leads into it.
    places = (real(path), os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path)))
    for tree in trees:
        if any(place.startswith(tree) for place in places):
            raise ValueError(
                f"{shown(path)} lies in the repository at {shown(tree)}, where {why}; move it out"
            )


def real(path: str) -> str:
    """Return where the path leads, with a slash at its end."""
    return os.path.join(os.path.realpath(path), "")
