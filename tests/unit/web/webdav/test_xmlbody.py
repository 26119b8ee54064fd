"""The XML of requests: what is too large, too deep, or a bomb is refused."""

from __future__ import annotations

import io

import pytest

from repowatch.web.uploads import Refusal
from repowatch.web.webdav.xmlbody import MOST_BODY, MOST_DEPTH, document, read_body

BOMB = (
    '<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>'
    "<l>&b;</l>"
)


def test_a_body_is_read_whole() -> None:
    assert read_body({"wsgi.input": io.BytesIO(b"x" * MOST_BODY)}) == b"x" * MOST_BODY


@pytest.mark.parametrize("length", [str(MOST_BODY + 1), None])
def test_a_body_that_is_too_large_is_refused_with_or_without_a_length(length: str | None) -> None:
    stream = io.BytesIO(b"x" * (10 * MOST_BODY))
    with pytest.raises(Refusal) as refusal:
        read_body({"wsgi.input": stream, "CONTENT_LENGTH": length or ""})
    assert refusal.value.status == 413
    assert stream.tell() == (0 if length else MOST_BODY + 1)


@pytest.mark.parametrize(
    "body",
    [
        BOMB,
        '<!DOCTYPE l SYSTEM "file:///etc/passwd"><l/>',
        '<!DOCTYPE l [<!ENTITY e SYSTEM "file:///etc/passwd">]><l>&e;</l>',
        "<l>",
        "no XML",
        '<?xml version="1.0" encoding="none-such"?><l/>',
        '<?xml version="1.0" encoding="idna"?><l/>',
        "<l>" * (MOST_DEPTH + 1) + "</l>" * (MOST_DEPTH + 1),
    ],
)
def test_what_is_no_plain_document_is_refused(body: str) -> None:
    with pytest.raises(Refusal) as refusal:
        document(body.encode())
    assert refusal.value.status == 400


def test_elements_may_lie_in_each_other_to_a_depth() -> None:
    assert document(b"<l>" * MOST_DEPTH + b"</l>" * MOST_DEPTH).tag == "l"
