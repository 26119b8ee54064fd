"""What systemd reads, and when it reads nothing."""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from repowatch.errors import RepowatchError, UsageError
from repowatch.system import systemd
from repowatch.system.systemd import Extension, Part, ServiceManager, Watchdog, explained
from tests.kit.clock import FakeClock
from tests.kit.daemon import wait_until


class Systemd:
    """The other end of NOTIFY_SOCKET."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.bind(f"\0{address[1:]}" if address[0] == "@" else address)

    def heard(self) -> list[str]:
        """The messages since the last call."""
        found = []
        while True:
            try:
                found.append(self._socket.recv(8192).decode())
            except BlockingIOError:
                return found

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["named", "abstract"])
def listener(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Systemd]:
    address = f"{tmp_path}/notify" if request.param == "named" else f"@repowatch-test-{os.getpid()}"
    opened = Systemd(address)
    yield opened
    opened.close()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def manager(listener: Systemd, clock: FakeClock) -> ServiceManager:
    return ServiceManager(listener.address, clock=clock, watchdog=8.0)


# -- what is told ----------------------------------------------------------------------------------


def test_each_message_is_one_datagram(manager: ServiceManager, listener: Systemd) -> None:
    manager.ready()
    manager.beat()
    manager.extend(1.5)
    manager.stopping()
    assert listener.heard() == [
        "READY=1",
        "WATCHDOG=1",
        "EXTEND_TIMEOUT_USEC=1500000",
        "STOPPING=1\nSTATUS=finishing what is in hand",
    ]


def test_a_reload_is_told_with_its_moment(manager: ServiceManager, listener: Systemd) -> None:
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    manager.reloading()
    [message] = listener.heard()
    first, second = message.split("\n")
    assert first == "RELOADING=1"
    moment = int(second.removeprefix("MONOTONIC_USEC="))
    assert before <= moment <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000


def test_a_status_is_told_when_it_changes_and_not_too_often(
    manager: ServiceManager, listener: Systemd, clock: FakeClock
) -> None:
    for text in ("one", "one", "two", "three"):
        manager.status(text)
    assert listener.heard() == ["STATUS=one"]
    clock.advance(systemd.EVERY)
    manager.status("three")
    manager.status("three")
    clock.advance(systemd.EVERY)
    manager.status("three")
    assert listener.heard() == ["STATUS=three"]


def test_a_status_is_one_short_line_whatever_is_in_it(manager: ServiceManager, listener: Systemd) -> None:
    manager.last_words("bad\nMAINPID=1\x00\x1b name \udc80" + 5000 * "ü")
    [message] = listener.heard()
    assert "\n" not in message
    assert message.startswith("STATUS=bad MAINPID=1\\x00\\x1b name \\udc80ü")
    assert message.endswith("ü...")
    assert len(message.encode()) < 4096


def test_nobody_is_told_where_nobody_asked(clock: FakeClock) -> None:
    manager = ServiceManager.of({}, clock=clock)
    assert not manager.is_there
    assert manager.watchdog is None
    manager.ready()
    manager.status("it")
    Watchdog(manager, [], clock=clock).look()


def test_a_listener_that_went_away_stops_nothing_and_is_told_once(
    manager: ServiceManager, listener: Systemd, caplog: pytest.LogCaptureFixture
) -> None:
    listener.close()
    if listener.address[0] == "/":
        os.unlink(listener.address)
    manager.ready()
    manager.beat()
    assert [each.message.partition(":")[0] for each in caplog.records] == ["systemd can not be told READY=1"]


def test_the_variables_are_not_left_for_children(clock: FakeClock) -> None:
    environ = {
        "NOTIFY_SOCKET": "@x",
        "WATCHDOG_USEC": "2500000",
        "WATCHDOG_PID": str(os.getpid()),
        "PATH": "/bin",
    }
    manager = ServiceManager.of(environ, clock=clock)
    assert (manager.is_there, manager.watchdog) == (True, 2.5)
    assert environ == {"PATH": "/bin"}


@pytest.mark.parametrize(
    "watchdog",
    [
        {"WATCHDOG_USEC": "2500000", "WATCHDOG_PID": "1"},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "soon"},
        {},
    ],
)
def test_no_beat_is_owed_that_was_not_asked_of_us(watchdog: dict[str, str], clock: FakeClock) -> None:
    assert ServiceManager.of({"NOTIFY_SOCKET": "/x", **watchdog}, clock=clock).watchdog is None


def test_an_address_of_an_unknown_kind_is_said(clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    assert not ServiceManager.of({"NOTIFY_SOCKET": "vsock:2:1"}, clock=clock).is_there
    assert "vsock:2:1" in caplog.text


# -- more time -------------------------------------------------------------------------------------


def test_more_time_is_asked_for_until_it_is_over(manager: ServiceManager, listener: Systemd) -> None:
    extension = Extension(manager, every=0.001)
    heard: list[str] = []

    def twice() -> bool:
        heard.extend(listener.heard())
        return len(heard) >= 2

    for _ in range(2):
        extension.begin(most=60)
        wait_until(twice)
        extension.end()
        assert set(heard + listener.heard()) == {f"EXTEND_TIMEOUT_USEC={round(systemd.EXTENSION * 1e6)}"}
        heard.clear()
    assert listener.heard() == []


def test_what_hangs_gets_no_more_time(manager: ServiceManager, listener: Systemd) -> None:
    extension = Extension(manager, every=0.001)
    extension.begin(most=0)
    extension.end()
    assert listener.heard() == []


# -- the watchdog ----------------------------------------------------------------------------------


def test_beats_come_four_times_in_a_period_while_all_goes_on(
    manager: ServiceManager, listener: Systemd, clock: FakeClock
) -> None:
    turns = iter(range(10**6))
    watchdog = Watchdog(manager, [Part("the loop", lambda: next(turns), 3.0)], clock=clock)
    for _ in range(16):
        watchdog.look()
        clock.advance(0.5)
    assert listener.heard() == 4 * ["WATCHDOG=1"]


def test_a_part_that_hangs_is_a_missed_beat_until_it_goes_on(
    manager: ServiceManager, listener: Systemd, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    pulses = {"the loop": 0, "updater rpm": 0}
    parts = [
        Part("the loop", lambda: pulses["the loop"], 3.0),
        Part("updater rpm", lambda: pulses["updater rpm"], 5.0),
    ]
    watchdog = Watchdog(manager, parts, clock=clock)
    for _ in range(5):
        clock.advance(1)
        pulses["the loop"] += 1
        watchdog.look()
    assert listener.heard()
    for _ in range(20):
        clock.advance(1)
        pulses["the loop"] += 1
        watchdog.look()
    assert listener.heard() == []
    assert [each.message.partition(";")[0] for each in caplog.records] == ["updater rpm hangs"]
    pulses["updater rpm"] += 1
    watchdog.look()
    assert listener.heard() == ["WATCHDOG=1"]
    assert caplog.records[-1].message == "updater rpm goes on"


def test_parts_that_stay_when_others_come_and_go_are_not_forgiven(
    manager: ServiceManager, listener: Systemd, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    hangs, gone, new = (Part(name, lambda: 0, 5.0) for name in ("hangs", "gone", "new"))
    watchdog = Watchdog(manager, [hangs, gone], clock=clock)
    clock.advance(4)
    watchdog.take([hangs, new])
    clock.advance(2)
    watchdog.look()
    assert listener.heard() == []
    assert [each.message.partition(";")[0] for each in caplog.records] == ["hangs hangs"]


# -- a sandbox that is too narrow ------------------------------------------------------------------


def refused(number: int, *, kind: type[RepowatchError] = RepowatchError) -> RepowatchError:
    """As those who open a file tell it."""
    try:
        try:
            raise OSError(number, os.strerror(number), "/srv/rpm/x")
        except OSError as error:
            raise kind("/srv/rpm: can not be written") from error
    except RepowatchError as error:
        return error


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Two directories that the unit lets nobody write."""
    monkeypatch.setenv("INVOCATION_ID", "0123")
    paths = [str(tmp_path / "rpm"), str(tmp_path / "50% of it")]
    for each in paths:
        os.mkdir(each)
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path not in paths and access(path, mode))
    return paths


