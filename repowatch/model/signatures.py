"""What signs a package: the signatures that its signature header carries, and who can read them.

Tags and what they cover are rpm's (lib/rpmvs.cc, docs/manual/signatures_digests.md): 267, 268 and 278 cover
the header, of which a digest binds the payload since rpm 4.14; 1002 and 1005 cover header and payload.
"""

from __future__ import annotations

import hashlib
import struct
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from repowatch.errors import BadPackage
from repowatch.model.openpgp import ALGORITHMS, Signature, signature_of

_LEAD = 96  # bytes
_INTRO = struct.Struct(">8sII")  # magic, number of entries, bytes of data
_ENTRY = struct.Struct(">iIiI")  # tag, kind, offset in the data, number of values
_BIN, _STRING_ARRAY = 7, 8

_HEADER_TAGS = (268, 267)  # RSAHEADER; DSAHEADER, for all other algorithms
_OPENPGP = 278  # base64, any number: rpm 6
_LEGACY_TAGS = (1002, 1005)  # PGP, GPG
_PAYLOAD_DIGESTS = frozenset({5092, 5097, 5121, 5122, 5123, 5124})  # tags of the header
_WANTED = frozenset({*_HEADER_TAGS, *_LEGACY_TAGS, _OPENPGP, *_PAYLOAD_DIGESTS})

MOST = 16  # signatures that are looked at

_Values: TypeAlias = dict[int, tuple[int, memoryview, int]]  # by tag: kind, data from there on, how many


@dataclass(frozen=True, slots=True)
class Policy:
    """Which packages may be listed, by their signatures."""

    signed: bool = False  # whether a package has to carry a signature at all
    keyring: bytes | None = (
        None  # public keys in OpenPGP's packets, one of which has to have signed; None: any
    )

    def row(self) -> str:
        """What tells policies apart, for caches."""
        if self.keyring is not None:
            return f"signed_by {hashlib.sha256(self.keyring).hexdigest()}"
        return "signed" if self.signed else "any"


ANY = Policy()


@dataclass(frozen=True, slots=True)
class Carried:
    """One signature that a package carries."""

    data: bytes  # a packet
    says: Signature
    tag: int

    @property
    def is_legacy(self) -> bool:
        """Whether it is over header and payload, not over the header alone."""
        return self.tag in _LEGACY_TAGS


@dataclass(frozen=True, slots=True)
class Signatures:
    """The signatures of one package, and the bytes that they cover."""

    carried: tuple[Carried, ...]
    header: slice  # of the file: what a header signature covers, and where the payload begins
    binds_payload: bool  # whether the header has a digest of the payload

    def decisive(self) -> tuple[Carried, ...]:
        """Those that cover the whole package, by themselves or by a digest in what they cover."""
        over_header = tuple(each for each in self.carried if not each.is_legacy)
        if self.binds_payload and over_header:
            return over_header
        return tuple(each for each in self.carried if each.is_legacy)


def signatures_of(head: bytes) -> Signatures:
    """What the head of a whole package (see `digests`) carries.

    Raises BadPackage for a signature that is not well formed.
    """
    tags, end = _values(head, _LEAD)
    start = end + -end % 8
    header_tags, header_end = _values(head, start)
    try:
        found = tuple(Carried(data, signature_of(data), tag) for tag, data in _packets(tags))
    except (ValueError, Base64Error) as error:
        raise BadPackage(f"its signature can not be read: {error}") from None
    if len(found) > MOST:
        raise BadPackage(f"it carries more than {MOST} signatures")
    return Signatures(found, slice(start, header_end), not _PAYLOAD_DIGESTS.isdisjoint(header_tags))


def _packets(tags: _Values) -> Iterator[tuple[int, bytes]]:
    for tag in (*_HEADER_TAGS, *_LEGACY_TAGS):
        if tag in tags:
            kind, rest, count = tags[tag]
            if kind != _BIN:
                raise ValueError(f"tag {tag} is of type {kind}")
            yield tag, bytes(rest[:count])
    if _OPENPGP in tags:
        kind, rest, count = tags[_OPENPGP]
        if kind != _STRING_ARRAY:
            raise ValueError(f"tag {_OPENPGP} is of type {kind}")
        for text in bytes(rest).split(b"\0", MOST + 1)[: min(count, MOST + 1)]:
            yield _OPENPGP, b64decode(text, validate=True)


def _values(head: bytes, start: int) -> tuple[_Values, int]:
    """Kind, data and number of values by tag, and where the structure ends. It was checked by `digests`."""
    _, entries, size = _INTRO.unpack_from(head, start)
    index = start + _INTRO.size
    data = index + entries * _ENTRY.size
    values: _Values = {}
    view = memoryview(head)  # a copy for each would be as many times 256 MiB
    for tag, kind, offset, count in _ENTRY.iter_unpack(view[index:data]):
        if tag in _WANTED and tag not in values:  # the first one of a tag counts, as for its digests
            values[tag] = kind, view[data + offset : data + size], count
    return values, data + size


# What a release cannot verify, and where that is told.
#   278: came with rpm 6.0 (its release notes; rpmsign(1), --rpmv6).
#   RSA is 1: 3 (RSA to sign alone, which RFC 4880 deprecates) is in none of rpm's own OpenPGP code.
#   v6 packets: "rpm 4.x can NOT verify such a signature", rpm issue 3851.
#   EdDSA (22): came with rpm 4.16 (rpm pull request 1202); EL8 has 4.14.
#   ECDSA (19), and Ed25519 and Ed448 of RFC 9580 (27, 28): in no OpenPGP code of rpm 4.16
#   (rpmio/digest_openssl.c knows RSA, DSA and EdDSA), which EL9 has.
#   SHA-1 and MD5: EL9's OpenSSL verifies neither ("SHA-1 deprecation" in its release notes); EL8's does.
_EL8, _EL9 = "EL8", "EL9"
_RPM_416 = frozenset({1, 17, 22})
_RPM_414 = frozenset({1, 17})
_SHA1, _MD5 = 2, 1


def hint(signatures: Signatures) -> str:
    """Which of EL8 and EL9 can verify none of the signatures, and why; "" where there is nothing to say."""
    found = signatures.carried
    blind = [
        release for release in (_EL8, _EL9) if found and not any(_is_read(each, release) for each in found)
    ]
    if not blind:
        return ""
    kinds = ", ".join(dict.fromkeys(map(_kind, found)))
    return f"{' and '.join(blind)} can not verify its signature ({kinds})"


def _is_read(each: Carried, release: str) -> bool:
    if each.tag == _OPENPGP or each.says.version > 4:
        return False
    if release == _EL9:
        return each.says.algorithm in _RPM_416 and each.says.hash not in (_SHA1, _MD5)
    return each.says.algorithm in _RPM_414


def _kind(each: Carried) -> str:
    if each.says.version > 4:
        return f"OpenPGP version {each.says.version}"
    if each.tag == _OPENPGP:
        return "rpm 6's OPENPGP tag alone"
    if each.says.hash in (_MD5, _SHA1):
        return "SHA-1" if each.says.hash == _SHA1 else "MD5"
    return ALGORITHMS.get(each.says.algorithm, f"algorithm {each.says.algorithm}")
