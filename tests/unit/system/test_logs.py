"""Each message is told whole, and nobody who is named in one can write another."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from repowatch.system import logs
from repowatch.system.logs import JsonLines, TextLines, is_journal, printable

FORGED = "a\nrpm: revision 7: 0 packages\r\x1b[2J\x85\u2028\u202e\udc80.rpm"


def record(
    message: str, *arguments: object, level: int = logging.INFO, error: BaseException | None = None
) -> logging.LogRecord:
    information = (type(error), error, error.__traceback__) if error else None
    return logging.LogRecord("repowatch.test", level, __file__, 1, message, arguments, information)


def raised(text: str) -> Exception:
    try:
        raise ValueError(text)
    except ValueError as error:
        return error


@pytest.fixture
def restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture(params=[TextLines(with_priority=False), JsonLines()], ids=["text", "json"])
def formatter(request: pytest.FixtureRequest) -> logging.Formatter:
    found: logging.Formatter = request.param
    return found


def test_a_name_in_a_message_stays_within_its_line(formatter: logging.Formatter) -> None:
    for each in (record("%s: not listed", FORGED), record("%(location)s: not listed", {"location": FORGED})):
        text = formatter.format(each)
        assert text.isprintable()
        assert text.isascii() or isinstance(formatter, TextLines)


def test_an_error_may_have_lines_but_none_that_looks_like_a_message() -> None:
    text = TextLines(with_priority=False).format(record("refused:\n%s", ValueError(FORGED)))
    first, *others = text.split("\n")
    assert first == "refused:"
    assert len(others) == 2
    assert all(each.startswith("  ") and each.isprintable() for each in others)


def test_a_traceback_is_indented_and_can_not_forge_a_message_either() -> None:
    text = TextLines(with_priority=True).format(record("odd", level=logging.ERROR, error=raised(FORGED)))
    first, *others = text.split("\n")
    assert first == "<3>odd"
    assert "<3>  Traceback (most recent call last):" in others
    assert all(each.startswith("<3>  ") for each in others)


@pytest.mark.parametrize(
    ("level", "priority"),
    [
        (logging.CRITICAL, 2),
        (logging.ERROR, 3),
        (logging.WARNING, 4),
        (logging.INFO, 6),
        (logging.DEBUG, 7),
        (logging.WARNING + 5, 4),
    ],
)
def test_each_line_tells_the_journal_its_priority(level: int, priority: int) -> None:
    text = TextLines(with_priority=True).format(record("one\ntwo %d", 2, level=level))
    assert text == f"<{priority}>one\n<{priority}>  two 2"


def test_a_line_of_json_has_the_fields_of_its_message() -> None:
    line = JsonLines().format(
        record(
            "%(repository)s: revision %(revision)d, %(ms).0f ms",
            {"repository": "rpm", "revision": 7, "ms": 1.5, "level": "forged"},
            level=logging.WARNING,
        )
    )
    row = json.loads(line)
    assert row.pop("time").endswith("Z")
    assert row == {
        "level": "warning",
        "logger": "repowatch.test",
        "message": "rpm: revision 7, 2 ms",
        "repository": "rpm",
        "revision": 7,
        "ms": 1.5,
    }


def test_a_name_comes_back_from_json_as_it_is() -> None:
    line = JsonLines().format(record("%(location)s", {"location": FORGED}, error=raised("it")))
    row = json.loads(line)
    assert row["location"] == row["message"] == FORGED
    assert row["traceback"].endswith("ValueError: it")


def test_a_percent_sign_without_arguments_is_one(formatter: logging.Formatter) -> None:
    assert "100%s" in formatter.format(record("100%s"))


def test_what_can_be_shown_is_shown_as_it_is() -> None:
    assert printable("naïve 😀 \\") == "naïve 😀 \\"
    assert printable("\x00\t\udcff") == "\\x00\\t\\udcff"


def test_the_journal_is_known_by_its_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open(tmp_path / "stream", "w") as stream, open(tmp_path / "other", "w") as other:
        status = os.fstat(stream.fileno())
        assert not is_journal(stream.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        assert is_journal(stream.fileno())
        assert not is_journal(other.fileno())
    assert not is_journal(10**6)


@pytest.mark.usefixtures("restored")
def test_setting_up_again_does_not_tell_twice(capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up()
    assert not logs.is_json()
    logs.set_up(as_json=True, verbose=True)
    assert logs.is_json()
    logging.getLogger("repowatch.test").debug("once")
    [line] = capsys.readouterr().err.splitlines()
    assert json.loads(line)["message"] == "once"
