"""What the query of a URL asks, and which packages that means."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from repowatch.model.package import Entry, Nevra, Stamp
from repowatch.model.publication import Publication, RepomdFile
from repowatch.web.info.api import LONGEST_WAIT, MOST_FOUND, BadQuery, Query, found, wait_for
from tests.kit.served import serve

DAY = 86400
NOW = 100 * DAY


def entry(location: str, nevra: Nevra, *, age: float = 0.0) -> Entry:
    return Entry(location, "a" * 64, nevra, Stamp(1, int((NOW - age * DAY) * 1e9), 0, 0))


def published(*entries: Entry, revision: int = 1) -> Publication:
    by_location = {each.location_href: each for each in entries}
    return Publication(revision, (), by_location, RepomdFile("", 0), 0.0, 0.0)


BASH = entry("Packages/b/bash-5.1-1.x86_64.rpm", Nevra("bash", "0", "5.1", "1", "x86_64"), age=3)
VIM = entry("other-name.rpm", Nevra("vim", "2", "9", "1", "x86_64"), age=1)
BASHISH = entry("bash-doc-5.1-1.noarch.rpm", Nevra("bash-doc", "0", "5.1", "1", "noarch"), age=30)
ALL = published(BASH, VIM, BASHISH)


def test_a_query_is_read() -> None:
    assert Query.of("") == Query()
    assert Query.of("match=&days=") == Query()
    assert Query.of("after=7&wait=2.5&match=%2A.rpm&days=0.5") == Query(7, 2.5, "*.rpm", 0.5)
    assert Query.of("wait=9999").wait == LONGEST_WAIT


@pytest.mark.parametrize(
    "text",
    [
        "x=1",
        "after=x",
        "after=-1",
        "after=1.5",
        "wait=nan",
        "wait=inf",
        "days=1e9",
        "days=-1",
        "after=" + "9" * 5000,
        "days=" + "9" * 5000,
        "match=" + "x" * 201,
        "&".join(f"a{n}=1" for n in range(100)),
        "%ff%0d=1",
    ],
)
def test_what_can_not_be_understood_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(BadQuery) as caught:
        Query.of(text)
    assert len(str(caught.value)) < 120
    assert str(caught.value).isascii()


@pytest.mark.parametrize(
    ("match", "expected"),
    [
        ("bash", [BASH]),
        ("bash.x86_64", [BASH]),
        ("bash-5.1-1", [BASH]),
        ("bash-5.1-1.x86_64", [BASH]),
        ("bash-0:5.1-1.x86_64", [BASH]),
        ("bash-5.1-1.x86_64.rpm", [BASH]),
        ("Packages/b/bash-5.1-1.x86_64.rpm", [BASH]),
        ("bash-*", [BASH, BASHISH]),
        ("Packages/*", [BASH]),
        ("*.rpm", [VIM, BASH, BASHISH]),
        ("vim", [VIM]),
        ("vim-2:9-1", [VIM]),
        ("vim-2:*", [VIM]),
        ("bas", []),
        ("*[", []),
    ],
)
def test_packages_are_found_by_all_that_they_are_called(match: str, expected: list[Entry]) -> None:
    assert found(ALL, Query(match=match), now=NOW) == expected


def test_packages_are_found_by_age_the_newest_first() -> None:
    assert found(ALL, Query(days=7), now=NOW) == [VIM, BASH]
    assert found(ALL, Query(days=7, match="bash*"), now=NOW) == [BASH]
    assert found(None, Query(days=7), now=NOW) == []


def test_one_answer_names_a_bounded_number() -> None:
    many = [entry(f"{n}.rpm", Nevra("a", "0", str(n), "1", "noarch")) for n in range(MOST_FOUND + 5)]
    assert len(found(published(*many), Query(match="*"), now=NOW)) == MOST_FOUND


def test_an_answer_waits_for_a_newer_publication_only(tmp_path: Path) -> None:
    shown = [published(revision=7)]
    repository = dataclasses.replace(serve(tmp_path), publication=lambda: shown[0])
    assert wait_for(repository, Query(after=6, wait=30)) is None
    assert wait_for(repository, Query(after=7)) is None
    assert wait_for(repository, Query(wait=30)) is None
    wait = wait_for(repository, Query(after=7, wait=30))
    assert wait is not None
    assert wait.seconds == 30
    assert not wait.is_over()
    shown[0] = published(revision=8)
    assert wait.is_over()
