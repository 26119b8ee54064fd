"""Which requests a browser was made to send by a page of another site."""

from __future__ import annotations

import pytest

from repowatch.web.rights.origins import is_foreign, is_rebound

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


BROWSER = {"sec-fetch-site": "same-origin"}


@pytest.mark.parametrize("method", CHANGES)
@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "127.9.9.9"])
def test_a_name_that_leads_here_makes_no_page_ours(method: str, address: str) -> None:
    for fields in (BROWSER, {"origin": "http://evil.example.org:8080"}):
        assert is_rebound(address, method, {"host": "evil.example.org:8080", **fields})
        assert is_rebound(address, method, fields)


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:8080", "rpm.localhost", "127.0.0.1:8080", "[::1]:8080", "[::1]", "192.0.2.1"],
)
def test_this_host_has_names_of_its_own(host: str) -> None:
    assert not is_rebound("127.0.0.1", "PUT", {"host": host, **BROWSER})


def test_who_logs_in_or_is_elsewhere_or_is_no_browser_uses_any_name() -> None:
    fields = {"host": "rpm.example.org", **BROWSER}
    assert is_rebound("127.0.0.1", "PUT", fields)
    assert not is_rebound("127.0.0.1", "PUT", {**fields, "authorization": "Basic x"})
    assert not is_rebound("192.0.2.1", "PUT", fields)
    assert not is_rebound(None, "PUT", fields)
    assert not is_rebound("127.0.0.1", "PUT", {"host": "rpm.example.org"})
    assert not is_rebound("127.0.0.1", "GET", fields)
