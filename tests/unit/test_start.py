"""A command loads what it needs, and nothing that takes longer to load than the command to run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.kit.rpms import make_rpm

_LOOK = """
import contextlib, os, sys
from repowatch.cli import main
with open(os.devnull, "w") as nothing, contextlib.redirect_stdout(nothing), contextlib.suppress(SystemExit):
    assert main(sys.argv[1:]) == 0
print(*sys.modules, sep="\\n")
"""

_CHILDREN = """
import resource, sys
from repowatch.cli import main
assert main(sys.argv[1:]) == 0
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss > 0)
"""

# The HTTP of other sides, YAML, and the doors.
HEAVY = (
    *("email.parser", "http.client", "ssl", "urllib.request"),
    *("bcrypt", "cheroot", "prometheus_client", "watchdog", "wsgidav", "yaml"),
    *("repowatch.asking", "repowatch.config.file", "repowatch.daemon", "repowatch.web"),
    *("repowatch.model.advisories", "repowatch.model.modules"),
)
# What works on a directory.
WORKING = ("createrepo_c", "zstandard", "multiprocessing", "repowatch.config", "repowatch.repository.index")


def told_by(program: str, *arguments: str) -> set[str]:
    """The words that a program prints, in a Python of its own."""
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize("option", ["--version", "--help"])
def test_a_question_about_the_command_itself_loads_hardly_more_than_the_options(option: str) -> None:
    assert told_by(_LOOK, option) & {*HEAVY, *WORKING} == set()


def test_index_loads_neither_doors_nor_yaml(tmp_path: Path) -> None:
    found = told_by(_LOOK, "index", str(tmp_path))
    assert found & set(HEAVY) == set()
    assert "repowatch.repository.index" in found
    assert (tmp_path / "repodata" / "repomd.xml").exists()


def test_asking_a_daemon_loads_nothing_that_works_on_directories() -> None:
    found = told_by("import sys, repowatch.cli, repowatch.asking; print(*sys.modules)")
    assert found & {"yaml", "createrepo_c", "zstandard", "repowatch.repository", "repowatch.web"} == set()


def test_index_starts_a_reader_where_there_is_something_to_read(tmp_path: Path) -> None:
    make_rpm(tmp_path)
    assert told_by(_CHILDREN, "index", str(tmp_path)) == {"True"}
    assert told_by(_CHILDREN, "index", str(tmp_path)) == {"False"}


def test_a_daemon_loads_all_at_once_for_an_upgrade_may_replace_it_meanwhile() -> None:
    parts = ("daemon", "asking", "config.file", "repository.reader")
    imports = ", ".join(f"repowatch.{part}" for part in parts)
    assert {*HEAVY, *WORKING} <= told_by(f"import sys, {imports}; print(*sys.modules)")
