"""Users for a daemon, and how its clients show who they are."""

from __future__ import annotations

import base64
import subprocess
from collections.abc import Mapping
from pathlib import Path

from repowatch.web.rights.users import set_password
from tests.kit.daemon import COMMAND, END

CHEAP = 4  # cost of a hash that is made in a millisecond


def write_users(path: Path, passwords: Mapping[str, str]) -> Path:
    """Make an htpasswd file of users and their passwords."""
    for user, password in passwords.items():
        set_password(str(path), user, password.encode(), cost=CHEAP)
    return path


def passwd(path: Path, user: str, password: str = "", *, delete: bool = False) -> None:
    """`repowatch passwd`, with the password piped in. Raises AssertionError when it fails."""
    command = [*COMMAND, "passwd", str(path), user, *(["--delete"] if delete else [])]
    done = subprocess.run(
        command, input=f"{password}\n", capture_output=True, text=True, timeout=END, check=False
    )
    assert done.returncode == 0, done.stderr


def basic(user: str, password: str) -> dict[str, str]:
    """The field by which a client logs in (RFC 7617)."""
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def client_at(address: str, *, scheme: str = "https") -> dict[str, str]:
    """The fields by which a proxy tells where its client is, and what it speaks."""
    return {"X-Forwarded-For": address, "X-Forwarded-Proto": scheme}
