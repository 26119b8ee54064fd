"""curl as a function."""

from __future__ import annotations

import http.client
import io
import tempfile
from pathlib import Path

from tests.clients.conftest import run
from tests.kit.daemon import Answer


def curl(*arguments: str | Path, stdin: str = "") -> Answer:
    """Run curl; the last answer it got."""
    with tempfile.TemporaryDirectory() as scratch:
        head, body = Path(scratch, "head"), Path(scratch, "body")
        body.touch()
        run(
            *("curl", "--disable", "--silent", "--show-error", "--path-as-is", "--max-time", "40"),
            *("--dump-header", head, "--output", body, *arguments),
            stdin=stdin,
        )
        last = head.read_bytes().rstrip().rpartition(b"\r\n\r\n")[2]
        line, _, fields = last.partition(b"\r\n")
        headers = http.client.parse_headers(io.BytesIO(fields + b"\r\n\r\n"))
        return Answer(int(line.split()[1]), headers, body.read_bytes())


def upload(file: Path, url: str, *headers: str) -> Answer:
    """`curl -T file url`, with header fields as they are written."""
    return curl("-T", file, *(part for header in headers for part in ("-H", header)), url)
