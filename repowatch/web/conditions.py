"""Decides conditional requests (RFC 9110 section 13): header fields in, a verdict out."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from http import HTTPStatus
from typing import Any

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

_DAY = f"(?:{'|'.join(_DAYS)})"
_LONG_DAY = "(?:Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday)"
_MONTH = f"(?P<month>{'|'.join(_MONTHS)})"
_TIME = "(?P<hour>[0-9]{2}):(?P<minute>[0-9]{2}):(?P<second>[0-9]{2})"
_DATE_FORMS = (
    re.compile(f"{_DAY}, (?P<day>[0-9]{{2}}) {_MONTH} (?P<year>[0-9]{{4}}) {_TIME} GMT"),
    re.compile(f"{_LONG_DAY}, (?P<day>[0-9]{{2}})-{_MONTH}-(?P<year>[0-9]{{2}}) {_TIME} GMT"),
    re.compile(f"{_DAY} {_MONTH} (?P<day>[0-9 ][0-9]) {_TIME} (?P<year>[0-9]{{4}})"),
)

# Wider than the grammar inside the quotes, so that one odd tag does not shift the quotes of the next.
_ENTITY_TAG = re.compile(r'(W/)?"([^"]*)"')

_END_OF_9999 = 253402300799


@dataclass(frozen=True, slots=True)
class Conditions:
    """The precondition fields of one request as they were sent, None where absent."""

    if_match: str | None = None
    if_unmodified_since: str | None = None
    if_none_match: str | None = None
    if_modified_since: str | None = None

    @classmethod
    def of(cls, environ: Mapping[str, Any]) -> Conditions:
        """The conditions in a WSGI environment."""
        get = environ.get
        return cls(
            get("HTTP_IF_MATCH"),
            get("HTTP_IF_UNMODIFIED_SINCE"),
            get("HTTP_IF_NONE_MATCH"),
            get("HTTP_IF_MODIFIED_SINCE"),
        )

    def names(self) -> list[str]:
        """The fields that were sent."""
        sent = {
            "If-Match": self.if_match,
            "If-Unmodified-Since": self.if_unmodified_since,
            "If-None-Match": self.if_none_match,
            "If-Modified-Since": self.if_modified_since,
        }
        return [name for name, value in sent.items() if value is not None]


def evaluate(
    conditions: Conditions, *, method: str, exists: bool, etag: str | None, last_modified: float | None
) -> HTTPStatus | None:
    """None to go on, else 304 or 412, in the precedence of RFC 9110 section 13.2.2.

    `etag` is the strong tag of the target as it is now, without quotes; `last_modified` is in seconds
    since 1970 and counts in whole ones. A date is ignored where it is invalid or the target has none.
    """
    reads = method in ("GET", "HEAD")
    if conditions.if_match is not None:
        if not _matches(conditions.if_match, exists=exists, etag=etag, weakly=False):
            return HTTPStatus.PRECONDITION_FAILED
    elif _modified_since(conditions.if_unmodified_since, last_modified) is True:
        return HTTPStatus.PRECONDITION_FAILED

    if conditions.if_none_match is not None:
        if _matches(conditions.if_none_match, exists=exists, etag=etag, weakly=True):
            return HTTPStatus.NOT_MODIFIED if reads else HTTPStatus.PRECONDITION_FAILED
    elif reads and _modified_since(conditions.if_modified_since, last_modified) is False:
        return HTTPStatus.NOT_MODIFIED
    return None


def if_range_holds(field: str | None, *, etag: str, last_modified: float | None) -> bool:
    """Whether Range is to be obeyed (RFC 9110 section 13.1.5): a strong match, or exactly the same date."""
    if field is None:
        return True
    if field.startswith(('"', "W/")):
        return field == f'"{etag}"'
    return last_modified is not None and parse_http_date(field) == math.floor(last_modified)


def modification_time(mtime_ns: int, *, now: float) -> int | None:
    """The time for Last-Modified in whole seconds since 1970; None where HTTP has no date for it.

    Never later than `now` (RFC 9110 section 8.8.2.1).
    """
    seconds = min(mtime_ns // 1_000_000_000, int(now))
    return seconds if 0 <= seconds <= _END_OF_9999 else None


@lru_cache(maxsize=4096)
def http_date(seconds: int) -> str:
    """`seconds` since 1970 as an IMF-fixdate (RFC 9110 section 5.6.7)."""
    year, month, day, hour, minute, second, weekday, *_ = time.gmtime(seconds)
    return f"{_DAYS[weekday]}, {day:02} {_MONTHS[month - 1]} {year:04} {hour:02}:{minute:02}:{second:02} GMT"


def parse_http_date(text: str) -> int | None:
    """Seconds since 1970 of a date in one of HTTP's three forms (RFC 9110 section 5.6.7), else None."""
    match = next(filter(None, (form.fullmatch(text) for form in _DATE_FORMS)), None)
    if match is None:
        return None
    second = int(match["second"])
    year = int(match["year"]) if len(match["year"]) == 4 else _full_year(int(match["year"]))
    month = _MONTHS.index(match["month"]) + 1
    try:
        minute = datetime(
            year, month, int(match["day"]), int(match["hour"]), int(match["minute"]), tzinfo=UTC
        )
    except ValueError:
        return None
    return int(minute.timestamp()) + second if second <= 60 else None


def _full_year(two_digits: int) -> int:
    """The year that ends so and is not more than 50 years ahead."""
    latest = time.gmtime().tm_year + 50
    return latest - (latest - two_digits) % 100


def _matches(field: str, *, exists: bool, etag: str | None, weakly: bool) -> bool:
    if field.strip() == "*":
        return exists
    return any(tag == etag and (weakly or not weak) for weak, tag in _ENTITY_TAG.findall(field))


def _modified_since(field: str | None, last_modified: float | None) -> bool | None:
    """Whether the target was changed after the date in `field`; None where there is no telling."""
    if field is None or last_modified is None:
        return None
    date = parse_http_date(field)
    return None if date is None else math.floor(last_modified) > date
