"""Where a MOVE or COPY may go."""

from __future__ import annotations

import pytest

from repowatch.web.uploads import Refusal
from repowatch.web.webdav.destination import destination


@pytest.mark.parametrize(
    ("field", "host", "location_href"),
    [
        ("/rpm/a", "h", "a"),
        ("/rpm/d/a/", "h", "d/a"),
        ("//h/rpm/a", "h", "a"),
        ("http://h/rpm/a", "h", "a"),
        ("https://h/rpm/a", "h", "a"),
        ("https://h:443/rpm/a", "h", "a"),
        ("https://h/rpm/a", "h:443", "a"),
        ("http://h:80/rpm/a", "h", "a"),
        ("http://H:8080/rpm/a", "h:8080", "a"),
        ("http://[::1]:8080/rpm/a", "[::1]:8080", "a"),
        ("http://user:secret@h/rpm/a", "h", "a"),
        ("/rpm/%C3%A9%20%25%2B+", "h", "\u00e9 %++"),
        ("/rpm/\u00c3\u00a9 a", "h", "\u00e9 a"),  # not encoded, as some clients send it
    ],
)
def test_a_name_in_the_same_repository_is_found(field: str, host: str, location_href: str) -> None:
    assert destination(field, host=host, url="/rpm/") == location_href


@pytest.mark.parametrize(
    ("field", "status"),
    [
        ("", 400),
        ("a", 400),
        ("http://h", 400),
        ("ftp://h/rpm/a", 400),
        ("http://[/rpm/a", 400),
        ("/rpm/../a", 400),
        ("/rpm/%2e%2e/a", 400),
        ("/rpm/./a", 400),
        ("/rpm/a%2fb", 400),
        ("/rpm/a%00", 400),
        ("/rpm/%zz", 400),
        ("/rpm/%ff", 400),
        ("/rpm/a?b", 400),
        ("/rpm/a#b", 400),
        ("/rpm/" + "n" * 256, 400),
        ("/rpm", 403),
        ("/rpm/", 403),
        ("http://h//rpm//", 403),
        ("/rpm/a%3Fb", 501),
        ("/rpm/a;b", 501),
        ("/other/a", 502),
        ("/rpmx/a", 502),
        ("http://other/rpm/a", 502),
        ("http://h:8080/rpm/a", 502),
        ("https://h:80/rpm/a", 502),
        ("http://h@other/rpm/a", 502),
    ],
)
def test_everything_else_is_refused(field: str, status: int) -> None:
    with pytest.raises(Refusal) as refusal:
        destination(field, host="h", url="/rpm/")
    assert refusal.value.status == status
    assert len(str(refusal.value).splitlines()) == 1
