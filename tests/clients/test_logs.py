"""The access log has each request once, the audit each change; neither loses a line when it is rotated."""

from __future__ import annotations

import hashlib
import http.client
import itertools
import json
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.clients.conftest import run
from tests.kit.daemon import Answer, Daemon, repowatch, wait_until
from tests.kit.logs import Line, read_log
from tests.kit.rpms import make_rpm
from tests.kit.users import basic, client_at, write_users

ANNA = basic("anna", "secret-of-anna")
LARGE = 32 << 20  # bytes: more than the kernel takes at once

CONFIGURATION = """
users: {scratch}/users
trusted_proxies: [127.0.0.1]
access_log: {scratch}/access.log
audit: {scratch}/audit
max_upload: 1MiB
repositories:
  rpm: {{path: {scratch}/rpm}}
  other: {{path: {scratch}/other, url: /files/}}
"""

numbers = itertools.count()


@dataclass(frozen=True, slots=True)
class Logged:
    """A daemon that keeps both logs."""

    daemon: Daemon
    scratch: Path

    @property
    def access_log(self) -> Path:
        return self.scratch / "access.log"

    @property
    def audit(self) -> Path:
        return self.scratch / "audit"

    def ask(
        self, method: str, path: str, body: bytes | None = None, *fields: Mapping[str, str]
    ) -> tuple[Answer, Line]:
        """The answer to a request, and the only line that the access log has of it."""
        agent = f"test/{next(numbers)}"
        headers = {name: value for each in (*fields, {"User-Agent": agent}) for name, value in each.items()}
        answer = self.daemon.request(method, path, body, headers=headers)
        return answer, self.line(agent)

    def line(self, agent: str) -> Line:
        """The only line that a client with this name has left."""

        def lines() -> list[Line]:
            return [each for each in read_log(self.access_log) if each.agent == agent]

        wait_until(lines)
        self.daemon.get("/healthz")  # what would come twice has come by then
        [line] = lines()
        return line

    def changes(self, location: str) -> list[dict[str, Any]]:
        """What the audit has of a location."""
        rows: list[dict[str, Any]] = list(map(json.loads, self.audit.read_text("ascii").splitlines()))
        return [each for each in rows if location in (each["location"], each.get("destination"))]


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Logged]:
    scratch = tmp_path_factory.mktemp("logged")
    (scratch / "rpm" / "sub").mkdir(parents=True)
    (scratch / "other").mkdir()
    write_users(scratch / "users", {"anna": "secret-of-anna"})
    (scratch / "rpm" / "file").write_bytes(b"0123456789")
    (scratch / "rpm" / "large").write_bytes(bytes(LARGE))
    with Daemon(scratch=scratch, configuration=CONFIGURATION.format(scratch=scratch)) as daemon:
        yield Logged(daemon, scratch)


@contextmanager
def repeated(act: Callable[[int], None]) -> Iterator[None]:
    """A thread that calls a function with 0, 1, 2 and so on until the context ends."""
    ends = threading.Event()

    def run() -> None:
        for number in itertools.takewhile(lambda _: not ends.is_set(), itertools.count()):
            act(number)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        ends.set()
        thread.join()


