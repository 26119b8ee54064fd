"""OpenPGP without cryptography: what a signature says of itself, and which keys a file has.

The formats are those of RFC 9580 (packets: section 4; signatures: 5.2; keys: 5.5; armor: 6), and of RFC 4880
before it.
"""

from __future__ import annotations

import binascii
import hashlib
import re
from base64 import b64decode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_SIGNATURE, _SECRET_KEY, _PUBLIC_KEY, _SECRET_SUBKEY, _PUBLIC_SUBKEY = 2, 5, 6, 7, 14

_CREATED, _ISSUER, _ISSUER_FINGERPRINT = 2, 16, 33  # subpackets of a signature

ALGORITHMS = {1: "RSA", 3: "RSA", 17: "DSA", 19: "ECDSA", 22: "EdDSA", 27: "Ed25519", 28: "Ed448"}
HASHES = {1: "MD5", 2: "SHA-1", 3: "RIPEMD-160", 8: "SHA-256", 9: "SHA-384", 10: "SHA-512", 11: "SHA-224"}

_ARMOR = re.compile(
    rb"^-----BEGIN PGP ([A-Z ]+)-----[ \t]*\r?\n(?:[^\r\n:]+: [^\r\n]*\r?\n)*[ \t]*\r?\n"
    rb"([^-]*?)^(?:=[A-Za-z0-9+/]{4}[ \t]*\r?\n)?-----END PGP \1-----",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Signature:
    """What one signature packet says of itself."""

    version: int
    algorithm: int
    hash: int
    created: int | None  # seconds since 1970
    issuer: str  # hexadecimal: a fingerprint or a key ID; "" where it does not say

    @property
    def key_id(self) -> str:
        """The key ID of the issuer: 16 hexadecimal digits, or "unknown"."""
        if not self.issuer:
            return "unknown"
        return self.issuer[:16] if self.version > 4 else self.issuer[-16:]


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key or a subkey."""

    fingerprint: str  # hexadecimal
    created: int  # seconds since 1970
    is_primary: bool


def signature_of(data: bytes) -> Signature:
    """What the one signature packet says that `data` is. Raises ValueError when it is not one."""
    try:
        found = list(_packets(data))
        if len(found) != 1 or found[0][0] != _SIGNATURE:
            raise ValueError("no single OpenPGP signature")
        body = found[0][1]
        return _signature_v3(body) if body[0] == 3 else _signature_v4(body)
    except IndexError:
        raise ValueError("an OpenPGP signature that ends too early") from None


def _signature_v3(body: bytes) -> Signature:
    if body[1] != 5 or body[2] != 0:
        raise ValueError("an OpenPGP signature of something that is no document")
    body[21]  # raises IndexError
    return Signature(3, body[15], body[16], int.from_bytes(body[3:7], "big"), body[7:15].hex().upper())


def _signature_v4(body: bytes) -> Signature:
    version, kind, algorithm, hash_algorithm = body[0], body[1], body[2], body[3]
    if version not in (4, 6):
        raise ValueError(f"an OpenPGP signature of version {version}, which is not known")
    if kind != 0:
        raise ValueError("an OpenPGP signature of something that is no document")
    width = 4 if version == 6 else 2
    created, issuers, at = None, [""], 4
    for _ in ("hashed", "unhashed"):
        end = at + width + int.from_bytes(body[at : at + width], "big")
        for tag, value in _subpackets(body[at + width : end]):
            if tag == _CREATED:
                created = int.from_bytes(value, "big")
            elif tag == _ISSUER_FINGERPRINT:
                issuers.append(value[1:].hex().upper())
            elif tag == _ISSUER:
                issuers.append(value.hex().upper())
        at = end
    body[at + 2]  # raises IndexError
    return Signature(version, algorithm, hash_algorithm, created, max(issuers, key=len))


def _subpackets(area: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(area):
        length, at = area[at], at + 1
        if length == 255:
            length, at = int.from_bytes(area[at : at + 4], "big"), at + 4
        elif length >= 192:
            length, at = (length - 192 << 8) + area[at] + 192, at + 1
        if length == 0 or at + length > len(area):
            raise ValueError("an OpenPGP signature whose parts do not fit")
        yield area[at] & 0x7F, area[at + 1 : at + length]
        at += length


def dearmored(content: bytes) -> bytes:
    """The packets of a file of public keys, armored or not. Raises ValueError with what is wrong."""
    if content[:1] and content[0] & 0x80:
        return content
    blocks = _ARMOR.findall(content)
    if not blocks:
        raise ValueError("has no OpenPGP key; export one with `gpg --armor --export`")
    if any(kind != b"PUBLIC KEY BLOCK" for kind, _ in blocks):
        raise ValueError(f"has a {blocks[0][0].decode().lower()}; export the public key alone")
    try:
        return b"".join(b64decode(re.sub(rb"\s", b"", text), validate=True) for _, text in blocks)
    except binascii.Error:
        raise ValueError("is damaged: its armor is not base64; export the key again") from None


def public_keys(data: bytes) -> Sequence[PublicKey]:
    """The keys and subkeys, at least one. Raises ValueError with what is wrong."""
    keys = []
    try:
        for tag, body in _packets(data):
            if tag in (_SECRET_KEY, _SECRET_SUBKEY):
                raise ValueError("has a secret key; export the public key alone")
            if tag in (_PUBLIC_KEY, _PUBLIC_SUBKEY):
                created = int.from_bytes(body[1:5], "big")
                keys.append(PublicKey(_fingerprint(body), created, tag == _PUBLIC_KEY))
    except (IndexError, OverflowError):
        raise ValueError("is damaged: a key does not fit; export it again") from None
    if not any(key.is_primary for key in keys):
        raise ValueError("has no OpenPGP key; export one with `gpg --armor --export`")
    return keys


def keyring_of(content: bytes) -> bytes:
    """The keys of a file, armored or not, that gpgv reads, in packets. Raises ValueError with what is wrong.

    One key of version 5 or 6 in a keyring, and gpgv (2.2) does not find the others either.
    """
    data = dearmored(content)
    public_keys(data)
    kept, whole, part = [], False, False  # whether the key, and its part at hand, are read
    for tag, body in _packets(data):
        if tag in (_PUBLIC_KEY, _PUBLIC_SUBKEY):
            part = body[0] <= 4
            whole = part if tag == _PUBLIC_KEY else whole
        if whole and part:
            kept.append(bytes([0xC0 | tag, 255]) + len(body).to_bytes(4, "big") + body)
    if not kept:
        raise ValueError("has only keys of versions that gpgv can not read; add one of version 4")
    return b"".join(kept)


def _fingerprint(body: bytes) -> str:
    if body[0] >= 5:
        begin = b"\x9a" if body[0] == 5 else b"\x9b"
        return hashlib.sha256(begin + len(body).to_bytes(4, "big") + body).hexdigest().upper()
    framed = b"\x99" + len(body).to_bytes(2, "big") + body
    return hashlib.sha1(framed, usedforsecurity=False).hexdigest().upper()


def _packets(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Tag and body of each packet. Raises ValueError and IndexError."""
    at = 0
    while at < len(data):
        first, at = data[at], at + 1
        if not first & 0x80:
            raise ValueError("is no OpenPGP data; export the key again")
        if first & 0x40:
            tag = first & 0x3F
            length, at = _new_length(data, at)
        else:
            tag, width = first >> 2 & 0x0F, 1 << (first & 3)
            if width == 8:
                raise ValueError("has an OpenPGP packet of unknown length; export the key again")
            length, at = int.from_bytes(data[at : at + width], "big"), at + width
        if at + length > len(data):
            raise ValueError("is damaged: it ends too early; export the key again")
        yield tag, data[at : at + length]
        at += length


def _new_length(data: bytes, at: int) -> tuple[int, int]:
    first = data[at]
    if first < 192:
        return first, at + 1
    if first < 224:
        return (first - 192 << 8) + data[at + 1] + 192, at + 2
    if first == 255:
        return int.from_bytes(data[at + 1 : at + 5], "big"), at + 5
    raise ValueError("has an OpenPGP packet in parts, as no key and no signature is; export the key again")
