"""Keeps the locks of one repository, in memory, until they expire (RFC 4918, 6)."""

from __future__ import annotations

import secrets
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote

MOST = 1024  # locks at once, each with an owner of up to 64 KiB
LONGEST = 4 * 7 * 86400.0  # seconds

Lock = dict[str, Any]  # root (a URL path), type, scope, depth, owner, timeout, expire, principal, token


class Locks:
    """What WsgiDAV calls a lock storage.

    Its own one removes expired locks while it walks through all of them, which fails, and keeps any number.
    """

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._mutex = threading.Lock()
        self._locks: dict[str, Lock] = {}  # by token

    def open(self) -> None:
        """Nothing is kept anywhere else."""

    def close(self) -> None:
        pass

    def is_full(self) -> bool:
        with self._mutex:
            return len(self._valid()) >= MOST

    def is_empty(self) -> bool:
        return not self._locks

    def covers(self, location_href: str) -> bool:
        """Whether a name, or a directory above it, is locked."""
        path = f"/{location_href}"
        with self._mutex:
            return any(path == root or path.startswith(f"{root.rstrip('/')}/") for root in self._roots())

    def in_directory(self, location_href: str) -> Mapping[str, list[Lock]]:
        """By location_href: the locks on a resource, and on what is directly in it."""
        found = defaultdict(list)
        with self._mutex:
            for lock in self._valid():
                href = unquote(lock["root"]).strip("/")
                if href == location_href or href.rpartition("/")[0] == location_href:
                    found[href].append(dict(lock))
        return found

    def get(self, token: str) -> Lock | None:
        with self._mutex:
            return next((dict(lock) for lock in self._valid() if lock["token"] == token), None)

    def create(self, path: str, lock: Lock) -> Lock:
        """Keep a lock, and write into it what it becomes: its root, its end, its token."""
        timeout = float(lock["timeout"])
        timeout = timeout if 0 < timeout < LONGEST else LONGEST
        token = f"opaquelocktoken:{secrets.token_hex(32)}"
        lock |= {"root": _root(path), "timeout": timeout, "expire": self._now() + timeout, "token": token}
        with self._mutex:
            self._locks[token] = dict(lock)
        return lock

    def refresh(self, token: str, *, timeout: float) -> Lock:
        """Raises KeyError when it has expired."""
        with self._mutex:
            lock = self._locks[token]
            lock["timeout"] = timeout if 0 < timeout < LONGEST else LONGEST
            lock["expire"] = self._now() + lock["timeout"]
            return dict(lock)

    def delete(self, token: str) -> bool:
        with self._mutex:
            return self._locks.pop(token, None) is not None

    def get_lock_list(
        self, path: str, *, include_root: bool, include_children: bool, token_only: bool
    ) -> list[Any]:
        """The locks on a path, on what is below it, or both; their tokens if no more is wanted."""
        root = _root(path)
        below = root.rstrip("/") + "/"
        with self._mutex:
            found = [
                lock
                for lock in self._valid()
                if (include_root and lock["root"] == root)
                or (include_children and lock["root"].startswith(below) and lock["root"] != root)
            ]
            return [lock["token"] if token_only else dict(lock) for lock in found]

    def _roots(self) -> list[str]:
        return [unquote(lock["root"]) for lock in self._valid()]

    def _valid(self) -> list[Lock]:
        now = self._now()
        for token in [token for token, lock in self._locks.items() if lock["expire"] < now]:
            del self._locks[token]
        return list(self._locks.values())


def _root(path: str) -> str:
    return "/" + path.strip("/")