# -- the access log --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "fields", "status", "sent"),
    [
        ("GET", "/rpm/file", {}, 200, 10),
        ("HEAD", "/rpm/file", {}, 200, 0),
        ("GET", "/rpm/file", {"Range": "bytes=2-4"}, 206, 3),
        ("GET", "/rpm/file", {"Range": "bytes=99-"}, 416, None),
        ("GET", "/rpm/file", {"Range": "bytes=0-1,5-6"}, 206, None),
        ("GET", "/rpm/file", {"If-Modified-Since": "Fri, 31 Dec 2100 00:00:00 GMT"}, 304, 0),
        ("GET", "/rpm/file", {"If-None-Match": "*"}, 304, 0),
        ("GET", "/rpm/large", {}, 200, LARGE),
        ("GET", "/rpm/", {}, 200, None),
        ("GET", "/rpm/sub", {}, 301, None),
        ("GET", "/rpm/none", {}, 404, None),
        ("GET", "/rpm/%00", {}, 400, None),
        ("GET", "/rpm/../x", {}, 400, None),
        ("GET", "/healthz", {}, 200, None),
        ("GET", "/-/api/v1/status", {}, 200, None),
        ("OPTIONS", "/rpm/", {}, 200, None),
        ("POST", "/", {}, 405, None),
        ("PROPFIND", "/rpm/", {"Depth": "1"}, 207, None),
        ("PROPFIND", "/rpm/", {"Depth": "infinity"}, 403, None),
        ("DELETE", "/rpm/file", {}, 401, None),
        ("DELETE", "/rpm/none", ANNA, 404, None),
    ],
)
def test_each_request_is_one_line(
    logged: Logged, method: str, path: str, fields: dict[str, str], status: int, sent: int | None
) -> None:
    answer, line = logged.ask(method, path, None, fields, {"Referer": "http://from"})
    assert answer.status == status
    assert line.sent == (len(answer.body) if sent is None else sent)
    user = "anna" if fields is ANNA else "-"
    assert (line.address, line.user, line.status) == ("127.0.0.1", user, status)
    assert (line.request, line.referer) == (f"{method} {path} HTTP/1.1", "http://from")


def test_uploads_are_logged_with_what_the_client_was_sent(logged: Logged) -> None:
    for status, body, fields in (
        (401, b"x", {}),
        (201, b"x", ANNA),
        (204, b"y", ANNA),
        (412, b"z", {**ANNA, "If-None-Match": "*"}),
        (413, bytes((1 << 20) + 1), ANNA),
    ):
        answer, line = logged.ask("PUT", "/rpm/logged", body, fields)
        assert (answer.status, line.status, line.sent) == (status, status, len(answer.body))


def test_the_client_behind_a_proxy_is_named(logged: Logged) -> None:
    for path, status in (("/rpm/file", 200), ("/rpm/%zz", 400), ("/healthz", 200)):
        answer, line = logged.ask("GET", path, None, client_at("2001:db8::7"))
        assert (answer.status, line.address, line.status) == (status, "2001:db8::7", status)


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"nonsense\r\n\r\n",
        b"GET /rpm/ HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\n",
    ],
)
def test_what_is_no_request_is_one_line_without_its_text(logged: Logged, request_bytes: bytes) -> None:
    before = [each for each in read_log(logged.access_log) if each.request == "-"]
    with socket.create_connection(logged.daemon.address, timeout=10) as connection:
        connection.sendall(request_bytes)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 400 ")

    def added() -> list[Line]:
        return [each for each in read_log(logged.access_log) if each.request == "-"][len(before) :]

    wait_until(added)
    logged.daemon.get("/healthz")
    [line] = added()
    assert (line.address, line.user, line.status) == ("127.0.0.1", "-", 400)
    assert line.sent == len(answer.partition(b"\r\n\r\n")[2])


def test_requests_of_one_connection_are_a_line_each(logged: Logged) -> None:
    agents = [f"test/{next(numbers)}" for _ in range(20)]
    heads = [f"GET /rpm/file HTTP/1.1\r\nHost: a\r\nUser-Agent: {each}\r\n\r\n" for each in agents]
    with socket.create_connection(logged.daemon.address, timeout=10) as connection:
        connection.sendall("".join(heads).encode())
        received = b""
        while received.count(b"0123456789") < len(agents):
            received += connection.recv(65536)
    assert [logged.line(each).sent for each in agents] == [10] * len(agents)


def test_a_download_that_is_broken_off_is_logged_with_what_was_sent(logged: Logged) -> None:
    agent = f"test/{next(numbers)}"
    with socket.create_connection(logged.daemon.address, timeout=10) as connection:
        connection.sendall(f"GET /rpm/large HTTP/1.1\r\nHost: a\r\nUser-Agent: {agent}\r\n\r\n".encode())
        received = 0
        while received < 1 << 20:
            received += len(connection.recv(65536))
    line = logged.line(agent)
    assert (line.status, line.request) == (200, "GET /rpm/large HTTP/1.1")
    assert 1 << 19 < line.sent < LARGE


