"""What README.md and the pages of docs/ tell people to run, run as it stands, with other hosts and paths."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.clients.conftest import run
from tests.kit.daemon import Daemon, wait_until
from tests.kit.keyrings import Keyring
from tests.kit.pages import PAGES, blocks
from tests.kit.rpms import make_rpm

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can install into a root of its own")

HOSTS = ("http://127.0.0.1:8080", "http://localhost:8080", "https://rpm.example.org")

# A block of these words' making is for a shell.
COMMANDS = ("repowatch ", "curl ", "dnf ", "zypper ", "install ", "for ", "$ ")

# Blocks that are not run here, by how they begin.
ELSEWHERE = (
    "repowatch serve DIR ...",  # a list of the commands: unit/test_pages
    "dnf install ./dist/",  # packaging
    "curl --user anna -T foo-1.0-1.noarch.rpm https://rpm.example.org:8443/",  # clients/test_users
)

SETTINGS = {
    "docs/signed-packages.md": "same_nevra: newest_build",
    "docs/pruning.md": 'prune: [{match: "foo-*", keep: 1}]',
}

CONFIGURATION = """
control: {scratch}/control
repositories:
  rpm: {{path: {scratch}/rpm, {settings}}}
  testing: {{path: {scratch}/testing}}
  stable: {{path: {scratch}/stable}}
"""

MISTAKEN = "repositories:\n  rpm:\n    pth: /srv/rpm\n"

COMPS = """\
<comps>
  <group>
    <id>tools</id>{name}
  </group>
