"""An operation is found, done and answered, or refused with a reason and a status."""

from __future__ import annotations

import errno
import io
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from repowatch.errors import Conflict, Forbidden, Misunderstood, Nameless, RepowatchError
from repowatch.web.operations import MOST_TEXTS, Asked, flag, perform, text, texts
from repowatch.web.served import Asker, Operation, Served
from tests.kit.served import serve

Run = Callable[[dict[str, Any], Asker], dict[str, Any]]

ASKER = Asker(
    "anna",
    "basic",
    may_read=lambda name: None,
    may_write=lambda name: None,
    may_delete=lambda name: None,
)


def offering(root: Path, run: Run, *, reads: str | None = None) -> Served:
    operation = Operation(run, takes=frozenset({"name", "from", "dry_run"}), reads=reads)
    return replace(serve(root), name="a b", operations={"do": operation})


def ask(
    repository: Served, body: bytes, *, readable: str = "", done: list[Any] | None = None
) -> tuple[int, str]:
    asked = Asked.of("/-/api/v1/a b/do", [repository])
    assert asked is not None
    told: list[str] = []

    def start(status: str, headers: Any, exc_info: Any = None, /) -> Callable[[bytes], object]:
        told.append(status)
        return io.BytesIO().write

    environ = {
        "REQUEST_METHOD": "POST",
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.input": io.BytesIO(body),
        "REMOTE_USER": "anna",
    }
    answer = perform(
        asked,
        environ,
        start,
        asker=ASKER,
        may_read=lambda name: name == readable,
        done=lambda *what: done.append(what) if done is not None else None,
    )
    return int(told[0].split()[0]), b"".join(answer).decode()


def echo(arguments: dict[str, Any], asker: Asker) -> dict[str, Any]:
    return {"got": arguments, "who": asker.name}


@pytest.mark.parametrize("path", ["/-/api/v1/a b", "/-/api/v1/a b/undo", "/-/api/v1/b/do", "/a b/do", "/"])
def test_what_is_no_operation_is_none(tmp_path: Path, path: str) -> None:
    assert Asked.of(path, [offering(tmp_path, echo)]) is None


def test_an_operation_gets_arguments_and_who_asks_and_what_it_tells_is_the_answer(tmp_path: Path) -> None:
    status, said = ask(offering(tmp_path, echo), b'{"name": "x"}')
    assert (status, json.loads(said)) == (200, {"got": {"name": "x"}, "who": "anna"})
    assert json.loads(ask(offering(tmp_path, echo), b"")[1])["got"] == {}


def test_an_argument_that_is_not_known_is_refused_before_anything_is_done(tmp_path: Path) -> None:
    done: list[Any] = []
    status, told = ask(offering(tmp_path, echo), b'{"name": "x", "dry-run": true}', done=done)
    assert (status, done) == (400, [])
    assert told == '"dry-run" is no argument of do, which takes dry_run, from, name\n'


def test_nothing_is_done_that_could_not_be_recorded_for_its_depth(tmp_path: Path) -> None:
    """Near the limit of recursion JSON can be read that can not be written by whoever stands deeper."""
    done: list[Any] = []
    for depth in range(800, 1000):
        body = b'{"name": "x", "z": %b%b}' % (b"[" * depth, b"]" * depth)
        assert ask(offering(tmp_path, echo), body, done=done)[0] == 400
    assert done == []


def test_what_was_sent_adds_no_line_to_a_refusal(tmp_path: Path) -> None:
    def refuse(arguments: dict[str, Any], asker: Asker) -> dict[str, Any]:
        raise Nameless(f"there is no {arguments['name']}")

    body = json.dumps({"name": "a\nb\ud800\x1b"}).encode()
    assert ask(offering(tmp_path, refuse), body) == (404, "there is no a\\nb\\ud800\\x1b\n")


@pytest.mark.parametrize(
    ("body", "said"),
    [(b"{", "no JSON"), (b"[]", "no JSON object"), (b'"a"', "no JSON object"), (b"\xff", "no JSON")],
)
def test_a_body_that_is_no_object_is_refused(tmp_path: Path, body: bytes, said: str) -> None:
    status, told = ask(offering(tmp_path, echo), body)
    assert status == 400
    assert said in told
    assert ask(offering(tmp_path, echo), b"[" * 100_000)[0] in (400, 413)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Nameless("no such thing"), 404),
        (Misunderstood("say it so"), 400),
        (Conflict("not now"), 409),
        (Forbidden("not you"), 403),
        (RepowatchError("out of order"), 503),
    ],
)
def test_a_refusal_is_a_line_with_its_status_and_nothing_is_recorded(
    tmp_path: Path, error: RepowatchError, status: int
) -> None:
    def refuse(arguments: dict[str, Any], asker: Asker) -> dict[str, Any]:
        raise error

    done: list[Any] = []
    assert ask(offering(tmp_path, refuse), b"", done=done) == (status, f"{error}\n")
    assert done == []


@pytest.mark.parametrize(("number", "status"), [(errno.ENOSPC, 507), (errno.EDQUOT, 507), (errno.EIO, 503)])
def test_a_disk_that_fails_is_told_in_plain_words(tmp_path: Path, number: int, status: int) -> None:
    def fail(arguments: dict[str, Any], asker: Asker) -> dict[str, Any]:
        raise OSError(number, os.strerror(number))

    found, told = ask(offering(tmp_path, fail), b"")
    assert found == status
    assert told.startswith(f"{os.strerror(number).lower()}; nothing is known to be changed")


def test_another_repository_has_to_be_readable(tmp_path: Path) -> None:
    repository = offering(tmp_path, echo, reads="from")
    assert ask(repository, b'{"from": "testing"}', readable="testing")[0] == 200
    assert ask(repository, b'{"from": "secret"}', readable="testing") == (
        404,
        "there is no repository secret\n",
    )
    assert ask(repository, b"{}")[0] == 400


def test_what_was_done_is_recorded_with_its_arguments(tmp_path: Path) -> None:
    done: list[Any] = []
    ask(offering(tmp_path, echo), b'{"name": "x"}', done=done)
    [(arguments, *_)] = done
    assert arguments == {"name": "x"}


@pytest.mark.parametrize("value", [None, "", 1, ["a"], {}])
def test_an_argument_that_is_no_text_is_refused(value: object) -> None:
    assert text({"name": "x"}, "name") == "x"
    with pytest.raises(Misunderstood, match='"name" is missing; send it as text'):
        text({} if value is None else {"name": value}, "name")


@pytest.mark.parametrize("value", [None, "a", [], [1], ["a", None]])
def test_an_argument_that_is_no_list_of_texts_is_refused(value: object) -> None:
    assert list(texts({"names": ["x", "y"]}, "names")) == ["x", "y"]
    with pytest.raises(Misunderstood, match="send it as a list of texts"):
        texts({"names": value}, "names")


def test_a_list_of_texts_has_an_end() -> None:
    assert len(texts({"names": ["x"] * MOST_TEXTS}, "names")) == MOST_TEXTS
    with pytest.raises(Misunderstood, match="send at most 1000 at once"):
        texts({"names": ["x"] * (MOST_TEXTS + 1)}, "names")


@pytest.mark.parametrize("value", [1, "true", None, []])
def test_a_flag_is_true_or_false_and_nothing_else(value: object) -> None:
    assert flag({"copy": True}, "copy")
    assert not flag({}, "copy")
    with pytest.raises(Misunderstood, match='"copy" is neither true nor false'):
        flag({"copy": value}, "copy")
