"""Makes keyrings and keys with the real gpg."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Self


class Keyring:
    """A GNUPGHOME of its own. Leaving the context ends its agent, and removes it."""

    def __init__(self) -> None:
        # Not below tmp_path: the path of the agent's socket may have 107 bytes.
        self.home = Path(tempfile.mkdtemp(prefix="keys"))
        # Else gpg finds out for two seconds how long a tenth of a second is, for each passphrase.
        (self.home / "gpg-agent.conf").write_text("s2k-count 65536\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end_agent()
        shutil.rmtree(self.home)

    def end_agent(self) -> None:
        subprocess.run(["gpgconf", "--homedir", self.home, "--kill", "gpg-agent"], check=True)

    def has_agent(self) -> bool:
        """Whether an agent answers."""
        asked = ["gpg-connect-agent", "--homedir", str(self.home), "--no-autostart", "getinfo pid", "/bye"]
        return "OK" in subprocess.run(asked, capture_output=True, text=True, check=False).stdout

    def gpg(self, *arguments: str | Path, stdin: bytes = b"") -> bytes:
        """What it printed. Raises AssertionError with its reason."""
        command = ["gpg", "--homedir", str(self.home), "--batch", "--no-tty", "--pinentry-mode", "loopback"]
        done = subprocess.run([*command, *arguments], input=stdin, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    def make_key(
        self, name: str, *, passphrase: str = "", expires: str = "never", usage: str = "sign"
    ) -> str:
        """A new key; its fingerprint."""
        self.gpg("--passphrase", passphrase, "--quick-generate-key", name, "ed25519", usage, expires)
        return self.fingerprints()[-1]

    def fingerprints(self) -> list[str]:
        """Of the primary keys, the oldest first."""
        lines = self.gpg("--with-colons", "--list-keys").decode().splitlines()
        kinds = [line.split(":") for line in lines if line.startswith(("pub:", "sub:", "fpr:"))]
        return [fields[9] for before, fields in pairwise(kinds) if before[0] == "pub" and fields[0] == "fpr"]

    def good(self, content: bytes, signature: bytes) -> list[str]:
        """By whom the signatures are, where all of them are good. Raises AssertionError."""
        with tempfile.TemporaryDirectory() as directory:
            path = os.path.join(directory, "signature")
            Path(path).write_bytes(signature)
            said = self.gpg("--status-fd", "1", "--verify", path, "-", stdin=content).decode()
        return [line.split()[-1] for line in said.splitlines() if line.startswith("[GNUPG:] VALIDSIG")]
