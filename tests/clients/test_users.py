"""Who may do what: users and passwords, groups, narrowed accounts and addresses, as clients meet them."""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.clients.conftest import run
from tests.clients.curl import curl
from tests.clients.test_dnf import Dnf
from tests.kit.daemon import Answer, Daemon, wait_until
from tests.kit.metadata import locations
from tests.kit.rpms import make_rpm
from tests.kit.users import basic, client_at, passwd, write_users

USERS = {name: f"secret-of-{name}" for name in ("anna", "ben", "ci", "dora", "old", "üwe")}
ANNA, BEN, CI, DORA, OLD, UEWE = (basic(name, password) for name, password in USERS.items())
CHALLENGE = ['Basic realm="repowatch", charset="UTF-8"']

CONFIGURATION = """
users: {scratch}/users
groups: {{admins: [anna, ben], empty: []}}
accounts:
  ci: {{repositories: [rpm, team], names: ["ci-*.rpm"], delete: false}}
  old: {{expires: 2020-01-31}}
trusted_proxies: [127.0.0.1]
access_log: {scratch}/access.log
repositories:
  rpm: {{path: {scratch}/rpm}}
  private: {{path: {scratch}/private, read: [anna, old], write: [anna]}}
  team: {{path: {scratch}/team, write: ["@admins", ci]}}
  inbox: {{path: {scratch}/inbox, read: [anna], write: [anna, dora]}}
  shut: {{path: {scratch}/shut, read: ["@empty"], write: []}}
  near:
    path: {scratch}/near
    allow: [10.0.0.0/8, "2001:db8::/32"]
    deny: [10.9.0.0/16, "2001:db8:bad::/48"]
"""

addresses = (f"198.18.{number >> 8}.{number & 255}" for number in itertools.count(1))


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("users")


@pytest.fixture(scope="module")
def daemon(scratch: Path) -> Iterator[Daemon]:
    write_users(scratch / "users", USERS)
    for name in ("rpm", "private", "team", "inbox", "shut", "near"):
        (scratch / name).mkdir()
    with Daemon(scratch=scratch, configuration=CONFIGURATION.format(scratch=scratch)) as daemon:
        yield daemon


@pytest.fixture(scope="module", autouse=True)
def no_password_is_told(daemon: Daemon, scratch: Path) -> Iterator[None]:
    """Whatever the tests do, no log has a password, in the clear or as it crosses the wire."""
    yield
    told = daemon.log + (scratch / "access.log").read_text()
    for fields, password in zip((ANNA, BEN, CI, DORA, OLD, UEWE), USERS.values(), strict=True):
        assert password not in told
        assert fields["Authorization"].removeprefix("Basic ") not in told


@pytest.fixture
def hello(tmp_path: Path) -> Path:
    return make_rpm(tmp_path, tmp_path.name.replace("_", "-"))


def ask(daemon: Daemon, method: str, path: str, *fields: Mapping[str, str], body: bytes = b"") -> Answer:
    headers = {name: value for each in fields for name, value in each.items()}
    return daemon.request(method, path, body if method == "PUT" else None, headers=headers)


def status_of(daemon: Daemon, method: str, path: str, *fields: Mapping[str, str]) -> int:
    """The status of a request from a client that nobody has seen before."""
    content = b"from " + path.encode()
    return ask(daemon, method, path, client_at(next(addresses)), *fields, body=content).status


def to(path: str) -> dict[str, str]:
    return {"Destination": path}


# -- passwords -----------------------------------------------------------------------------------


def test_anyone_reads_and_named_users_write(daemon: Daemon, hello: Path) -> None:
    path = f"/rpm/{hello.name}"
    refused = daemon.put(path, hello)
    assert (refused.status, refused.headers.get_all("WWW-Authenticate")) == (401, CHALLENGE)
    refused = daemon.put(path, hello, headers=basic("anna", "wrong"))
    assert (refused.status, refused.headers.get_all("WWW-Authenticate")) == (401, CHALLENGE)
    assert daemon.get(path).status == 404
    assert daemon.put(path, hello, headers=ANNA).status == 201
    assert daemon.get(path).body == hello.read_bytes()
    assert hello.name in locations(daemon, "rpm")
    assert ask(daemon, "DELETE", path).status == 401
    assert ask(daemon, "DELETE", path, DORA).status == 204


