"""What $releasever and $basearch can stand for in the URLs of a family of repositories."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

# What $basearch can be: libdnf's arch.cpp and yum's rpmUtils/arch.py.
BASEARCHES = frozenset(
    {
        *("aarch64", "armhfp", "i386", "loongarch64", "ppc", "ppc64", "ppc64le", "riscv64"),
        *("s390", "s390x", "x86_64"),
    }
)

_RELEASE = re.compile(r"[0-9]{1,4}(\.[0-9]{1,2})?", re.ASCII)  # 9, 9.4, 41, 15.6, 2023


def variables(family: Collection[Sequence[str]]) -> tuple[str | None, ...]:
    """The variable for each place of a family, of which each member tells its values by place.

    One stands where all values look like it, and those of no other place do: who serves products by their
    number beside releases is not guessed at.
    """
    places = list(zip(*family, strict=True))
    likely = [_variable(frozenset(values)) for values in places]
    return tuple(each if likely.count(each) == 1 else None for each in likely)


def _variable(values: frozenset[str]) -> str | None:
    if values <= BASEARCHES:
        return "$basearch"
    return "$releasever" if all(map(_RELEASE.fullmatch, values)) else None