def test_the_drop_in_names_each_directory_once(closed: list[str], tmp_path: Path) -> None:
    told = str(explained(refused(errno.EROFS), [*closed, closed[0], str(tmp_path), "/nowhere"]))
    assert told.startswith("/srv/rpm: can not be written\n")
    assert "systemctl edit repowatch" in told
    section = told.partition("[Service]\n")[2].splitlines()
    assert [each.strip() for each in section[:2]] == [
        f"ReadWritePaths={tmp_path}/rpm",
        f'ReadWritePaths="{tmp_path}/50%% of it"',
    ]
    assert section[2].startswith("and then")


def test_who_owns_it_is_asked_where_that_may_be_why(closed: list[str]) -> None:
    assert "chown" in str(explained(refused(errno.EACCES), closed))
    assert "chown" not in str(explained(refused(errno.EROFS), closed))


def test_the_exit_code_stays_what_it_was(closed: list[str]) -> None:
    for kind in (RepowatchError, UsageError):
        error = refused(errno.EROFS, kind=kind)
        assert explained(error, closed).exit_code == error.exit_code


def test_other_trouble_is_told_as_it_is(
    closed: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for error, paths in (
        (refused(errno.ENOSPC), closed),
        (RepowatchError("odd"), closed),
        (refused(errno.EROFS), [str(tmp_path)]),
    ):
        assert explained(error, paths) is error
    monkeypatch.delenv("INVOCATION_ID")
    error = refused(errno.EROFS)
    assert explained(error, closed) is error
