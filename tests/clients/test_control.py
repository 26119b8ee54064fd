"""The door for operators: a socket that says who is at its other end, and what POST does and refuses."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.kit.daemon import COMMAND, Answer, Daemon, repowatch
from tests.kit.rpms import make_rpm
from tests.kit.users import basic, write_users

PRUNE = "/-/api/v1/private/prune"
NOBODY = "nobody"
ANNA, BEN = ("anna", "a"), ("ben", "b")


@dataclass(frozen=True, slots=True)
class Host:
    """A daemon whose repository only anna may change, and only ben may read besides."""

    daemon: Daemon
    control: Path
    configuration: Path
    audit: Path

    def post(self, path: str, body: bytes = b"{}", *, by: tuple[str, str] | None = None) -> Answer:
        return self.daemon.request("POST", path, body, headers=basic(*by) if by else None)

    def told(self) -> list[dict[str, object]]:
        """What the audit says of operations."""
        lines = [json.loads(line) for line in self.audit.read_text().splitlines()]
        return [each for each in lines if each["method"] == "prune"]


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    scratch = tmp_path_factory.mktemp("control")
    (scratch / "private").mkdir()
    for version in ("1", "2"):
        make_rpm(scratch / "private", "old", version)
    users = write_users(scratch / "users", {"anna": "a", "ben": "b"})
    configuration = f"""
control: {scratch}/control
audit: {scratch}/audit
users: {users}
repositories:
  private:
    path: {scratch}/private
    read: [anna, ben]
    write: [anna]
    prune: [{{match: "old-*", keep: 1}}]
"""
    with Daemon(scratch=scratch / "scratch", configuration=configuration) as daemon:
        yield Host(daemon, scratch / "control", scratch / "scratch/repowatch.yaml", scratch / "audit")


def test_only_the_daemons_account_may_connect(host: Host) -> None:
    assert stat.S_IMODE(os.stat(host.control).st_mode) == 0o600
    assert stat.S_ISSOCK(os.stat(host.control).st_mode)


def test_the_status_of_a_private_repository_is_told_there_without_a_password(host: Host) -> None:
    told = repowatch("status", "--config", host.configuration)
    assert told.returncode == 0, told.stderr
    assert "\nprivate  /private/" in told.stdout
    by_tcp = repowatch("status", "--url", host.daemon.url.rstrip("/"))
    assert "private" not in by_tcp.stdout


def test_an_operation_is_done_there_and_the_audit_names_the_account(host: Host) -> None:
    before = len(host.told())
    done = repowatch("prune", "--config", host.configuration, "--repository", "private")
    assert done.returncode == 0, done.stderr
    assert host.daemon.request("GET", "/private/", headers=basic("ben", "b")).status == 200
    lines = host.told()[before:]
    assert lines[-1]["who"] == pwd.getpwuid(os.geteuid()).pw_name
    assert lines[-1]["how"] == "control"
    assert lines[-1]["location"] == '{"dry_run": false}'


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another account")
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="setpriv is not installed")
def test_another_account_can_not_connect(host: Host) -> None:
    script = "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])"
    for directory in list(host.control.parents)[:-1]:
        if not os.stat(directory).st_mode & stat.S_IXOTH:
            os.chmod(
                directory, os.stat(directory).st_mode | stat.S_IXOTH
            )  # so that it is the socket that refuses
    connect = [sys.executable, "-c", script, str(host.control)]
    assert subprocess.run(connect, check=False).returncode == 0
    refused = _by_nobody(*connect)
    assert refused.returncode != 0
    assert "Permission denied" in refused.stderr
    host.configuration.parent.chmod(0o755)
    host.configuration.chmod(0o644)
    told = _by_nobody(*COMMAND, "snapshots", "private", "--config", str(host.configuration))
    assert told.returncode == 1
    assert f"unix:{host.control} is not for this account; ask as root" in told.stderr


def _by_nobody(*command: str) -> subprocess.CompletedProcess[str]:
    group = pwd.getpwnam(NOBODY).pw_gid  # root's own would be stopped by a directory before the socket
    become = ("setpriv", "--reuid", NOBODY, "--regid", str(group), "--clear-groups")
    return subprocess.run([*become, *command], capture_output=True, text=True, check=False)


def test_who_gives_no_name_is_asked_for_one(host: Host) -> None:
    answer = host.post(PRUNE)
    assert answer.status == 401
    assert "Basic" in answer.headers["WWW-Authenticate"]


def test_who_may_not_write_is_refused_and_nothing_is_recorded(host: Host) -> None:
    before = len(host.told())
    assert host.post(PRUNE, by=BEN).status == 403
    assert len(host.told()) == before


def test_who_may_write_may_and_is_named(host: Host) -> None:
    answer = host.post(PRUNE, by=ANNA)
    assert answer.status == 200, answer.text
    assert json.loads(answer.body)["dry_run"] is False
    assert (host.told()[-1]["who"], host.told()[-1]["how"]) == ("anna", "basic")


def test_a_dry_run_is_no_change(host: Host) -> None:
    before = len(host.told())
    assert host.post(PRUNE, b'{"dry_run": true}', by=ANNA).status == 200
    assert len(host.told()) == before


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/-/api/v1/private/nothing", 405),
        ("/-/api/v1/nothing/prune", 405),
        ("/-/api/v1/private", 405),
        ("/-/api/v1/status", 405),
        ("/healthz", 405),
    ],
)
def test_what_is_no_operation_can_only_be_read(host: Host, path: str, status: int) -> None:
    answer = host.post(path, by=ANNA)
    assert answer.status == status
    assert "GET" in answer.headers["Allow"]


@pytest.mark.parametrize("path", [PRUNE, "/-/api/v1/nothing/nothing"])
def test_an_operation_is_not_found_by_get(host: Host, path: str) -> None:
    assert host.daemon.request("GET", path, headers=basic("anna", "a")).status == 404


@pytest.mark.parametrize("body", [b"{", b"[]", b'"x"', b"\xff\xfe", b'{"dry_run": 1}'])
def test_a_body_that_says_nothing_is_refused(host: Host, body: bytes) -> None:
    answer = host.post(PRUNE, body, by=ANNA)
    assert answer.status == 400
    assert answer.headers["Content-Type"].startswith("text/plain")


def test_a_body_that_is_too_long_is_refused(host: Host) -> None:
    assert host.post(PRUNE, b" " * 2_000_000 + b"{}", by=ANNA).status == 413


def test_a_second_daemon_takes_the_socket_of_one_that_was_killed(tmp_path: Path) -> None:
    (tmp_path / "rpm").mkdir()
    configuration = f"control: {tmp_path}/control\nrepositories:\n  rpm: {{path: {tmp_path}/rpm}}\n"
    with Daemon(scratch=tmp_path / "scratch", configuration=configuration) as daemon:
        daemon.kill()
        assert (tmp_path / "control").exists()
        daemon.start()
        told = repowatch("status", "--config", tmp_path / "scratch/repowatch.yaml")
        assert told.returncode == 0, told.stderr
        assert daemon.terminate() == 0
        assert not (tmp_path / "control").exists()
