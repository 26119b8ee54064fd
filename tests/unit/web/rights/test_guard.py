"""Who is let in, with real users and rules; the environment is the one that the server makes."""

from __future__ import annotations

import base64
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest

from repowatch.web.replies import Reply
from repowatch.web.rights.guard import IDENTITY, Act, Guard, Login
from repowatch.web.rights.peer import Trusted, network_of
from repowatch.web.rights.rules import NOBODY, Account, Action, Identity, Rights, Rules
from repowatch.web.rights.users import Throttle, Users, set_password
from tests.kit.clock import FakeClock

READ: list[Act] = [(Action.READ, "rpm", "")]
WRITE: list[Act] = [(Action.WRITE, "rpm", "a.rpm")]
READ_PRIVATE: list[Act] = [(Action.READ, "private", "")]
CHALLENGE = ("WWW-Authenticate", 'Basic realm="repowatch", charset="UTF-8"')


@pytest.fixture
def users(tmp_path: Path) -> Users:
    path = str(tmp_path / "users")
    for user in ("anna", "ben"):
        set_password(path, user, f"{user}-secret".encode(), cost=4)
    users = Users(path, clock=FakeClock())
    users.load()
    return users


@pytest.fixture
def throttle() -> Throttle:
    return Throttle(clock=FakeClock())


def make_guard(users: Users | None, throttle: Throttle, *, over_http: bool = False) -> Guard:
    rights = {
        "rpm": Rights(deny=(network_of("192.0.2.66"),)),
        "private": Rights(read=frozenset({"anna"}), write=frozenset({"anna"})),
    }
    return Guard(
        rules=Rules(
            rights=rights,
            groups={},
            accounts={"ben": Account(names=("b-*",))},
            anonymous_write=False,
        ),
        users=users,
        throttle=throttle,
        trusted=Trusted.of(["10.0.0.1", "unix"]),
        over_http=over_http,
    )


@pytest.fixture
def guard(users: Users, throttle: Throttle) -> Guard:
    return make_guard(users, throttle)


def request(
    *,
    login: str | None = None,
    address: str = "127.0.0.1",
    scheme: str = "http",
    certificate: str | None = None,
    **fields: str,
) -> dict[str, Any]:
    """The environment of a request; `login` is USER:PASSWORD, `address` "" a unix socket."""
    environ: dict[str, Any] = {
        "REMOTE_ADDR": address,
        "wsgi.url_scheme": scheme,
        "repowatch.certificate": certificate,
        "repowatch.fields": {name.replace("_", "-"): value for name, value in fields.items()},
    }
    if login is not None:
        environ["HTTP_AUTHORIZATION"] = f"Basic {base64.b64encode(login.encode()).decode()}"
    return environ


def decide(guard: Guard, environ: dict[str, Any], acts: list[Act], *, ask_who: bool = False) -> Reply | None:
    """What comes of a request, its password checked where that is asked for."""
    verdict = guard.admit(environ, acts, ask_who=ask_who)
    return verdict.check() if isinstance(verdict, Login) else verdict


def status(verdict: Reply | Login | None) -> int:
    assert not isinstance(verdict, Login)
    return verdict.status if verdict else 200


def test_what_anyone_may_is_let_in_without_a_look_at_the_password(guard: Guard) -> None:
    environ = request(login="anna:wrong")
    assert guard.admit(environ, READ) is None
    assert environ[IDENTITY] == NOBODY
    assert "REMOTE_USER" not in environ


def test_what_needs_a_name_is_asked_for_one(guard: Guard) -> None:
    verdict = guard.admit(request(), WRITE)
    assert verdict == Reply(HTTPStatus.UNAUTHORIZED, "log in to write to rpm", [CHALLENGE])


def test_a_password_is_hashed_once_and_then_known(guard: Guard) -> None:
    environ = request(login="anna:anna-secret")
    assert isinstance(first := guard.admit(environ, WRITE), Login)
    assert IDENTITY not in environ
    assert first.check() is None
    assert environ[IDENTITY] == Identity("anna", "basic")
    again = request(login="anna:anna-secret")
    assert guard.admit(again, WRITE) is None
    assert again["REMOTE_USER"] == "anna"


@pytest.mark.parametrize("login", ["anna:wrong", "carl:anna-secret", "anna:", ":", "no colon"])
def test_a_wrong_login_is_asked_for_another(guard: Guard, login: str) -> None:
    environ = request(login=login)
    verdict = decide(guard, environ, WRITE)
    assert verdict is not None
    assert (status(verdict), verdict.headers) == (401, [CHALLENGE])
    assert "REMOTE_USER" not in environ


def test_the_right_user_may_still_not_do_everything(guard: Guard) -> None:
    environ = request(login="ben:ben-secret")
    assert status(decide(guard, environ, WRITE)) == 403
    assert environ["REMOTE_USER"] == "ben"  # for the access log
    assert status(decide(guard, request(login="ben:ben-secret"), READ_PRIVATE)) == 403


def test_all_acts_have_to_be_allowed(guard: Guard) -> None:
    copy = [*READ, *WRITE]
    assert status(decide(guard, request(), copy)) == 401
    assert status(decide(guard, request(login="ben:ben-secret"), copy)) == 403
    assert status(decide(guard, request(login="anna:anna-secret"), copy)) == 200