</comps>
"""

# Programs by the names that the pages call them by: as on a machine where all is as the pages say.
PROGRAMS = {
    "repowatch": 'case "$1 $*" in *--config*|*--url*|check-config*|passwd*) ;; '
    '*) set -- "$@" --config "$CONFIGURATION" ;; esac\nexec "$PYTHON" -m repowatch "$@"',
    "dnf": 'case "$*" in *--repofrompath*) repos=/nonexistent ;; *) repos=$ROOT/repos ;; esac\n'
    'exec /usr/bin/dnf --assumeyes --nogpgcheck --releasever=9 --installroot="$ROOT" '
    '--setopt=reposdir="$repos" --setopt=cachedir="$ROOT/cache" "$@"',
    "zypper": 'ZYPP_LOGFILE="$ROOT/log" exec /usr/bin/zypper --root "$ROOT" --non-interactive "$@"',
    "sudo": 'exec "$@" -s -- "$ROOT"',
    "systemctl": ":",
}


@dataclass(frozen=True, slots=True)
class Desk:
    """Where a reader of a page sits: a directory with files, programs, and a daemon."""

    scratch: Path
    daemon: Daemon
    keyring: Keyring

    @property
    def here(self) -> Path:
        return self.scratch / "here"

    def run(self, commands: str) -> str:
        """What they print, errors too. Raises AssertionError with it when one failed."""
        environment = {
            "PATH": f"{self.scratch}/bin:{os.environ['PATH']}",
            "PYTHON": sys.executable,
            "ROOT": str(self.scratch / "root"),
            "CONFIGURATION": str(self.scratch / "repowatch.yaml"),
        }
        settings = [f"{name}={value}" for name, value in environment.items()]
        shell = ("bash", "-O", "expand_aliases", "-eo", "pipefail", "-c", self._translated(commands))
        return run("env", *settings, *shell, stdin="secret\n", cwd=self.here)

    def _translated(self, commands: str) -> str:
        changes = {
            **dict.fromkeys(HOSTS, self.daemon.url.rstrip("/")),
            "/etc/repowatch/": f"{self.scratch}/",
            "/etc/yum.repos.d/": f"{self.scratch}/root/repos/",
            "/var/lib/repowatch/gnupg": str(self.keyring.home),
            "-o repowatch -g repowatch ": "",
            "runuser -u repowatch -- ": "",
            " PACKAGE\n": " hello\n",
            "--user anna": "",
            "--user ci": "",
        }
        for old, new in changes.items():
            commands = commands.replace(old, new)
        return commands


def commands_of(name: str) -> list[str]:
    """The blocks of a page that are for a shell."""
    found = [each for each in blocks(PAGES[name].read_text()) if each.startswith(COMMANDS)]
    return [each for each in found if not each.startswith(ELSEWHERE)]


# The blocks of operating.md need more around them: clients/test_operating.
NAMES = [name for name in PAGES if name != "docs/operating.md" and commands_of(name)]


@pytest.fixture
def desk(request: pytest.FixtureRequest, tmp_path: Path, keyring: Keyring) -> Iterator[Desk]:
    """One for the page that the test is about."""
    name = request.node.callspec.params["name"]
    for directory in ("bin", "here/old", "rpm/old", "testing", "stable", "root/repos", "root/usr/bin"):
        (tmp_path / directory).mkdir(parents=True)
    (tmp_path / "root/usr/bin/dnf").touch(0o755)  # setup.sh looks for it
    for program, text in PROGRAMS.items():
        path = tmp_path / "bin" / program
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
    _lay_out(tmp_path / "here", tmp_path, page=PAGES[name].read_text())
    configuration = CONFIGURATION.format(scratch=tmp_path, settings=SETTINGS.get(name, ""))
    with Daemon(scratch=tmp_path, configuration=configuration) as daemon:
        wait_until(lambda: daemon.get("/readyz").status == 200)
        if name == "docs/groups.md":
            run("curl", "-fo", tmp_path / "root/repos/rpm.repo", f"{daemon.url}rpm.repo")
        yield Desk(tmp_path, daemon, keyring)


def _lay_out(here: Path, scratch: Path, *, page: str) -> None:
    """The files that the pages speak of."""
    for name in ("foo", "bar"):
        make_rpm(here, name)
        make_rpm(scratch / "testing", name, version="2.0")
    make_rpm(here, "tool", version="1.10")
    make_rpm(here / "old", "foo", build_time=1)
    for name in ("hello", "tool", "foo"):
        make_rpm(scratch / "rpm", name)
    make_rpm(scratch / "rpm", "foo", "1.2", "3", arch="x86_64")
    (here / "repowatch.yaml").write_text(MISTAKEN)
    (here / "comps.xml").write_text(COMPS.format(name="<name>Tools</name>"))
    (here / "broken.xml").write_text(COMPS.format(name=""))
    for block in blocks(page):
        if block.startswith("id: "):
            (here / "fix-1.yaml").write_text(block)


@pytest.mark.client("curl", "dnf", "zypper")
@pytest.mark.parametrize("name", NAMES)
def test_what_a_page_says_to_run_does_what_it_says(name: str, desk: Desk) -> None:
    for block in commands_of(name):
        if not block.startswith("$ "):
            desk.run(block)
            continue
        for command, said in transcript(block):
            printed = desk.run(f"{command} || true" if said else command)
            assert not said or re.search(like(said), printed), f"{command}\n{printed}"


def test_the_table_of_operations_names_their_arguments(tmp_path: Path) -> None:
    rows = re.findall(r"^\| `([a-z]+)` \| ([^|]*) \|(?:[^|]*\|){2}$", PAGES["docs/api.md"].read_text(), re.M)
    assert len(rows) == 6
    (tmp_path / "rpm").mkdir()
    with Daemon(tmp_path / "rpm", scratch=tmp_path / "daemon") as daemon:
        for operation, arguments in rows:
            named = sorted(re.findall("`([a-z_]+)`", arguments))
            refused = daemon.request("POST", f"/-/api/v1/rpm/{operation}", b'{"?": 1}')
            assert (refused.status, refused.text.strip().partition(" takes ")[2]) == (400, ", ".join(named))


def transcript(block: str) -> list[tuple[str, str]]:
    """Commands, each with what a page says that it prints."""
    parts = re.split(r"^\$ (.*)\n", block, flags=re.MULTILINE)[1:]
    return list(zip(parts[::2], parts[1::2], strict=True))


def like(said: str) -> str:
    """A pattern of what differs from it in numbers alone, beside those in the names of packages."""
    words = re.split(r"(\b[0-9][0-9,:-]*\b(?!\.(?:noarch|rpm)|\.[0-9]))", said)
    return "".join(r"[0-9][0-9,:-]*" if n % 2 else re.escape(word) for n, word in enumerate(words))
