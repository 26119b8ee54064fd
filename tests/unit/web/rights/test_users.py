"""Users and their passwords."""

from __future__ import annotations

import base64
import logging
import os
import stat
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import bcrypt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from repowatch.errors import UsageError
from repowatch.web.rights.users import (
    Login,
    Throttle,
    Users,
    log_in,
    parse_basic,
    remove_user,
    set_password,
)
from tests.kit.clock import FakeClock

ADDRESS, OTHER_ADDRESS = "192.0.2.7", "192.0.2.8"
COST = 4  # the cheapest there is


class Hashing:
    """Stands before bcrypt.checkpw: notes the cost of each call, and may hold it up."""

    def __init__(self) -> None:
        self.costs: list[int] = []
        self.at_once = self.most_at_once = 0
        self.go_on = threading.Event()
        self.go_on.set()
        self._real = bcrypt.checkpw
        self._lock = threading.Lock()

    def __call__(self, password: bytes, stored: bytes) -> bool:
        with self._lock:
            self.costs.append(int(stored[4:6]))
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        assert self.go_on.wait(10)
        right = self._real(password, stored)
        with self._lock:
            self.at_once -= 1
        return right

    @property
    def rounds(self) -> int:
        """What was computed since the last time this was asked, in rounds of bcrypt."""
        costs, self.costs = self.costs, []
        return sum(2**cost for cost in costs)


@pytest.fixture
def hashing(monkeypatch: pytest.MonkeyPatch) -> Hashing:
    hashing = Hashing()
    monkeypatch.setattr(bcrypt, "checkpw", hashing)
    return hashing


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def path(tmp_path: Path) -> str:
    path = str(tmp_path / "users")
    set_password(path, "anna", b"secret", cost=COST)
    return path


@pytest.fixture
def users(path: str, clock: FakeClock) -> Users:
    users = Users(path, clock=clock)
    users.load()
    return users


def line(user: str, password: bytes = b"secret", *, kind: bytes = b"2y", cost: int = COST) -> bytes:
    return user.encode() + b":$" + kind + bcrypt.hashpw(password, bcrypt.gensalt(cost))[3:] + b"\n"


def basic(text: bytes) -> str:
    return "Basic " + base64.b64encode(text).decode()


@pytest.mark.parametrize("kind", [b"2y", b"2b", b"2a"])
def test_every_kind_of_bcrypt_is_read(path: str, clock: FakeClock, kind: bytes) -> None:
    Path(path).write_bytes(
        b"# users\n\r\n  # more\n" + line("ben", b"word", kind=kind).replace(b"\n", b"\r\n")
    )
    users = Users(path, clock=clock)
    users.load()
    assert users.verify("ben", b"word")
    assert not users.verify("ben", b"secret")


@pytest.mark.parametrize(
    ("content", "mistake"),
    [
        (b"ben", "not a line of the form USER:HASH"),
        (b"ben:", "not a line of the form USER:HASH"),
        (
            b"ben:plain",
            "the password of ben is no bcrypt hash (cost 4 to 16); run `repowatch passwd {path} ben`",
        ),
        (b"ben:$apr1$r31.....$HqJZimcKQFAMYayBlzkrA/", "the password of ben is no bcrypt hash"),
        (b"ben:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=", "the password of ben is no bcrypt hash"),
        (line("ben")[:-2], "the password of ben is no bcrypt hash"),
        (line("ben")[:-1] + b":x", "the password of ben is no bcrypt hash"),
        (line("ben", kind=b"2x"), "the password of ben is no bcrypt hash"),
        (b"ben:$2y$17$" + b"." * 53, "the password of ben is no bcrypt hash"),
        (b"ben:$2y$04$" + b"/" * 53, "the password of ben is no bcrypt hash"),
        (line("anna"), "anna was there before; remove one of the lines"),
        (line("@admins"), "not the name of a user: anyone and names that begin with @"),
        (line(""), "not the name of a user: it is empty"),
        (b"\xff" + line("x"), "not the name of a user: it has a colon or a character that is not printable"),
    ],
)
def test_a_line_that_is_none_is_refused_with_its_number(
    path: str, clock: FakeClock, content: bytes, mistake: str
) -> None:
    with open(path, "ab") as file:
        file.write(b"\n" + content)
    with pytest.raises(UsageError) as caught:
        Users(path, clock=clock).load()
    assert str(caught.value).startswith(f"{path}:3: {mistake.format(path=path)}")
    assert "\n" not in str(caught.value)


