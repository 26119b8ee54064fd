"""The order in which rpm puts versions, and package files by their names."""

from __future__ import annotations

import re

Rank = tuple[int, int, str]
Ranks = tuple[Rank, ...]

# Everything else separates, also every character beyond ASCII.
_SEGMENT = re.compile(r"[0-9]+|[A-Za-z]+|[~^]")
_DIGITS_OR_TEXT = re.compile(r"[0-9]+|[^0-9]+")

# What may follow an equal beginning, from older to newer.
_TILDE: Rank = (0, 0, "")
_END: Rank = (1, 0, "")
_CARET: Rank = (2, 0, "")
_ALPHABETIC = 3
_NUMERIC = 4
_TEXT = 5  # in a name, where digits come first as in ASCII


def version_key(version: str) -> Ranks:
    """A key that sorts as rpmvercmp() of rpm >= 4.15; equal for versions that only differ in separators."""
    return (*map(_rank, _SEGMENT.findall(version)), _END)


def evr_key(epoch: str, version: str, release: str) -> tuple[Ranks, Ranks, Ranks]:
    """A key that sorts packages of one name from older to newer; no epoch is 0 (rpmVersionCompare())."""
    return version_key(epoch or "0"), version_key(version), version_key(release)


def filename_key(filename: str) -> tuple[Ranks, Ranks, Ranks, str]:
    """A key that sorts files by name, those of one package from older to newer.

    Names are ordered as people count (`python3.9` before `python3.10`) and without regard to case;
    a file that is not called name-version-release.arch.rpm is ordered by its whole name.
    """
    package = _split(filename)
    if package is None:
        return _natural_key(filename), (), (), filename
    name, version, release = package
    return _natural_key(name), version_key(version), version_key(release), filename


def _split(filename: str) -> tuple[str, str, str] | None:
    nvra, dot, extension = filename.rpartition(".")
    nvr, arch_dot, arch = nvra.rpartition(".")
    parts = nvr.rsplit("-", 2)
    if extension != "rpm" or not (dot and arch_dot and arch) or len(parts) != 3 or not all(parts):
        return None
    return parts[0], parts[1], parts[2]


def _rank(segment: str) -> Rank:
    if segment == "~":
        return _TILDE
    if segment == "^":
        return _CARET
    return _number(segment) if segment.isdecimal() else (_ALPHABETIC, 0, segment)


def _number(digits: str) -> Rank:
    # Length before digits orders as int() would, which refuses more than 4300 digits.
    significant = digits.lstrip("0")
    return _NUMERIC, len(significant), significant


def _natural_key(name: str) -> Ranks:
    runs = _DIGITS_OR_TEXT.findall(name.casefold())
    return tuple(_number(run) if "0" <= run[0] <= "9" else (_TEXT, 0, run) for run in runs)