def test_an_upload_that_is_broken_off_is_logged_once_and_changes_nothing(logged: Logged) -> None:
    agent = f"test/{next(numbers)}"
    connection = http.client.HTTPConnection(*logged.daemon.address, timeout=10)
    connection.putrequest("PUT", "/rpm/broken-off")
    for name, value in {**ANNA, "User-Agent": agent, "Content-Length": "1000"}.items():
        connection.putheader(name, value)
    connection.endheaders(b"half of it")
    connection.close()
    line = logged.line(agent)
    assert (line.request, line.user, line.status) == ("PUT /rpm/broken-off HTTP/1.1", "anna", 400)
    assert logged.daemon.get("/rpm/broken-off").status == 404
    assert logged.changes("broken-off") == []


def test_a_client_can_not_forge_a_line(logged: Logged) -> None:
    agent = f"test/{next(numbers)}"
    logged.daemon.request("GET", '/rpm/%0a"x"\\', headers={"User-Agent": f'{agent}" 200 \xe9\\'})
    line = logged.line(f"{agent}\\x22 200 \\xe9\\x5c")
    assert (line.request, line.status) == ("GET /rpm/%0a\\x22x\\x22\\x5c HTTP/1.1", 404)


# -- rotation and reload ---------------------------------------------------------------------------


def test_no_line_is_lost_when_the_logs_are_rotated(logged: Logged) -> None:
    read: list[str] = []
    written: list[str] = []

    def get(number: int) -> None:
        assert logged.daemon.get("/rpm/file", headers={"User-Agent": f"reader/{number}"}).status == 200
        read.append(f"reader/{number}")

    def put(number: int) -> None:
        assert logged.daemon.put(f"/rpm/rotated-{number}", b"x", headers=ANNA).status == 201
        written.append(f"rotated-{number}")

    def is_busy() -> Callable[[], bool]:
        reads, writes = len(read) + 3, len(written) + 3
        return lambda: len(read) > reads and len(written) > writes

    with repeated(get), repeated(put):
        for number in range(5):
            wait_until(is_busy())
            for path in (logged.access_log, logged.audit):
                path.rename(path.with_name(f"{path.name}.{number}"))
            logged.daemon.signal(signal.SIGHUP)
            wait_until(lambda: logged.access_log.exists() and logged.audit.exists())
        wait_until(is_busy())
    logged.line(read[-1])
    agents = [each.agent for each in read_log(*logged.scratch.glob("access.log*"))]
    assert sorted(each for each in agents if each.startswith("reader/")) == sorted(read)
    audits = logged.scratch.glob("audit*")
    rows = [json.loads(line)["location"] for path in audits for line in path.read_text().splitlines()]
    assert sorted(each for each in rows if each.startswith("rotated-")) == sorted(written)


def test_a_bad_configuration_is_told_and_the_old_one_stays(logged: Logged) -> None:
    path = logged.scratch / "repowatch.yaml"
    good = path.read_text()
    try:
        path.write_text(good.replace("audit:", "adit:"))
        logged.daemon.signal(signal.SIGHUP)
        wait_until(lambda: "the configuration is refused, the old one stays" in logged.daemon.log)
        assert "did you mean `audit`?" in logged.daemon.log
        assert logged.daemon.put("/rpm/after-reload", b"x", headers=ANNA).status == 201
        assert len(logged.changes("after-reload")) == 1
    finally:
        path.write_text(good)
    before = len(logged.daemon.log)
    logged.daemon.signal(signal.SIGHUP)
    wait_until(lambda: "the configuration did not change" in logged.daemon.log[before:])


# -- the audit -------------------------------------------------------------------------------------


@pytest.mark.client("rpm")
def test_a_package_is_audited_as_rpm_knows_it(logged: Logged, tmp_path: Path) -> None:
    package = make_rpm(tmp_path, "audited", epoch=3)
    answer = logged.daemon.put(f"/rpm/{package.name}", package, headers={**ANNA, **client_at("192.0.2.7")})
    assert answer.status == 201
    [change] = logged.changes(package.name)
    queried = run(
        *("rpm", "--query", "--package", "--nosignature", package),
        *("--queryformat", "%{NAME}-%|EPOCH?{%{EPOCH}:}|%{VERSION}-%{RELEASE}.%{ARCH}"),
    )
    at = change.pop("at")
    assert at.endswith("Z")
    assert change == {
        "who": "anna",
        "how": "basic",
        "address": "192.0.2.7",
        "method": "PUT",
        "repository": "rpm",
        "location": package.name,
        "sha256": hashlib.sha256(package.read_bytes()).hexdigest(),
        "nevra": queried,
        "revision": int(answer.headers["Repowatch-Revision"]),
        "status": 201,
    }


