"""Which packages a name, a NEVRA, a file name or a pattern means."""

from __future__ import annotations

import difflib
import fnmatch
import re
from collections.abc import Callable, Iterable

from repowatch.model.package import Entry, Nevra
from repowatch.model.versions import evr_key


def matcher(pattern: str) -> Callable[[Entry], bool]:
    """Whether a package is meant by a pattern as of fnmatch(3), or by any of the names that people use."""
    if not any(each in pattern for each in "*?["):
        return lambda entry: _is_called(entry, pattern)
    matches = re.compile(fnmatch.translate(pattern)).match
    return lambda entry: bool(
        matches(entry.location_href.rpartition("/")[2])
        or matches(str(entry.nevra))
        or matches(entry.location_href)
    )


def _is_called(entry: Entry, asked: str) -> bool:
    if asked in entry.location_href and asked in (
        entry.location_href,
        entry.location_href.rpartition("/")[2],
    ):
        return True
    return asked.startswith(entry.nevra.name) and asked in _forms(entry.nevra)


def _forms(nevra: Nevra) -> tuple[str, ...]:
    """All that people call a package, with and without epoch and architecture."""
    plain = f"{nevra.name}-{nevra.version}-{nevra.release}"
    full = f"{nevra.name}-{nevra.epoch or 0}:{nevra.version}-{nevra.release}"
    arch = nevra.arch
    return nevra.name, f"{nevra.name}.{arch}", plain, f"{plain}.{arch}", full, f"{full}.{arch}"


def nearest(asked: str, entries: Iterable[Entry], *, most: int = 3) -> list[str]:
    """What there is that is called most like it: names, and NEVRAs of those whose name begins so."""
    entries = list(entries)
    names = {entry.nevra.name for entry in entries}
    close = difflib.get_close_matches(asked, names, most)
    close += [str(entry.nevra) for entry in entries if asked.startswith(f"{entry.nevra.name}-")]
    return list(dict.fromkeys(close))[:most]


def newest(entries: Iterable[Entry]) -> list[Entry]:
    """Of each name and architecture the newest, in rpm's order; all files of it where there are several."""
    best: dict[tuple[str, str], list[Entry]] = {}
    for entry in entries:
        nevra = entry.nevra
        rank = evr_key(nevra.epoch, nevra.version, nevra.release)
        others = best.get((nevra.name, nevra.arch))
        if others is None or rank > _rank(others[0]):
            best[nevra.name, nevra.arch] = [entry]
        elif rank == _rank(others[0]):
            others.append(entry)
    return [entry for each in best.values() for entry in each]


def _rank(entry: Entry) -> tuple[object, ...]:
    return evr_key(entry.nevra.epoch, entry.nevra.version, entry.nevra.release)
