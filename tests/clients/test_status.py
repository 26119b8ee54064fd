"""What the daemon tells of its repositories: pages, JSON, answers that wait for news, `repowatch wait`."""

from __future__ import annotations

import json
import resource
import select
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.kit.certificates import Authority
from tests.kit.daemon import COMMAND, Daemon, repowatch, wait_until
from tests.kit.rpms import make_rpm
from tests.kit.users import basic, write_users

USERS = {name: f"secret-of-{name}" for name in ("anna", "ben")}
ANNA, BEN = (basic(name, password) for name, password in USERS.items())

CONFIGURATION = """
users: {scratch}/users
access_log: {scratch}/access.log
repositories:
  rpm: {{path: {scratch}/rpm}}
  private: {{path: {scratch}/private, read: [anna], write: [anna]}}
"""

WAITERS = 300  # more than there are workers


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    scratch = tmp_path_factory.mktemp("status")
    write_users(scratch / "users", USERS)
    for name in ("rpm", "private"):
        (scratch / name).mkdir()
    return scratch


@pytest.fixture(scope="module")
def daemon(scratch: Path) -> Iterator[Daemon]:
    with Daemon(scratch=scratch, configuration=CONFIGURATION.format(scratch=scratch)) as daemon:
        yield daemon


def about(daemon: Daemon, name: str = "rpm", query: str = "", **headers: str) -> Any:
    answer = daemon.get(f"/-/api/v1/{name}?{query}", headers=headers)
    assert answer.status == 200, answer.text
    return json.loads(answer.body)


def upload(daemon: Daemon, package: Path, repository: str = "rpm", *, as_user: dict[str, str]) -> int:
    answer = daemon.put(f"/{repository}/{package.name}", package, headers=as_user)
    assert answer.status in (201, 204), answer.text
    return int(answer.headers["Repowatch-Revision"])


def last_of(daemon: Daemon, location: str) -> tuple[str, str | None, str]:
    """The last change of a file: what, who, and how they are known."""
    event = next(each for each in about(daemon)["history"] if each["location"] == location)
    return event["change"], event["who"], event["how"]


class Waiter:
    """A client that has asked for what is newer than a revision."""

    def __init__(
        self, address: tuple[str, int], after: int, *, wait: float = 50, name: str = "rpm", field: str = ""
    ) -> None:
        self.socket = socket.create_connection(address)
        target = f"/-/api/v1/{name}?after={after}&wait={wait}"
        self.socket.sendall(f"GET {target} HTTP/1.1\r\nHost: x\r\n{field}\r\n".encode())

    def __enter__(self) -> Waiter:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def is_answered(self) -> bool:
        return bool(select.select([self.socket], [], [], 0)[0])

    def read(self, *, deadline: float = 20.0) -> Any:
        """The JSON of the answer; the connection stays open."""
        self.socket.settimeout(deadline)
        with self.socket.makefile("rb") as stream:
            assert stream.readline().split()[1] == b"200"
            fields = dict(line.lower().split(b": ", 1) for line in iter(stream.readline, b"\r\n"))
            return json.loads(stream.read(int(fields[b"content-length"])))


# -- what is told --------------------------------------------------------------------------------------


def test_the_history_tells_who_changed_what(daemon: Daemon, scratch: Path, tmp_path: Path) -> None:
    package = make_rpm(tmp_path, name="mine")
    revision = upload(daemon, package, as_user=ANNA)
    told = about(daemon)["history"][0]
    assert (told["revision"], told["size"]) == (revision, package.stat().st_size)
    assert abs(told["at"] - time.time()) < 60
    assert last_of(daemon, package.name) == ("added", "anna", "basic")
    destination = {"Destination": f"{daemon.url}rpm/moved.rpm"}
    assert daemon.request("MOVE", f"/rpm/{package.name}", headers={**BEN, **destination}).status == 201
    assert last_of(daemon, package.name) == ("removed", "ben", "basic")
    assert last_of(daemon, "moved.rpm") == ("added", "ben", "basic")
    assert daemon.request("MKCOL", "/rpm/d/", headers=ANNA).status == 201
    assert daemon.put("/rpm/d/x.rpm", package, headers=ANNA).status == 201
    assert daemon.request("DELETE", "/rpm/d/", headers=BEN).status == 204
    wait_until(lambda: last_of(daemon, "d/x.rpm") == ("removed", "ben", "basic"))
    by_hand = make_rpm(scratch / "rpm", name="by-hand")
    wait_until(lambda: about(daemon)["history"][0]["location"] == by_hand.name)
    assert last_of(daemon, by_hand.name) == ("added", None, "file")


