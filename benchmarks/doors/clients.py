"""The clients, each a program in C that costs less than any server here: curl, wrk, h2load.

curl fetches and sends large files, as people do. wrk asks for a small file again and again. h2load is two
hundred clients in one process and one thread, each with a connection of its own on which it fetches a list of
URLs; it speaks HTTP/1.1 and TLS, and takes 3 GB a second, more than is served here.
"""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.doors.servers import program

PATIENCE = 120  # seconds
DONE = {"200", "201", "204", "207"}

_ERRORS = re.compile(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)")

_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}


class Failed(Exception):
    """A client was not served as it asked."""


def fetch(url: str, *, times: int = 1) -> float:
    """GET so many times on one connection; seconds of all."""
    return _curl([{"url": url, "output": "/dev/null"}] * times)


def send(path: Path, url: str) -> float:
    """PUT one file; seconds."""
    return _curl([{"upload-file": str(path), "url": url, "output": "/dev/null"}])


def send_all(paths: Sequence[Path], url: str, *, at_once: int) -> float:
    """PUT files below `url`, a few at once; seconds until the last is answered."""
    wanted = [{"upload-file": str(path), "url": f"{url}{path.name}", "output": "/dev/null"} for path in paths]
    began = time.perf_counter()
    _curl(wanted, "--parallel", "--parallel-immediate", "--parallel-max", str(at_once))
    return time.perf_counter() - began


def ask(method: str, url: str, *headers: str) -> float:
    """A request without a body; seconds."""
    return _curl([{"url": url, "output": "/dev/null"}], "-X", method, *(f"-H{header}" for header in headers))


def _curl(transfers: Iterable[dict[str, str]], *options: str) -> float:
    """Seconds of all transfers, without the start of the process. Raises Failed for a refusal."""
    lines = [f'{name} = "{value}"' for transfer in transfers for name, value in transfer.items()]
    report = ("--write-out", "%{stdout}%{http_code} %{time_total}\\n")
    command = [program("curl"), "--silent", "--show-error", *report, *options, "--config", "-"]
    said = _run(command, stdin="\n".join(lines))
    results = [line.split() for line in said.splitlines()]
    if wrong := {status for status, _ in results} - DONE:
        raise Failed(f"{', '.join(wrong)} for {lines[:2]}")
    return sum(float(seconds) for _, seconds in results)


def ask_again_and_again(url: str, *, connections: int, seconds: int, may_close: bool) -> float:
    """GET on connections that stay open; seconds for each. `may_close`: the server may close some of them."""
    said = _run([program("wrk"), "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", url])
    errors = _ERRORS.search(said)
    if "Non-2xx" in said or (
        errors and any(map(int, errors.group(1, 3, 4) if may_close else errors.groups()))
    ):
        raise Failed(said)
    return 1 / float(_found(r"Requests/sec:\s+([\d.]+)", said)[0])


def storm(urls: Sequence[str], *, clients: int, aside: Path) -> float:
    """Each client fetches each URL; seconds until the last is done."""
    aside.write_text("\n".join(urls))
    requests = clients * len(urls)
    said = _run([program("h2load"), "--h1", "-t1", f"-c{clients}", f"-n{requests}", f"-i{aside}"])
    if f"status codes: {requests} 2xx" not in said:
        raise Failed("; ".join(_found(r"(requests: .*)\n(status codes: .*)", said)))
    amount, unit = _found(r"finished in ([\d.]+)(us|ms|s|m)\b", said)
    return float(amount) * _UNITS[unit]


def _found(pattern: str, text: str) -> Sequence[str]:
    if found := re.search(pattern, text):
        return found.groups()
    raise Failed(f"no {pattern} in {text}")


def _run(arguments: Sequence[str], *, stdin: str = "") -> str:
    try:
        done = subprocess.run(  # noqa: S603 - what we say
            arguments, input=stdin, capture_output=True, text=True, check=False, timeout=PATIENCE
        )
    except subprocess.TimeoutExpired:
        raise Failed(f"{arguments[0]} did not end within {PATIENCE} s") from None
    if done.returncode:
        raise Failed(f"{arguments[0]} ended with {done.returncode}: {done.stderr}")
    return done.stdout
