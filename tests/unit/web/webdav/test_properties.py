"""Dead properties: they follow what they are stored with, and are forgotten with it."""

from __future__ import annotations

import pytest

from repowatch.web.webdav import properties
from repowatch.web.webdav.properties import DeadProperties


def stored(*urls: str) -> DeadProperties:
    kept = DeadProperties()
    for url in urls:
        kept.write_property(url, "{urn:x}a", f"<a>{url}</a>".encode())
    return kept


def everything(kept: DeadProperties) -> dict[str, str]:
    hrefs = ("", "d", "d/f", "d/e", "e", "e/f", "d/d", "d/d/f", "e/d/f", "dd", "a b")
    return {href: found[href]["{urn:x}a"] for href in hrefs if href in (found := kept.in_directory(href))}


def test_a_property_is_told_until_it_is_removed() -> None:
    kept = stored("/a%20b")
    assert kept.in_directory("a b") == kept.in_directory("") == {"a b": {"{urn:x}a": "<a>/a%20b</a>"}}
    assert kept.get_properties("/a%20b") == ["{urn:x}a"]
    assert kept.get_property("/a%20b", "{urn:x}a") == b"<a>/a%20b</a>"
    kept.remove_property("/a%20b", "{urn:x}a", True)
    assert kept.get_property("/a%20b", "{urn:x}a")
    kept.remove_property("/a%20b", "{urn:x}a")
    assert kept.in_directory("") == {}
    assert kept.get_property("/a%20b", "{urn:x}a") is None


def test_a_dry_run_stores_nothing() -> None:
    kept = DeadProperties()
    kept.write_property("/f", "a", b"<a/>", True)
    assert kept.get_properties("/f") == []


def test_only_what_is_directly_in_a_directory_is_told_with_it() -> None:
    assert set(stored("/d/", "/d/f", "/d/d/f", "/dd").in_directory("d")) == {"d", "d/f"}


def test_what_is_below_a_directory_goes_where_it_goes() -> None:
    kept = stored("/d/", "/d/d/f", "/e/f", "/dd")
    kept.move_properties("/d/", "/e/")
    assert everything(kept) == {"e": "<a>/d/</a>", "e/d/f": "<a>/d/d/f</a>", "dd": "<a>/dd</a>"}


@pytest.mark.parametrize(("whole", "copied"), [(True, {"e", "e/f"}), (False, {"e"})])
def test_a_copy_has_the_same(whole: bool, copied: set[str]) -> None:
    kept = stored("/d/", "/d/f")
    kept.copy_properties("/d/", "/e/", whole=whole)
    assert set(everything(kept)) == {"d", "d/f"} | copied


def test_with_a_directory_is_forgotten_what_was_below_it() -> None:
    kept = stored("/d/", "/d/f", "/dd")
    kept.remove_properties("/d/")
    assert set(everything(kept)) == {"dd"}


def test_the_room_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(properties, "MOST", 10)
    assert not DeadProperties().is_full()
    assert stored("/file").is_full()
