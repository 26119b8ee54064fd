"""TLS and every kind of socket, with the clients that use them; and when the daemon refuses to open one."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.clients.conftest import run
from tests.clients.curl import curl
from tests.clients.test_dnf import Dnf
from tests.kit.certificates import Authority, Pair
from tests.kit.daemon import Answer, Daemon, repowatch, wait_until
from tests.kit.doors import ready_urls
from tests.kit.machine import launched_by
from tests.kit.rpms import make_rpm
from tests.kit.users import basic, write_users

pytestmark = pytest.mark.client("curl")

ANNA = basic("anna", "secret-of-anna")

CONFIGURATION = """
tls: {{certificate: {scratch}/server.pem, key: {scratch}/server.key, client_ca: {scratch}/clients.pem}}
users: {scratch}/users
audit: {scratch}/audit
repositories: {{rpm: {{path: {scratch}/rpm, write: [anna, builder]}}}}
"""


@dataclass(frozen=True, slots=True)
class House:
    """A daemon with a door of each kind. URLs have a slash at their end."""

    daemon: Daemon  # asked by plain HTTP
    scratch: Path
    authority: Authority  # of the server's certificate
    clients: Authority  # of those that clients show
    plain: str
    secure: str
    secure6: str
    unix: str  # a path

    def curl(self, *arguments: str | Path) -> Answer:
        """curl that trusts the server, and shows no certificate."""
        return curl("--cacert", self.authority.certificate, *arguments)

    def install(self, pair: Pair) -> None:
        """Give the server another certificate, as certbot and the like do: one file after the other."""
        for name, source in (("server.key", pair.key), ("server.pem", pair.certificate)):
            aside = self.scratch / f"{name}.new"
            aside.write_bytes(source.read_bytes())
            aside.rename(self.scratch / name)

    def shown(self) -> bytes:
        """The certificate (DER) that a new client is shown."""
        with (
            socket.create_connection(_address(self.secure), timeout=10) as connection,
            self.authority.client_context().wrap_socket(connection, server_hostname="127.0.0.1") as client,
        ):
            return client.getpeercert(binary_form=True) or b""

    def audited(self, location: str) -> dict[str, Any]:
        """The last that the audit says of a location."""
        lines: list[dict[str, Any]] = [
            json.loads(line) for line in (self.scratch / "audit").read_text().splitlines()
        ]
        return [each for each in lines if each["location"] == location][-1]


def _address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or 0


def _der(pair: Pair) -> bytes:
    return ssl.PEM_cert_to_DER_cert(pair.certificate.read_text())


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    scratch = tmp_path_factory.mktemp("house")
    (scratch / "rpm").mkdir()
    authority, clients = Authority(scratch, "servers"), Authority(scratch, "clients")
    write_users(scratch / "users", {"anna": "secret-of-anna"})
    (scratch / "clients.pem").write_bytes(clients.certificate.read_bytes())
    unix = scratch / "http.sock"
    doors = ("http://127.0.0.1:0", "https://[::1]:0", f"unix:{unix}")
    daemon = Daemon(
        *(part for each in doors for part in ("--listen", each)),
        scratch=scratch,
        configuration=CONFIGURATION.format(scratch=scratch),
    )
    house = House(daemon, scratch, authority, clients, "", "", "", str(unix))
    house.install(authority.server())
    with daemon:
        plain, secure6, socket_file, secure = ready_urls(scratch, 4)
        assert (plain[:7], secure6[:13], secure[:8]) == ("http://", "https://[::1]", "https://")
        assert socket_file == f"unix:{unix}"
        daemon.url = plain
        yield House(daemon, scratch, authority, clients, plain, secure, secure6, str(unix))


# -- TLS -------------------------------------------------------------------------------------------


def test_a_file_goes_up_and_comes_down_over_tls(house: House, tmp_path: Path) -> None:
    content = os.urandom(8 << 20)
    (tmp_path / "large").write_bytes(content)
    user = ("--user", "anna:secret-of-anna")
    assert house.curl(*user, "-T", tmp_path / "large", f"{house.secure}rpm/").status == 201
    assert house.curl(f"{house.secure}rpm/large").body == content
    part = house.curl("--range", "5000000-5000009", f"{house.secure}rpm/large")
    assert (part.status, part.body) == (206, content[5_000_000:5_000_010])


def test_who_does_not_know_the_authority_does_not_come_in(house: House) -> None:
    with pytest.raises(AssertionError, match="certificate"):
        curl(f"{house.secure}rpm/")


@pytest.mark.client("dnf")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can install into a root of its own")
def test_dnf_installs_over_tls(house: House, tmp_path: Path) -> None:
    package = make_rpm(tmp_path, "secured")
    assert house.daemon.put(f"/rpm/{package.name}", package, headers=ANNA).status == 201
    (tmp_path / "dnf.conf").write_text("[main]\n")
    where = ("--setopt=reposdir=/nonexistent", f"--repofrompath=rpm,{house.secure}rpm/")
    with pytest.raises(AssertionError, match="SSL"):
        Dnf(tmp_path, where)("repoquery")
    dnf = Dnf(tmp_path, (*where, f"--setopt=rpm.sslcacert={house.authority.certificate}"))
    dnf("install", "secured")
    assert (dnf.root / "usr/share/doc/secured/README").exists()


@pytest.mark.client("zypper")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can install into a root of its own")
def test_zypper_installs_over_tls(house: House, tmp_path: Path) -> None:
    package = make_rpm(tmp_path, "zypped")
    assert house.daemon.put(f"/rpm/{package.name}", package, headers=ANNA).status == 201
    trusted = tmp_path / "trusted"
    trusted.mkdir()
    (trusted / "authority.pem").write_bytes(house.authority.certificate.read_bytes())
    run("openssl", "rehash", trusted)
    zypper = (
        *("env", f"ZYPP_LOGFILE={tmp_path}/log", "zypper", "--root", tmp_path / "root"),
        *("--non-interactive", "--no-gpg-checks"),
    )
    run(*zypper, "addrepo", f"{house.secure}rpm/?ssl_capath={trusted}", "rpm")
    run(*zypper, "install", "zypped")
    assert (tmp_path / "root/usr/share/doc/zypped/README").exists()


def test_a_new_certificate_is_shown_without_a_restart(house: House) -> None:
    new = house.authority.server()
    assert house.shown() != _der(new)
    house.install(new)
    wait_until(lambda: house.shown() == _der(new), deadline=2)


def test_a_certificate_that_is_of_no_use_leaves_the_old_one(house: House) -> None:
    before = house.shown()
    (house.scratch / "server.pem").write_text("-----BEGIN CERTIFICATE-----\n")
    wait_until(lambda: house.shown() == before and "the old one stays" in house.daemon.log)
    assert house.shown() == before
    new = house.authority.server()
    house.install(new)
    wait_until(lambda: house.shown() == _der(new), deadline=2)


@pytest.mark.parametrize(("version", "is_taken"), [("1.1", False), ("1.2", True), ("1.3", True)])
def test_tls_is_spoken_from_1_2_on(house: House, version: str, is_taken: bool) -> None:
    printed = run(
        *("curl", "-sS", "--cacert", house.authority.certificate, f"--tlsv{version}", "--tls-max", version),
        *("--ciphers", "DEFAULT@SECLEVEL=0", f"{house.secure}healthz"),
        check=False,
    )
    assert printed == "ok\n" if is_taken else "alert protocol version" in printed


def test_plain_http_at_a_door_for_tls_comes_to_an_end(house: House) -> None:
    with socket.create_connection(_address(house.secure), timeout=10) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        connection.settimeout(5)
        try:
            answer = connection.recv(1000)
            while connection.recv(1000):
                pass
        except ConnectionResetError:
            answer = b""
    assert b"200" not in answer


# -- client certificates ---------------------------------------------------------------------------


def _showing(pair: Pair) -> tuple[str | Path, ...]:
    return "--cert", pair.certificate, "--key", pair.key


def test_who_shows_a_certificate_needs_no_password(house: House, tmp_path: Path) -> None:
    package = make_rpm(tmp_path, "certified")
    builder = _showing(house.clients.client("builder"))
    assert house.curl(*builder, "-T", package, f"{house.secure}rpm/").status == 201
    change = house.audited(package.name)
    assert (change["who"], change["how"], change["address"]) == ("builder", "certificate", "127.0.0.1")


def test_a_certificate_is_a_name_and_no_permission(house: House, tmp_path: Path) -> None:
    package = make_rpm(tmp_path, "stranger")
    stranger = _showing(house.clients.client("stranger"))
    refused = house.curl(*stranger, "-T", package, f"{house.secure}rpm/")
    assert (refused.status, refused.text) == (403, "stranger may not write to rpm\n")
    assert house.curl(*stranger, f"{house.secure}rpm/").status == 200


@pytest.mark.parametrize("name", ["foreign", "expired"])
def test_a_certificate_that_is_not_valid_is_refused(house: House, tmp_path: Path, name: str) -> None:
    package = make_rpm(tmp_path, name)
    (tmp_path / "foreign").mkdir()
    pair = {
        "foreign": lambda: Authority(tmp_path / "foreign", "clients").client("builder"),
        "expired": lambda: house.clients.client("builder", days=-1),
    }[name]()
    with pytest.raises(AssertionError, match="exit code"):
        house.curl(*_showing(pair), "-T", package, f"{house.secure}rpm/")
    assert house.daemon.get(f"/rpm/{package.name}").status == 404
    assert house.daemon.get("/healthz").status == 200


# -- sockets ---------------------------------------------------------------------------------------


def test_all_doors_lead_to_the_same_repository(house: House, tmp_path: Path) -> None:
    doors = {
        "plain": ("127.0.0.1", (house.plain,)),
        "secure": ("127.0.0.1", (house.secure,)),
        "secure6": ("::1", (house.secure6,)),
        "unix": (None, ("--unix-socket", house.unix, "http://localhost/")),
    }
    for name, (address, (*options, url)) in doors.items():
        package = make_rpm(tmp_path, f"by-{name}")
        answer = house.curl(*options, "--user", "anna:secret-of-anna", "-T", package, f"{url}rpm/")
        assert answer.status == 201, name
        change = house.audited(package.name)
        assert (change["who"], change.get("address")) == ("anna", address)
    for _, (*options, url) in doors.values():
        listing = house.curl(*options, f"{url}rpm/").text
        assert all(f"by-{name}-1.0-1.noarch.rpm" in listing for name in doors)


@pytest.mark.parametrize("door", ["secure", "secure6", "plain", "unix"])
def test_the_status_is_asked_by_the_doors_of_the_configuration(
    house: House, tmp_path: Path, door: str
) -> None:
    address = f"unix:{house.unix}" if door == "unix" else getattr(house, door).rstrip("/")
    text = CONFIGURATION.format(scratch=house.scratch)
    (tmp_path / "status.yaml").write_text(f"listen: ['{address}']\n{text}")
    done = repowatch("status", "--config", tmp_path / "status.yaml")
    assert (done.returncode, done.stderr) == (0, "")
    assert "rpm  /rpm/" in done.stdout


def test_the_socket_file_is_made_for_the_group_and_removed_at_the_end(tmp_path: Path) -> None:
    (tmp_path / "rpm").mkdir()
    path = tmp_path / "http.sock"
    with Daemon("--listen", f"unix:{path}", tmp_path / "rpm", scratch=tmp_path / "scratch") as daemon:
        ready_urls(tmp_path / "scratch", 2)
        assert path.stat().st_mode & 0o777 == 0o660
        daemon.kill()
        daemon.start()  # over the file that the dead one left
        ready_urls(tmp_path / "scratch", 2)
        assert curl("--unix-socket", path, "http://localhost/rpm/").status == 200
        assert daemon.terminate() == 0
        assert not path.exists()


SYSTEMD = """
import os, socket, sys
opened = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
for number, each in enumerate(opened):
    os.dup2(each.fileno(), 10 + number)