def test_who_asks_what_there_is_may_say_who_it_is(guard: Guard) -> None:
    nobody, anna, ben = request(), request(login="anna:anna-secret"), request(login="ben:ben-secret")
    for environ in (nobody, anna, ben):
        assert decide(guard, environ, [], ask_who=True) is None
    assert [guard.may_read(each, "private") for each in (nobody, anna, ben)] == [False, True, False]
    assert guard.may_read(nobody, "rpm")
    assert status(decide(guard, request(login="anna:wrong"), [], ask_who=True)) == 401


def test_a_certificate_is_a_name(guard: Guard) -> None:
    environ = request(certificate="anna", login="ben:wrong", scheme="https")
    assert guard.admit(environ, WRITE) is None
    assert environ[IDENTITY] == Identity("anna", "certificate")


def test_a_certificate_of_a_proxy_is_not_the_name_of_its_clients(guard: Guard) -> None:
    forwarded = {"address": "10.0.0.1", "x_forwarded_for": "192.0.2.1", "x_forwarded_proto": "https"}
    assert status(decide(guard, request(certificate="anna", **forwarded), WRITE)) == 401
    environ = request(certificate="anna", login="ben:ben-secret", **forwarded)
    decide(guard, environ, WRITE)
    assert environ[IDENTITY] == Identity("ben", "basic")


def test_without_users_a_certificate_is_the_only_way(throttle: Throttle) -> None:
    guard = make_guard(None, throttle)
    verdict = decide(guard, request(login="anna:anna-secret"), WRITE)
    assert verdict is not None
    assert (status(verdict), verdict.text) == (403, "log in to write to rpm, with a client certificate")
    assert decide(guard, request(certificate="anna", scheme="https"), WRITE) is None


def test_guesses_are_slowed_by_address(guard: Guard, throttle: Throttle) -> None:
    for _ in range(5):
        assert status(decide(guard, request(login="anna:wrong"), WRITE)) == 401
    verdict = guard.admit(request(login="anna:anna-secret"), WRITE)
    assert isinstance(verdict, Reply)
    assert (status(verdict), verdict.headers) == (429, [("Retry-After", "1")])
    assert guard.admit(request(login="anna:wrong"), READ) is None
    elsewhere = request(login="anna:anna-secret", address="192.0.2.1", scheme="https")
    assert decide(guard, elsewhere, WRITE) is None


def test_a_known_password_is_not_a_way_to_guess(guard: Guard) -> None:
    assert decide(guard, request(login="anna:anna-secret"), WRITE) is None
    for _ in range(5):
        decide(guard, request(login="ben:wrong"), WRITE)
    assert status(decide(guard, request(login="anna:anna-secret"), WRITE)) == 429


def test_guesses_that_came_at_once_are_not_all_checked(guard: Guard) -> None:
    logins = [guard.admit(request(login="anna:wrong"), WRITE) for _ in range(20)]
    statuses = [status(each.check()) for each in logins if isinstance(each, Login)]
    assert statuses == [401] * 5 + [429] * 15


@pytest.mark.parametrize(
    ("peer", "is_safe"),
    [
        ({"address": "127.0.0.1"}, True),
        ({"address": "::1"}, True),
        ({"address": ""}, True),
        ({"address": "192.0.2.1"}, False),
        ({"address": "192.0.2.1", "scheme": "https"}, True),
        ({"address": "192.0.2.1", "x_forwarded_proto": "https"}, False),
        ({"address": "10.0.0.1", "x_forwarded_for": "192.0.2.1"}, False),
        ({"address": "10.0.0.1", "x_forwarded_for": "192.0.2.1", "x_forwarded_proto": "https"}, True),
        ({"address": "", "x_forwarded_for": "192.0.2.1", "x_forwarded_proto": "http"}, False),
    ],
)
def test_a_password_in_the_clear_is_neither_taken_nor_asked_for(
    guard: Guard, users: Users, throttle: Throttle, peer: dict[str, str], is_safe: bool
) -> None:
    for environ in (request(login="anna:anna-secret", **peer), request(**peer)):
        verdict = decide(guard, environ, WRITE)
        if is_safe:
            assert status(verdict) in (200, 401)
        else:
            assert verdict is not None
            assert (status(verdict), verdict.headers) == (403, [])
    careless = make_guard(users, throttle, over_http=True)
    assert decide(careless, request(login="anna:anna-secret", **peer), WRITE) is None


def test_the_environment_names_the_client_behind_a_proxy(guard: Guard) -> None:
    environ = request(address="10.0.0.1", x_forwarded_for="::ffff:192.0.2.66", x_forwarded_proto="https")
    assert status(guard.admit(environ, READ)) == 403
    assert (environ["REMOTE_ADDR"], environ["wsgi.url_scheme"]) == ("192.0.2.66", "https")
    environ = request(address="198.51.100.1", x_forwarded_for="192.0.2.66")
    assert guard.admit(environ, READ) is None
    assert environ["REMOTE_ADDR"] == "198.51.100.1"