def test_each_kind_of_change_is_one_line(logged: Logged, tmp_path: Path) -> None:
    package = make_rpm(tmp_path, "walker")
    checksum, nevra = hashlib.sha256(package.read_bytes()).hexdigest(), "walker-1.0-1.noarch"
    name = package.name
    requests = [
        ("MKCOL", "walk", None, 201),
        ("PUT", f"walk/{name}", None, 201),
        ("COPY", f"walk/{name}", "walk/copy.rpm", 201),
        ("MOVE", "walk/copy.rpm", "walk/moved.rpm", 201),
        ("PUT", "walk/moved.rpm", None, 204),
        ("DELETE", "walk/moved.rpm", None, 204),
        ("DELETE", f"walk/{name}", None, 204),
        ("PUT", "walk/plain", None, 201),
        ("DELETE", "walk", None, 204),
    ]
    for method, location, destination, status in requests:
        content = package.read_bytes() if location.endswith(".rpm") else b"plain"
        headers = dict(ANNA, **({"Destination": f"/rpm/{destination}"} if destination else {}))
        body = content if method == "PUT" else None
        answer = logged.daemon.request(method, f"/rpm/{location}", body, headers=headers)
        assert answer.status == status, (method, location, answer.text)
        change = logged.changes(location)[-1]
        assert (change["method"], change["status"], change["who"]) == (method, status, "anna")
        assert change.get("destination") == destination
        assert str(change.get("revision")) == answer.headers.get("Repowatch-Revision", "None")
        if location.endswith(".rpm"):
            assert (change["sha256"], change["nevra"]) == (checksum, nevra), change
            assert "revision" in change
        if location == "walk/plain":
            assert change["sha256"] == hashlib.sha256(b"plain").hexdigest()
    rows = [json.loads(line) for line in logged.audit.read_text().splitlines()]
    assert len([each for each in rows if each["location"].startswith("walk")]) == len(requests)


@pytest.mark.parametrize("is_there", [False, True])
def test_an_upload_that_does_not_wait_is_audited_with_its_checksum(
    logged: Logged, tmp_path: Path, is_there: bool
) -> None:
    name = f"impatient-{is_there}.rpm"
    if is_there:
        other = make_rpm(tmp_path, "other")
        assert logged.daemon.put(f"/rpm/{name}", other, headers=ANNA).status == 201
    package = make_rpm(tmp_path, "impatient")
    headers = {**ANNA, "Prefer": "respond-async"}
    assert logged.daemon.put(f"/rpm/{name}", package, headers=headers).status == 202
    change = logged.changes(name)[-1]
    assert (change["status"], change["sha256"]) == (202, hashlib.sha256(package.read_bytes()).hexdigest())
    assert "revision" not in change
    assert change.get("nevra") in (None, "impatient-1.0-1.noarch")


def test_an_empty_file_is_not_taken_for_the_package_that_it_replaces(logged: Logged, tmp_path: Path) -> None:
    package = make_rpm(tmp_path, "emptied")
    for content, status in ((package, 201), (b"", 204)):
        assert logged.daemon.put(f"/rpm/{package.name}", content, headers=ANNA).status == status
    change = logged.changes(package.name)[-1]
    assert (change["status"], "nevra" in change) == (204, False)
    assert change.get("sha256") in (None, hashlib.sha256(b"").hexdigest())


