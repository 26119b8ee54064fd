"""What signatures a package carries, and which old clients can verify none of them."""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from repowatch.errors import BadPackage
from repowatch.model.digests import inspect
from repowatch.model.openpgp import dearmored, keyring_of, public_keys, signature_of
from repowatch.model.signatures import ANY, MOST, Policy, Signatures, hint, signatures_of
from tests.kit.rpms import Field, Kind, Tag, layout, make_rpm

RSA, DSA, ECDSA, EDDSA = 1, 17, 19, 22
MD5, SHA1, SHA256 = 1, 2, 8
RSAHEADER, DSAHEADER, OPENPGP, PGP, GPG = 268, 267, 278, 1002, 1005

ISSUER = bytes.fromhex("0123456789abcdef0123456789abcdef01234567")


def packet(*, version: int = 4, algorithm: int = RSA, hash: int = SHA256, kind: int = 0) -> bytes:
    """A signature packet that nobody made with a key (RFC 9580, section 5.2.3)."""
    width = 4 if version == 6 else 2
    hashed = bytes([5, 2, 0, 0, 0, 9]) + bytes([len(ISSUER) + 2, 33, version]) + ISSUER
    body = bytes([version, kind, algorithm, hash]) + len(hashed).to_bytes(width, "big") + hashed
    body += bytes(width) + b"\x12\x34" + b"\x00\x08\xff"
    return bytes([0xC2, len(body)]) + body


def packet_v3() -> bytes:
    body = bytes([3, 5, 0, 0, 0, 0, 9]) + ISSUER[:8] + bytes([RSA, SHA1]) + b"\x12\x34\x00\x08\xff"
    return bytes([0x88, len(body)]) + body


def carried(directory: Path, *signatures: tuple[int, bytes], omit: tuple[Tag, ...] = ()) -> Signatures:
    tags: dict[int, Field] = {}
    for tag, data in signatures:
        if tag == OPENPGP:
            before = tags[tag].value if tag in tags else []
            tags[tag] = Field(Kind.STRING_ARRAY, [*before, b64encode(data).decode()])
        else:
            tags[tag] = Field(Kind.BIN, data)
    path = make_rpm(directory, signature_tags=tags, omit=omit)
    with open(path, "rb", buffering=0) as stream:
        return signatures_of(inspect(stream, size=path.stat().st_size).head)


def test_a_package_without_signatures_carries_none(tmp_path: Path) -> None:
    assert carried(tmp_path).carried == ()
    assert hint(carried(tmp_path)) == ""


def test_each_tag_is_found_and_what_it_covers(tmp_path: Path) -> None:
    tags = (RSAHEADER, DSAHEADER, PGP, GPG, OPENPGP, OPENPGP)
    found = carried(tmp_path, *((tag, packet()) for tag in tags))
    assert [each.tag for each in found.carried] == [268, 267, 1002, 1005, 278, 278]
    assert [each.tag for each in found.carried if each.is_legacy] == [1002, 1005]
    parts = layout(tmp_path / "hello-1.0-1.noarch.rpm")
    assert (found.header.start, found.header.stop) == (parts.header, parts.payload)
    says = found.carried[0].says
    assert (says.created, says.issuer.lower(), says.key_id) == (9, ISSUER.hex(), "89ABCDEF01234567")


def test_signatures_of_the_header_decide_where_it_has_a_digest_of_the_payload(tmp_path: Path) -> None:
    signatures = ((RSAHEADER, packet()), (PGP, packet()))
    assert [each.tag for each in carried(tmp_path, *signatures).decisive()] == [RSAHEADER]
    assert [each.tag for each in carried(tmp_path, (PGP, packet())).decisive()] == [PGP]
    without = carried(tmp_path, *signatures, omit=(Tag.PAYLOADSHA256, Tag.PAYLOADSHA256ALT))
    assert [each.tag for each in without.decisive()] == [PGP]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (packet() + packet(), "no single OpenPGP signature"),
        (b"\x99" + packet()[1:], "ends too early"),
        (packet()[:-6], "ends too early"),
        (packet(kind=0x10), "something that is no document"),
        (packet(version=5), "version 5, which is not known"),
        (b"nonsense", "is no OpenPGP data"),
    ],
)
def test_what_is_no_signature_is_refused_with_the_reason(tmp_path: Path, data: bytes, reason: str) -> None:
    with pytest.raises(BadPackage, match=f"its signature can not be read: .*{reason}"):
        carried(tmp_path, (RSAHEADER, data))


