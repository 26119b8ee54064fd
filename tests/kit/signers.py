"""Signs packages with the real rpmsign, at any time and by keys of any kind, good or not."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from tests.kit.keyrings import Keyring

IN_2020, IN_2021, IN_2022 = (f"{year}0601T000000" for year in (2020, 2021, 2022))


class Signer:
    """A keyring with one key for each name; they were made at the beginning of 2020."""

    def __init__(self, keyring: Keyring) -> None:
        self.keyring = keyring
        self.fingerprints: dict[str, str] = {}

    def make_key(self, name: str, *, kind: str = "rsa2048", at: str = "20200101T000000") -> str:
        """A new key; its fingerprint."""
        made = ["--quick-generate-key", f"{name} <{name}@example.org>", kind, "sign", "never"]
        self.keyring.gpg("--faked-system-time", f"{at}!", "--passphrase", "", *made)
        self.fingerprints[name] = self.keyring.fingerprints()[-1]
        return self.fingerprints[name]

    def key_id(self, name: str) -> str:
        return self.fingerprints[name][-16:]

    def export(self, directory: Path, *names: str) -> Path:
        """A file with the armored public keys."""
        path = directory / f"{'-'.join(names)}.asc"
        path.write_bytes(
            self.keyring.gpg("--armor", "--export", *(self.fingerprints[name] for name in names))
        )
        return path

    def expire(self, name: str, *, at: str) -> None:
        """Let a key expire at a time, now that it has signed what it should not have."""
        changed = ["--quick-set-expire", self.fingerprints[name], at]
        self.keyring.gpg("--faked-system-time", "20200201T000000!", "--passphrase", "", *changed)

    def revoke(self, name: str) -> None:
        certificate = self.keyring.home / "openpgp-revocs.d" / f"{self.fingerprints[name]}.rev"
        armor = re.sub(r"(?m)^:(-----BEGIN)", r"\1", certificate.read_text())
        self.keyring.gpg("--import", stdin=armor.encode())

    def sign(
        self, path: Path, name: str, *, at: str = IN_2020, extra: str = "", legacy: bool = False
    ) -> Path:
        """Sign a package in place. `extra`: more options of gpg; `legacy` adds a signature of the payload."""
        options = f"--faked-system-time {at}! --ignore-time-conflict --ignore-valid-from {extra}"
        command: list[str | Path] = ["rpmsign", "--define", "__gpg /usr/bin/gpg"]
        command += ["--define", f"_gpg_path {self.keyring.home}"]
        command += ["--define", f"_gpg_name {self.fingerprints[name]}"]
        command += ["--define", f"_gpg_sign_cmd_extra_args {options}", *(["--rpmv3"] if legacy else [])]
        done = subprocess.run([*command, "--addsign", path], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return path