def test_what_was_refused_is_not_audited(logged: Logged, tmp_path: Path) -> None:
    before = logged.audit.read_bytes()
    package = make_rpm(tmp_path, "refused")
    torn = package.read_bytes()[:-1]
    put = logged.daemon.put
    assert put("/rpm/refused", b"x").status == 401
    assert put("/rpm/refused", b"x", headers=basic("anna", "wrong")).status == 401
    assert put(f"/rpm/{package.name}", torn, headers=ANNA).status == 422
    assert put("/rpm/none/refused", b"x", headers=ANNA).status == 409
    assert put("/rpm/repodata/refused", b"x", headers=ANNA).status == 403
    assert put("/rpm/refused", b"x", headers={**ANNA, "X-Checksum-Sha256": "0" * 64}).status == 400
    assert put("/rpm/refused", bytes((1 << 20) + 1), headers=ANNA).status == 413
    for method in ("DELETE", "MOVE", "COPY"):
        headers = {**ANNA, "Destination": "/rpm/elsewhere"}
        assert logged.daemon.request(method, "/rpm/refused", headers=headers).status == 404
    assert logged.daemon.request("MKCOL", "/rpm/sub", headers=ANNA).status == 405
    assert logged.audit.read_bytes() == before


def test_odd_names_come_back_from_the_audit_as_they_are(logged: Logged) -> None:
    for name, quoted in (("naïve 😀", "na%C3%AFve%20%F0%9F%98%80"), ('"\n{', "%22%0A%7B")):
        assert logged.daemon.put(f"/files/{quoted}", b"x", headers=ANNA).status == 201
        [change] = logged.changes(name)
        assert change["repository"] == "other"


def test_who_answers_by_name_nevra_and_location(logged: Logged, tmp_path: Path) -> None:
    package = make_rpm(tmp_path, "known", "2.0", "3")
    fields = {**ANNA, **client_at("192.0.2.8")}
    assert logged.daemon.put(f"/rpm/sub/{package.name}", package, headers=fields).status == 201
    source = ("--config", logged.scratch / "repowatch.yaml")
    asked = [
        "known",
        "known.noarch",
        "known-2.0-3",
        "known-2.0-3.noarch",
        f"sub/{package.name}",
        package.name,
    ]
    for each in asked:
        [line] = repowatch("who", each, *source).stdout.splitlines()
        assert all(part in line for part in ("anna", "192.0.2.8", "PUT", "known-2.0-3.noarch")), line
    assert logged.daemon.request("DELETE", f"/rpm/sub/{package.name}", headers=ANNA).status == 204
    logged.audit.rename(logged.scratch / "audit.9")
    run("gzip", logged.scratch / "audit.9")
    logged.daemon.signal(signal.SIGHUP)
    wait_until(logged.audit.exists)
    done = repowatch("who", "known", "--audit", logged.audit, "--json")
    assert [json.loads(line)["method"] for line in done.stdout.splitlines()] == ["PUT", "DELETE"]
    assert repowatch("who", "unknown", *source).returncode == 1


def test_what_was_answered_is_in_the_audit_after_a_kill(tmp_path: Path) -> None:
    (tmp_path / "rpm").mkdir()
    configuration = f"audit: {tmp_path}/audit\nrepositories: {{rpm: {{path: {tmp_path}/rpm}}}}\n"
    with Daemon(scratch=tmp_path / "scratch", configuration=configuration) as daemon:
        for number in range(3):
            package = make_rpm(tmp_path, f"killed{number}")
            assert daemon.put(f"/rpm/{package.name}", package).status == 201
            daemon.kill()
            last = json.loads((tmp_path / "audit").read_text().splitlines()[-1])
            assert (last["location"], last["how"], last["status"]) == (package.name, "none", 201)
            daemon.start()
    assert len((tmp_path / "audit").read_text().splitlines()) == 3


def test_the_access_log_is_whole_after_an_orderly_end(tmp_path: Path) -> None:
    (tmp_path / "rpm").mkdir()
    configuration = f"access_log: {tmp_path}/access.log\nrepositories: {{rpm: {{path: {tmp_path}/rpm}}}}\n"
    with Daemon(scratch=tmp_path / "scratch", configuration=configuration) as daemon:
        for _ in range(50):
            daemon.get("/rpm/")
        assert daemon.terminate() == 0
    assert len(read_log(tmp_path / "access.log")) == 50