def test_the_json_and_the_page_tell_the_same(daemon: Daemon, scratch: Path) -> None:
    damaged = scratch / "rpm" / "<b>damaged.rpm"
    damaged.write_bytes(b"no package")
    wait_until(lambda: damaged.name in daemon.rejected("rpm"))
    package = make_rpm(scratch / "rpm", name="shown")
    wait_until(lambda: about(daemon, query="match=shown")["found"])
    told, page = about(daemon), daemon.get("/-/rpm")
    assert told["packages"] >= 1
    assert told["size"] >= package.stat().st_size
    assert told["disk_free"] > 0
    assert told["uploads"] == 0
    assert {key: told[key] for key in ("name", "revision")} == {
        key: daemon.repository("rpm")[key] for key in ("name", "revision")
    }
    assert page.status == 200
    for text in (str(told["revision"]), "&lt;b&gt;damaged.rpm", "shown-", f"{daemon.url}rpm.repo"):
        assert text in page.text
    assert "<b>" not in page.text
    assert page.headers["Content-Security-Policy"].startswith("default-src 'none'")
    found = daemon.get("/-/rpm?match=sho*&days=7").text
    assert f'<a href="/rpm/{package.name}">' in found
    assert daemon.get("/-/rpm?days=x").status == 400
    assert daemon.get("/-/api/v1/rpm?nothing=1").status == 400


def test_front_page_status_and_listing_lead_to_each_other(daemon: Daemon) -> None:
    assert 'href="/-/rpm"' in daemon.get("/").text
    assert 'href="/rpm/"' in daemon.get("/-/rpm").text
    assert 'href="/-/rpm"' in daemon.get("/rpm/").text


def test_of_a_private_repository_nothing_is_told_to_others(daemon: Daemon) -> None:
    for path in ("/-/private", "/-/api/v1/private", "/-/api/v1/private?after=1&wait=50"):
        assert daemon.get(path).status == 404
        assert daemon.get(path, headers=BEN).status == 404
    assert "private" not in daemon.get("/").text
    assert daemon.get("/-/private", headers=ANNA).status == 200
    assert about(daemon, "private", **ANNA)["name"] == "private"
    assert daemon.get("/private.repo").status == 200  # holds no secret, and who installs it may have none


def test_a_restart_remembers_the_last_changes(tmp_path: Path) -> None:
    (tmp_path / "rpm").mkdir()
    with Daemon(tmp_path / "rpm", scratch=tmp_path / "scratch") as daemon:
        upload(daemon, make_rpm(tmp_path, name="first"), as_user={})
        before = about(daemon)["history"]
        assert daemon.terminate() == 0
        daemon.start()
        assert about(daemon)["history"] == before
        assert [each["how"] for each in before] == ["none"]


# -- answers that wait ---------------------------------------------------------------------------------


def test_an_answer_comes_with_the_publication(daemon: Daemon, tmp_path: Path) -> None:
    now = about(daemon)["revision"]
    assert about(daemon, query=f"after={now - 1}&wait=50")["revision"] == now
    with Waiter(daemon.address, now) as waiter:
        assert not waiter.is_answered()
        revision = upload(daemon, make_rpm(tmp_path, name="news"), as_user=ANNA)
        told = waiter.read()
        assert told["revision"] == revision
        assert (told["history"][0]["who"], told["history"][0]["how"]) == ("anna", "basic")
        again = f"GET /-/api/v1/rpm?after={revision}&wait=0.1 HTTP/1.1\r\nHost: x\r\n\r\n"
        waiter.socket.sendall(again.encode())
        assert waiter.read()["revision"] == revision


def test_when_nothing_comes_the_present_state_is_the_answer(daemon: Daemon) -> None:
    now = about(daemon)["revision"]
    began = time.monotonic()
    assert about(daemon, query=f"after={now}&wait=1")["revision"] == now
    assert time.monotonic() - began >= 1
    assert daemon.request("HEAD", f"/-/api/v1/rpm?after={now}&wait=50", timeout=10).status == 200


def test_who_has_to_log_in_first_may_wait_as_well(daemon: Daemon, tmp_path: Path) -> None:
    now = about(daemon, "private", **ANNA)["revision"]
    daemon.signal(signal.SIGHUP)  # forgets who was known, so that the password is hashed again
    wait_until(lambda: "the configuration did not change" in daemon.log)
    field = f"Authorization: {ANNA['Authorization']}\r\n"
    with Waiter(daemon.address, now, name="private", field=field) as waiter:
        revision = upload(daemon, make_rpm(tmp_path, name="secret"), "private", as_user=ANNA)
        assert waiter.read()["revision"] == revision


