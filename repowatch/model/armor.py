"""Public keys as text: ASCII armor (RFC 4880, section 6)."""

from __future__ import annotations

from base64 import b64encode
from textwrap import wrap

_BEGIN, _END = "-----BEGIN PGP PUBLIC KEY BLOCK-----", "-----END PGP PUBLIC KEY BLOCK-----"


def armored(content: bytes) -> bytes:
    """The text of a file of public keys, which may be text already. It ends with a newline.

    With a checksum, though RFC 9580 has none: rpm's own parser takes no key without (rpmpgp.c, decodePkts).
    """
    if not (content[:1] and content[0] & 0x80):
        return content.rstrip() + b"\n"
    lines = wrap(b64encode(content).decode(), 64)
    checksum = b64encode(_crc24(content).to_bytes(3)).decode()
    return "\n".join([_BEGIN, "", *lines, f"={checksum}", _END, ""]).encode()


def _crc24(data: bytes) -> int:
    """RFC 4880, section 6.1."""
    crc = 0xB704CE
    for byte in data:
        crc ^= byte << 16
        for _ in range(8):
            crc <<= 1
            if crc & 0x1000000:
                crc ^= 0x1864CFB
    return crc
