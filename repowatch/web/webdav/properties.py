"""Keeps what clients store with resources: dead properties, in memory (RFC 4918, 4.1)."""

from __future__ import annotations

import threading
from typing import Any
from urllib.parse import unquote

MOST = 16 * 1024 * 1024  # bytes, of all values of one repository


class DeadProperties:
    """What WsgiDAV calls a property manager; the order of arguments is its choice.

    Its own one can not tell what is stored below a directory without a question for each name in it, and
    forgets nothing of what was below one that is deleted.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: dict[
            str, dict[str, bytes]
        ] = {}  # elements in XML, by location_href and {namespace}name

    def is_full(self) -> bool:
        with self._lock:
            return sum(len(each) for values in self._values.values() for each in values.values()) >= MOST

    def in_directory(self, location_href: str) -> dict[str, dict[str, str]]:
        """Elements by location_href and name: of a resource, and of what is directly in it."""
        with self._lock:
            return {
                href: {name: value.decode() for name, value in values.items()}
                for href, values in self._values.items()
                if href == location_href or href.rpartition("/")[0] == location_href
            }

    def get_properties(self, url: str, environ: Any = None) -> list[str]:
        with self._lock:
            return list(self._values.get(_location_href(url), ()))

    def get_property(self, url: str, name: str, environ: Any = None) -> bytes | None:
        with self._lock:
            return self._values.get(_location_href(url), {}).get(name)

    def write_property(
        self, url: str, name: str, value: bytes, dry_run: bool = False, environ: Any = None
    ) -> None:
        if not dry_run:
            with self._lock:
                self._values.setdefault(_location_href(url), {})[name] = value

    def remove_property(self, url: str, name: str, dry_run: bool = False, environ: Any = None) -> None:
        if not dry_run:
            with self._lock:
                href = _location_href(url)
                values = self._values.get(href, {})
                values.pop(name, None)
                if not values:
                    self._values.pop(href, None)

    def remove_properties(self, url: str, environ: Any = None) -> None:
        """Forget them, those below a directory too."""
        with self._lock:
            for href in self._at_and_below(_location_href(url)):
                del self._values[href]

    def copy_properties(self, url: str, target: str, *, whole: bool = True) -> None:
        """Store the same with another resource, `whole` also with what is below it."""
        source, there = _location_href(url), _location_href(target)
        with self._lock:
            copied = self._at_and_below(source) if whole else [source] if source in self._values else []
            for href in copied:
                self._values[there + href[len(source) :]] = dict(self._values[href])

    def move_properties(self, url: str, target: str) -> None:
        self.remove_properties(target)
        self.copy_properties(url, target)
        self.remove_properties(url)

    def _at_and_below(self, location_href: str) -> list[str]:
        prefix = f"{location_href}/" if location_href else ""
        return [href for href in self._values if href == location_href or href.startswith(prefix)]


def _location_href(url: str) -> str:
    return unquote(url).strip("/")
