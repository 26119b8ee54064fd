"""A daemon with several doors: which URLs it answers at."""

from __future__ import annotations

from pathlib import Path

from tests.kit.daemon import wait_until


def ready_urls(scratch: Path, count: int) -> list[str]:
    """The URLs that a daemon with this `scratch` has announced, in its order, once there are `count`."""

    def announced() -> list[str]:
        return (scratch / "daemon.out").read_text().splitlines()

    wait_until(lambda: len(announced()) >= count)
    urls = announced()
    assert len(urls) == count, urls
    assert all(each.startswith("ready ") for each in urls), urls
    return [each.removeprefix("ready ") for each in urls]