@pytest.mark.client("curl")
def test_a_user_of_any_script_logs_in_by_the_url(daemon: Daemon, hello: Path) -> None:
    url = daemon.repository_url("rpm").replace("http://", "http://%C3%BCwe:secret-of-%C3%BCwe@")
    assert curl("-T", hello, url).status == 201


@pytest.mark.parametrize("method", ["PUT", "DELETE", "MKCOL", "MOVE", "COPY", "LOCK", "UNLOCK", "PROPPATCH"])
def test_each_method_that_changes_asks_for_a_password(daemon: Daemon, method: str, hello: Path) -> None:
    path = f"/rpm/{hello.name}"
    assert daemon.put(path, hello, headers=ANNA).status == 201
    before = daemon.get("/rpm/").body
    answer = ask(daemon, method, path, to(f"{path}.moved"), body=b"x")
    assert (answer.status, answer.headers.get_all("WWW-Authenticate")) == (401, CHALLENGE)
    assert daemon.get("/rpm/").body == before


@pytest.mark.client("curl")
def test_digest_is_neither_offered_nor_taken(daemon: Daemon, hello: Path) -> None:
    url = daemon.repository_url("rpm")
    assert curl("--digest", "--user", "anna:secret-of-anna", "-T", hello, url).status == 401
    invented = 'Digest username="anna", realm="repowatch", nonce="x", uri="/rpm/", response="00"'
    answer = ask(daemon, "PUT", f"/rpm/{hello.name}", {"Authorization": invented})
    assert (answer.status, answer.headers.get_all("WWW-Authenticate")) == (401, CHALLENGE)


@pytest.mark.parametrize(
    "field",
    [
        "",
        "Basic",
        "Basic ",
        "Basic !!!",
        "Basic YW5uYQ==",  # without a colon
        "Basic YW5uYTpz=",
        "Basic YW5u:YTpz",
        "Basic AAAA",
        "Basic \xfc\xff",
        "Bearer abc",
        pytest.param("Basic " + "YTpi" * 4000, id="long"),
    ],
)
def test_a_malformed_login_is_no_login(daemon: Daemon, field: str) -> None:
    answer = ask(daemon, "PUT", "/rpm/malformed", client_at(next(addresses)), {"Authorization": field})
    assert (answer.status, answer.headers.get_all("WWW-Authenticate")) == (401, CHALLENGE)
    assert daemon.get("/rpm/", headers={"Authorization": field}).status == 200


def test_users_come_change_and_go_while_the_daemon_runs(daemon: Daemon, scratch: Path) -> None:
    first, second = basic("eva", "her-first"), basic("eva", "her-second")
    assert status_of(daemon, "PUT", "/rpm/eva", first) == 401
    passwd(scratch / "users", "eva", "her-first")
    wait_until(lambda: status_of(daemon, "PUT", "/rpm/eva", first) == 201, deadline=2)
    passwd(scratch / "users", "eva", "her-second")
    wait_until(lambda: status_of(daemon, "PUT", "/rpm/eva", first) == 401, deadline=2)
    assert status_of(daemon, "PUT", "/rpm/eva", second) == 204
    passwd(scratch / "users", "eva", delete=True)
    wait_until(lambda: status_of(daemon, "PUT", "/rpm/eva", second) == 401, deadline=2)


def test_a_users_file_with_a_mistake_is_told_and_the_users_stay(daemon: Daemon, scratch: Path) -> None:
    good = (scratch / "users").read_bytes()
    try:
        (scratch / "users").write_bytes(good + b"fred:plain-text\n")
        wait_until(lambda: daemon.put("/rpm/x", b"", headers=ANNA) and "the users stay" in daemon.log)
        assert "fred" in daemon.log
        assert "plain-text" not in daemon.log
        assert status_of(daemon, "PUT", "/rpm/stay", DORA) == 201
    finally:
        (scratch / "users").write_bytes(good)


# -- groups, and repositories ----------------------------------------------------------------------


