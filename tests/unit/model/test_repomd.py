"""repomd.xml both ways; that its text is createrepo_c's own is seen in tests/oracle."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from repowatch.model.repomd import NAMESPACE, BadRepomd, Record, Repomd, parse, render

PRIMARY = Record(
    type="primary",
    checksum="ab" * 32,
    location_href=f"repodata/{'ab' * 32}-primary.xml.gz",
    timestamp=1_700_000_000,
    size=1000,
    open_checksum="cd" * 32,
    open_size=9000,
)

printable = st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "S"]), min_size=1)
hexadecimal = st.text("0123456789abcdef", min_size=32, max_size=128)
numbers = st.integers(0, 2**53)
records = st.builds(
    Record,
    type=printable,
    checksum=hexadecimal,
    location_href=printable,
    timestamp=numbers,
    size=numbers,
    checksum_type=st.sampled_from(["sha256", "sha512", "sha"]),
    open_checksum=st.none() | hexadecimal,
    open_size=st.none() | numbers,
    database_version=st.none() | st.integers(0, 20),
)


@given(st.builds(Repomd, revision=numbers, records=st.lists(records, max_size=4).map(tuple)))
def test_what_is_rendered_is_parsed_again(repomd: Repomd) -> None:
    assert parse(render(repomd)) == repomd


def test_fractions_of_seconds_are_cut_off() -> None:
    text = render(Repomd(1, (PRIMARY,))).replace(b"<timestamp>1700000000<", b"<timestamp>1700000000.93<")
    assert parse(text).records[0].timestamp == 1_700_000_000


@pytest.mark.parametrize("revision", ["", "trunk-41", "-3", "1.5"])
def test_a_revision_that_is_no_number_counts_as_0(revision: str) -> None:
    text = render(Repomd(7, (PRIMARY,))).replace(b">7<", f">{revision}<".encode())
    assert parse(text) == Repomd(0, (PRIMARY,))


def test_what_a_record_leaves_out_is_not_known() -> None:
    text = f"""<repomd xmlns="{NAMESPACE}"><data type="group">
        <checksum>{"a" * 64}</checksum><location href="repodata/comps.xml"/></data></repomd>"""
    wanted = Record(type="group", checksum="a" * 64, location_href="repodata/comps.xml", timestamp=0, size=0)
    assert parse(text.encode()) == Repomd(0, (wanted,))


def _altered(old: str, new: str) -> bytes:
    text = render(Repomd(7, (PRIMARY,)))
    assert old.encode() in text
    return text.replace(old.encode(), new.encode())


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(render(Repomd(7, (PRIMARY,)))[:-20], id="cut short"),
        pytest.param(b"<html/>", id="another document"),
        pytest.param(b"<repomd/>", id="no namespace"),
        pytest.param(b"\x00" * 512, id="zeros after a power cut"),
        pytest.param(b'<?xml version="1.0" encoding="no-such"?><repomd/>', id="an unknown encoding"),
        pytest.param(_altered("<location", "<elsewhere"), id="a record without a location"),
        pytest.param(_altered(' href="', ' hef="'), id="a location without href"),
        pytest.param(_altered(' type="primary"', ""), id="a record without a type"),
        pytest.param(_altered("1000<", "big<"), id="a size that is no number"),
        pytest.param(_altered("1700000000<", "inf<"), id="an endless timestamp"),
        pytest.param(_altered("1700000000<", "nan<"), id="a timestamp that is not a number"),
        pytest.param(_altered(">7<", f">{'9' * 5000}<"), id="a revision longer than Python reads"),
    ],
)
def test_a_damaged_repomd_is_refused(text: bytes) -> None:
    with pytest.raises(BadRepomd, match=r"repomd\.xml"):
        parse(text)
