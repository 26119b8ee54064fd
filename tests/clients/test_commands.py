"""The commands, as a person or a script runs them: what they say, and their exit codes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bcrypt
import pytest

from repowatch.system.audit import Audit, Change
from tests.clients.conftest import run
from tests.kit.clients import locate
from tests.kit.daemon import COMMAND, Daemon, repowatch, wait_until
from tests.kit.metadata import locations
from tests.kit.rpms import flip_byte, make_rpm, truncate

HELLO = "hello-1.0-1.noarch.rpm"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A directory with two packages that nobody has indexed."""
    make_rpm(tmp_path / "rpm"), make_rpm(tmp_path / "rpm" / "sub", "other")
    return tmp_path / "rpm"


def primary(tree: Path) -> Path:
    [path] = (tree / "repodata").glob("*-primary.xml.gz")
    return path


def test_a_tree_without_metadata_is_different_until_it_is_indexed(tree: Path) -> None:
    found = repowatch("verify", tree)
    assert found.returncode == 1
    assert found.stdout == "repodata/repomd.xml is missing\n"
    assert repowatch("index", tree).returncode == 0
    found = repowatch("verify", tree)
    assert (found.returncode, found.stdout) == (0, "")


def test_indexing_again_changes_nothing(tree: Path) -> None:
    repowatch("index", tree)
    repomd = (tree / "repodata" / "repomd.xml").read_bytes()
    assert repowatch("index", tree).returncode == 0
    assert (tree / "repodata" / "repomd.xml").read_bytes() == repomd


def _damage(tree: Path) -> str:
    flip_byte(primary(tree), offset=100)
    return primary(tree).name


def _shorten(tree: Path) -> str:
    truncate(primary(tree), size=100)
    return primary(tree).name


def _remove_record(tree: Path) -> str:
    primary(tree).unlink()
    return "primary"


def _remove_repomd(tree: Path) -> str:
    (tree / "repodata" / "repomd.xml").unlink()
    return "repomd.xml"


def _spoil_repomd(tree: Path) -> str:
    (tree / "repodata" / "repomd.xml").write_text("<repomd>")
    return "repomd.xml"


def _add_package(tree: Path) -> str:
    return make_rpm(tree, "added").name


def _replace_package(tree: Path) -> str:
    return make_rpm(tree, summary="Another").name


def _remove_package(tree: Path) -> str:
    (tree / HELLO).unlink()
    return "1 packages are in the metadata"


@pytest.mark.parametrize(
    "change",
    [
        _damage,
        _shorten,
        _remove_record,
        _remove_repomd,
        _spoil_repomd,
        _add_package,
        _replace_package,
        _remove_package,
    ],
)
def test_verify_finds_what_index_repairs(tree: Path, change: Callable[[Path], str]) -> None:
    repowatch("index", tree)
    expected = change(tree)
    found = repowatch("verify", tree)
    assert found.returncode == 1
    assert expected in found.stdout
    assert "Traceback" not in found.stderr
    assert repowatch("index", tree).returncode == 0
    assert repowatch("verify", tree).returncode == 0


def test_index_tells_what_it_does_not_list(tree: Path) -> None:
    truncate(tree / HELLO, size=500)
    done = repowatch("index", tree)
    assert done.returncode == 0
    assert HELLO in done.stderr
    assert repowatch("verify", tree).returncode == 0


@pytest.mark.parametrize("command", ["index", "verify", "serve"])
def test_a_directory_that_is_missing_is_wrong_usage(tmp_path: Path, command: str) -> None:
    done = repowatch(command, tmp_path / "none")
    assert done.returncode == 2
    assert f"{tmp_path}/none: no such directory" in done.stderr
    assert "Traceback" not in done.stderr