def test_a_group_writes_and_others_may_not(daemon: Daemon) -> None:
    assert status_of(daemon, "PUT", "/team/by-ben", BEN) == 201
    assert status_of(daemon, "PUT", "/team/by-dora", DORA) == 403
    assert "dora may not write to team" in ask(daemon, "PUT", "/team/by-dora", DORA).text
    assert status_of(daemon, "GET", "/team/by-dora") == 404
    assert status_of(daemon, "PUT", "/shut/by-anna", ANNA) == 403


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/private/kept"),
        ("HEAD", "/private/kept"),
        ("PROPFIND", "/private/"),
        ("OPTIONS", "/private/"),
        ("GET", "/private/"),
        ("GET", "/private"),
        ("GET", "/private/repodata/repomd.xml"),
        ("GET", "/private/missing"),
        ("GET", "//private//kept"),
        ("GET", "/%70rivate/kept"),
        ("GET", "/private/%6bept"),
    ],
)
def test_a_private_repository_shows_nothing_to_others(daemon: Daemon, method: str, path: str) -> None:
    daemon.put("/private/kept", b"for anna", headers=ANNA)
    depth = {"Depth": "1"}
    refused = ask(daemon, method, path, depth)
    assert (refused.status, refused.headers.get_all("WWW-Authenticate")) == (401, CHALLENGE)
    assert b"for anna" not in refused.body
    assert ask(daemon, method, path, depth, BEN).status == 403
    assert ask(daemon, method, path, depth, ANNA).status in (200, 207, 301, 404)


def test_what_the_daemon_tells_of_itself_leaves_out_what_one_may_not_read(daemon: Daemon) -> None:
    for path in ("/", "/-/api/v1/status"):
        assert "private" not in daemon.get(path).text
        assert "private" not in daemon.get(path, headers=BEN).text
        assert "private" in daemon.get(path, headers=ANNA).text
        assert "shut" not in daemon.get(path, headers=ANNA).text
        assert ask(daemon, "GET", path, basic("anna", "wrong"), client_at(next(addresses))).status == 401
    assert {each["name"] for each in daemon.status()["repositories"]} == {"rpm", "team"}


def test_who_may_write_may_not_therefore_read(daemon: Daemon) -> None:
    assert status_of(daemon, "PUT", "/inbox/letter", DORA) == 201
    assert status_of(daemon, "GET", "/inbox/letter", DORA) == 403
    assert status_of(daemon, "COPY", "/inbox/letter", DORA, to("/inbox/copy")) == 403
    assert status_of(daemon, "GET", "/inbox/letter", ANNA) == 200


@pytest.mark.client("dnf")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can install into a root of its own")
def test_dnf_reads_a_private_repository_with_a_password_in_its_url(
    daemon: Daemon, hello: Path, tmp_path: Path
) -> None:
    assert daemon.put(f"/private/{hello.name}", hello, headers=ANNA).status == 201
    (tmp_path / "dnf.conf").write_text("[main]\n")
    url = daemon.repository_url("private")

    def dnf(url: str) -> Dnf:
        return Dnf(tmp_path, ("--setopt=reposdir=/nonexistent", f"--repofrompath=private,{url}"))

    with pytest.raises(AssertionError, match="Status code: 401"):
        dnf(url)("repoquery")
    named = dnf(url.replace("http://", "http://anna:secret-of-anna@"))
    name = hello.name.removesuffix("-1.0-1.noarch.rpm")
    named("install", name)
    assert (named.root / "usr/share/doc" / name / "README").exists()


@pytest.mark.client("zypper")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can install into a root of its own")
def test_zypper_reads_a_private_repository_with_a_password_in_its_url(
    daemon: Daemon, hello: Path, tmp_path: Path
) -> None:
    assert daemon.put(f"/private/{hello.name}", hello, headers=ANNA).status == 201
    url = daemon.repository_url("private")
    zypper = ("env", f"ZYPP_LOGFILE={tmp_path}/log", "zypper", "--non-interactive", "--no-gpg-checks")
    stranger = (*zypper, "--root", tmp_path / "stranger")
    run(*stranger, "addrepo", url, "private")
    with pytest.raises(AssertionError, match="exit code"):
        run(*stranger, "refresh")
    named = (*zypper, "--root", tmp_path / "root")
    run(*named, "addrepo", url.replace("http://", "http://anna:secret-of-anna@"), "private")
    name = hello.name.removesuffix("-1.0-1.noarch.rpm")
    run(*named, "install", name)
    assert (tmp_path / "root/usr/share/doc" / name / "README").exists()


