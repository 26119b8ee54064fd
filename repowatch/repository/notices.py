"""What is told of packages that are listed all the same: twins, odd signatures, replacements by file."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from repowatch.model.package import Entry
from repowatch.model.twins import Duplicate
from repowatch.repository.history import FILE, Event

log = logging.getLogger(__name__)

KEPT = 20  # replacements that are told
TOLD = 200  # of one kind in the status
LINES = 5  # of one kind in the log for one publication

Changes = Iterable[tuple[Entry | None, Entry | None]]


@dataclass(frozen=True, slots=True)
class Replaced:
    """A listed file that became another one without asking, where uploads may not do so."""

    location: str
    nevra: str  # of what is listed now
    at: float  # seconds since 1970


class Notices:
    """Of one repository. Written by the updater's thread; values that others read are replaced whole."""

    def __init__(self, name: str, *, may_replace: bool) -> None:
        """`name` is the repository's, for the log; `may_replace`: whether uploads may."""
        self.replaced: tuple[Replaced, ...] = ()  # the newest first
        self.replacements = 0  # since the start
        self._name = name
        self._may_replace = may_replace

    def load(self, events: Iterable[Event]) -> None:
        """Go on from what the history knows."""
        if not self._may_replace:
            known = [each for each in events if each.change == "replaced" and each.how == FILE]
            self.replaced = tuple(Replaced(each.location, each.nevra, each.at) for each in known[:KEPT])

    def published(self, changes: Changes, *, came: Collection[str], at: float) -> None:
        """Tell of what a publication changed, as (before, after); `came`: the names that clients changed."""
        fresh = [
            (before, after)
            for before, after in changes
            if after is not None and (before is None or before.pkgid != after.pkgid)
        ]
        hinted = [f"{each.location_href}: {each.hint}" for _, each in fresh if each.hint]
        self._say(logging.INFO, hinted, "such packages")
        if self._may_replace:
            return
        quietly = [each for before, each in fresh if before and each.location_href not in came]
        if quietly:
            self.replacements += len(quietly)
            told = [Replaced(each.location_href, str(each.nevra), at) for each in quietly]
            self.replaced = (*told, *self.replaced)[:KEPT]
        lines = [
            f"{each.location_href} was replaced by file, though `replace: deny`; the new content is listed"
            for each in quietly
        ]
        self._say(logging.WARNING, lines, "replaced files")

    def twins(self, duplicates: Sequence[Duplicate]) -> None:
        """Tell of packages that are there several times."""
        lines = [
            f"{each.nevra} is in several files, and all are listed: {', '.join(each.locations)}"
            for each in duplicates
            if len(each.listed) == len(each.locations)
        ]
        self._say(logging.WARNING, lines, "packages that are there several times")

    def status(self, *, duplicates: Sequence[Duplicate], hinted: Sequence[Entry]) -> dict[str, Any]:
        """For the JSON status: the first of each kind, and of those that may be many, how many there are."""
        return {
            "duplicated": len(duplicates),
            "duplicates": [
                {"nevra": str(each.nevra), "locations": each.locations, "listed": each.listed}
                for each in duplicates[:TOLD]
            ],
            "hinted": len(hinted),
            "hints": [{"location": each.location_href, "hint": each.hint} for each in hinted[:TOLD]],
            "replaced": [asdict(each) for each in self.replaced],
        }

    def _say(self, level: int, lines: Sequence[str], what: str) -> None:
        for line in lines[:LINES]:
            log.log(level, "%s: %s", self._name, line)
        if len(lines) > LINES:
            log.log(level, "%s: and %d more %s; the status shows more", self._name, len(lines) - LINES, what)