def test_what_is_not_base64_is_refused(tmp_path: Path) -> None:
    path = make_rpm(tmp_path, signature_tags={OPENPGP: Field(Kind.STRING_ARRAY, ["no base64!"])})
    with open(path, "rb", buffering=0) as stream:
        head = inspect(stream, size=path.stat().st_size).head
    with pytest.raises(BadPackage, match="its signature can not be read"):
        signatures_of(head)


def test_more_than_anyone_makes_are_refused(tmp_path: Path) -> None:
    most = ((OPENPGP, packet()),) * MOST
    assert len(carried(tmp_path, *most).carried) == MOST
    with pytest.raises(BadPackage, match="it carries more than 16 signatures"):
        carried(tmp_path, *most, (OPENPGP, packet()))


@pytest.mark.parametrize(
    ("signatures", "said"),
    [
        ([(RSAHEADER, packet())], ""),
        ([(DSAHEADER, packet(algorithm=DSA))], ""),
        ([(DSAHEADER, packet(algorithm=EDDSA))], "EL8 can not verify its signature (EdDSA)"),
        ([(DSAHEADER, packet(algorithm=ECDSA))], "EL8 and EL9 can not verify its signature (ECDSA)"),
        ([(RSAHEADER, packet(algorithm=3))], "EL8 and EL9 can not verify its signature (RSA)"),
        ([(RSAHEADER, packet(hash=MD5))], "EL9 can not verify its signature (MD5)"),
        ([(RSAHEADER, packet(hash=SHA1))], "EL9 can not verify its signature (SHA-1)"),
        ([(RSAHEADER, packet_v3())], "EL9 can not verify its signature (SHA-1)"),
        ([(RSAHEADER, packet(version=6))], "EL8 and EL9 can not verify its signature (OpenPGP version 6)"),
        ([(OPENPGP, packet())], "EL8 and EL9 can not verify its signature (rpm 6's OPENPGP tag alone)"),
        ([(OPENPGP, packet(version=6)), (RSAHEADER, packet())], ""),
        ([(DSAHEADER, packet(algorithm=EDDSA)), (PGP, packet())], ""),
    ],
)
def test_who_has_old_clients_is_told_what_they_can_not_verify(
    tmp_path: Path, signatures: list[tuple[int, bytes]], said: str
) -> None:
    assert hint(carried(tmp_path, *signatures)) == said


def test_policies_are_told_apart() -> None:
    policies = [
        ANY,
        Policy(signed=True),
        Policy(signed=True, keyring=b"a"),
        Policy(signed=True, keyring=b"b"),
    ]
    assert len({policy.row() for policy in policies}) == 4


@given(st.binary(max_size=80), st.integers(0, 80))
def test_any_bytes_are_a_signature_or_a_mistake(data: bytes, at: int) -> None:
    whole = packet()
    for each in (data, whole[:at], whole[:at] + data + whole[at + 1 :]):
        try:
            signature_of(each)
        except ValueError:
            continue


@given(st.binary(max_size=80))
def test_any_file_has_keys_or_a_mistake(data: bytes) -> None:
    for each in (data, b"\x99" + data, b"\xc6" + data, b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n" + data):
        try:
            public_keys(keyring_of(each))
        except ValueError:
            continue


def test_lines_before_the_armor_s_text_may_have_any_number_of_colons() -> None:
    comments = "Comment: a: b: c: d: e\n" * 40
    begin = "-----BEGIN PGP PUBLIC KEY BLOCK-----\n"
    with pytest.raises(ValueError, match="has no OpenPGP key"):  # in an age of the world, once
        dearmored(f"{begin}{comments}x\n".encode())
    assert dearmored(f"{begin}{comments}\nAAAA\n-----END PGP PUBLIC KEY BLOCK-----\n".encode()) == bytes(3)