# -- both ends of MOVE and COPY --------------------------------------------------------------------


@pytest.mark.parametrize("method", ["MOVE", "COPY"])
def test_no_way_leads_from_one_repository_into_another(daemon: Daemon, method: str) -> None:
    """Not even for one who may write at both ends (RFC 4918, 9.8.5 and 9.9.4)."""
    source, there = f"/rpm/{method}-source", f"/team/{method}-there"
    assert status_of(daemon, "PUT", source, DORA) == 201
    assert status_of(daemon, method, source, DORA, to(there)) == 502
    assert status_of(daemon, method, source, ANNA, to(there)) == 502
    assert status_of(daemon, method, source, to(there)) in (401, 502)
    assert status_of(daemon, "GET", source) == 200
    assert status_of(daemon, "GET", there) == 404
    assert status_of(daemon, method, source, DORA, to(f"/rpm/{method}-here")) == 201


@pytest.mark.parametrize(
    "destination",
    [
        "/team",
        "/team/x",
        "//team/x",
        "/%74eam/x",
        "http://127.0.0.1/team/x",
        "/team/\xc3\xa9",  # in the bytes of UTF-8
        pytest.param("/team/" + "\xc3\xa9" * 100, id="long"),
    ],
)
def test_no_way_of_writing_a_destination_leads_around_the_check(daemon: Daemon, destination: str) -> None:
    assert status_of(daemon, "PUT", "/team/source", ANNA) in (201, 204)
    before = daemon.get("/team/").body
    for method in ("COPY", "MOVE"):
        assert 400 <= status_of(daemon, method, "/team/source", DORA, to(destination)) <= 502
        assert 400 <= status_of(daemon, method, "/team/source", to(destination)) <= 502
    assert daemon.get("/team/").body == before


def test_what_may_not_be_read_can_not_be_copied(daemon: Daemon) -> None:
    assert status_of(daemon, "PUT", "/private/taken", ANNA) in (201, 204)
    for method in ("COPY", "MOVE"):
        assert status_of(daemon, method, "/private/taken", to("/team/taken")) == 401
        assert status_of(daemon, method, "/private/taken", BEN, to("/team/taken")) == 403
        assert status_of(daemon, method, "/private/taken", BEN, to("/private/given")) == 403
    assert status_of(daemon, "GET", "/private/taken", ANNA) == 200


# -- narrowed accounts -----------------------------------------------------------------------------


def test_a_narrowed_account_writes_its_own_names_and_deletes_nothing(daemon: Daemon) -> None:
    assert status_of(daemon, "PUT", "/rpm/other-1.txt", CI) == 403
    assert "only for names like ci-*.rpm" in ask(daemon, "PUT", "/rpm/other-1.txt", CI).text
    assert status_of(daemon, "MKCOL", "/rpm/sub/", ANNA) == 201
    assert daemon.put("/rpm/sub/ci-0.rpm", b"", headers=CI).status == 201
    assert daemon.put("/rpm/ci-1.rpm", b"", headers=CI).status == 201
    assert status_of(daemon, "DELETE", "/rpm/ci-1.rpm", CI) == 403
    assert status_of(daemon, "MOVE", "/rpm/ci-1.rpm", CI, to("/rpm/ci-2.rpm")) == 403
    assert status_of(daemon, "COPY", "/rpm/ci-1.rpm", CI, to("/rpm/x.rpm")) == 403
    assert status_of(daemon, "COPY", "/rpm/ci-1.rpm", CI, to("/rpm/ci-2.rpm")) == 201
    assert status_of(daemon, "MKCOL", "/rpm/ci-dir.rpm", CI) == 403
    assert status_of(daemon, "GET", "/rpm/ci-1.rpm", CI) == 200
    assert status_of(daemon, "PUT", "/inbox/ci-1.rpm", CI) == 403


