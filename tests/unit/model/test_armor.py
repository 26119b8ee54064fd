from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from repowatch.model.armor import armored


def gpg(home: Path, *arguments: str, content: bytes = b"") -> bytes:
    home.mkdir(mode=0o700, exist_ok=True)
    command = ["gpg", "--homedir", str(home), "--batch", "--no-tty", "--quiet", *arguments]
    return subprocess.run(command, input=content, capture_output=True, check=True).stdout


@pytest.mark.client("gpg")
def test_gpg_reads_the_armor_and_would_have_written_the_same(tmp_path: Path) -> None:
    home = tmp_path / "home"
    gpg(home, "--passphrase", "", "--quick-generate-key", "anna", "ed25519", "sign", "never")
    content = gpg(home, "--export")
    text = gpg(home, "--export", "--armor")
    assert armored(content) == text
    assert armored(text) == text
    assert armored(text + b"\n\n") == text
    gpg(tmp_path / "other", "--import", content=armored(content))
    subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=True)
    subprocess.run(["gpgconf", "--homedir", str(tmp_path / "other"), "--kill", "all"], check=True)
