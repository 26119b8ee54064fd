"""The page that shows a directory to people."""

from __future__ import annotations

import os
from html.parser import HTMLParser
from urllib.parse import unquote_to_bytes

import pytest

from repowatch.web.info.listing import DirectoryEntry, render


class Page(HTMLParser):
    """The links and the text of a page, and every tag it uses."""

    def __init__(self, content: bytes) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.hrefs: list[str] = []
        self.labels: list[str] = []
        self.cells: list[str] = []
        self.feed(content.decode())

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag == "a":
            self.hrefs.append(dict(attributes)["href"] or "")
            self.labels.append("")
        if tag == "td":
            self.cells.append("")

    def handle_data(self, data: str) -> None:
        if self.lasttag == "a" and self.labels:
            self.labels[-1] += data.strip("\n")
        if self.cells:
            self.cells[-1] += data.strip("\n")


def file(name: str, *, size: int = 1, mtime: float = 0.0) -> DirectoryEntry:
    return DirectoryEntry(name, is_directory=False, size=size, mtime=mtime)


def folder(name: str) -> DirectoryEntry:
    return DirectoryEntry(name, is_directory=True, size=4096, mtime=0.0)


def page(*entries: DirectoryEntry, title_path: str = "/rpm/") -> Page:
    return Page(render(entries, title_path=title_path))


def test_folders_come_first_then_files_from_older_to_newer() -> None:
    shown = page(
        file("foo-1.10-1.noarch.rpm"),
        folder("zoo"),
        file("foo-1.9-1.noarch.rpm"),
        file("foo-1.10~rc1-1.noarch.rpm"),
        folder("9"),
        folder("10"),
    )
    assert shown.hrefs == [
        "../",
        "9/",
        "10/",
        "zoo/",
        "foo-1.9-1.noarch.rpm",
        "foo-1.10~rc1-1.noarch.rpm",
        "foo-1.10-1.noarch.rpm",
    ]


def test_a_row_tells_name_size_and_date_in_utc() -> None:
    shown = page(file("foo.rpm", size=1536, mtime=784111777.9))
    assert shown.cells[3:] == ["foo.rpm", "1.5 KiB", "1994-11-06 08:49 UTC"]
    assert b'title="1536 bytes"' in render([file("foo.rpm", size=1536)], title_path="/")


def test_a_folder_has_no_size() -> None:
    assert page(folder("x86_64")).cells[3:] == ["x86_64/", "", "1970-01-01 00:00 UTC"]


def test_the_root_has_no_link_to_a_parent() -> None:
    assert page(title_path="/").hrefs == []


@pytest.mark.parametrize(
    "name",
    [
        "<script>alert(1)</script>",
        "\"'&amp;><img src=x onerror=y>",
        "a b%20c?d#e;f+g",
        "javascript:alert(1)",
        "//example.org",
        "größe-日本.rpm",
        "line\nbreak\x1b[31m",
        "turned\u202ecod.mpr",
    ],
)
def test_any_name_is_shown_as_text_and_its_link_leads_to_its_bytes(name: str) -> None:
    shown = page(file(name), folder(name), title_path="/")
    assert shown.tags.isdisjoint({"script", "img", "link"})
    assert [unquote_to_bytes(href) for href in shown.hrefs] == [os.fsencode(name) + b"/", os.fsencode(name)]
    assert all(href.isascii() and ":" not in href and not href.startswith("/") for href in shown.hrefs)
    assert all(label.isprintable() for label in shown.labels)


def test_a_name_of_printable_characters_is_shown_as_it_is() -> None:
    assert page(file("größe <&> 日本.rpm"), title_path="/").labels == ["größe <&> 日本.rpm"]


def test_a_name_that_is_not_utf8_is_shown_with_escapes_and_linked_by_its_bytes() -> None:
    shown = page(file(os.fsdecode(b"gr\xfc\xdfe.rpm")), title_path="/")
    assert shown.hrefs == ["gr%FC%DFe.rpm"]
    assert shown.labels == [r"gr\xfc\xdfe.rpm"]


def test_the_title_is_escaped() -> None:
    shown = render([], title_path=os.fsdecode(b"/<b>\xff/"))
    assert b"<h1>/&lt;b&gt;\\xff/</h1>" in shown
    assert b"<title>/&lt;b&gt;\\xff/</title>" in shown


@pytest.mark.parametrize("mtime", [1e18, -1e18, float(2**63), 253402300800.0])
def test_a_date_beyond_the_calendar_is_left_out(mtime: float) -> None:
    assert page(file("foo.rpm", mtime=mtime), title_path="/").cells == ["foo.rpm", "1 B", ""]


def test_the_page_needs_nothing_from_elsewhere_and_follows_the_dark_mode() -> None:
    content = render([file("foo.rpm")], title_path="/rpm/")
    assert Page(content).tags.isdisjoint({"script", "link", "img", "iframe"})
    assert b"//" not in content
    assert b"prefers-color-scheme:dark" in content
    assert b'name="viewport"' in content