def test_a_directory_is_not_taken_for_a_file_of_a_narrowed_account(daemon: Daemon) -> None:
    assert ask(daemon, "MKCOL", "/rpm/ci-d%C3%A9p.rpm", ANNA).status == 201
    assert daemon.put("/rpm/ci-d%C3%A9p.rpm/kept", b"kept", headers=ANNA).status == 201
    assert daemon.put("/rpm/ci-file.rpm", b"", headers=CI).status in (201, 204)
    for destination in ("/rpm/ci-d%C3%A9p.rpm", "/rpm/ci-d\xc3\xa9p.rpm"):
        assert status_of(daemon, "COPY", "/rpm/ci-file.rpm", CI, to(destination)) == 403
    assert daemon.get("/rpm/ci-d%C3%A9p.rpm/kept").body == b"kept"


def test_an_expired_account_may_do_nothing_that_needs_a_name(daemon: Daemon) -> None:
    answer = ask(daemon, "PUT", "/rpm/too-late", OLD)
    assert (answer.status, "expired on 2020-01-31" in answer.text) == (403, True)
    assert status_of(daemon, "GET", "/private/", OLD) == 403
    assert status_of(daemon, "GET", "/rpm/", OLD) == 200


# -- who guesses -----------------------------------------------------------------------------------


def test_who_guesses_has_to_wait_and_nobody_else(daemon: Daemon) -> None:
    guesser, bystander = client_at("203.0.113.9"), client_at("203.0.113.10")
    for number in range(5):
        assert ask(daemon, "PUT", "/rpm/guess", guesser, basic("anna", f"guess-{number}")).status == 401
    refused = ask(daemon, "PUT", "/rpm/guess", guesser, ANNA)
    assert (refused.status, refused.headers["Retry-After"]) == (429, "1")
    assert ask(daemon, "PUT", "/rpm/guess", bystander, ANNA).status == 201
    assert ask(daemon, "GET", "/rpm/guess", guesser).status == 200
    wait_until(lambda: ask(daemon, "PUT", "/rpm/guess", guesser, ANNA).status == 204)
    for number in range(5):
        assert f"guess-{number}" not in daemon.log
    assert daemon.log.count("login failed from 203.0.113.9 as 'anna'") == 5


def test_guesses_from_one_ipv6_network_are_counted_together(daemon: Daemon) -> None:
    for number in range(5):
        guesser = client_at(f"2001:db8:1:2::{number}")
        assert ask(daemon, "PUT", "/rpm/guess6", guesser, basic("nobody", "x")).status == 401
    assert ask(daemon, "PUT", "/rpm/guess6", client_at("2001:db8:1:2:ffff::1"), ANNA).status == 429
    assert ask(daemon, "PUT", "/rpm/guess6", client_at("2001:db8:1:3::1"), ANNA).status in (201, 204)


def test_a_name_in_the_log_can_not_forge_a_line(daemon: Daemon) -> None:
    assert status_of(daemon, "PUT", "/rpm/x", basic("mallory'\u2028 login failed from", "x")) == 401
    wait_until(lambda: "mallory" in daemon.log)
    [line] = [each for each in daemon.log.splitlines() if "mallory" in each]
    assert line.startswith("login failed from 198.18.")
    assert "\\u2028" in line


# -- addresses -------------------------------------------------------------------------------------


def test_a_password_over_plain_http_is_taken_from_this_machine_alone(daemon: Daemon) -> None:
    plain, secure = client_at("203.0.113.20", scheme="http"), client_at("203.0.113.20")
    for fields in ((plain, ANNA), (plain,)):
        answer = ask(daemon, "PUT", "/rpm/overheard", *fields)
        assert answer.status == 403
        assert "over TLS only" in answer.text
        assert "WWW-Authenticate" not in answer.headers
    assert ask(daemon, "PUT", "/rpm/overheard", secure, ANNA).status == 201
    assert ask(daemon, "GET", "/rpm/overheard", plain).status == 200


