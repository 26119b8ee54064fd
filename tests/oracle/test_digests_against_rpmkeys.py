"""The verdict on a package is that of rpm with signatures left out, but for the exceptions listed here."""

from __future__ import annotations

import functools
import hashlib
import itertools
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from repowatch.errors import BadPackage
from repowatch.model.digests import Inspector, inspect
from tests.kit.rpms import (
    WRITTEN,
    Field,
    Kind,
    Sig,
    Tag,
    append,
    edit_header,
    flip_byte,
    layout,
    make_rpm,
    truncate,
)

pytestmark = pytest.mark.client("rpm")

FORMATS = (3, 4, 6)
HEADER_DIGESTS = (Sig.MD5, Sig.SHA1, Sig.SHA256, Sig.SHA3_256)
PAYLOAD_DIGESTS = (
    Sig.MD5,
    Tag.PAYLOADSHA256,
    Tag.PAYLOADSHA256ALT,
    Tag.PAYLOADSHA512,
    Tag.PAYLOADSHA512ALT,
    Tag.PAYLOADSHA3_256,
    Tag.PAYLOADSHA3_256ALT,
)

SIZE_IS_OURS = "rpm reads no size tag, so a wrong one is nothing to it"
V6_IS_NEWER = "rpm before 6 knows no SHA3-256 and no SHA-512"
ONE_VALUE = "rpm takes any one of several values, which no tool writes"
TYPES_ARE_RPMS = "rpm knows the type of every tag, we that of the tags we read; reading the header tells"

# The name of a case: the reason, and the first rpm that agrees with us, if any does.
DISAGREEMENTS: dict[str, tuple[str, int | None]] = {
    "v3 gzip falsify SIZE": (SIZE_IS_OURS, None),
    "v3 none falsify SIZE": (SIZE_IS_OURS, None),
    "v4 gzip falsify SIZE": (SIZE_IS_OURS, None),
    "v4 none falsify SIZE": (SIZE_IS_OURS, None),
    "v4 falsify LONGSIZE": (SIZE_IS_OURS, None),
    "v6 gzip omit SHA256": (V6_IS_NEWER, 6),
    "v6 none omit SHA256": (V6_IS_NEWER, 6),
    "v6 gzip falsify SHA3_256": (V6_IS_NEWER, 6),
    "v6 none falsify SHA3_256": (V6_IS_NEWER, 6),
    "v6 gzip omit PAYLOADSHA512": (V6_IS_NEWER, 6),
    "v6 gzip falsify PAYLOADSHA512": (V6_IS_NEWER, 6),
    "v6 gzip omit PAYLOADSHA3_256": (V6_IS_NEWER, 6),
    "v6 gzip falsify PAYLOADSHA3_256": (V6_IS_NEWER, 6),
    "v6 without any SHA-256 of the payload": (V6_IS_NEWER, 6),
    "v4 two payload digests": (ONE_VALUE, None),
    "v4 a tag of another type": (TYPES_ARE_RPMS, None),
}

Make = Callable[[Path], Path]