for number in range(2):
    os.dup2(10 + number, 3 + number)
    os.close(10 + number)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="2", LISTEN_FDNAMES="repowatch.socket:http")
os.execv(sys.argv[1], sys.argv[1:-2])  # without --listen, so that the configuration says where
"""


def test_sockets_of_systemd_take_the_place_of_those_that_are_configured(tmp_path: Path) -> None:
    (tmp_path / "rpm").mkdir()
    authority = Authority(tmp_path)
    pair = authority.server()
    configuration = (
        "listen: 0.0.0.0:1\n"
        f"tls: {{certificate: {pair.certificate}, key: {pair.key}}}\n"
        f"repositories: {{rpm: {{path: {tmp_path}/rpm}}}}\n"
    )
    with launched_by(sys.executable, "-c", SYSTEMD):
        daemon = Daemon(scratch=tmp_path / "scratch", configuration=configuration)
        with daemon:
            secure, plain = ready_urls(tmp_path / "scratch", 2)
            assert (secure[:8], plain[:7]) == ("https://", "http://")
            package = make_rpm(tmp_path, "handed")
            trusting = ("--cacert", authority.certificate)
            assert curl(*trusting, "-T", package, f"{secure}rpm/").status == 201
            assert curl(f"{plain}rpm/{package.name}").body == package.read_bytes()
            daemon.signal(signal.SIGHUP)
            wait_until(lambda: "the configuration" in daemon.log)
            assert "the configuration did not change" in daemon.log
            assert daemon.terminate() == 0


ABSTRACT = """
import os, socket, sys
opened = socket.socket(socket.AF_UNIX)
opened.bind("\\0NAME")
opened.listen()
os.dup2(opened.fileno(), 3)
os.set_inheritable(3, True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
os.execv(sys.argv[1], sys.argv[1:-2])
"""


def test_a_socket_of_systemd_may_be_an_abstract_one(tmp_path: Path) -> None:
    (tmp_path / "rpm").mkdir()
    name = f"repowatch-test-{os.getpid()}"
    configuration = f"listen: 0.0.0.0:1\nrepositories: {{rpm: {{path: {tmp_path}/rpm}}}}\n"
    with (
        launched_by(sys.executable, "-c", ABSTRACT.replace("NAME", name)),
        Daemon(scratch=tmp_path / "scratch", configuration=configuration),
    ):
        assert ready_urls(tmp_path / "scratch", 1) == [f"unix:@{name}"]
        assert curl("--abstract-unix-socket", name, "http://localhost/rpm/").status == 200


# -- doors that are not opened ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "configuration", "reason"),
    [
        (["--listen", "0.0.0.0:0"], "", "no users are configured"),
        (["--listen", "[::]:0"], "", "no users are configured"),
        (["--listen", "0.0.0.0:0"], "users: {users}\n", "passwords could be overheard"),
        (["--listen", "https://127.0.0.1:0"], "", "needs a certificate"),
        (["--listen", "127.0.0.1:0"], "users: {users}.missing\n", "make it with `repowatch passwd"),
        (["--listen", "127.0.0.1:0"], "tls: {{certificate: /none.pem, key: /none.key}}\n", "/none.pem"),
        (["--listen", "unix:{users}"], "", "can not listen on unix:"),
    ],
)
def test_a_door_that_would_be_open_to_strangers_is_not_opened(
    tmp_path: Path, arguments: list[str], configuration: str, reason: str
) -> None:
    (tmp_path / "rpm").mkdir()
    users = write_users(tmp_path / "users", {"anna": "secret"})
    text = configuration.format(users=users) + f"repositories: {{rpm: {{path: {tmp_path}/rpm}}}}\n"
    (tmp_path / "repowatch.yaml").write_text(text)
    listen = [each.format(users=users) for each in arguments]
    done = repowatch("serve", "--config", tmp_path / "repowatch.yaml", *listen)
    assert (done.returncode, done.stdout) == (2, "")
    assert reason in done.stderr
    assert "Traceback" not in done.stderr


def test_strangers_may_come_where_that_is_said(tmp_path: Path) -> None:
    (tmp_path / "rpm").mkdir()
    arguments = ("--allow-anonymous-upload", "--listen", "0.0.0.0:0", tmp_path / "rpm")
    with Daemon(*arguments, scratch=tmp_path / "scratch"):
        everywhere, _ = ready_urls(tmp_path / "scratch", 2)
        port = urlsplit(everywhere).port
        package = make_rpm(tmp_path, "anonymous")
        assert curl("-T", package, f"http://127.0.0.1:{port}/rpm/").status == 201
