"""The pages for people: what they tell, and that nothing in a package's name becomes a part of them."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

import pytest

from repowatch.web.info.api import Query
from repowatch.web.info.page import HEADERS, SHOWN_REJECTED, front, repository

EVIL = "\"><script>alert('x')</script><!--&\x1b\u202e\udcff"
VOID = {"meta", "input"}


class Page(HTMLParser):
    """The tags, attributes, and the text of a page, of which every element ends in order."""

    def __init__(self, content: bytes) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.links: list[str] = []
        self.values: dict[str, str] = {}
        self.text = ""
        self._open: list[str] = []
        self.feed(content.decode())
        assert not self._open

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        said = dict(attributes)
        self.tags.add(tag)
        self.attributes |= said.keys()
        if tag == "a":
            self.links.append(said["href"] or "")
        if tag == "input":
            self.values[said["name"] or ""] = said["value"] or ""
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self._open:
            self.text += data


def event(change: str, nevra: str, *, who: str | None, how: str) -> dict[str, Any]:
    return {
        "at": 1e9,
        "revision": 4,
        "change": change,
        "location": "a.rpm",
        "nevra": nevra,
        "size": 1,
        "who": who,
        "how": how,
    }


def told(**said: Any) -> dict[str, Any]:
    return {
        "name": "rpm",
        "url": "/rpm/",
        "path": "/srv/rpm",
        "packages": 1234,
        "size": 3 << 30,
        "revision": 5,
        "published_at": 1e9,
        "publication_seconds": 0.0123,
        "trouble": None,
        "watcher": "inotify",
        "waiting": 0,
        "uploads": 3,
        "disk_free": 5 << 30,
        "reading": {"done": 0, "total": 0},
        "unchecked": 0,
        "rejected": [],
        "history": [],
        **said,
    }


def shown(query: Query | None = None, **said: Any) -> Page:
    return Page(
        repository(
            told(**said),
            query or Query(),
            base_url="https://rpm.example.org",
            repo_file="[rpm]\nname=rpm\n",
            version="7.5",
        )
    )


def test_a_page_tells_how_the_repository_is() -> None:
    text = shown().text
    for fact in ("up to date", "1,234 packages, 3.0 GiB", "revision 5", "12 ms", "5.0 GiB", "inotify"):
        assert fact in text
    assert "2001-09-09 01:46 UTC" in text
    assert "TROUBLE: none" not in text
    assert "Trouble: disk full" in shown(trouble="disk full").text
    assert "reading 7 of 9 files" in shown(reading={"done": 7, "total": 9}).text


def test_a_page_tells_how_to_use_the_repository() -> None:
    text = shown().text
    assert "curl -fo /etc/yum.repos.d/rpm.repo https://rpm.example.org/rpm.repo\n" in text + "\n"
    assert "dnf --repofrompath=rpm,https://rpm.example.org/rpm/ " in text
    assert "curl -fsS https://rpm.example.org/-/rpm/setup.sh | sudo sh\n" in text
    assert "zypper addrepo https://rpm.example.org/rpm.repo\n" in text
    assert "curl -fT FILE.rpm https://rpm.example.org/rpm/" in text
    assert "[rpm]\nname=rpm" in text
    assert "--repo=a_b " in shown(name="a b").text


def test_a_page_tells_what_came_and_by_whom() -> None:
    history = [
        event("added", "a-1-1.noarch", who="anna", how="basic"),
        event("removed", "b-1-1.noarch", who=None, how="none"),
        event("replaced", "c-1-1.noarch", who=None, how="file"),
    ]
    text = " ".join(shown(history=history).text.split())
    assert "+ a-1-1.noarch added" in text
    assert "anna2001-09-09 01:46 UTC" in text
    assert "− b-1-1.noarch removedanonymous" in text
    assert "± c-1-1.noarch replacedby file" in text


def test_a_page_links_to_the_listing_and_to_the_others() -> None:
    page = shown(name="a b", url="/x y/")
    assert {"/-/a%20b", "/x%20y/", "/", "/a%20b.repo"} <= set(page.links)


def test_what_was_searched_stays_in_the_form() -> None:
    found = [{"location": "x/a b.rpm", "nevra": "a-1-1.noarch", "size": 2048, "modified_at": 1e9}]
    page = shown(Query(match='*"<', days=7), found=found)
    assert page.values == {"match": '*"<', "days": "7"}
    assert "/rpm/x/a%20b.rpm" in page.links
    assert "2.0 KiB" in page.text
    assert "No listed package is like this" in shown(Query(days=0.5), found=[]).text


def test_nothing_that_came_from_outside_becomes_a_part_of_a_page() -> None:
    plain = shown(
        Query(match="x", days=1),
        rejected=[{"location": "x", "reason": "x"}],
        history=[event("added", "x", who="x", how="basic")],
        found=[{"location": "x", "nevra": "x", "size": 1, "modified_at": 1e300}],
    )
    evil = shown(
        Query(match=EVIL, days=1),
        name=EVIL,
        url=f"/{EVIL}/",
        trouble=EVIL,
        watcher=EVIL,
        rejected=[{"location": EVIL, "reason": EVIL}],
        history=[event(EVIL, EVIL, who=EVIL, how=EVIL)],
        found=[{"location": EVIL, "nevra": EVIL, "size": 1, "modified_at": -1e300}],
    )
    assert evil.tags == plain.tags
    assert evil.attributes == plain.attributes
    assert "\x1b" not in evil.text
    assert "\u202e" not in evil.text
    whole = Page(front([told(name=EVIL, url=f"/{EVIL}/", trouble=EVIL)], version=EVIL))
    assert "script" not in whole.tags


def test_a_page_fetches_nothing_and_runs_nothing() -> None:
    content = repository(told(), Query(), base_url="http://h", repo_file="", version="1").decode()
    assert not {"script", "link", "img", "iframe"} & Page(content.encode()).tags
    assert "url(" not in content
    assert "@import" not in content
    policy = dict(HEADERS)["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'; form-action 'self'")


@pytest.mark.parametrize("count", [SHOWN_REJECTED, SHOWN_REJECTED + 5])
def test_of_very_many_rejected_files_some_are_shown(count: int) -> None:
    text = shown(rejected=[{"location": f"{n}.rpm", "reason": "why"} for n in range(count)]).text
    assert text.count("why") - 1 == SHOWN_REJECTED
    assert ("and 5 more" in text) == (count > SHOWN_REJECTED)


def test_the_front_page_tells_of_each_repository_in_short() -> None:
    text = Page(front([told(), told(name="other", revision=0, published_at=None)], version="7.5")).text
    assert "1,234 packages" in text
    assert "not published yet" in text
    assert "repowatch 7.5" in text
    assert "no repository that you may read" in Page(front([], version="7.5")).text
