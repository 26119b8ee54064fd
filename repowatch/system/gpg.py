"""The door to GnuPG: the keys of one keyring, and signatures by them. It never asks anybody anything."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from repowatch.errors import RepowatchError
from repowatch.model.signing import SigningKey

PATIENCE = 20.0  # seconds for one call; a smart card that is not there hangs

# One digest for all keys: gpg of EL7 reads no file whose signatures differ in it (proc_tree of GnuPG 2.0).
DIGEST = "SHA512"

# What changes when public keys do, and secret ones.
_KEYRINGS = ("pubring.kbx", "pubring.gpg", "pubring.db", "private-keys-v1.d")
_LOST = frozenset("ir")  # validity of a part that signs no more, whatever else: invalid, revoked
_Stamp: TypeAlias = tuple[tuple[int, int, int], ...]


class GpgError(RepowatchError):
    """gpg could not do what it was asked."""


@dataclass(slots=True)
class _Part:
    """A primary key or subkey of `gpg --with-colons` (doc/DETAILS of GnuPG)."""

    validity: str
    expires_at: float | None
    signs: bool
    has_secret: bool

    @classmethod
    def of(cls, fields: Sequence[str]) -> _Part:
        return cls(
            validity=fields[1],
            expires_at=float(fields[6]) if fields[6] else None,
            signs="s" in fields[11],
            has_secret=len(fields) > 14 and fields[14] not in ("", "#"),
        )


@dataclass(slots=True)
class _Listed:
    """A key of the keyring."""

    fingerprint: str = ""
    parts: list[_Part] = field(default_factory=list)  # the primary key first


class Gpg:
    """A keyring, by the program. One thread of each repository may use it."""

    def __init__(self, home: str) -> None:
        """`home` is a GNUPGHOME."""
        self.home = home
        self._agent_was_there: bool | None = None
        self._lock = threading.Lock()

    def stamp(self) -> _Stamp:
        """What changes when the keys of the ring do."""
        found = []
        for name in _KEYRINGS:
            with contextlib.suppress(OSError):
                status = os.stat(os.path.join(self.home, name))
                found.append((status.st_ino, status.st_size, status.st_mtime_ns))
        return tuple(found)

    def keys(self, fingerprints: Sequence[str]) -> tuple[SigningKey, ...]:
        """What the ring knows of keys. Raises GpgError."""
        listed = self._run("--with-colons", "--with-secret", "--list-keys")
        known = {key.fingerprint: key for key in _parse(listed.decode("utf-8", "replace"))}
        return tuple(self._key(each, known.get(each)) for each in fingerprints)

    def _key(self, fingerprint: str, listed: _Listed | None) -> SigningKey:
        if listed is None:
            text = f"the signing key {fingerprint} is not in the keyring {self.home}; import it there"
            return SigningKey(fingerprint, b"", None, text)
        public = self._run("--armor", "--export-options", "export-minimal", "--export", fingerprint)
        expires_at, trouble = _judge(listed, self.home)
        return SigningKey(fingerprint, public, expires_at, trouble)

    def sign(self, content: bytes, *, fingerprint: str) -> bytes:
        """An armored, detached signature. Raises GpgError with gpg's own reason."""
        try:
            return self._run(
                *("--pinentry-mode", "error", "--digest-algo", DIGEST, "--armor", "--detach-sign"),
                *("--local-user", fingerprint, "--output", "-"),
                stdin=content,
            )
        except GpgError as error:
            raise GpgError(f"repomd.xml can not be signed with {fingerprint}: {error}") from error

    def close(self) -> None:
        """End the agent, if it was not there before us."""
        if self._agent_was_there is False:
            with contextlib.suppress(OSError, subprocess.SubprocessError):
                subprocess.run(  # noqa: S603 - its arguments are ours
                    ["gpgconf", "--homedir", self.home, "--kill", "gpg-agent"],  # noqa: S607
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    check=False,
                    timeout=PATIENCE,
                )

    def _run(self, *arguments: str, stdin: bytes = b"") -> bytes:
        if not os.path.isdir(self.home):
            raise GpgError(
                f"there is no keyring {self.home}; make the directory, and import the keys into it"
            )
        if not os.access(self.home, os.W_OK | os.X_OK):
            raise GpgError(
                f"the keyring {self.home} can not be written, and gpg has to: it must belong to "
                "the account that runs this; under systemd it lies in /var/lib/repowatch, or the unit has "
                f"ReadWritePaths={self.home}"
            )
        self._note_agent()
        command = [
            "gpg",
            "--homedir",
            self.home,
            "--batch",
            "--no-tty",
            "--no-auto-check-trustdb",
            *arguments,
        ]
        try:
            done = subprocess.run(  # noqa: S603 - its arguments are ours
                command,
                input=stdin,
                capture_output=True,
                check=False,
                timeout=PATIENCE,
                env=os.environ | {"LC_ALL": "C"},
            )
        except FileNotFoundError:
            raise GpgError("there is no program gpg; install gnupg2 (Debian: gnupg)") from None
        except subprocess.TimeoutExpired:
            raise GpgError(f"gpg did not come back within {PATIENCE:g} s and was ended") from None
        except OSError as error:
            raise GpgError(f"gpg can not be run: {error.strerror or error}") from error
        if done.returncode != 0:
            raise GpgError(_reason(done.stderr, done.returncode))
        return done.stdout

    def _note_agent(self) -> None:
        with self._lock:
            if self._agent_was_there is None:
                self._agent_was_there = _answers(_agent_socket(self.home))