def _cases() -> Iterator[tuple[str, Make]]:
    for format, payload in itertools.product(FORMATS, ("gzip", "none")):
        make = functools.partial(make_rpm, format=format, payload=payload)
        yield f"v{format} {payload}", make
        for tag in sorted(WRITTEN[format], key=str):
            yield f"v{format} {payload} omit {tag.name}", functools.partial(make, omit=[tag])
            yield f"v{format} {payload} falsify {tag.name}", functools.partial(make, falsify=[tag])
    for format in FORMATS:
        make = functools.partial(make_rpm, format=format)
        yield f"v{format} source", functools.partial(make, source=True)
        yield f"v{format} no header digest", functools.partial(make, omit=HEADER_DIGESTS)
        yield f"v{format} no payload digest", functools.partial(make, omit=PAYLOAD_DIGESTS)
        yield f"v{format} no digest", functools.partial(make, omit=[*HEADER_DIGESTS, *PAYLOAD_DIGESTS])
        for name, damage in _damages():
            yield f"v{format} {name}", functools.partial(_damaged, format=format, damage=damage)
    yield "v3 with header digests", functools.partial(make_rpm, format=3, include=[Sig.SHA1, Sig.SHA256])
    yield "v4 LONGSIZE", functools.partial(make_rpm, omit=[Sig.SIZE], include=[Sig.LONGSIZE])
    yield "v4 falsify LONGSIZE", functools.partial(make_rpm, include=[Sig.LONGSIZE], falsify=[Sig.LONGSIZE])
    last = [Sig.PAYLOADSIZE, Sig.RESERVEDSPACE]
    yield "v4 MD5 as the last tag", functools.partial(make_rpm, omit=last)
    yield "v4 wrong MD5 as the last tag", functools.partial(make_rpm, omit=last, falsify=[Sig.MD5])
    yield (
        "v6 without any SHA-256 of the payload",
        functools.partial(make_rpm, format=6, omit=[Tag.PAYLOADSHA256, Tag.PAYLOADSHA256ALT]),
    )
    two = {5092: Field(Kind.STRING_ARRAY, ["0" * 64, "1" * 64])}
    yield "v4 two wrong payload digests", functools.partial(make_rpm, header_tags=two)
    yield "v4 two payload digests", _two_payload_digests
    yield "v4 signature region that ends as an image", _region_that_ends_as_an_image
    wrong_type = {1006: Field(Kind.STRING, ["yesterday"])}
    yield "v4 a tag of another type", functools.partial(make_rpm, header_tags=wrong_type)


def _damages() -> Iterator[tuple[str, Callable[[Path], None]]]:
    yield "empty", lambda path: truncate(path, size=0)
    yield "cut in the lead", lambda path: truncate(path, size=50)
    yield "cut in the signature header", lambda path: truncate(path, size=layout(path).signature + 20)
    yield "cut before the header", lambda path: truncate(path, size=layout(path).header)
    yield "cut in the header", lambda path: truncate(path, size=layout(path).payload - 1)
    yield "cut before the payload", lambda path: truncate(path, size=layout(path).payload)
    yield "cut by a byte", lambda path: truncate(path, size=layout(path).end - 1)
    yield "longer by a byte", lambda path: append(path, data=b"\0")
    yield "longer by a package", lambda path: append(path, data=path.read_bytes())
    yield "flip in the header's intro", lambda path: flip_byte(path, offset=layout(path).header + 10)
    yield "flip in the header's index", lambda path: flip_byte(path, offset=layout(path).header + 100)
    yield "flip in the header's data", lambda path: flip_byte(path, offset=layout(path).payload - 40)
    yield "flip at the payload's start", lambda path: flip_byte(path, offset=layout(path).payload)
    yield "flip at the payload's end", lambda path: flip_byte(path, offset=layout(path).end - 1)


def _damaged(directory: Path, *, format: int, damage: Callable[[Path], None]) -> Path:
    path = make_rpm(directory, format=format)
    damage(path)
    return path


def _two_payload_digests(directory: Path) -> Path:
    """The right digest of the payload, and behind it once more, both under one tag."""
    path = make_rpm(directory)
    content, parts = path.read_bytes(), layout(path)
    right = hashlib.sha256(content[parts.payload :]).hexdigest()
    return make_rpm(directory, header_tags={5092: Field(Kind.STRING_ARRAY, [right, right])})


def _region_that_ends_as_an_image(directory: Path) -> Path:
    """What packages of around the year 2000 have."""
    path = make_rpm(directory)
    trailer = path.read_bytes().rindex(b"\0\0\0\x3e\0\0\0\7", 0, layout(path).header)
    flip_byte(path, offset=trailer + 3, mask=62 ^ 61)
    return path


CASES = dict(_cases())


@functools.cache
def rpm_version() -> int:
    shown = subprocess.run(["rpm", "--version"], capture_output=True, text=True, check=True).stdout
    return int(shown.split()[-1].split(".")[0])


def rpm_takes(path: Path) -> bool:
    command = ["rpmkeys", "--define", "_pkgverify_level digest", "--checksig", "--nosignature", str(path)]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