def test_hundreds_that_wait_keep_nobody_from_being_served(daemon: Daemon, tmp_path: Path) -> None:
    now = about(daemon)["revision"]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 2 * WAITERS)), hard))
    with ExitStack() as stack:
        waiters = [stack.enter_context(Waiter(daemon.address, now)) for _ in range(WAITERS)]
        for _ in range(20):
            assert daemon.get("/rpm/").status == 200  # by a worker
            assert daemon.get("/rpm/repodata/repomd.xml").status == 200  # by the loop
        assert daemon.status()["repositories"][0]["revision"] == now
        assert not any(waiter.is_answered() for waiter in waiters)
        revision = upload(daemon, make_rpm(tmp_path, name="for-all"), as_user=ANNA)
        assert {waiter.read()["revision"] for waiter in waiters} == {revision}
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_client_that_goes_away_is_let_go_at_once(daemon: Daemon) -> None:
    now = about(daemon)["revision"]
    with ExitStack() as stack:
        waiters = [stack.enter_context(Waiter(daemon.address, now)) for _ in range(20)]
        ports = {waiter.socket.getsockname()[1] for waiter in waiters}
        wait_until(lambda: len(held(daemon, ports)) == 20)
    wait_until(lambda: not held(daemon, ports))


def held(daemon: Daemon, ports: set[int]) -> set[int]:
    """The ports of clients whose connections the daemon has not closed (proc(5), /proc/net/tcp)."""
    found = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        row = line.split()
        ours, theirs = (int(each.rpartition(":")[2], 16) for each in row[1:3])
        if ours == daemon.address[1] and row[9] != "0":  # which has no inode is no process's any more
            found.add(theirs)
    return found & ports


def test_whoever_waits_is_answered_when_the_daemon_stops(tmp_path: Path) -> None:
    (tmp_path / "rpm").mkdir()
    with Daemon(tmp_path / "rpm", scratch=tmp_path / "scratch") as daemon:
        now = about(daemon)["revision"]
        with Waiter(daemon.address, now) as waiter:
            assert daemon.get("/rpm/").status == 200
            assert not waiter.is_answered()
            assert daemon.terminate() == 0
            assert waiter.read()["revision"] == now


def test_waiting_works_over_tls(tmp_path: Path) -> None:
    (tmp_path / "rpm").mkdir()
    authority = Authority(tmp_path)
    pair = authority.server("127.0.0.1")
    configuration = (
        f"tls: {{certificate: {pair.certificate}, key: {pair.key}}}\n"
        f"allow_anonymous_upload: true\nrepositories: {{rpm: {{path: {tmp_path}/rpm}}}}\n"
    )
    with Daemon(scratch=tmp_path / "scratch", configuration=configuration) as daemon:
        context = authority.client_context()
        context.check_hostname = False
        with socket.create_connection(daemon.address) as plain, context.wrap_socket(plain) as client:
            client.settimeout(20)
            client.sendall(b"GET /-/api/v1/rpm?after=99999999999&wait=0.2 HTTP/1.1\r\nHost: x\r\n\r\n")
            assert client.recv(15) == b"HTTP/1.1 200 OK"


# -- repowatch wait ------------------------------------------------------------------------------------


def test_wait_ends_when_the_package_is_listed(daemon: Daemon, scratch: Path, tmp_path: Path) -> None:
    command = [*COMMAND, "wait", "awaited-1.0-1.noarch", "--repository", "rpm", "--url", daemon.url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as waiting:
        log = scratch / "access.log"
        upload(daemon, make_rpm(tmp_path, name="another"), as_user=ANNA)
        # The first question, which is answered at once, is in the log; then it waits.
        wait_until(lambda: "match=awaited" in log.read_text(), 20)
        assert waiting.poll() is None
        revision = upload(daemon, make_rpm(tmp_path, name="awaited"), as_user=ANNA)
        assert waiting.stdout is not None
        assert waiting.stdout.read() == (
            f"awaited-1.0-1.noarch  rpm/awaited-1.0-1.noarch.rpm  revision {revision}\n"
        )
        assert waiting.wait(20) == 0


def test_wait_ends_with_1_when_nothing_came_and_tells_why(daemon: Daemon, scratch: Path) -> None:
    (scratch / "rpm" / "broken-1-1.noarch.rpm").write_bytes(b"no package")
    wait_until(lambda: "broken-1-1.noarch.rpm" in daemon.rejected("rpm"))
    where = ("--repository", "rpm", "--url", daemon.url)
    done = repowatch("wait", "broken-1-1.noarch", "--timeout", "0.2", *where)
    assert (done.returncode, done.stdout) == (1, "")
    assert "not listed: broken-1-1.noarch.rpm: not an RPM package" in done.stderr
    assert "is not listed in rpm after 0.2 s" in done.stderr
    assert repowatch("wait", "x", "--timeout", "-1", *where).returncode == 2
    done = repowatch("wait", "x", "--repository", "none", "--url", daemon.url)
    assert done.returncode == 2
    assert "there is no repository none; name one of these with --repository: rpm" in done.stderr


def test_status_tells_of_the_last_changes_in_short(daemon: Daemon, tmp_path: Path) -> None:
    upload(daemon, make_rpm(tmp_path, name="told"), as_user=ANNA)
    text = repowatch("status", "--url", daemon.url).stdout
    assert "  added: told-1.0-1.noarch by anna, revision" in text
    assert "disk left: " in text
