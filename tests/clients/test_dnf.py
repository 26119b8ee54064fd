"""dnf with a root and a cache of its own: what was uploaded a moment ago is found and installed."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.clients.conftest import Corner, run
from tests.kit.daemon import Daemon
from tests.kit.rpms import make_rpm

pytestmark = [
    pytest.mark.client("dnf"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can install into a root of its own"),
]


@dataclass(frozen=True, slots=True)
class Dnf:
    """dnf on a machine that does not exist. What it sees of this one is the kernel."""

    scratch: Path
    repository: tuple[str, ...]

    def __call__(self, *arguments: str) -> str:
        """What it printed. Raises AssertionError when it failed."""
        return run(
            *("dnf", "--assumeyes", "--releasever=9", "--nogpgcheck", "--refresh"),
            *(f"--config={self.scratch}/dnf.conf", f"--installroot={self.root}"),
            f"--setopt=cachedir={self.scratch}/cache",
            *self.repository,
            *arguments,
        )

    @property
    def root(self) -> Path:
        return self.scratch / "root"

    def available(self) -> set[str]:
        """NEVRA of everything in the repository."""
        listed = self("--quiet", "repoquery", "--qf", "%{name}-%{evr}.%{arch}")
        return {line for line in listed.splitlines() if line.endswith(("noarch", "x86_64"))}


@pytest.fixture
def dnf(shared: Daemon, tmp_path: Path) -> Dnf:
    """A dnf that has never seen the repository."""
    (tmp_path / "dnf.conf").write_text("[main]\n")
    where = ("--setopt=reposdir=/nonexistent", f"--repofrompath=rpm,{shared.repository_url('rpm')}")
    return Dnf(tmp_path, where)


def readme(dnf: Dnf, name: str) -> Path:
    return dnf.root / "usr/share/doc" / name / "README"


@pytest.mark.parametrize("format", [4, 6])
def test_a_package_is_installed_as_soon_as_its_upload_was_answered(
    corner: Corner, dnf: Dnf, tmp_path: Path, format: int
) -> None:
    package = make_rpm(tmp_path, f"sooner{format}", format=format)
    assert corner.daemon.put(corner.href + package.name, package).status == 201
    if format == 4:
        dnf("install", "sooner4")
        assert readme(dnf, "sooner4").read_bytes() == b"hello\n"
    assert f"sooner{format}-1.0-1.noarch" in dnf.available()


def test_the_repo_file_that_the_daemon_makes_is_all_that_is_needed(
    corner: Corner, dnf: Dnf, tmp_path: Path
) -> None:
    package = make_rpm(tmp_path, "configured")
    assert corner.daemon.put(corner.href + package.name, package).status == 201
    (tmp_path / "repos").mkdir()
    (tmp_path / "repos" / "rpm.repo").write_bytes(corner.daemon.get("/rpm.repo").body)
    configured = Dnf(dnf.scratch, (f"--setopt=reposdir={tmp_path}/repos",))
    configured("install", "configured")
    assert readme(dnf, "configured").exists()


def test_a_newer_version_is_an_upgrade(corner: Corner, dnf: Dnf, tmp_path: Path) -> None:
    for version in ("1.9", "1.10"):
        content = version.encode()
        package = make_rpm(tmp_path, "grown", version, files={"/usr/share/doc/grown/README": content})
        assert corner.daemon.put(corner.href + package.name, package).status == 201
        dnf("upgrade" if version == "1.10" else "install", "grown")
        assert readme(dnf, "grown").read_bytes() == content


def test_a_deleted_package_is_not_found_any_more(corner: Corner, dnf: Dnf, tmp_path: Path) -> None:
    package = make_rpm(tmp_path, "leaving")
    assert corner.daemon.put(corner.href + package.name, package).status == 201
    assert "leaving-1.0-1.noarch" in dnf.available()
    assert corner.daemon.request("DELETE", corner.href + package.name).status == 204
    assert "leaving-1.0-1.noarch" not in dnf.available()


def test_what_requires_is_installed_with_what_it_requires(corner: Corner, dnf: Dnf, tmp_path: Path) -> None:
    for package in (make_rpm(tmp_path, "below"), make_rpm(tmp_path, "above", requires=["below >= 1.0"])):
        assert corner.daemon.put(corner.href + package.name, package).status == 201
    dnf("install", "above")
    assert readme(dnf, "below").exists()


def test_real_packages_are_listed(corner: Corner, dnf: Dnf, real_rpms: Path) -> None:
    packages = sorted(real_rpms.glob("*.rpm"))
    for package in packages:
        assert corner.daemon.put(corner.href + package.name, package).status == 201
    assert {package.name.removesuffix(".rpm") for package in packages} <= dnf.available()
    assert "/usr/share/zoneinfo/Europe/Berlin" in dnf("--quiet", "repoquery", "--list", "tzdata")
