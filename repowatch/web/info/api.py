"""The JSON interface below `/-/api/v1/`: what is asked in a query, and which packages that means."""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from repowatch.errors import RepowatchError
from repowatch.model.called import matcher
from repowatch.model.digests import checksum_type
from repowatch.model.package import Entry
from repowatch.model.publication import Publication
from repowatch.web.http.wire import Wait
from repowatch.web.openings import Unserved
from repowatch.web.served import Served

ROOT = "/-/api/v1/"
STATUS = f"{ROOT}status"

LONGEST_WAIT = 60.0  # seconds
MOST_FOUND = 200  # packages that one answer names
LONGEST_PATTERN = 200  # characters

_DAY = 86400.0  # seconds
_PARAMETERS = frozenset({"after", "wait", "match", "days"})


class BadQuery(RepowatchError):
    """A query that can not be understood."""


@dataclass(frozen=True, slots=True)
class Query:
    """What a request asks of one repository."""

    after: int | None = None  # a revision
    wait: float = 0.0  # seconds, for a publication after it
    match: str = ""  # a pattern as of fnmatch(3), a name or a NEVRA; "" is everything
    days: float | None = None  # since the file was last modified

    @property
    def is_search(self) -> bool:
        return bool(self.match) or self.days is not None

    @classmethod
    def of(cls, text: str) -> Query:
        """What the query of a URL says; what is left empty is not asked. Raises BadQuery."""
        try:
            said = dict(parse_qsl(text, max_num_fields=16, errors="surrogateescape"))
        except ValueError:
            raise BadQuery("the query has too many fields") from None
        if unknown := sorted(said.keys() - _PARAMETERS):
            asked = unknown[0][:40].encode("ascii", "backslashreplace").decode()
            raise BadQuery(f"{asked} can not be asked; {', '.join(sorted(_PARAMETERS))} can")
        if len(said.get("match", "")) > LONGEST_PATTERN:
            raise BadQuery(f"match is longer than {LONGEST_PATTERN} characters")
        after, wait, days = (_number(said, key) for key in ("after", "wait", "days"))
        return cls(
            after=None if after is None else int(after),
            wait=min(wait or 0.0, LONGEST_WAIT),
            match=said.get("match", ""),
            days=days,
        )


def _number(said: dict[str, str], key: str) -> float | None:
    if key not in said:
        return None
    text = said[key]
    pattern = r"[0-9]{1,18}" if key == "after" else r"[0-9]{1,9}(\.[0-9]{1,9})?"
    if not re.fullmatch(pattern, text):
        raise BadQuery(f"{key} is no number; write it like {key}=7")
    return float(text) if key != "after" else int(text)


def wait_for(repository: Served, query: Query) -> Wait | None:
    """What the answer to a query waits for; None where it can be given at once."""
    after = query.after
    if after is None or query.wait <= 0:
        return None

    def is_over() -> bool:
        publication = repository.publication()
        return publication is not None and publication.revision > after

    return None if is_over() else Wait(is_over, query.wait)


def status(
    repositories: Sequence[Served], *, version: str, unserved: Sequence[Unserved] = ()
) -> dict[str, Any]:
    """The JSON status: what `repowatch status` shows."""
    return {
        "version": version,
        "repositories": [repository.status() for repository in repositories],
        "not_served": [{"path": each.path, "reason": each.reason} for each in unserved],
    }


def about(repository: Served, query: Query, *, version: str, now: float) -> dict[str, Any]:
    """What is told of one repository; `now` in seconds since 1970."""
    # The publication is looked at before the status, whose revision is then the same or a newer one.
    publication = repository.publication()
    told = {"version": version, **repository.status()}
    if query.is_search:
        if publication:
            told["revision"] = min(told["revision"], publication.revision)
        told["found"] = [row(entry) for entry in found(publication, query, now=now)]
    return told


def row(entry: Entry) -> dict[str, Any]:
    """A listed package."""
    return {
        "location": entry.location_href,
        "nevra": str(entry.nevra),
        "size": entry.stamp.size,
        "modified_at": entry.stamp.mtime_ns / 1e9,
        checksum_type(entry.pkgid): entry.pkgid,
    }


def found(publication: Publication | None, query: Query, *, now: float) -> list[Entry]:
    """The packages that match, those whose files were modified last first; at most MOST_FOUND."""
    if publication is None:
        return []
    entries: Iterable[Entry] = publication.entries.values()
    if query.days is not None:
        since = (now - query.days * _DAY) * 1e9
        entries = (entry for entry in entries if entry.stamp.mtime_ns >= since)
    if query.match:
        entries = filter(matcher(query.match), entries)
    return heapq.nlargest(MOST_FOUND, entries, key=lambda entry: entry.stamp.mtime_ns)
