"""Fills in a manual page: the commands as their --help tells them, or the settings as the example does.

manual.py PRIVATE PAGE EPOCH             with the libraries in the directory PRIVATE
manual.py --settings YAML PAGE EPOCH
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

_HELP = "import sys; sys.path.insert(0, sys.argv.pop(1)); from repowatch.cli import main; main()"


def main(arguments: list[str]) -> None:
    """Print the page."""
    page, epoch = arguments[-2:]
    text = Path(page).read_text(encoding="utf-8")
    if arguments[0] == "--settings":
        text = text.replace("@SETTINGS@", literal(Path(arguments[1]).read_text(encoding="utf-8")))
    else:
        text = text.replace("@COMMANDS@", commands(arguments[0]))
    date = datetime.fromtimestamp(int(epoch), UTC).strftime("%Y-%m-%d")
    sys.stdout.write(text.replace("@DATE@", date))


def commands(private: str) -> str:
    """A section of each command, in the order of the general help."""
    listed = re.search(r"COMMAND\n((?: {4}.*\n)+)", told(private))
    names = re.findall(r"^ {4}([a-z-]+)", listed[1], re.MULTILINE) if listed else []
    if not names:
        raise SystemExit("manual.py: the general help lists no command")
    return "\n".join(f".SS {name}\n{literal(told(private, name))}" for name in names)


def told(private: str, *command: str) -> str:
    """What a command says to --help."""
    return subprocess.run(  # noqa: S603 - of our own words
        [sys.executable, "-I", "-B", "-c", _HELP, private, *command, "--help"],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "COLUMNS": "78", "NO_COLOR": "1"},
    ).stdout.replace("usage: -c", "usage: repowatch")


def literal(text: str) -> str:
    """Lines that roff leaves as they are (groff_char(7), groff_man(7))."""
    lines = text.rstrip("\n").replace("\\", "\\e").replace("-", "\\-").split("\n")
    return "\n".join([".nf", *(f"\\&{line}" if line[:1] in ".'" else line for line in lines), ".fi"])


if __name__ == "__main__":
    main(sys.argv[1:])
