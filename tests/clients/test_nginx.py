"""nginx in front of the daemon, as conf/nginx.conf sets it up: TLS, plain files, and all else passed on."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.clients.conftest import Corner, run
from tests.clients.curl import curl
from tests.clients.test_dnf import Dnf
from tests.kit.certificates import Authority
from tests.kit.daemon import Answer, Daemon, wait_until
from tests.kit.rpms import make_rpm, truncate

pytestmark = pytest.mark.client("nginx", "curl")

CONFIGURATION = Path(__file__).parents[2] / "conf" / "nginx.conf"
HELLO = "hello-1.0-1.noarch.rpm"

AROUND = """
{user}
daemon off;
worker_processes 1;
pid {scratch}/nginx.pid;
error_log {scratch}/error.log;
events {{}}
http {{
    log_format test '$http_x_test $upstream_addr';
    access_log {scratch}/access.log test;
    client_body_temp_path {scratch}/bodies;
    proxy_temp_path {scratch}/answers;
    fastcgi_temp_path {scratch}/fastcgi;
    scgi_temp_path {scratch}/scgi;
    uwsgi_temp_path {scratch}/uwsgi;
    include {scratch}/repowatch.conf;
}}
"""


@dataclass(frozen=True, slots=True)
class Front:
    """nginx, and where it keeps its files."""

    scratch: Path
    authority: Authority
    plain_port: int
    port: int

    @property
    def url(self) -> str:
        """Without a slash at its end."""
        return f"https://127.0.0.1:{self.port}"

    def curl(self, *arguments: str | Path) -> Answer:
        return curl("--cacert", self.authority.certificate, *arguments)

    def fetch(self, path: str, *headers: str) -> tuple[Answer, bool]:
        """The answer to a GET, and whether nginx gave it without asking the daemon."""
        name = uuid.uuid4().hex
        fields = [part for each in (f"X-Test: {name}", *headers) for part in ("-H", each)]
        answer = self.curl(*fields, f"{self.url}{path}")
        wait_until(lambda: name in (self.scratch / "access.log").read_text())
        return answer, f"{name} -\n" in (self.scratch / "access.log").read_text()

    def upload(self, file: Path, path: str, *headers: str) -> Answer:
        fields = [part for each in headers for part in ("-H", each)]
        return self.curl("-T", file, *fields, f"{self.url}{path}")

    def stored(self) -> list[Path]:
        """The files in which nginx has put by what it should pass on."""
        return [path for name in ("bodies", "answers") for path in (self.scratch / name).rglob("*")]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
        return port


def replaced(text: str, changes: dict[str, str]) -> str:
    """The text with old strings replaced by new ones. Raises AssertionError where one is not in it."""
    for old, new in changes.items():
        assert old in text, old
        text = text.replace(old, new)
    return text


@contextmanager
def nginx(
    scratch: Path, *, root: Path, upstream: int, changes: dict[str, str] | None = None
) -> Iterator[Front]:
    """nginx with the configuration, changed in ports, paths and certificate, and in `changes`."""
    scratch.mkdir()
    authority = Authority(scratch)
    pair = authority.server()
    front = Front(scratch, authority, free_port(), free_port())
    needed = {
        "listen 80;": f"listen 127.0.0.1:{front.plain_port};",
        "listen 443": f"listen 127.0.0.1:{front.port}",
        "    listen [::]:80;\n": "",
        "    listen [::]:443 ssl;\n": "",
        "server 127.0.0.1:8080;": f"server 127.0.0.1:{upstream};",
        "/var/www/repos/rpm-repo": str(root),
        "/etc/nginx/tls/rpm.example.org.pem": str(pair.certificate),
        "/etc/nginx/tls/rpm.example.org.key": str(pair.key),
    }
    (scratch / "repowatch.conf").write_text(replaced(CONFIGURATION.read_text(), (changes or {}) | needed))
    user = "user root;" if os.geteuid() == 0 else ""
    (scratch / "nginx.conf").write_text(AROUND.format(scratch=scratch, user=user))
    process = subprocess.Popen(["nginx", "-e", scratch / "error.log", "-c", scratch / "nginx.conf"])
    try:
        wait_until(lambda: accepts(front.port) or process.poll() is not None)
        yield front
    finally:
        process.terminate()
        process.wait(20)
        print((scratch / "error.log").read_text(), file=sys.stderr)


def accepts(port: int) -> bool:
    with socket.socket() as attempt:
        return attempt.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    scratch = tmp_path_factory.mktemp("shared")
    for name in ("rpm", "pool"):
        (scratch / name).mkdir()
    configuration = (
        f"repositories: {{rpm: {{path: {scratch}/rpm, follow: [{scratch}/pool], exclude: [blob.rpm]}}}}"
    )
    with Daemon(scratch=scratch, configuration=configuration) as daemon:
        yield daemon


@pytest.fixture(scope="module")
def front(shared: Daemon, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    root = Path(shared.repository("rpm")["path"])
    scratch = tmp_path_factory.mktemp("front") / "nginx"
    with nginx(scratch, root=root, upstream=shared.address[1]) as front:
        yield front


def metadata(daemon: Daemon) -> list[str]:
    """The paths of the files that repomd.xml names."""
    root = Path(daemon.repository("rpm")["path"])
    repomd = (root / "repodata" / "repomd.xml").read_text()
    return [f"/rpm/{part.partition(chr(34))[0]}" for part in repomd.split('href="')[1:]]


# -- what nginx serves itself --------------------------------------------------------------------


def test_a_package_is_served_by_nginx_itself(front: Front, corner: Corner) -> None:
    package = make_rpm(corner.path)
    corner.await_listed(HELLO)
    answer, by_nginx = front.fetch(corner.href + HELLO)
    assert by_nginx
    assert (answer.status, answer.body) == (200, package.read_bytes())
    assert answer.headers["Content-Type"] == "application/x-rpm"
    assert answer.headers["ETag"] is None, "it could only be one that repowatch does not know"


def test_metadata_is_served_by_nginx_with_repowatchs_own_headers(front: Front, corner: Corner) -> None:
    for path in ("/rpm/repodata/repomd.xml", *metadata(corner.daemon)):
        answer, by_nginx = front.fetch(path)
        expected = corner.daemon.get(path)
        assert by_nginx
        assert answer.body == expected.body
        for field in ("Cache-Control", "Content-Type", "Last-Modified", "Content-Length"):
            assert answer.headers[field] == expected.headers[field]
        if not path.endswith("/repomd.xml"):
            assert answer.headers["ETag"] == expected.headers["ETag"]


def test_snapshots_and_pruned_packages_come_from_the_daemon(tmp_path: Path) -> None:
    root = tmp_path / "rpm"
    make_rpm(root), make_rpm(root, version="2.0")
    configuration = f"repositories: {{rpm: {{path: {root}, prune: [{{keep: 1}}]}}}}"
    with (
        Daemon(scratch=tmp_path / "daemon", configuration=configuration) as daemon,
        nginx(tmp_path / "nginx", root=root, upstream=daemon.address[1]) as front,
    ):
        wait_until(lambda: not (root / HELLO).exists())
        taken = front.curl("-d", '{"name": "now"}', f"{front.url}/-/api/v1/rpm/snapshot")
        assert taken.status == 200, taken
        for path in (f"/rpm/{HELLO}", "/rpm@now/repodata/repomd.xml", "/rpm@now.repo"):
            answer, by_nginx = front.fetch(path)
            assert (answer.status, by_nginx) == (200, False), path
        assert front.fetch("/rpm/hello-2.0-1.noarch.rpm")[1]


def test_a_repomd_that_was_replaced_is_served_at_once(front: Front, corner: Corner) -> None:
    for number in range(5):
        package = make_rpm(corner.path.parent.parent, "at-once", str(number))
        assert front.upload(package, corner.href).status == 201
        answer, by_nginx = front.fetch("/rpm/repodata/repomd.xml")
        assert by_nginx
        assert answer.body == corner.daemon.get("/rpm/repodata/repomd.xml").body


def test_nginx_sends_ranges(front: Front, corner: Corner) -> None:
    (corner.path / "digits").write_bytes(b"0123456789")
    some, by_nginx = front.fetch(f"{corner.href}digits", "Range: bytes=2-4")
    assert by_nginx
    assert (some.status, some.body) == (206, b"234")
    assert some.headers["Content-Range"] == "bytes 2-4/10"
    several, _ = front.fetch(f"{corner.href}digits", "Range: bytes=0-1,8-")
    assert several.status == 206
    assert several.headers.get_content_type() == "multipart/byteranges"
    assert b"01" in several.body
    assert b"89" in several.body
    beyond, _ = front.fetch(f"{corner.href}digits", "Range: bytes=10-")
    assert beyond.status == 416


def test_an_installation_tree_is_served_by_nginx(front: Front, corner: Corner) -> None:
    (corner.path / ".treeinfo").write_text("[general]\n")
    answer, by_nginx = front.fetch(f"{corner.href}.treeinfo")
    assert by_nginx
    assert (answer.status, answer.text) == (200, "[general]\n")


def test_files_are_served_while_the_daemon_is_away(tmp_path: Path) -> None:
    (tmp_path / "rpm").mkdir()
    with (
        Daemon(tmp_path / "rpm", scratch=tmp_path / "daemon") as daemon,
        nginx(tmp_path / "nginx", root=tmp_path / "rpm", upstream=daemon.address[1]) as front,
    ):
        assert daemon.terminate() == 0
        assert front.fetch("/rpm/repodata/repomd.xml")[0].status == 200
        assert front.fetch("/rpm/nothing")[0].status == 502


# -- what it passes on ---------------------------------------------------------------------------


def test_what_is_no_plain_file_is_repowatchs(front: Front, corner: Corner) -> None:
    make_rpm(corner.path)
    paths = {
        corner.href: 200,
        corner.href.rstrip("/"): 301,
        f"{corner.href}nothing.rpm": 404,
        f"{corner.href}{HELLO}/": 404,
        "/rpm": 301,
        "/": 200,
        "/rpm.repo": 200,
        "/healthz": 200,
        "/-/api/v1/status": 200,
        "/rpm/%2e%2e/rpm%2fx": 400,
    }
    for path, status in paths.items():
        answer, by_nginx = front.fetch(path)
        assert (path, answer.status, by_nginx) == (path, status, False)
    assert front.fetch(corner.href.rstrip("/"))[0].headers["Location"] == corner.href


@pytest.mark.parametrize("path", [".repowatch/lock", "%2erepowatch/lock", "x/../.repowatch/lock", ".hidden"])
def test_a_hidden_name_is_neither_shown_nor_written(front: Front, corner: Corner, path: str) -> None:
    (corner.root / ".hidden").write_text("hidden")
    answer, _ = front.fetch(f"/rpm/{path}")
    assert answer.status in {404, 400}
    written = front.upload(make_rpm(corner.path), f"/rpm/{path}")
    assert written.status in {403, 400}
    assert (corner.root / ".hidden").read_text() == "hidden"


def test_a_symbolic_link_leads_only_where_repowatch_lets_it(front: Front, corner: Corner) -> None:
    outside = corner.root.parent / "outside"
    outside.mkdir(exist_ok=True)
    (outside / "secret").write_text("secret")
    (corner.root.parent / "pool" / "shown").write_text("shown")
    (corner.path / "file").write_text("here")
    (corner.path / "to-file").symlink_to("file")
    (corner.path / "to-pool").symlink_to(corner.root.parent / "pool")
    (corner.path / "to-outside").symlink_to(outside)
    expected = {"to-file": "here", "to-pool/shown": "shown", "to-outside/secret": "not found\n"}
    for name, text in expected.items():
        answer, by_nginx = front.fetch(corner.href + name)
        assert (name, answer.text, by_nginx) == (name, text, False)


def test_conditions_are_decided_by_who_knows_the_tags(front: Front, corner: Corner) -> None:
    package = make_rpm(corner.path)
    corner.await_listed(HELLO)
    tag, date = f'"{corner.pkgid(HELLO)}"', corner.daemon.get(corner.href + HELLO).headers["Last-Modified"]
    with_range = "Range: bytes=0-9"
    cases: list[tuple[int, list[str]]] = [
        (304, [f"If-None-Match: {tag}"]),
        (304, [f"If-Modified-Since: {date}"]),
        (200, ['If-None-Match: "another"', f"If-Modified-Since: {date}"]),
        (200, [f"If-Match: {tag}"]),
        (412, ['If-Match: "another"']),
        (206, [with_range, f"If-Range: {tag}"]),
        (200, [with_range, 'If-Range: "another"']),
        (206, [with_range]),
    ]
    for status, headers in cases:
        answer, by_nginx = front.fetch(corner.href + HELLO, *headers)
        assert (headers, answer.status) == (headers, status)
        assert by_nginx == (headers == [with_range])
    assert package.exists()


def test_another_package_of_the_same_size_and_mtime_is_not_taken_for_the_old_one(
    front: Front, corner: Corner, tmp_path: Path
) -> None:
    castor, pollux = (make_rpm(tmp_path / summary, summary=summary) for summary in ("Castor", "Pollux"))
    for package in (castor, pollux):
        os.utime(package, (1_600_000_000, 1_600_000_000))
    run("cp", "-p", castor, corner.path)
    corner.await_listed(HELLO)
    tag = f'"{corner.pkgid(HELLO)}"'
    run("cp", "-p", pollux, corner.path)
    wait_until(lambda: f'"{corner.pkgid(HELLO)}"' != tag)
    for headers in ([f"If-None-Match: {tag}"], [f"If-Range: {tag}", "Range: bytes=9-"]):
        answer, _ = front.fetch(corner.href + HELLO, *headers)
        assert (answer.status, answer.body) == (200, pollux.read_bytes())


# -- changes -------------------------------------------------------------------------------------


def test_an_upload_is_answered_with_its_revision(front: Front, corner: Corner, tmp_path: Path) -> None:
    answer = front.upload(make_rpm(tmp_path), corner.href)
    assert answer.status == 201
    assert int(answer.headers["Repowatch-Revision"]) == corner.daemon.repository("rpm")["revision"]
    assert front.upload(tmp_path / HELLO, corner.href).status == 204


def test_a_chunked_upload_is_taken(front: Front, corner: Corner, tmp_path: Path) -> None:
    answer = front.upload(make_rpm(tmp_path), corner.href, "Transfer-Encoding: chunked")
    assert answer.status == 201
    assert corner.listed() == {HELLO}


def test_the_reason_of_a_refusal_comes_through(front: Front, corner: Corner, tmp_path: Path) -> None:
    package = make_rpm(tmp_path)
    truncate(package, size=package.stat().st_size - 1)
    answer = front.upload(package, corner.href)
    assert answer.status == 422
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert answer.text == corner.daemon.put(corner.href + HELLO, package).text
    assert corner.files() == set()


def test_a_large_upload_that_is_refused_is_told_so(front: Front, corner: Corner, tmp_path: Path) -> None:
    with open(tmp_path / "large.rpm", "wb") as large:
        large.truncate(20_000_000)
    answer = front.upload(tmp_path / "large.rpm", "/rpm/repodata/large.rpm")
    assert answer.status == 403
    assert front.stored() == []


@pytest.mark.parametrize("chunked", [False, True])
def test_an_upload_streams_through(front: Front, corner: Corner, chunked: bool) -> None:
    half = os.urandom(16 << 20)
    part = b"%x\r\n%b\r\n" % (len(half), half) if chunked else half
    connection = http.client.HTTPSConnection(
        "127.0.0.1", front.port, context=front.authority.client_context(), timeout=40
    )
    connection.putrequest("PUT", f"{corner.href}noise.bin")
    if chunked:
        connection.putheader("Transfer-Encoding", "chunked")
    else:
        connection.putheader("Content-Length", str(2 * len(half)))
    connection.endheaders(part)
    wait_until(lambda: staged_bytes(corner) > len(half) - (2 << 20))
    assert front.stored() == []
    connection.send(part + b"0\r\n\r\n" if chunked else part)
    with connection.getresponse() as answer:
        assert answer.status == 201
    connection.close()
    assert (corner.path / "noise.bin").read_bytes() == half + half


def staged_bytes(corner: Corner) -> int:
    return sum(path.stat().st_size for path in corner.staging.iterdir())


def test_move_copy_and_delete_work_below_https(front: Front, corner: Corner, tmp_path: Path) -> None:
    assert front.upload(make_rpm(tmp_path), corner.href).status == 201
    url = front.url + corner.href

    def ask(method: str, name: str, *headers: str) -> int:
        fields = [part for each in headers for part in ("-H", each)]
        return front.curl("-X", method, *fields, url + name).status

    assert ask("MOVE", HELLO, f"Destination: {url}moved%20here.rpm") == 201
    assert corner.listed() == {"moved here.rpm"}
    assert ask("COPY", "moved%20here.rpm", f"Destination: {url}again.rpm") == 201
    assert corner.listed() == {"moved here.rpm", "again.rpm"}
    assert ask("MOVE", "again.rpm", f"Destination: {url}moved%20here.rpm", "Overwrite: F") == 412
    assert ask("MOVE", "again.rpm", f"Destination: {corner.href}{HELLO}") == 201
    assert ask("MOVE", HELLO, f"Destination: https://elsewhere.example{corner.href}x.rpm") == 502
    assert ask("MOVE", HELLO) == 400
    assert ask("DELETE", "moved%20here.rpm") == 204
    assert corner.listed() == {HELLO}


def test_changes_come_only_from_where_they_may(shared: Daemon, corner: Corner, tmp_path: Path) -> None:
    here = {"    127.0.0.1   yes;\n": ""}
    upstream = shared.address[1]
    with nginx(tmp_path / "nginx", root=corner.root, upstream=upstream, changes=here) as front:
        assert front.upload(make_rpm(tmp_path), corner.href).status == 403
        for method in ("DELETE", "MOVE", "MKCOL", "LOCK", "PROPPATCH"):
            assert front.curl("-X", method, front.url + corner.href).status == 403
        assert front.curl("-X", "PROPFIND", "-H", "Depth: 0", front.url + corner.href).status == 207
        assert front.fetch(corner.href)[0].status == 200
    assert corner.path.is_dir()
    assert corner.files() == set()


@pytest.mark.client("litmus")
def test_litmus_passes(shared: Daemon, corner: Corner, tmp_path: Path) -> None:
    without_tls = {"listen 443 ssl;": "listen 443;"}  # litmus asks a person about every certificate
    upstream = shared.address[1]
    with nginx(tmp_path / "nginx", root=corner.root, upstream=upstream, changes=without_tls) as front:
        run("litmus", f"http://127.0.0.1:{front.port}{corner.href}", cwd=tmp_path)


# -- who asks ------------------------------------------------------------------------------------


def test_what_a_stranger_says_of_itself_is_not_passed_on(tmp_path: Path) -> None:
    seen: list[dict[str, str]] = []

    class Recorder(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append({name.lower(): value for name, value in self.headers.items()})
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    invented = ("X-Forwarded-For: 192.0.2.1", "X-Forwarded-Proto: http", "X-Forwarded-Host: elsewhere")
    with ThreadingHTTPServer(("127.0.0.1", 0), Recorder) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        with nginx(tmp_path / "nginx", root=tmp_path, upstream=server.server_port) as front:
            front.fetch("/", *invented, "Forwarded: for=192.0.2.1", "X_Forwarded_For: 192.0.2.1")
            host = f"127.0.0.1:{front.port}"
        server.shutdown()
        thread.join()
    [headers] = seen
    told = {name: value for name, value in headers.items() if "forward" in name or name == "host"}
    assert told == {"host": host, "x-forwarded-for": "127.0.0.1", "x-forwarded-proto": "https"}


def test_plain_http_leads_to_https(front: Front) -> None:
    answer = curl(f"http://127.0.0.1:{front.plain_port}/rpm/a%20b?c")
    assert answer.status == 301
    assert answer.headers["Location"] == "https://127.0.0.1/rpm/a%20b?c"


def test_tls_of_another_age_is_refused(front: Front) -> None:
    printed = run(
        *("curl", "-sS", "--cacert", front.authority.certificate, "--tls-max", "1.1"),
        *("--ciphers", "DEFAULT@SECLEVEL=0", front.url),
        check=False,
    )
    assert "alert protocol version" in printed


@pytest.mark.client("dnf")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can install into a root of its own")
def test_dnf_installs_what_was_uploaded_a_moment_ago(front: Front, corner: Corner, tmp_path: Path) -> None:
    assert front.upload(make_rpm(tmp_path, "fronted"), corner.href).status == 201
    (tmp_path / "dnf.conf").write_text("[main]\n")
    where = (
        "--setopt=reposdir=/nonexistent",
        f"--repofrompath=rpm,{front.url}/rpm/",
        f"--setopt=rpm.sslcacert={front.authority.certificate}",
    )
    dnf = Dnf(tmp_path, where)
    dnf("install", "fronted")
    assert (dnf.root / "usr/share/doc/fronted/README").exists()
    assert "fronted-1.0-1.noarch" in dnf.available()
