"""Which requests a browser was made to send by a page of another site."""

from __future__ import annotations

import pytest

from repowatch.web.rights.origins import is_foreign

CHANGES = ["POST", "PUT", "DELETE", "MKCOL", "MOVE", "COPY", "PROPPATCH", "LOCK", "UNLOCK", "PATCH"]


@pytest.mark.parametrize("method", CHANGES)
def test_a_page_of_another_site_changes_nothing(method: str) -> None:
    assert is_foreign(method, {"sec-fetch-site": "cross-site"})
    assert is_foreign(method, {"host": "rpm.example.org", "origin": "http://evil.example.org"})


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PROPFIND"])
def test_a_page_of_another_site_may_lead_here(method: str) -> None:
    assert not is_foreign(method, {"sec-fetch-site": "cross-site", "origin": "null"})


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"host": "rpm.example.org"},
        {"sec-fetch-site": "same-origin", "host": "behind.a.proxy", "origin": "https://rpm.example.org"},
        {"sec-fetch-site": "none"},
        {"host": "rpm.example.org:8080", "origin": "http://rpm.example.org:8080"},
        {"host": "RPM.example.org", "origin": "https://rpm.EXAMPLE.org"},
    ],
)
def test_programs_and_our_own_pages_do_as_they_may(fields: dict[str, str]) -> None:
    assert not is_foreign("POST", fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"sec-fetch-site": "same-site"},  # whoever has another name below example.org
        {"sec-fetch-site": ""},
        {"sec-fetch-site": "same-origin, cross-site"},
        {"host": "rpm.example.org", "origin": "null"},
        {"origin": "null"},
        {"host": "rpm.example.org", "origin": "http://rpm.example.org:81"},
        {"host": "rpm.example.org", "origin": "http://["},
        {"host": "rpm.example.org", "origin": ""},
        {"host": "", "origin": ""},
    ],
)
def test_what_is_not_surely_ours_is_not(fields: dict[str, str]) -> None:
    assert is_foreign("POST", fields)
