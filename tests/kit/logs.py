"""Reads an access log in the combined format, strictly, as programs that make statistics do."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_LINE = re.compile(
    r"(?P<address>\S+) - (?P<user>\S+) \[\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\] "
    r'"(?P<request>[^"]*)" (?P<status>\d{3}) (?P<sent>\d+|-) "(?P<referer>[^"]*)" "(?P<agent>[^"]*)"'
)


@dataclass(frozen=True, slots=True)
class Line:
    """One request."""

    address: str
    user: str
    request: str
    status: int
    sent: int  # bytes
    referer: str
    agent: str


def read_log(*paths: Path) -> list[Line]:
    """The requests in one log or several. Raises AssertionError for a line that is not whole.

    What follows the last line end is not a line yet: several lines go out in one write, which a reader may
    see the first part of.
    """
    return [_parsed(line) for path in paths for line in path.read_text("ascii").split("\n")[:-1]]


def _parsed(line: str) -> Line:
    match = _LINE.fullmatch(line)
    assert match, line
    sent = 0 if match["sent"] == "-" else int(match["sent"])
    return Line(
        match["address"],
        match["user"],
        match["request"],
        int(match["status"]),
        sent,
        match["referer"],
        match["agent"],
    )