def we_take(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            inspect(stream, size=path.stat().st_size)
    except BadPackage:
        return False
    return True


def only_the_head_is_looked_at(path: Path) -> bool:
    """A check that is too weak: what stands before the payload is in order."""
    content = path.read_bytes()
    inspector = Inspector()
    try:
        inspector.feed(content[: layout(path).payload])
    except BadPackage:
        return False
    return True


@pytest.mark.parametrize("name", CASES)
def test_the_verdict_is_that_of_rpm_or_differs_for_a_known_reason(tmp_path: Path, name: str) -> None:
    path = CASES[name](tmp_path)
    reason, agrees_from = DISAGREEMENTS.get(name, (None, 0))
    disagrees = reason is not None and (agrees_from is None or rpm_version() < agrees_from)
    assert (we_take(path) != rpm_takes(path)) == disagrees, reason


def test_every_known_disagreement_is_a_case() -> None:
    assert set(DISAGREEMENTS) <= set(CASES)


@pytest.mark.parametrize("name", ["v4 cut by a byte", "v4 longer by a byte", "v4 flip at the payload's end"])
def test_a_check_of_the_head_alone_would_be_caught(tmp_path: Path, name: str) -> None:
    path = CASES[name](tmp_path)
    assert only_the_head_is_looked_at(path)
    assert not rpm_takes(path)


def test_both_verdicts_are_given_often(tmp_path: Path) -> None:
    taken = sum(we_take(make(tmp_path)) for make in CASES.values())
    assert taken > 50
    assert len(CASES) - taken > 50


def _same_verdict(paths: list[Path]) -> list[bool]:
    """rpm's verdicts, after it is sure that they are ours too."""
    with ThreadPoolExecutor(2) as pool:
        verdicts = list(pool.map(rpm_takes, paths))
    assert [(path.name, we_take(path)) for path in paths] == [
        (path.name, verdict) for path, verdict in zip(paths, verdicts, strict=True)
    ]
    return verdicts


def test_a_changed_byte_of_the_lead_or_the_signature_header_has_the_verdict_of_rpm(tmp_path: Path) -> None:
    parts = layout(make_rpm(tmp_path, omit=[Sig.SIZE]))
    paths = []
    for offset in range(0, parts.header, 2):
        paths.append(make_rpm(tmp_path, omit=[Sig.SIZE], filename=f"{offset}.rpm"))
        flip_byte(paths[-1], offset=offset, mask=1 << offset // 2 % 8)
    verdicts = _same_verdict(paths)
    assert True in verdicts
    assert False in verdicts


def test_a_nonsense_index_has_the_verdict_of_rpm_though_all_digests_match(tmp_path: Path) -> None:
    """Of the index offsets and counts are changed; TYPES_ARE_RPMS."""
    path = make_rpm(tmp_path)
    parts = layout(path)
    entries = int.from_bytes(path.read_bytes()[parts.header + 8 : parts.header + 12], "big")
    paths = []
    for entry, position in itertools.product(range(-1, entries), (8, 10, 11, 14, 15)):
        paths.append(make_rpm(tmp_path, filename=f"{entry}.{position}.rpm"))
        where = 16 + 16 * entry + position
        edit_header(paths[-1], functools.partial(_flip, offset=where, mask=1 << (entry + position) % 8))
    assert False in _same_verdict(paths)


def _flip(header: bytearray, *, offset: int, mask: int) -> None:
    header[offset] ^= mask


SPEC = """\
Name: built
Version: 1
Release: 1
Summary: Built by rpmbuild
License: MIT
BuildArch: noarch
%description
It has a file.
%install
mkdir -p %{buildroot}/opt
seq 50000 > %{buildroot}/opt/numbers
%files
/opt/numbers
"""


@pytest.mark.client("rpmbuild")
@pytest.mark.parametrize("payload", ["w9.gzdio", "w.ufdio", "w7.xzdio"])
def test_what_rpmbuild_writes_is_whole_and_no_longer_so_when_damaged(tmp_path: Path, payload: str) -> None:
    spec = tmp_path / "built.spec"
    spec.write_text(SPEC)
    top = ["--define", f"_topdir {tmp_path}"]
    compression = ["--define", f"_binary_payload {payload}", "--define", f"_source_payload {payload}"]
    subprocess.run(["rpmbuild", "-ba", *top, *compression, spec], check=True, capture_output=True)
    built = sorted(tmp_path.glob("*RPMS/**/*.rpm"))
    assert len(built) == 2
    assert _same_verdict(built) == [True, True]
    for path in built:
        flip_byte(path, offset=layout(path).end - 9)
    assert _same_verdict(built) == [False, False]
