"""Whether the signatures of a package are those that a repository asks for; gpgv does the cryptography.

The verdict depends on the package and the keys alone, not on the clock: what was signed before its key
expired stays good, as it does for rpm (rpm-sequoia verifies as of the signature's own time).
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from repowatch.errors import BadPackage, ChangedWhileRead, RepowatchError, UsageError
from repowatch.model.openpgp import ALGORITHMS, HASHES, keyring_of, public_keys
from repowatch.model.package import Stamp
from repowatch.model.signatures import ANY, Carried, Policy, Signatures, hint, signatures_of

log = logging.getLogger(__name__)

_NO_GPGV = "`packages: {signed_by: ...}` needs gpgv; install it (Debian: gpgv, others: gnupg2)"

# What gpgv says of a signature that it could not verify (libgpg-error's numbers).
_BAD_ALGORITHM, _BAD_DIGEST, _NO_KEY = "4", "5", "9"

Status = Mapping[str, Sequence[str]]  # gpgv's lines by their first word (GnuPG's doc/DETAILS)


def check(head: bytes, *, path: str, stamp: Stamp, policy: Policy) -> str:
    """Hold a whole package against a policy; a hint for who has old clients, or "".

    `path` is where the file can be opened, to read it once more where only a signature over all of it counts.
    Raises BadPackage, ChangedWhileRead when it is not the file of `stamp` any more, and OSError.
    """
    try:
        signatures = signatures_of(head)
    except BadPackage:
        if policy == ANY:
            return ""
        raise
    if policy.signed and not signatures.carried:
        raise BadPackage("not signed")
    if policy.keyring is not None:
        _verify(signatures, head, path, stamp, policy.keyring)
    return hint(signatures)


def _verify(signatures: Signatures, head: bytes, path: str, stamp: Stamp, keyring: bytes) -> None:
    """Return when one of the signatures is by one of the keys, and none is wrong. Raises BadPackage."""
    decisive = signatures.decisive()
    if not decisive:
        raise BadPackage("its signature covers the header alone, and no digest in there the payload")
    reasons = []
    for carried in decisive:
        with _Opened(head, signatures.header, path if carried.is_legacy else None, stamp) as content:
            status = _gpgv(carried.data, content, keyring)
        if "BADSIG" in status:
            raise BadPackage(
                f"its signature by {carried.says.key_id} does not match: it is corrupt or forged"
            )
        reasons.append(_doubt(status, carried, keyring))
    if all(reasons):
        raise BadPackage(reasons[0])


def mismatch(content: bytes, *, signature: bytes, keys: bytes) -> str | None:
    """Why a detached signature is none by `keys`, or not of this content; None when it is.

    Both may be armored. Expired keys count: what they signed stays what it is.
    """
    descriptor = _memory("content", content)
    try:
        status = _gpgv(signature, descriptor, keyring_of(keys))
    except (BadPackage, ValueError, OSError) as error:
        return str(error)
    finally:
        os.close(descriptor)
    return None if "VALIDSIG" in status and "BADSIG" not in status else "it is not a signature of repomd.xml"


def _doubt(status: Status, carried: Carried, keyring: bytes) -> str:
    """Why a signature does not count; "" where it does."""
    by = f"signed by {carried.says.key_id}"
    if "VALIDSIG" not in status:
        return _unverified(status, carried, by)
    fingerprint, signed_at = status["VALIDSIG"][0], int(status["VALIDSIG"][2])
    if "REVKEYSIG" in status:
        return f"{by}, a key that is revoked"
    if "EXPSIG" in status:
        return f"{by}, and that signature has expired"
    made_at = next((key.created for key in public_keys(keyring) if key.fingerprint == fingerprint), 0)
    if signed_at < made_at:
        return f"{by} on {_date(signed_at)}, before that key was made"
    if "EXPKEYSIG" in status:
        ends = min((int(each) for each in status.get("KEYEXPIRED", ()) if each.isdigit()), default=0)
        if signed_at >= ends:
            return f"{by} on {_date(signed_at)}, after that key had expired ({_date(ends)})"
    return ""


def _unverified(status: Status, carried: Carried, by: str) -> str:
    said = status.get("ERRSIG", ())
    code = said[5] if len(said) > 5 else ""
    if code == _NO_KEY or "NO_PUBKEY" in status:
        return f"{by}, which packages.signed_by does not name"
    if code == _BAD_DIGEST:
        return f"{by} with {HASHES.get(carried.says.hash, 'a hash')}, which is too weak to prove anything"
    algorithm = ALGORITHMS.get(carried.says.algorithm, f"algorithm {carried.says.algorithm}")
    return f"{by} in a way that gpgv can not verify ({algorithm}, OpenPGP version {carried.says.version})"


def _date(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")


class _Opened:
    """What a signature covers, as a descriptor that stands at its beginning."""

    def __init__(self, head: bytes, header: slice, path: str | None, stamp: Stamp) -> None:
        """`path` where it is header and payload."""
        self._stamp = stamp if path else None
        if path is None:
            self._descriptor = _memory("rpm-header", head[header])
        else:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            os.lseek(self._descriptor, header.start, os.SEEK_SET)

    def __enter__(self) -> int:
        return self._descriptor

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        now = Stamp.of(os.fstat(self._descriptor))
        os.close(self._descriptor)
        if kind is None and self._stamp not in (None, now):
            raise ChangedWhileRead("the package changed while its signature was verified")


def _memory(name: str, content: bytes) -> int:
    """A file in memory, at its beginning."""
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC)
    with open(os.dup(descriptor), "wb") as file:
        file.write(content)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _gpgv(signature: bytes, content: int, keyring: bytes) -> Status:
    """What gpgv says of a signature over the rest of an open file."""
    program = shutil.which("gpgv")
    if program is None:
        raise BadPackage(_NO_GPGV)
    signature_at, keyring_at = _memory("signature", signature), _memory("keyring", keyring)
    try:
        said = subprocess.run(  # noqa: S603 - its arguments are ours
            [
                *(program, "--homedir", "/nonexistent", "--status-fd", "1", "--ignore-time-conflict"),
                *("--keyring", f"/proc/self/fd/{keyring_at}", f"/proc/self/fd/{signature_at}", "-"),
            ],
            stdin=content,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            pass_fds=(signature_at, keyring_at),
            check=False,
        )
    finally:
        os.close(signature_at)
        os.close(keyring_at)
    text = said.stdout.decode("utf-8", "replace")
    lines = [line.split()[1:] for line in text.split("\n") if line.startswith("[GNUPG:] ")]
    if said.returncode < 0:  # nothing is wrong with the package: it is to be looked at again
        raise OSError(errno.EINTR, f"gpgv was killed by signal {-said.returncode}")
    if not lines:
        raise BadPackage(f"its signature could not be verified: gpgv ended with {said.returncode}")
    return {line[0]: line[1:] for line in lines if line}


# -- which keys --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Seen:
    """The key files as they were."""

    stamps: tuple[Stamp | None, ...]
    trouble: str | None


class Keys:
    """The policy of one repository; key files are read again when they change."""

    def __init__(self, packages: str | Sequence[str]) -> None:
        """`packages`: "any", "signed", or the files of the keys. Raises UsageError."""
        self._files = () if isinstance(packages, str) else tuple(packages)
        self.policy = Policy(signed=packages != "any")
        self.fingerprints: tuple[str, ...] = ()  # of the keys, without their subkeys
        if self._files:
            if shutil.which("gpgv") is None:
                raise UsageError(_NO_GPGV)
            self._seen = _Seen(self._stamps(), None)
            self._take(self._read())
        else:
            self._seen = _Seen((), None)

    @property
    def trouble(self) -> str | None:
        """Why the keys are not those that the files have now."""
        return self._seen.trouble

    def status(self) -> dict[str, Any]:
        """For the JSON status: what packages have to be signed by."""
        kind = "signed_by" if self._files else "signed" if self.policy.signed else "any"
        return {"packages": kind, "keys": self.fingerprints, "trouble": self.trouble}

    def are_old(self) -> bool:
        """Whether the files changed since they were read. May be called from any thread."""
        return bool(self._files) and self._stamps() != self._seen.stamps

    def look(self) -> bool:
        """Whether the files have other keys than before; what can not be read leaves them as they were."""
        stamps = self._stamps()
        if stamps == self._seen.stamps:
            return False
        before = self.policy
        try:
            self._take(self._read())
        except RepowatchError as error:
            if str(error) != self._seen.trouble:
                log.error("%s; the keys stay as they were", error)
            self._seen = _Seen(stamps, str(error))
            return False
        self._seen = _Seen(stamps, None)
        return self.policy != before

    def _take(self, keyring: bytes) -> None:
        self.policy = Policy(signed=True, keyring=keyring)
        self.fingerprints = tuple(key.fingerprint for key in public_keys(keyring) if key.is_primary)

    def _stamps(self) -> tuple[Stamp | None, ...]:
        return tuple(map(_stamp_of, self._files))

    def _read(self) -> bytes:
        return b"".join(map(read_keys, self._files))


def read_keys(path: str) -> bytes:
    """The public keys of a file, in OpenPGP's packets. Raises UsageError."""
    try:
        with open(path, "rb") as file:
            return keyring_of(file.read())
    except OSError as error:
        reason = error.strerror or str(error)
        raise UsageError(
            f"{path}: the key can not be read: {reason}; check the path and its permissions"
        ) from None
    except ValueError as error:
        raise UsageError(f"{path}: {error}") from None


def _stamp_of(path: str) -> Stamp | None:
    try:
        return Stamp.of(os.stat(path))
    except OSError:
        return None
