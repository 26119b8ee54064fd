"""Runs the real daemon on a free port, and asks it things."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

COMMAND = (sys.executable, "-m", "repowatch")

START = 20.0  # seconds until the daemon has to answer
END = 60.0  # seconds until it has to be gone after it was told
POLL = 0.005  # seconds


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer to an HTTP request."""

    status: int
    headers: Message
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()


def repowatch(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run one command of repowatch to its end; whatever its exit code is."""
    return subprocess.run(
        [*COMMAND, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=END
    )


def wait_until(condition: Callable[[], object], deadline: float = 10.0) -> None:
    """Poll until `condition` holds. Raises AssertionError after `deadline` seconds."""
    ends = time.monotonic() + deadline
    while not condition():
        if time.monotonic() > ends:
            raise AssertionError(f"not within {deadline:g} s: {condition.__qualname__}")
        time.sleep(POLL)


class Daemon:
    """`repowatch serve` as a process. Leaving the context kills it and prints its log, for pytest to show."""

    def __init__(self, *arguments: str | Path, scratch: Path, configuration: str | None = None) -> None:
        """`scratch` is where log and configuration are kept: a directory outside of every repository."""
        scratch.mkdir(parents=True, exist_ok=True)
        if configuration is not None:
            (scratch / "repowatch.yaml").write_text(configuration)
            arguments = ("--config", scratch / "repowatch.yaml", *arguments)
        self._arguments = ("serve", *map(str, arguments), "--listen", "127.0.0.1:0")
        self._stdout = scratch / "daemon.out"
        self._stderr = scratch / "daemon.log"
        self._process: subprocess.Popen[bytes] | None = None
        self.url = ""  # with a slash at its end

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        print(self.log, file=sys.stderr)

    def start(self) -> Self:
        """Start it, again too, and wait until it is ready. Raises AssertionError with its log."""
        with open(self._stdout, "wb") as stdout, open(self._stderr, "ab") as stderr:
            self._process = subprocess.Popen([*COMMAND, *self._arguments], stdout=stdout, stderr=stderr)
        try:
            wait_until(self._is_ready_or_gone, START)
        except BaseException:
            self.kill()
            raise
        ready = self._stdout.read_text()
        if not ready.endswith("\n"):
            raise AssertionError(f"the daemon ended with {self._process.wait()}:\n{self.log}")
        self.url = ready.removeprefix("ready ").rstrip("\n")
        return self

    def _is_ready_or_gone(self) -> bool:
        return self._stdout.read_bytes().endswith(b"\n") or self._running().poll() is not None

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise AssertionError("the daemon was not started")
        return self._process

    @property
    def pid(self) -> int:
        return self._running().pid

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        parts = urlsplit(self.url)
        return parts.hostname or "", parts.port or 0

    @property
    def log(self) -> str:
        """What it has written to stderr so far, in all its lives."""
        return self._stderr.read_text(errors="replace")

    def repository_url(self, name: str) -> str:
        return f"{self.url}{name}/"

    def request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        timeout: float = 40.0,
    ) -> Answer:
        """Send one request on a connection of its own. `path` begins with a slash and is sent as it is."""
        connection = http.client.HTTPConnection(*self.address, timeout=timeout)
        try:
            connection.request(method, path, body, dict(headers or {}))
            with connection.getresponse() as response:
                return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()

    def get(self, path: str, *, headers: Mapping[str, str] | None = None) -> Answer:
        return self.request("GET", path, headers=headers)

    def put(self, path: str, content: bytes | Path, *, headers: Mapping[str, str] | None = None) -> Answer:
        body = content.read_bytes() if isinstance(content, Path) else content
        return self.request("PUT", path, body, headers=headers)

    def status(self) -> Any:
        """The JSON status."""
        return json.loads(self.get("/-/api/v1/status").body)

    def repository(self, name: str) -> Any:
        """What the JSON status says of one repository."""
        [found] = [each for each in self.status()["repositories"] if each["name"] == name]
        return found

    def rejected(self, name: str) -> dict[str, str]:
        """Reasons by location_href."""
        return {each["location"]: each["reason"] for each in self.repository(name)["rejected"]}

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def terminate(self) -> int:
        """Ask it to stop (SIGTERM); the exit code."""
        self._running().terminate()
        return self.wait()

    def wait(self) -> int:
        """Wait for its end; the exit code."""
        return self._running().wait(END)

    def kill(self) -> None:
        """End it without a warning (SIGKILL), if it still runs."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
