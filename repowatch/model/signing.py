"""What a signature says: repomd.xml with the detached signature over it, and the keys that sign."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime


@dataclass(frozen=True, slots=True)
class Signed:
    """A repomd.xml and what belongs to it. Clients get the two together, or not at all."""

    repomd: bytes
    signature: bytes  # armored
    at: float  # seconds since 1970


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A key of the configuration, as the keyring knows it."""

    fingerprint: str  # in upper case
    public: bytes  # armored; b"" where the keyring does not have it
    expires_at: float | None  # seconds since 1970, of the part of it that signs
    trouble: str | None  # why it can not sign, but for its age

    def trouble_at(self, now: float) -> str | None:
        """Why it can not sign at a moment, in seconds since 1970; None when it can."""
        if self.trouble is not None or self.expires_at is None or now < self.expires_at:
            return self.trouble
        day = datetime.fromtimestamp(self.expires_at, UTC).strftime("%Y-%m-%d")
        return (
            f"the signing key {self.fingerprint} expired on {day}; prolong it "
            f"(gpg --quick-set-expire {self.fingerprint} 1y), or sign with another"
        )


def joined(signatures: Sequence[bytes]) -> bytes:
    """One file of the signatures of several keys, the first of them twice.

    A block of armor for each: rpm-sequoia (librepo of EL10 and Fedora) refuses a block of two signatures, and
    heeds the first block alone, as yum of EL7 heeds the first signature alone. libzypp wants to know the key
    of the last one (KeyRing::readSignatureKeyId); so the first key, which clients have known for longest, is
    last as well.
    """
    again = signatures[:1] if len(signatures) > 1 else ()
    return b"".join((*signatures, *again))
