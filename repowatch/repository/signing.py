"""The signature beside repomd.xml, and the public keys: what lies in repodata/, and whether it is as wanted.

repomd.xml and repomd.xml.asc are two files and two renames. Who reads both from the disk in between, or one
before and one after a publication, has two that do not belong together; the doors give each client a pair
(`web/pairs`), from `Publication.signed`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from repowatch.model.signing import Signed, SigningKey, joined
from repowatch.system.clock import Clock
from repowatch.system.files import remove_if_there, write_durably
from repowatch.system.gpg import Gpg, GpgError

log = logging.getLogger(__name__)

SIGNATURE = "repomd.xml.asc"
PUBLIC_KEYS = "repomd.xml.key"
_KEY_FILE = re.compile(r"^(?:[0-9A-F]{40}|[0-9A-F]{64})\.key$")
_ODD = (OSError, ValueError, LookupError, TypeError)  # what a note raises that we did not write


@dataclass(frozen=True, slots=True)
class SignBy:
    """Which keys sign, of which keyring."""

    gpg: Gpg
    fingerprints: tuple[str, ...]  # in upper case; the first is the one that clients have had for longest


@dataclass(frozen=True, slots=True)
class _Note:
    """What is known to be published, to be believed as long as the files are still those."""

    repomd: str  # SHA-256
    signature: str  # SHA-256
    keys: tuple[str, ...]
    public: str  # SHA-256 of all public keys


class Signing:
    """Belongs to one publisher and its thread; `want`, `keys` and `trouble` are for others as well."""

    def __init__(self, directory: str, *, staging: str, note: str, clock: Clock, by: SignBy | None) -> None:
        """`note` is a file of the cache. Without it what is published is signed anew."""
        self.signed: Signed | None = None  # what clients see, where it is known to be signed as the note says
        self.keys: tuple[SigningKey, ...] = ()  # as they were last looked at
        self._directory = directory
        self._aside = os.path.join(staging, SIGNATURE)
        self._note_path = note
        self._clock = clock
        self._by = by
        self._note: _Note | None = None
        self._stamps: tuple[tuple[int, int] | None, ...] = ()  # of the files that were published
        self._looked: object = None  # for what, and when, the keys were last looked at
        self._lying: set[str] | None = None  # key files in repodata/, where that is known
        self._stood: bytes | None = None  # the signature that the last one took the place of
        self._trouble: str | None = None  # why they can not be looked at

    def want(self, by: SignBy | None) -> None:
        """Sign by other keys from the next turn on; from any thread."""
        self._by = by

    def trouble(self) -> str | None:
        """Why nothing can be signed now; None when it can, or need not. From any thread."""
        if self._by is None:
            return None
        now = self._clock.now()
        troubles = (each.trouble_at(now) for each in self.keys)
        return self._trouble or next(filter(None, troubles), None)

    def expires_at(self) -> float | None:
        """When the first of the keys can not sign any more, in seconds since 1970; None: never."""
        return min((each.expires_at for each in self.keys if each.expires_at is not None), default=None)

    def key_files(self) -> Sequence[str]:
        """The location_href of the one file of all public keys, from which clients get those of tomorrow."""
        return () if self.signed is None else (f"repodata/{PUBLIC_KEYS}",)

    def status(self) -> dict[str, Any] | None:
        """For the JSON status; None where nothing is to be signed."""
        if self._by is None:
            return None
        now = self._clock.now()
        keys = [
            {"fingerprint": each.fingerprint, "expires_at": each.expires_at, "trouble": each.trouble_at(now)}
            for each in self.keys
        ]
        return {"keys": keys, "signed_at": self.signed.at if self.signed else None, "trouble": self.trouble()}

    def take_over(self, repomd: bytes | None) -> None:
        """Go on from what lies in repodata/, beside a repomd.xml with this text."""
        self._note, self.signed, self._lying = self._read_note(), None, None
        with contextlib.suppress(OSError), open(self._path(SIGNATURE), "rb") as file:
            signature, at = file.read(), os.fstat(file.fileno()).st_mtime
            note = self._note
            if (
                repomd is not None
                and note
                and (note.repomd, note.signature) == (_sum(repomd), _sum(signature))
            ):
                self.signed = Signed(repomd, signature, at)
        if self._note and self.signed is None:
            self._note = _Note("", "", (), "")  # ours once, and damaged: never right
        self._stamps = self._stat()
        self._look()

    def is_right(self) -> bool:
        """Whether what is published is signed as wanted. Looks at the keys, where they changed."""
        by, note = self._look(), self._note
        if by is None or note is None:
            return by is None and note is None
        is_known = self._trouble is None and all(each.public for each in self.keys)
        return note.keys == by.fingerprints and (not is_known or note.public == self._public())

    def is_disturbed(self) -> bool:
        """Whether something else wrote the files since."""
        return self._note is not None and self._stat() != self._stamps

    def sign(self, repomd: bytes) -> Signed | None:
        """Sign what is to be published, and lay the signature aside. Raises GpgError and OSError.

        The public keys get their names; they are durable once repodata/ is.
        """
        by = self._look()
        if by is None:
            return None
        if trouble := self.trouble():
            raise GpgError(trouble)
        signed = Signed(
            repomd,
            joined([by.gpg.sign(repomd, fingerprint=each.fingerprint) for each in self.keys]),
            self._clock.now(),
        )
        write_durably(self._aside, [signed.signature])
        for name, content in self._key_files().items():
            self._put(name, content)
        return signed

    def place(self, signed: Signed | None) -> None:
        """Give the signature its name, right before repomd.xml gets its own. Raises OSError."""
        if signed is not None:
            self._stood = None
            with contextlib.suppress(FileNotFoundError), open(self._path(SIGNATURE), "rb") as file:
                self._stood = file.read()
            os.rename(self._aside, self._path(SIGNATURE))

    def take_back(self, signed: Signed | None) -> None:
        """The signature has its name, and repomd.xml did not get its own: put back what stood there."""
        if signed is None:
            return
        with contextlib.suppress(OSError):
            if self._stood is None:
                remove_if_there(self._path(SIGNATURE))
            else:
                write_durably(self._aside, [self._stood])
                os.rename(self._aside, self._path(SIGNATURE))
            self._stamps = self._stat()

    def shown(self, signed: Signed | None) -> None:
        """Clients see a repomd.xml with this signature, or with none: the files of others go."""
        self._note, self.signed = None, signed
        if signed is not None:
            keys = tuple(each.fingerprint for each in self.keys)
            self._note = _Note(_sum(signed.repomd), _sum(signed.signature), keys, self._public())
        with contextlib.suppress(OSError):  # the next publication tries again
            if signed is None:
                remove_if_there(self._path(SIGNATURE))
                remove_if_there(self._path(PUBLIC_KEYS))
            self._remove_old_keys()
        self._stamps = self._stat()
        self._write_note()

    def _look(self) -> SignBy | None:
        """Ask the keyring for the keys, where it or they are others than before; by what is signed."""
        by = self._by
        looked = (by, by.gpg.stamp()) if by else None
        if by is None or (looked == self._looked and self._trouble is None):
            return by
        try:
            self.keys, self._trouble = by.gpg.keys(by.fingerprints), None
        except GpgError as error:
            self.keys, self._trouble = (), str(error)
        self._looked = looked
        return by

    def _public(self) -> str:
        return _sum(b"".join(each.public for each in self.keys))

    def _key_files(self) -> dict[str, bytes]:
        """Content by name. A block for each key, since rpm before 4.14 imports one of each block."""
        files = {f"{each.fingerprint}.key": each.public for each in self.keys}
        return files | {PUBLIC_KEYS: b"".join(each.public for each in self.keys)}

    def _put(self, name: str, content: bytes) -> None:
        path, aside = self._path(name), f"{self._aside}.key"
        with contextlib.suppress(OSError), open(path, "rb") as file:
            if file.read(len(content) + 1) == content:
                return
        write_durably(aside, [content])
        os.rename(aside, path)

    def _remove_old_keys(self) -> None:
        current = {f"{fingerprint}.key" for fingerprint in (self._note.keys if self._note else ())}
        if current == self._lying:
            return  # repodata/ may hold thousands of superseded files
        for name in os.listdir(self._directory):
            if _KEY_FILE.match(name) and name not in current:
                remove_if_there(self._path(name))
        self._lying = current

    def _stat(self) -> tuple[tuple[int, int] | None, ...]:
        found: list[tuple[int, int] | None] = []
        for name in (SIGNATURE, PUBLIC_KEYS):
            try:
                status = os.stat(self._path(name))
                found.append((status.st_ino, status.st_size))
            except OSError:
                found.append(None)
        return tuple(found)

    def _read_note(self) -> _Note | None:
        try:
            with open(self._note_path, "rb") as file:
                said = json.load(file)
            return _Note(said["repomd"], said["signature"], tuple(said["keys"]), said["public"])
        except FileNotFoundError:
            return None
        except _ODD as error:
            log.warning("%s can not be read (%s); what is published is signed anew", self._note_path, error)
            return _Note("", "", (), "")

    def _write_note(self) -> None:
        """Not durable: a note that was lost costs one publication at the next start."""
        try:
            if self._note is None:
                remove_if_there(self._note_path)
                return
            note = self._note
            said = {
                "repomd": note.repomd,
                "signature": note.signature,
                "keys": note.keys,
                "public": note.public,
            }
            with open(f"{self._note_path}.new", "w") as file:
                json.dump(said, file)
            os.rename(f"{self._note_path}.new", self._note_path)
        except OSError as error:
            log.warning("%s can not be written (%s); the next start signs anew", self._note_path, error)

    def _path(self, name: str) -> str:
        return os.path.join(self._directory, name)


def _sum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