def test_all_mistakes_are_told_at_once_and_no_secret_with_them(path: str, clock: FakeClock) -> None:
    Path(path).write_bytes(b"ben:hush1\nhush2\n" + line("anna"))
    with pytest.raises(UsageError) as caught:
        Users(path, clock=clock).load()
    assert [text.split(":")[1] for text in str(caught.value).splitlines()] == ["1", "2"]
    assert "hush" not in str(caught.value)


def test_a_file_that_is_not_there_is_told_with_how_to_make_it(tmp_path: Path, clock: FakeClock) -> None:
    for odd in ("missing", ""):
        with pytest.raises(UsageError, match=str(tmp_path)):
            Users(str(tmp_path / odd), clock=clock).load()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="not a file; write the path of an htpasswd file"):
        Users(str(tmp_path / "pipe"), clock=clock).load()


def test_only_the_right_password_of_a_user_is_right(users: Users) -> None:
    assert users.verify("anna", b"secret") is True
    for user, password in [
        ("anna", b"Secret"),
        ("anna", b""),
        ("ben", b"secret"),
        ("Anna", b"secret"),
        ("", b""),
    ]:
        assert users.verify(user, password) is False
        assert users.known(user, password) is None


def test_a_password_that_was_right_is_known_without_hashing(users: Users, hashing: Hashing) -> None:
    assert users.known("anna", b"secret") is None
    assert users.verify("anna", b"secret")
    assert hashing.rounds == 2**COST
    assert users.known("anna", b"secret") is True
    assert users.verify("anna", b"secret")
    assert hashing.rounds == 0


def test_no_password_is_kept(path: str, users: Users) -> None:
    secret = b"a password that is not kept"
    set_password(path, "anna", secret, cost=COST)
    users.load()
    assert users.verify("anna", secret)
    assert secret not in repr(vars(users)).encode()


def test_a_wrong_password_is_hashed_each_time(users: Users, hashing: Hashing) -> None:
    for _ in range(3):
        assert not users.verify("anna", b"wrong")
    assert hashing.costs == [COST] * 3


def test_users_that_are_not_there_take_as_long_as_those_that_are(
    path: str, users: Users, hashing: Hashing
) -> None:
    with open(path, "ab") as file:
        file.write(line("costly", cost=7) + line("middling", cost=5))
    users.load()
    spent = []
    for user in ("anna", "middling", "costly", "nobody", "no:body", "\udcff"):
        assert users.verify(user, b"wrong") is False
        spent.append(hashing.rounds)
    assert spent == [2**7] * 6


def test_where_there_are_no_users_a_login_takes_time_as_well(
    path: str, users: Users, hashing: Hashing
) -> None:
    Path(path).write_bytes(b"")
    users.load()
    assert users.verify("nobody", b"wrong") is False
    assert hashing.rounds == 2**12


@pytest.mark.parametrize("password", [b"a" * 73, b"secret\0", b"\0", b"a" * 100_000])
def test_passwords_that_no_user_can_have_are_wrong_for_all_alike(
    users: Users, hashing: Hashing, password: bytes
) -> None:
    for user in ("anna", "nobody"):
        assert users.verify(user, password) is False
    assert hashing.rounds == 0


def test_a_password_of_72_bytes_is_taken_whole(path: str, users: Users) -> None:
    set_password(path, "anna", b"a" * 71 + b"b", cost=COST)
    users.load()
    assert not users.verify("anna", b"a" * 72)
    assert not users.verify("anna", b"a" * 71 + b"bc")
    assert users.verify("anna", b"a" * 71 + b"b")