class Keyrings:
    """One `Gpg` for each directory, shared by those who sign with it."""

    def __init__(self) -> None:
        self._opened: dict[str, Gpg] = {}

    def open(self, home: str) -> Gpg:
        return self._opened.setdefault(home, Gpg(home))

    def close(self) -> None:
        """End the agents that were started for us."""
        for gpg in self._opened.values():
            gpg.close()


def _parse(text: str) -> Iterator[_Listed]:
    key = _Listed()
    for line in text.splitlines():
        fields = line.split(":")
        if fields[0] == "pub":
            if key.fingerprint:
                yield key
            key = _Listed()
        if fields[0] in ("pub", "sub"):
            key.parts.append(_Part.of(fields))
        elif fields[0] == "fpr" and not key.fingerprint:
            key.fingerprint = fields[9]
    if key.fingerprint:
        yield key


def _judge(key: _Listed, home: str) -> tuple[float | None, str | None]:
    """Until when a key can sign, and why it can not, but for its age."""
    primary, name = key.parts[0], f"the signing key {key.fingerprint}"
    if primary.validity in _LOST:
        return None, f"{name} is {'revoked' if primary.validity == 'r' else 'invalid'}; sign with another"
    able = [part for part in key.parts if part.signs and part.validity not in _LOST]
    if not able:
        return None, f"{name} is not one for signatures; sign with another"
    with_secret = [part for part in able if part.has_secret]
    if not with_secret:
        return None, f"{name} has no secret part in the keyring {home}; import it there"
    ends = [each.expires_at for each in with_secret]
    longest = None if None in ends else max(end for end in ends if end is not None)
    bounds = [end for end in (primary.expires_at, longest) if end is not None]
    return min(bounds, default=None), None


def _reason(stderr: bytes, code: int) -> str:
    """What gpg said last, on one line, without what it says of files and directories."""
    lines = [line.strip() for line in stderr.decode("utf-8", "replace").splitlines()]
    said = dict.fromkeys(line.removeprefix("gpg: ") for line in lines if line and "WARNING" not in line)
    told = "; ".join(list(said)[-2:]) or f"gpg ended with {code} and said nothing"
    if "No pinentry" in told:  # which the agent would have asked
        told += ": the key has a passphrase, and the agent of its keyring does not know it"
    return told


def _agent_socket(home: str) -> str:
    """Where an agent of the keyring listens, "" where that can not be told."""
    try:
        done = subprocess.run(  # noqa: S603 - its arguments are ours
            ["gpgconf", "--homedir", home, "--list-dirs", "agent-socket"],  # noqa: S607
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=PATIENCE,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.decode("utf-8", "surrogateescape").strip()


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as agent:
        agent.settimeout(PATIENCE)
        try:
            agent.connect(path)
        except OSError:
            return False
        return True