def test_passwords_may_cross_a_network_that_is_trusted(tmp_path: Path) -> None:
    write_users(tmp_path / "users", {"anna": USERS["anna"]})
    configuration = f"""
users: {tmp_path}/users
trusted_proxies: [127.0.0.1]
auth_over_http: true
repositories: {{rpm: {{path: {tmp_path}/rpm}}}}
"""
    (tmp_path / "rpm").mkdir()
    with Daemon(scratch=tmp_path / "scratch", configuration=configuration) as daemon:
        assert ask(daemon, "PUT", "/rpm/a", client_at("203.0.113.1", scheme="http"), ANNA).status == 201


@pytest.mark.parametrize(
    ("address", "comes_in"),
    [
        ("10.1.2.3", True),
        ("::ffff:10.1.2.3", True),
        ("[2001:db8::1]:4711", True),
        ("10.9.2.3", False),
        ("2001:db8:bad::1", False),
        ("192.0.2.1", False),
        ("2001:db9::1", False),
        ("unknown", False),
        ("10.1.2.3, 192.0.2.1", False),  # what the client says of itself counts for nothing
    ],
)
def test_a_repository_may_be_open_to_some_networks(daemon: Daemon, address: str, comes_in: bool) -> None:
    client = client_at(address)
    assert ask(daemon, "GET", "/near/", client).status == (200 if comes_in else 403)
    assert ask(daemon, "PROPFIND", "/near/", client, {"Depth": "0"}).status == (207 if comes_in else 403)
    assert ask(daemon, "PUT", "/near/file", client, ANNA, body=b"x").status in (
        (201, 204) if comes_in else (403,)
    )
    assert ("near" in ask(daemon, "GET", "/", client).text) is comes_in


def test_the_proxy_of_a_stranger_is_not_believed(tmp_path: Path) -> None:
    configuration = f"repositories: {{near: {{path: {tmp_path}/near, allow: [10.0.0.0/8]}}}}\n"
    (tmp_path / "near").mkdir()
    with Daemon(scratch=tmp_path / "scratch", configuration=configuration) as daemon:
        for told in (client_at("10.1.2.3"), {"Forwarded": "for=10.1.2.3;proto=https"}):
            assert ask(daemon, "GET", "/near/", told).status == 403


def test_a_reload_changes_who_may_read_at_once(tmp_path: Path) -> None:
    """Also what was asked for a moment ago, and is kept ready."""
    (tmp_path / "rpm").mkdir()
    (tmp_path / "rpm" / "notes.txt").write_text("for everyone")
    os.utime(tmp_path / "rpm" / "notes.txt")
    users = write_users(tmp_path / "users", {"anna": "secret"})

    def configuration(read: str, listen: str = "") -> str:
        repository = f"{{path: {tmp_path / 'rpm'}, read: {read}}}"
        return f"{listen}users: {users}\nrepositories:\n  rpm: {repository}\n"

    with Daemon(scratch=tmp_path / "scratch", configuration=configuration("[anyone]")) as daemon:

        def kept() -> bool:
            answer = daemon.get("/rpm/notes.txt")
            assert (answer.status, answer.body) == (200, b"for everyone")
            return time.time() - (tmp_path / "rpm" / "notes.txt").stat().st_ctime > 1.2

        wait_until(kept)
        assert daemon.get("/rpm/notes.txt").status == 200
        (tmp_path / "scratch" / "repowatch.yaml").write_text(configuration("[anna]"))
        daemon.signal(signal.SIGHUP)
        wait_until(lambda: "the configuration is in use as it is now" in daemon.log)
        assert daemon.get("/rpm/notes.txt").status == 401
        assert daemon.get("/rpm/notes.txt", headers=basic("anna", "secret")).status == 200
        (tmp_path / "scratch" / "repowatch.yaml").write_text(configuration("[anna]", "max_upload: 1MiB\n"))
        daemon.signal(signal.SIGHUP)
        wait_until(lambda: "max_upload: changes take effect at the next start" in daemon.log)
        (tmp_path / "scratch" / "repowatch.yaml").write_text(configuration("[anyone]"))
        daemon.signal(signal.SIGHUP)
        wait_until(lambda: daemon.get("/rpm/notes.txt").status == 200)