def test_only_so_many_successes_are_remembered(
    path: str, users: Users, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("repowatch.web.rights.users._REMEMBERED", 2)
    with open(path, "ab") as file:
        file.write(line("ben") + line("carl"))
    users.load()
    for user in ("anna", "ben", "carl"):
        assert users.verify(user, b"secret")
    assert [users.known(user, b"secret") for user in ("anna", "ben", "carl")] == [None, True, True]


def test_no_more_passwords_are_hashed_at_once_than_agreed(
    path: str, clock: FakeClock, hashing: Hashing
) -> None:
    users = Users(path, clock=clock, work=2)
    users.load()
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda number: users.verify("anna", b"wrong %d" % number), range(12)))
    assert answers == [False] * 12
    assert hashing.most_at_once <= 2
    assert len(hashing.costs) == 12


def test_of_many_equal_requests_at_once_few_are_hashed(path: str, clock: FakeClock, hashing: Hashing) -> None:
    users = Users(path, clock=clock, work=2)
    users.load()
    with ThreadPoolExecutor(12) as pool:
        assert all(pool.map(lambda _: users.verify("anna", b"secret"), range(12)))
    assert len(hashing.costs) <= 2


def test_a_changed_password_counts_within_a_second_and_the_old_one_no_longer(
    path: str, users: Users, clock: FakeClock
) -> None:
    assert users.verify("anna", b"secret")
    set_password(path, "anna", b"changed", cost=COST)
    clock.advance(0.5)
    assert users.known("anna", b"secret") is None
    assert users.verify("anna", b"secret") is False
    assert users.verify("anna", b"changed") is True


def test_a_user_that_was_removed_or_added_counts_so_within_a_second(
    path: str, users: Users, clock: FakeClock
) -> None:
    assert users.verify("anna", b"secret")
    remove_user(path, "anna")
    set_password(path, "ben", b"secret", cost=COST)
    clock.advance(0.5)
    assert users.known("anna", b"secret") is None
    assert users.verify("anna", b"secret") is False
    assert users.verify("ben", b"secret") is True


def test_other_users_stay_known_when_one_is_changed(path: str, users: Users, clock: FakeClock) -> None:
    assert users.verify("anna", b"secret")
    set_password(path, "ben", b"secret", cost=COST)
    clock.advance(0.5)
    assert users.known("anna", b"secret") is True


def test_the_file_is_not_looked_at_for_every_request(path: str, users: Users, clock: FakeClock) -> None:
    assert users.verify("anna", b"secret")
    os.unlink(path)
    clock.advance(0.4)
    set_password(path, "ben", b"secret", cost=COST)
    assert users.verify("ben", b"secret") is False


