"""updateinfo.xml: what is let through, what is not, and how advisories come into it."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from repowatch.errors import BadMetadata
from repowatch.model import advisories
from repowatch.model.updateinfo import joined, read

UPDATES = """\
<?xml version="1.0" encoding="ISO-8859-1"?>
<updates>
<update from="me" status="final" type="bugfix" version="1"><id>A-1</id><title>tütle</title>
<pkglist><collection><package name="p" version="1" release="2" arch="noarch"/></collection></pkglist>
</update>
<update type="security"><id>A-2</id></update>
</updates>
<!-- the end -->
""".encode("latin-1")

ADVISORY = """\
id: B-1
type: newpackage
title: "größer & besser"
issued: 2026-11-28T18:00:00+02:00
reboot: true
references:
  - https://bugs.example.org/7?a=1&b=2
  - {type: bugzilla, id: "77", href: "https://bugs.example.org/77"}
packages: [p-3:1.0~rc1-2.el9.x86_64, a-b-c-1^git-1.noarch.rpm]
"""


def reason(content: bytes) -> str:
    with pytest.raises(BadMetadata) as caught:
        read(content)
    return str(caught.value)


def test_the_ids_are_read_and_the_end_found() -> None:
    updates = read(UPDATES)
    assert updates.ids == ("A-1", "A-2")
    assert UPDATES[updates.end :].startswith(b"</updates>")


@pytest.mark.parametrize(
    ("wrong", "right", "told"),
    [
        (b"<update>", b'<update type="security">', "line 6: <update> has no type"),
        (b"", b"<id>A-2</id>", "line 6: the <update> that ends here does not have one <id>"),
        (b"", b' release="2" arch="noarch"', "line 4: <package> has no release and no arch"),
        (b"", b"</updates>", "line 9: not XML: no element found"),
    ],
)
def test_what_clients_could_not_use_is_told(wrong: bytes, right: bytes, told: str) -> None:
    assert reason(UPDATES.replace(right, wrong, 1)).startswith(told)


def test_several_of_one_id_are_let_through_as_dnf_and_libsolv_read_them_all() -> None:
    assert read(UPDATES.replace(b"A-2", b"A-1")).ids == ("A-1",)


def test_another_root_element_is_refused() -> None:
    assert reason(b"<update/>") == "line 1: the root element is <update>, not <updates>"


@pytest.mark.parametrize("content", [UPDATES, b"<updates/>", b"<updates />\n", b"<updates></updates>", None])
def test_advisories_come_behind_what_is_there_in_any_encoding(content: bytes | None) -> None:
    more = advisories.read(ADVISORY.encode()).text
    made = joined(content, [more])
    assert read(made).ids == (*(read(content).ids if content else ()), "B-1")
    root = ElementTree.fromstring(made)
    assert root.findall("update")[-1].findtext("title") == "größer & besser"
    if content == UPDATES:
        assert root.findall("update")[0].findtext("title") == "tütle"
        assert made.endswith(b"<!-- the end -->\n")


def test_an_element_without_content_before_the_end_stays_whole() -> None:
    more = advisories.read(ADVISORY.encode()).text
    made = joined(b'<updates><update type="bugfix"><id>A</id></update><x/></updates>', [more])
    assert read(made).ids == ("A", "B-1")


def test_without_advisories_a_file_stays_as_it_is() -> None:
    assert joined(UPDATES, []) is UPDATES
