"""The daemon's log on standard error: for people, for the journal, or as lines of JSON."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

# The first that the level reaches: sd-daemon(3), syslog(3).
_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
_DEBUG = 7


def set_up(*, verbose: bool = False, as_json: bool = False) -> None:
    """Log to standard error from now on, in the place of what an earlier call has set up."""
    handler = _StandardError()
    handler.setFormatter(JsonLines() if as_json else TextLines(with_priority=is_journal(2)))
    root = logging.getLogger()
    for each in list(root.handlers):
        if isinstance(each, _StandardError):
            root.removeHandler(each)
    root.addHandler(handler)
    root.setLevel(logging.DEBUG if verbose else logging.INFO)


def is_json() -> bool:
    """Whether `set_up` was asked for JSON."""
    handlers = [each for each in logging.getLogger().handlers if isinstance(each, _StandardError)]
    return any(isinstance(each.formatter, JsonLines) for each in handlers)


def is_journal(descriptor: int) -> bool:
    """Whether a descriptor leads into the journal, as JOURNAL_STREAM of systemd.exec(5) tells."""
    try:
        status = os.fstat(descriptor)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def printable(text: str) -> str:
    """Text whose control characters, and all that a terminal would act on, are escaped as in Python."""
    return text if text.isprintable() else "".join(_shown(each) for each in text)


class TextLines(logging.Formatter):
    """A message as lines for people, of which nobody who is named in it can add one.

    Text that comes from elsewhere (the arguments) stays within its line. Errors and tracebacks may have
    several lines: all but the first are indented.
    """

    def __init__(self, *, with_priority: bool) -> None:
        """`with_priority`: each line begins with `<N>` (sd-daemon(3)), by which the journal sorts."""
        super().__init__()
        self._with_priority = with_priority

    def format(self, record: logging.LogRecord) -> str:
        text = _message(record, shown=printable)
        for more in (self._traceback(record), record.stack_info):
            text += f"\n{more}" if more else ""
        first, *others = map(printable, text.split("\n"))
        lines = [first, *(f"  {each}" for each in others)]
        prefix = f"<{_priority(record.levelno)}>" if self._with_priority else ""
        return "\n".join(f"{prefix}{each}" for each in lines)

    def _traceback(self, record: logging.LogRecord) -> str:
        return self.formatException(record.exc_info) if record.exc_info else ""


class JsonLines(logging.Formatter):
    """A message as one line of JSON: time (RFC 3339), level, logger, message, and the fields of the message.

    A message that is written with names, as `log.info("%(repository)s: ...", {...})`, has these as fields.
    It is ASCII, so that no character can end the line or drive a terminal.
    """

    def format(self, record: logging.LogRecord) -> str:
        row: dict[str, Any] = dict(record.args) if isinstance(record.args, Mapping) else {}
        row |= {
            "time": _rfc3339(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _message(record, shown=str),
        }
        if record.exc_info:
            row["traceback"] = self.formatException(record.exc_info)
        return json.dumps(row, default=str)


class _StandardError(logging.Handler):
    """Writes each message at once, so that those of several threads do not mix."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            sys.stderr.write(f"{self.format(record)}\n")
            sys.stderr.flush()
        except Exception:
            self.handleError(record)


def _message(record: logging.LogRecord, *, shown: Any) -> str:
    """The message with its arguments; `shown` makes text of those that are text."""
    arguments: Any = record.args
    if isinstance(arguments, Mapping):
        arguments = {key: shown(each) if isinstance(each, str) else each for key, each in arguments.items()}
    elif arguments:
        arguments = tuple(shown(each) if isinstance(each, str) else each for each in arguments)
    return str(record.msg) % arguments if arguments else str(record.msg)


def _shown(character: str) -> str:
    return character if character.isprintable() else ascii(character)[1:-1]


def _priority(level: int) -> int:
    return next((number for reached, number in _PRIORITIES if level >= reached), _DEBUG)


def _rfc3339(at: float) -> str:
    """A time in UTC with milliseconds."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