def test_a_broken_file_keeps_the_users_and_is_told_once(
    path: str, users: Users, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    Path(path).write_bytes(b"nonsense\n")
    for _ in range(3):
        clock.advance(1)
        assert users.verify("anna", b"secret")
    (told,) = caplog.records
    assert told.levelno == logging.ERROR
    assert told.getMessage().startswith(f"the users stay as they were: {path}:1: not a line")
    Path(path).write_bytes(line("ben"))
    clock.advance(1)
    assert users.verify("anna", b"secret") is False
    assert users.verify("ben", b"secret") is True


def test_a_file_that_vanished_keeps_the_users_and_is_told_once(
    path: str, users: Users, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    os.unlink(path)
    for _ in range(3):
        clock.advance(1)
        assert users.verify("anna", b"secret")
    (told,) = caplog.records
    assert "no such file or directory" in told.getMessage()
    set_password(path, "ben", b"secret", cost=COST)
    clock.advance(1)
    assert users.verify("anna", b"secret") is False


def failures(throttle: Throttle, count: int, *, address: str = ADDRESS, user: str = "anna") -> None:
    for _ in range(count):
        throttle.failed(address, user)


def test_failures_make_an_address_wait_longer_and_longer(clock: FakeClock) -> None:
    throttle = Throttle(clock=clock)
    waits = []
    for _ in range(14):
        throttle.failed(ADDRESS, "anna")
        waits.append(throttle.wait(ADDRESS))
    assert waits == [0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 60, 60, 60, 60]


def test_the_wait_ends_and_failures_are_forgotten(clock: FakeClock) -> None:
    throttle = Throttle(clock=clock)
    failures(throttle, 6)
    clock.advance(1.5)
    assert throttle.wait(ADDRESS) == pytest.approx(0.5)
    clock.advance(0.5)
    assert throttle.wait(ADDRESS) == 0
    clock.advance(298)
    failures(throttle, 1)
    assert throttle.wait(ADDRESS) == 0


def test_failures_far_apart_make_no_wait(clock: FakeClock) -> None:
    throttle = Throttle(clock=clock)
    for _ in range(20):
        clock.advance(80)
        throttle.failed(ADDRESS, "anna")
        assert throttle.wait(ADDRESS) == 0


def test_who_guesses_without_a_pause_gets_few_guesses_a_day(clock: FakeClock) -> None:
    throttle, guesses, end = Throttle(clock=clock), 0, clock.monotonic() + 86400
    while clock.monotonic() < end:
        clock.advance(throttle.wait(ADDRESS) + 0.001)
        throttle.failed(ADDRESS, f"user {guesses}")
        guesses += 1
    assert guesses < 3500


def test_no_other_address_waits(clock: FakeClock) -> None:
    throttle = Throttle(clock=clock)
    failures(throttle, 20)
    assert throttle.wait(OTHER_ADDRESS) == 0
    assert throttle.wait("2001:db8::1") == 0
    assert throttle.wait(None) == 0


def test_an_ipv6_network_of_one_machine_waits_together(clock: FakeClock) -> None:
    throttle = Throttle(clock=clock)
    for number in range(5):
        throttle.failed(f"2001:db8::{number}", "anna")
    assert throttle.wait("2001:db8:0:0:ffff::1") == 1
    assert throttle.wait("2001:db8:0:1::1") == 0


def test_an_ipv4_address_waits_however_it_is_written(clock: FakeClock) -> None:
    throttle = Throttle(clock=clock)
    failures(throttle, 5, address=f"::ffff:{ADDRESS}")
    assert throttle.wait(ADDRESS) == 1
    failures(throttle, 5, address="unknown")
    assert throttle.wait("unknown") == 1


def test_a_success_forgets_the_failures_of_that_user_alone(clock: FakeClock) -> None:
    throttle = Throttle(clock=clock)
    failures(throttle, 5, user="mallory")
    failures(throttle, 3, user="anna")
    throttle.succeeded(ADDRESS, "anna")
    assert throttle.wait(ADDRESS) == 1
    throttle.succeeded(OTHER_ADDRESS, "mallory")
    assert throttle.wait(ADDRESS) == 1
    throttle.succeeded(ADDRESS, "mallory")
    assert throttle.wait(ADDRESS) == 0


def test_unix_sockets_never_wait(clock: FakeClock) -> None:
    throttle = Throttle(clock=clock)
    for _ in range(9):
        throttle.failed(None, "anna")
    throttle.succeeded(None, "anna")
    assert throttle.wait(None) == 0


def test_only_so_many_addresses_are_remembered(clock: FakeClock) -> None:
    throttle = Throttle(clock=clock)
    failures(throttle, 5)
    failures(throttle, 5, address=OTHER_ADDRESS)
    for number in range(Throttle._ADDRESSES - 2):
        throttle.failed(f"10.0.{number >> 8}.{number & 255}", "anna")
    failures(throttle, 1)
    throttle.failed("203.0.113.1", "anna")
    assert throttle.wait(ADDRESS) == 2
    assert throttle.wait(OTHER_ADDRESS) == 0
    assert len(throttle._failures) == Throttle._ADDRESSES


def test_while_an_address_waits_nothing_is_hashed_and_no_password_is_right(
    users: Users, clock: FakeClock, hashing: Hashing
) -> None:
    throttle = Throttle(clock=clock)

    def attempt(password: bytes, address: str = ADDRESS) -> Login:
        return log_in(users, throttle, address=address, user="anna", password=password)

    assert attempt(b"secret") == Login(right=True)
    for _ in range(5):
        assert attempt(b"wrong") == Login(right=False)
    assert len(hashing.costs) == 6
    assert attempt(b"secret") == attempt(b"wrong") == Login(right=False, wait=1)
    assert len(hashing.costs) == 6
    assert attempt(b"secret", OTHER_ADDRESS) == Login(right=True)
    clock.advance(1)
    assert attempt(b"secret") == Login(right=True)
    assert attempt(b"wrong") == Login(right=False)


def test_a_failed_login_is_logged_in_one_line_without_the_password(
    users: Users, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    throttle = Throttle(clock=clock)
    assert not log_in(users, throttle, address=ADDRESS, user="än\u2028na", password=b"hush").right
    assert not log_in(users, throttle, address=None, user="b" * 1000, password=b"hush").right
    first, second = (record.getMessage() for record in caplog.records)
    assert first == f"login failed from {ADDRESS} as '\\xe4n\\u2028na'"
    assert second == f"login failed from a unix socket as '{'b' * 64}'"


def test_many_guesses_at_once_are_no_more_than_one_after_the_other(
    path: str, clock: FakeClock, hashing: Hashing
) -> None:
    users, throttle = Users(path, clock=clock, work=2), Throttle(clock=clock)
    users.load()
    hashing.go_on.clear()
    with ThreadPoolExecutor(40) as pool:
        logins = [
            pool.submit(log_in, users, throttle, address=ADDRESS, user="anna", password=b"wrong %d" % number)
            for number in range(40)
        ]
        hashing.go_on.set()
    assert not any(login.result().right for login in logins)
    assert len(hashing.costs) <= 6
    assert sum(login.result().wait > 0 for login in logins) >= 34


@pytest.mark.parametrize(
    ("field", "found"),
    [
        (basic(b"anna:secret"), ("anna", b"secret")),
        ("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==", ("Aladdin", b"open sesame")),
        ("bAsIc  YTpi ", ("a", b"b")),
        (basic(b"anna:se:cr:et"), ("anna", b"se:cr:et")),
        (basic(b"anna:"), ("anna", b"")),
        (basic(b":"), ("", b"")),
        (basic("änna:sécret".encode()), ("änna", "sécret".encode())),
        (basic("änna:sécret".encode("latin-1")), ("änna", "sécret".encode("latin-1"))),
    ],
)
def test_user_and_password_are_taken_from_the_field(field: str, found: tuple[str, bytes]) -> None:
    assert parse_basic(field) == found


@pytest.mark.parametrize(
    "field",
    [
        "",
        "Basic",
        "Basic ",
        "Bearer YTpi",
        "Digest YTpi",
        "BasicYTpi",
        "Basic YTpi YTpi",
        "Basic YTp",
        "Basic Y*Tpi",
        "Basic YTpi=",
        "Basic =",
        "Basic é",
        "Basic YTpi, Basic YTpi",
        basic(b"no colon"),
        basic(b"a\0:b"),
        basic(b"a:b\n"),
        basic(b"a\x7f:b"),
    ],
)
def test_a_malformed_field_names_nobody(field: str) -> None:
    assert parse_basic(field) is None


@given(
    st.text()
    | st.text().map("Basic ".__add__)
    | st.binary().map(basic)
    | st.text(alphabet="YTpi=+/-_ \n", max_size=12).map("Basic ".__add__)
)
def test_any_field_names_a_user_or_nobody(field: str) -> None:
    found = parse_basic(field)
    assert found is None or (":" not in found[0] and b"\0" not in found[1])


@given(user=st.text().filter(lambda text: text.isprintable() and ":" not in text), password=st.text())
def test_what_a_client_encodes_comes_out_again(user: str, password: str) -> None:
    encoded = password.encode()
    found = parse_basic(basic(user.encode() + b":" + encoded))
    carried = not any(byte < 32 or byte == 127 for byte in encoded)
    assert found == ((user, encoded) if carried else None)


def test_a_user_is_added_to_a_new_file_that_others_can_not_read(tmp_path: Path, clock: FakeClock) -> None:
    path = tmp_path / "users"
    assert set_password(str(path), "änna", b"secret", cost=COST) is True
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert path.read_bytes().startswith("änna:$2y$04$".encode())
    users = Users(str(path), clock=clock)
    users.load()
    assert users.verify("änna", b"secret")


def test_a_change_keeps_all_other_lines(tmp_path: Path) -> None:
    path = tmp_path / "users"
    before, after = b"# ours\nben:{SHA}other\r\n\n", b"#anna:x\n anna2:y"
    path.write_bytes(before + line("anna") + after + b"\n" + line("anna"))
    assert set_password(str(path), "anna", b"new", cost=COST) is False
    content = path.read_bytes()
    assert content.startswith(before)
    assert content.endswith(b"\n" + after + b"\n")
    assert content.count(b"\nanna:") == 1
    assert bcrypt.checkpw(b"new", content[len(before) + 5 :].split(b"\n")[0])


def test_a_last_line_without_an_end_stays_a_line_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "users"
    path.write_bytes(b"# ours")
    set_password(str(path), "anna", b"secret", cost=COST)
    assert path.read_bytes().startswith(b"# ours\nanna:$2y$")


def test_a_change_keeps_mode_and_owner_and_leaves_nothing_beside(path: str, tmp_path: Path) -> None:
    os.chmod(path, 0o604)
    owner = (1234, 5678) if os.geteuid() == 0 else (os.getuid(), os.getgid())
    os.chown(path, *owner)
    set_password(path, "ben", b"secret", cost=COST)
    status = os.stat(path)
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o604, *owner)
    assert os.listdir(tmp_path) == ["users"]


def test_a_symbolic_link_stays_one(path: str, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(path)
    set_password(str(link), "ben", b"secret", cost=COST)
    assert link.is_symlink()
    assert b"ben:" in Path(path).read_bytes()


def test_users_can_be_removed(path: str) -> None:
    set_password(path, "ben", b"secret", cost=COST)
    assert remove_user(path, "anna") is True
    assert remove_user(path, "anna") is False
    assert Path(path).read_bytes().startswith(b"ben:")
    assert remove_user(path + "-missing", "anna") is False
    assert not os.path.exists(path + "-missing")


def test_changes_at_once_lose_none(path: str) -> None:
    names = [f"user{number}" for number in range(24)]
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(lambda name: set_password(path, name, b"secret", cost=COST), names))
    found = {each.partition(b":")[0].decode() for each in Path(path).read_bytes().splitlines()}
    assert found == {"anna", *names}


@pytest.fixture
def failing_rename(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "rename", fail)
        yield


@pytest.mark.usefixtures("failing_rename")
def test_a_change_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "users"
    path.write_bytes(line("anna"))
    before = path.read_bytes()
    with pytest.raises(UsageError, match=f"{path}: no space left on device; nothing was changed"):
        set_password(str(path), "anna", b"new", cost=COST)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["users"]


def test_a_directory_that_is_missing_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file or directory"):
        set_password(str(tmp_path / "missing" / "users"), "anna", b"secret", cost=COST)


@pytest.mark.parametrize("user", ["", "a:b", "a\nb", "anyone", "@admins", "#x", " a", "\udcff"])
def test_names_that_no_user_can_have_are_refused(path: str, user: str) -> None:
    before = Path(path).read_bytes()
    with pytest.raises(UsageError, match="can not be the name of a user"):
        set_password(path, user, b"secret", cost=COST)
    assert Path(path).read_bytes() == before


@pytest.mark.parametrize("password", [b"", b"a" * 73, b"a\0b", b"a\n"])
def test_passwords_that_can_not_be_shown_later_are_refused(path: str, password: bytes) -> None:
    with pytest.raises(UsageError, match=r"the password .* choose"):
        set_password(path, "anna", password, cost=COST)
