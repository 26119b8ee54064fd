"""Advisories in YAML: what becomes of them, and what is told of those that are wrong."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from repowatch.errors import BadMetadata
from repowatch.model import documents
from repowatch.model.advisories import Advisory, read

TEXT = """\
id: FIX-2026-1
type: Security
severity: important
title: "pump: does not burst"
issued: 2026-11-28T01:00:00+02:00
description: |
  A pump could burst.
references:
  - CVE-2026-12345
  - https://bugs.example.org/7?a=1&b=2
  - {type: bugzilla, id: "77", href: "https://bugs.example.org/77", title: It bursts}
packages:
  - pump-3:1.0~rc1-2.el9.x86_64
  - a-b-c-1^git-1.noarch.rpm
"""


def element(advisory: Advisory) -> ElementTree.Element:
    return ElementTree.fromstring(advisory.text)


def reason(text: str) -> str:
    with pytest.raises(BadMetadata) as caught:
        read(text.encode())
    return str(caught.value)


def test_it_says_in_xml_what_it_says_in_yaml() -> None:
    advisory = read(TEXT.encode())
    update = element(advisory)
    assert (advisory.id, update.get("type"), update.findtext("severity")) == (
        "FIX-2026-1",
        "security",
        "Important",
    )
    assert update.findtext("description") == "A pump could burst."
    references = [(each.get("type"), each.get("id"), each.get("href")) for each in update.iter("reference")]
    assert references == [
        ("cve", "CVE-2026-12345", "https://www.cve.org/CVERecord?id=CVE-2026-12345"),
        ("other", "https://bugs.example.org/7?a=1&b=2", "https://bugs.example.org/7?a=1&b=2"),
        ("bugzilla", "77", "https://bugs.example.org/77"),
    ]


def test_packages_are_taken_apart_as_rpm_puts_them_together() -> None:
    advisory = read(TEXT.encode())
    assert [str(each) for each in advisory.packages] == [
        "pump-3:1.0~rc1-2.el9.x86_64",
        "a-b-c-1^git-1.noarch",
    ]
    packages = [dict(each.attrib) for each in element(advisory).iter("package")]
    assert packages[0] == {
        "name": "pump",
        "epoch": "3",
        "version": "1.0~rc1",
        "release": "2.el9",
        "arch": "x86_64",
    }
    assert [each.text for each in element(advisory).iter("filename")] == [
        "pump-1.0~rc1-2.el9.x86_64.rpm",
        "a-b-c-1^git-1.noarch.rpm",
    ]


@pytest.mark.parametrize(
    ("issued", "told"),
    [
        ("2026-11-28T01:00:00+02:00", "2026-11-27 23:00:00"),
        ("2026-11-28", "2026-11-28 00:00:00"),
        ("2026-11-28 18:00Z", "2026-11-28 18:00:00"),
        ("0900-11-28", "0900-11-28 00:00:00"),
    ],
)
def test_dates_are_told_in_utc_and_with_the_time_which_libsolv_wants(issued: str, told: str) -> None:
    advisory = read(TEXT.replace("2026-11-28T01:00:00+02:00", issued).encode())
    issue = element(advisory).find("issued")
    assert issue is not None
    assert issue.get("date") == told


@pytest.mark.parametrize(
    ("wrong", "right", "told"),
    [
        ("", "id: FIX-2026-1\n", "line 1: there is no `id`"),
        ("id: a b", "id: FIX-2026-1", "line 1: `id` is not one word"),
        ("type: secure", "type: Security", "line 2: `type` is not one of security, bugfix"),
        ("severity: high", "severity: important", "line 3: `severity` is not one of Critical"),
        ("2026-11-28T01:00:00", "2026-11-28T01:00:00+02:00", "line 5: `issued` is not a date like"),
        ("2026-02-30", "2026-11-28T01:00:00+02:00", "line 5: `issued` is not a date like"),
        (
            " []",
            "\n  - pump-3:1.0~rc1-2.el9.x86_64\n  - a-b-c-1^git-1.noarch.rpm",
            "line 12: `packages` names no",
        ),
        ("pump", "pump-3:1.0~rc1-2.el9.x86_64", "line 13: 'pump' is no NEVRA"),
        ("packges:", "packages:", "line 13: unknown key `packges`"),
        ("\\x01", "does not burst", "line 4: the character U+0001 in `title`"),
        ("reboot: maybe\ntype:", "type:", "line 2: `reboot` is neither true nor false"),
        ("id: 1\nid: 2", "id: FIX-2026-1", "line 2: `id` stands here a second time"),
        ("*x", "Security", "line 2: the alias *x is not read"),
        ("&x [1, ]]", "Security", "line 2: not YAML: "),
    ],
)
def test_mistakes_are_told_with_their_line(wrong: str, right: str, told: str) -> None:
    assert TEXT.count(right) >= 1
    assert reason(TEXT.replace(right, wrong, 1)).startswith(told)


def test_what_is_no_advisory_at_all_is_told() -> None:
    assert reason("- a\n") == "line 1: the advisory is not lines of `key: value`"
    assert reason("") == "line 1: there are 0 documents in it, not one"
    assert reason(f"{TEXT}---\n{TEXT}") == "line 1: there are 2 documents in it, not one"
    assert "more than 32 values" in reason("[" * 10_000)
    with pytest.raises(BadMetadata, match="line 2: not UTF-8"):
        read(b"id: a\ntitle: \xff\n")
    assert reason("# öööööö\n" * 9 + "id: \x01\n" + "# a\n" * 99) == (
        "line 10: the character U+0001 is not allowed"
    )


def test_what_would_take_minutes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "_MOST", 200)
    read(TEXT.encode())
    assert reason(TEXT + "more: [\n" + "1,\n" * 200 + "]\n").endswith("more than 200 values")
