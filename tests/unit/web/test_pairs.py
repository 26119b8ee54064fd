from __future__ import annotations

import os
from typing import Any

import pytest

from repowatch.model.signing import Signed
from repowatch.web.pairs import _AGENT, MOST, OWED, REPOMD, SIGNATURE, TAKEN, Pairs, as_file
from tests.kit.clock import FakeClock

OLD, NEW, NEWEST = (Signed(f"<{n}>".encode(), f"signature of {n}".encode(), float(n)) for n in range(3))

DNF = "libdnf (Fedora Linux 39; server; Linux.x86_64)"
ZYPPER = "ZYpp 17.31.0 (curl 8.0.1)"


class Doors:
    """Asks for one repository."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.pairs = Pairs(clock=self.clock)

    def get(self, location_href: str, current: Signed, **said: Any) -> Signed:
        environ = {
            "REMOTE_ADDR": said.get("address", "192.0.2.1"),
            "HTTP_USER_AGENT": said.get("agent", DNF),
            "repowatch.connection": said.get("connection", 1),
            "repowatch.proxied": said.get("proxied", False),
        }
        if "user" in said:
            environ["REMOTE_USER"] = said["user"]
        return self.pairs.choose(said.get("repository", "rpm"), location_href, environ, current=current)


@pytest.fixture
def doors() -> Doors:
    return Doors()


def test_who_took_nothing_gets_what_is_current(doors: Doors) -> None:
    assert doors.get(SIGNATURE, NEW) is NEW
    assert doors.get(REPOMD, NEW, connection=2) is NEW


def test_the_signature_is_that_of_the_repomd_that_the_client_took(doors: Doors) -> None:
    assert doors.get(REPOMD, OLD) is OLD
    assert doors.get(SIGNATURE, NEW) is OLD


def test_on_another_connection_the_client_is_known_by_address_name_and_program(doors: Doors) -> None:
    doors.get(REPOMD, OLD)
    assert doors.get(SIGNATURE, NEW, connection=2) is OLD
    assert doors.get(SIGNATURE, NEW, connection=3, address="192.0.2.2") is NEW
    assert doors.get(SIGNATURE, NEW, connection=4, user="anna") is NEW
    assert doors.get(SIGNATURE, NEW, connection=5, agent="curl/8.0") is NEW
    assert doors.get(SIGNATURE, NEW, connection=6, repository="other") is NEW


def test_its_connection_tells_a_client_from_others_of_the_same_address(doors: Doors) -> None:
    doors.get(REPOMD, OLD, connection=1)
    doors.get(REPOMD, NEW, connection=2)
    assert doors.get(SIGNATURE, NEWEST, connection=1) is OLD
    assert doors.get(SIGNATURE, NEWEST, connection=2) is NEW


def test_the_connection_of_a_proxy_is_nobodys(doors: Doors) -> None:
    doors.get(REPOMD, OLD, proxied=True, address="192.0.2.1")
    doors.get(REPOMD, NEW, proxied=True, address="192.0.2.2")
    assert doors.get(SIGNATURE, NEWEST, proxied=True, address="192.0.2.1") is OLD
    assert doors.get(SIGNATURE, NEWEST, proxied=True, address="192.0.2.3") is NEWEST


def test_the_same_signature_may_be_asked_for_again_for_a_while(doors: Doors) -> None:
    doors.get(REPOMD, OLD)
    assert [doors.get(SIGNATURE, NEW, connection=number) for number in (2, 3)] == [OLD, OLD]
    doors.clock.advance(OWED)
    assert doors.get(SIGNATURE, NEW, connection=4) is NEW


def test_what_a_client_took_long_ago_does_not_count(doors: Doors) -> None:
    doors.get(REPOMD, OLD)
    doors.clock.advance(TAKEN)
    assert doors.get(SIGNATURE, NEW) is NEW


def test_zypper_which_takes_the_signature_first_gets_the_repomd_of_it_once(doors: Doors) -> None:
    assert doors.get(REPOMD, OLD, agent=ZYPPER) is OLD  # it looks whether there is news
    assert doors.get(SIGNATURE, NEW, agent=ZYPPER, connection=2) is OLD
    assert doors.get(REPOMD, NEWEST, agent=ZYPPER, connection=2) is OLD
    assert doors.get(REPOMD, NEWEST, agent=ZYPPER, connection=2) is NEWEST


def test_others_get_the_newest_repomd_whatever_they_took_before(doors: Doors) -> None:
    doors.get(REPOMD, OLD)
    doors.get(SIGNATURE, OLD)
    assert doors.get(REPOMD, NEW) is NEW


def test_a_crowd_of_clients_is_not_remembered_for_ever(doors: Doors) -> None:
    doors.get(REPOMD, OLD, connection=0, address="first")
    for number in range(1, MOST + 1):
        doors.get(REPOMD, NEW, connection=number, address=f"address {number}")
    assert doors.get(SIGNATURE, NEWEST, connection=0, address="first") is NEWEST
    assert doors.get(SIGNATURE, NEWEST, connection=MOST, address=f"address {MOST}") is NEW


def test_what_a_client_calls_itself_takes_no_more_room_than_it_needs(doors: Doors) -> None:
    doors.get(REPOMD, OLD, agent=DNF + "x" * 60_000)
    assert all(len(name[3]) <= _AGENT for name in doors.pairs._clients if len(name) == 4)  # type: ignore[arg-type, index]
    assert doors.get(SIGNATURE, NEW, agent=DNF + "x" * 60_000, connection=2) is OLD


def test_who_came_long_ago_is_forgotten_with_what_it_took(doors: Doors) -> None:
    for number in range(100):
        doors.get(REPOMD, OLD, connection=number, address=f"address {number}")
    doors.clock.advance(TAKEN)
    doors.get(REPOMD, NEW, connection=100)
    assert len(doors.pairs._clients) == 2


def test_content_is_served_as_a_file_with_its_own_time() -> None:
    descriptor = as_file(b"content", at=1234.5)
    try:
        assert os.pread(descriptor, 100, 0) == b"content"
        assert os.fstat(descriptor).st_mtime == 1234.5
    finally:
        os.close(descriptor)
