"""Locks: found by where they are, until they expire."""

from __future__ import annotations

from typing import Any

from repowatch.web.webdav.locks import LONGEST, MOST, Locks


class Time:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def lock(locks: Locks, root: str, timeout: float = 60.0) -> Any:
    return locks.create(root, {"timeout": timeout, "owner": b"", "depth": "0"})


def roots(locks: Locks, path: str, *, at: bool = True, below: bool = True) -> list[str]:
    found = locks.get_lock_list(path, include_root=at, include_children=below, token_only=False)
    return sorted(each["root"] for each in found)


def test_locks_are_found_at_a_path_and_below_it() -> None:
    locks = Locks()
    for root in ("/", "/a/", "/a/b", "/ab"):
        lock(locks, root)
    assert roots(locks, "/a") == ["/a", "/a/b"]
    assert roots(locks, "/a/", below=False) == ["/a"]
    assert roots(locks, "/a", at=False) == ["/a/b"]
    assert roots(locks, "/") == ["/", "/a", "/a/b", "/ab"]
    assert roots(locks, "/", at=False) == ["/a", "/a/b", "/ab"]


def test_the_locks_of_a_directory_are_told_by_location() -> None:
    locks = Locks()
    for root in ("/", "/a", "/a%20b", "/a/b"):
        lock(locks, root)
    assert set(locks.in_directory("")) == {"", "a", "a b"}
    assert set(locks.in_directory("a")) == {"a", "a/b"}


def test_an_expired_lock_is_gone_wherever_it_is_looked_for() -> None:
    time = Time()
    locks = Locks(time)
    short, long = lock(locks, "/a/x", 10.0), lock(locks, "/a/y", 30.0)
    time.now += 11
    assert roots(locks, "/a") == ["/a/y"]
    assert locks.get(short["token"]) is None
    assert locks.get(long["token"])["root"] == "/a/y"  # type: ignore[index]
    locks.refresh(long["token"], timeout=100.0)
    time.now += 99
    assert roots(locks, "/a") == ["/a/y"]
    assert locks.delete(long["token"])
    assert roots(locks, "/a") == []


def test_a_lock_ends_one_day_whatever_was_asked_for() -> None:
    time = Time()
    locks = Locks(time)
    assert lock(locks, "/a", -1.0)["expire"] == time.now + LONGEST
    assert lock(locks, "/a", 10 * LONGEST)["timeout"] == LONGEST


def test_there_is_room_for_so_many_until_they_expire() -> None:
    time = Time()
    locks = Locks(time)
    for number in range(MOST):
        lock(locks, f"/{number}")
    assert locks.is_full()
    time.now += 61
    assert not locks.is_full()
