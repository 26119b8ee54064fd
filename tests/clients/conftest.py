"""One daemon for the tests of a module, and a directory of its own for each of them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.kit.clients import in_ci
from tests.kit.daemon import Daemon, wait_until
from tests.kit.keyrings import Keyring
from tests.kit.metadata import listed, locations

REAL_RPMS = Path(__file__).parents[2] / ".cache" / "real-rpms"


def run(*command: str | Path, stdin: str = "", cwd: Path | None = None, check: bool = True) -> str:
    """Run a client; what it printed, errors too. Raises AssertionError with it when the client failed."""
    done = subprocess.run(
        list(map(str, command)),
        input=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=cwd,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0 or not check, f"exit code {done.returncode}:\n{done.stdout}"
    return done.stdout


@dataclass(frozen=True, slots=True)
class Corner:
    """A test's own directory in a repository called rpm, which other tests use as well."""

    daemon: Daemon
    root: Path  # of the repository
    name: str

    @property
    def path(self) -> Path:
        return self.root / self.name

    @property
    def href(self) -> str:
        """Its path for requests, with a slash at its end."""
        return f"/rpm/{self.name}/"

    @property
    def url(self) -> str:
        return f"{self.daemon.url}rpm/{self.name}/"

    @property
    def staging(self) -> Path:
        return self.root / ".repowatch" / "staging"

    def listed(self) -> set[str]:
        """What clients see of it: paths relative to it."""
        prefix = f"{self.name}/"
        everything = locations(self.daemon, "rpm")
        return {each.removeprefix(prefix) for each in everything if each.startswith(prefix)}

    def pkgid(self, name: str) -> str:
        """The checksum that a package is listed with."""
        return str(listed(self.daemon, "rpm")[f"{self.name}/{name}"].pkgId)

    def rejected(self) -> dict[str, str]:
        """Reasons by paths relative to it."""
        prefix = f"{self.name}/"
        everything = self.daemon.rejected("rpm")
        return {each.removeprefix(prefix): everything[each] for each in everything if each.startswith(prefix)}

    def await_listed(self, *names: str) -> None:
        """Wait until clients see just these."""
        wait_until(lambda: self.listed() == set(names))

    def files(self) -> set[str]:
        """What lies in it: the paths of its files."""
        return {
            os.path.relpath(path, self.path)
            for path in self.path.rglob("*")
            if not path.is_dir() or path.is_symlink()
        }


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """The daemon of the module's tests, with a repository called rpm. A module may configure its own."""
    scratch = tmp_path_factory.mktemp("shared")
    (scratch / "rpm").mkdir()
    with Daemon(scratch / "rpm", scratch=scratch) as daemon:
        yield daemon


@pytest.fixture
def corner(shared: Daemon, tmp_path: Path) -> Iterator[Corner]:
    """A directory in the shared repository. At the end nothing may be left in staging."""
    before = len(shared.log)
    root = Path(shared.repository("rpm")["path"])
    corner = Corner(shared, root, tmp_path.name)
    corner.path.mkdir()
    yield corner
    print(shared.log[before:], file=sys.stderr)
    wait_until(lambda: not os.listdir(corner.staging))


@pytest.fixture
def keyring() -> Iterator[Keyring]:
    """An empty one."""
    with Keyring() as keyring:
        yield keyring


@pytest.fixture(scope="session")
def real_rpms() -> Path:
    """A directory of packages that were not made by our own hand."""
    if not REAL_RPMS.is_dir():
        reason = f"{REAL_RPMS} is missing; tests/setup-debian makes it"
        if in_ci():
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    return REAL_RPMS