def test_one_writer_has_a_repository(tree: Path, tmp_path: Path) -> None:
    with Daemon(tree, scratch=tmp_path / "scratch") as daemon:
        for arguments in (("serve", "--listen", "127.0.0.1:0", tree), ("index", tree)):
            done = repowatch(*arguments)
            assert done.returncode == 2
            assert f"another process (pid {daemon.pid})" in done.stderr
            assert done.stdout == ""
        assert repowatch("verify", tree).returncode == 0
        assert daemon.get("/healthz").status == 200


def test_strangers_may_upload_only_when_somebody_says_so(tree: Path) -> None:
    done = repowatch("serve", tree, "--listen", "0.0.0.0:0")
    assert done.returncode == 2
    assert "--allow-anonymous-upload" in done.stderr
    assert not (tree / ".repowatch").exists()


def test_an_address_that_is_taken_is_told(tree: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = repowatch("serve", tree, "--listen", f"127.0.0.1:{taken.getsockname()[1]}")
    assert done.returncode == 2
    assert "address already in use" in done.stderr.lower()
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("arguments", [(), ("serve",), ("serve", "--config", "a.yaml", "."), ("dance",)])
def test_wrong_usage_has_exit_code_2(arguments: tuple[str, ...]) -> None:
    done = repowatch(*arguments)
    assert done.returncode == 2
    assert done.stderr
    assert "Traceback" not in done.stderr


def test_check_config_tells_every_mistake_with_its_line(tree: Path, tmp_path: Path) -> None:
    config = tmp_path / "repowatch.yaml"
    config.write_text(f"repositories:\n  rpm: {{path: {tree}}}\n")
    done = repowatch("check-config", config)
    assert (done.returncode, done.stderr) == (0, "")
    config.write_text(f"lissen: 127.0.0.1:80\nrepositories:\n  rpm:\n    path: {tree}\n    settle: soon\n")
    done = repowatch("check-config", config)
    assert done.returncode == 2
    assert f"{config}:1: " in done.stderr
    assert f"{config}:5: " in done.stderr
    config.write_text(f"listen: 0.0.0.0:80\nrepositories:\n  rpm: {{path: {tree}}}\n")
    assert repowatch("check-config", config).returncode == 2


def test_status_tells_what_is_listed_and_why_the_rest_is_not(tree: Path, tmp_path: Path) -> None:
    truncate(tree / HELLO, size=500)
    with Daemon(tree, scratch=tmp_path / "scratch") as daemon:
        done = repowatch("status", "--url", daemon.url)
        assert done.returncode == 0
        assert "1 packages" in done.stdout
        assert f"not listed: {HELLO}: {daemon.rejected('rpm')[HELLO]}" in done.stdout
        told = json.loads(repowatch("status", "--json", "--url", daemon.url).stdout)
        assert told["repositories"][0]["packages"] == 1


def test_status_without_a_daemon_fails() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        done = repowatch("status", "--url", f"http://127.0.0.1:{free.getsockname()[1]}")
    assert done.returncode == 1
    assert "is it running?" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_daemon_that_is_asked_to_stop_does_so_in_order(tree: Path, tmp_path: Path, number: int) -> None:
    with Daemon(tree, scratch=tmp_path / "scratch") as daemon:
        daemon.signal(number)
        assert daemon.wait() == 0
        assert "Traceback" not in daemon.log
    assert repowatch("verify", tree).returncode == 0


def test_an_upload_in_hand_ends_well_when_the_daemon_is_asked_to_stop(tree: Path, tmp_path: Path) -> None:
    package = make_rpm(tmp_path, "late")
    content = package.read_bytes()
    head = f"PUT /rpm/{package.name} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(content)}\r\n\r\n"
    with Daemon(tree, scratch=tmp_path / "scratch") as daemon:
        with socket.create_connection(daemon.address, timeout=30) as connection:
            connection.sendall(head.encode() + content[:1000])
            wait_until(lambda: os.listdir(tree / ".repowatch" / "staging"))
            daemon.signal(signal.SIGTERM)
            wait_until(lambda: "stopping" in daemon.log)
            connection.sendall(content[1000:])
            assert b" 201 " in connection.makefile("rb").readline()
        assert daemon.wait() == 0
    assert (tree / package.name).read_bytes() == content
    assert repowatch("verify", tree).returncode == 0


def test_a_bad_configuration_is_refused_while_the_old_one_goes_on(tree: Path, tmp_path: Path) -> None:
    good = f"repositories:\n  rpm: {{path: {tree}}}\n"
    with Daemon(scratch=tmp_path / "scratch", configuration=good) as daemon:
        (tmp_path / "scratch" / "repowatch.yaml").write_text("repositories: nothing\n")
        daemon.signal(signal.SIGHUP)
        wait_until(lambda: "the old one stays" in daemon.log)
        assert daemon.get("/rpm/repodata/repomd.xml").status == 200
        assert daemon.terminate() == 0


def test_several_repositories_are_served_at_their_own_names(tmp_path: Path) -> None:
    first, second = make_rpm(tmp_path / "first"), make_rpm(tmp_path / "second", "other")
    with Daemon(first.parent, second.parent, scratch=tmp_path / "scratch") as daemon:
        assert locations(daemon, "first") == {first.name}
        assert locations(daemon, "second") == {second.name}


@pytest.mark.client("createrepo_c")
def test_a_repository_of_createrepo_c_is_taken_over(tree: Path, tmp_path: Path) -> None:
    run(locate("createrepo_c") or "", "--quiet", "--revision", "4000000000", tree)
    superseded = {path.name for path in (tree / "repodata").glob("*.gz")}
    with Daemon(tree, scratch=tmp_path / "scratch") as daemon:
        assert locations(daemon, "rpm") == {HELLO, "sub/other-1.0-1.noarch.rpm"}
        assert daemon.repository("rpm")["revision"] > 4_000_000_000
        for name in superseded:
            assert daemon.get(f"/rpm/repodata/{name}").status == 200


@pytest.mark.client("createrepo_c")
@pytest.mark.parametrize("who", ["the daemon", "index"])
def test_a_damaged_package_that_createrepo_c_listed_is_unlisted_when_it_is_checked(
    tree: Path, tmp_path: Path, who: str
) -> None:
    truncate(tree / HELLO, size=(tree / HELLO).stat().st_size - 1)
    run(locate("createrepo_c") or "", "--quiet", tree)
    if who == "index":
        told = repowatch("index", tree).stderr
        assert "2 packages are taken over" in told
        assert f"not listed: {HELLO}: truncated" in told
    with Daemon(tree, scratch=tmp_path / "scratch") as daemon:
        wait_until(lambda: HELLO in daemon.rejected("rpm"))
        wait_until(lambda: daemon.repository("rpm")["unchecked"] == 0)
        assert locations(daemon, "rpm") == {"sub/other-1.0-1.noarch.rpm"}
    assert repowatch("verify", tree).returncode == 0


def _passwd(*arguments: str | Path, typed: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = [*COMMAND, "passwd", *map(str, arguments)]
    return subprocess.run(command, input=typed, capture_output=True, check=False, timeout=60)


def test_a_user_is_added_changed_and_removed(tmp_path: Path) -> None:
    users = tmp_path / "users"
    done = _passwd(users, "anna", typed=b"first\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{users}: anna added\n".encode(), b"")
    before = users.read_bytes()
    assert before.startswith(b"anna:$2")
    assert bcrypt.checkpw(b"first", before.strip().split(b":")[1])
    assert _passwd(users, "anna", typed=b"second\r\nignored\n").stdout == f"{users}: anna changed\n".encode()
    assert bcrypt.checkpw(b"second", users.read_bytes().strip().split(b":")[1])
    assert _passwd(users, "anna", "--delete").stdout == f"{users}: anna removed\n".encode()
    assert users.read_bytes() == b""
    done = _passwd(users, "anna", "--delete")
    assert (done.returncode, b"there is no user anna" in done.stderr) == (1, True)


@pytest.mark.parametrize(
    ("user", "typed"), [("anna", b""), ("anna", b"\n"), ("anyone", b"x\n"), ("@a", b"x\n"), ("a:b", b"x\n")]
)
def test_a_user_or_a_password_that_can_not_be_is_refused(tmp_path: Path, user: str, typed: bytes) -> None:
    done = _passwd(tmp_path / "users", user, typed=typed)
    assert done.returncode == 2
    assert b"choose another" in done.stderr
    assert b"Traceback" not in done.stderr
    assert not (tmp_path / "users").exists()


@pytest.mark.parametrize(("again", "code"), [("secret", 0), ("secre", 2)])
def test_a_password_is_typed_twice_at_a_terminal_and_not_shown(tmp_path: Path, again: str, code: int) -> None:
    ours, theirs = os.openpty()
    try:
        with subprocess.Popen(
            [*COMMAND, "passwd", str(tmp_path / "users"), "anna"],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        ) as process:
            seen = ""
            for prompt, typed in (("Password: ", "secret"), ("Once more: ", again)):
                while not seen.endswith(prompt):
                    seen += os.read(ours, 1000).decode()
                os.write(ours, f"{typed}\n".encode())
            assert process.wait(60) == code
        seen += os.read(ours, 1000).decode()
    finally:
        os.close(ours)
        os.close(theirs)
    assert "secre" not in seen
    assert ("anna added" in seen) == (code == 0)
    assert ("not the same" in seen) == (code == 2)
    assert (tmp_path / "users").exists() == (code == 0)


@pytest.fixture
def audit(tmp_path: Path) -> Path:
    """An audit of an upload, a refused one, and a move."""
    path = tmp_path / "audit"
    common: dict[str, Any] = {"how": "basic", "repository": "rpm"}
    changes = [
        Change(
            at=0.5,
            who="ci",
            address="192.0.2.1",
            method="PUT",
            location=HELLO,
            nevra="hello-1.0-1.noarch",
            revision=7,
            status=201,
            **common,
        ),
        Change(at=1, who=None, address=None, method="PUT", location=f"a\x1b/{HELLO}", status=403, **common),
        Change(
            at=2,
            who="anna",
            address="::1",
            method="MOVE",
            location=HELLO,
            destination="b",
            status=201,
            **common,
        ),
    ]
    recorded = Audit(str(path))
    for change in changes:
        recorded.record(change)
    recorded.close()
    return path


def test_who_changed_a_package_is_told_in_a_line_for_each_change(audit: Path, tmp_path: Path) -> None:
    done = repowatch("who", HELLO, "--audit", audit)
    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        f"1970-01-01T00:00:00.500Z  ci  192.0.2.1  PUT  rpm/{HELLO}  hello-1.0-1.noarch  7",
        f"1970-01-01T00:00:01.000Z  -  -  PUT  rpm/a\\x1b/{HELLO}  -  -  refused: 403",
        f"1970-01-01T00:00:02.000Z  anna  ::1  MOVE  rpm/{HELLO} -> b  -  -",
    ]
    config = tmp_path / "c.yaml"
    config.write_text(f"audit: {audit}\nrepositories: {{rpm: {{path: {tmp_path}/rpm}}}}")
    [line] = repowatch("who", "hello", "--json", "--config", config).stdout.splitlines()
    assert json.loads(line)["revision"] == 7


def test_who_fails_where_nothing_is_known(audit: Path, tmp_path: Path) -> None:
    done = repowatch("who", "other", "--audit", audit)
    assert (done.returncode, done.stdout) == (1, "")
    assert "nothing is known of other" in done.stderr
    done = repowatch("who", "other", "--audit", tmp_path / "none")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    config = tmp_path / "c.yaml"
    config.write_text(f"repositories: {{rpm: {{path: {tmp_path}/rpm}}}}")
    done = repowatch("who", "other", "--config", config)
    assert done.returncode == 2
    assert "no `audit:` is configured" in done.stderr
