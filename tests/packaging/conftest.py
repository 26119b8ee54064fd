"""The packages, built once, and a machine to install them on.

These tests build, boot and break whole machines: only root can, and only who asks for it has to (`make
test-packaging`), or CI.
"""

from __future__ import annotations

import os
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.kit.clients import in_ci
from tests.packaging.machines import make_disk, run

TOP = Path(__file__).parents[2]
CACHE = TOP / ".cache" / "packaging"

# The machine's programs: systemd as an EL machine has it, and what the package requires there.
_PROGRAMS = (
    *("systemd", "systemd-sysv", "dbus", "iproute2", "procps", "python3", "libglib2.0-0", "rpm-common"),
    *("logrotate", "dnf", "rpm", "gpg", "gpg-agent", "gpgv"),
)

_STUB = """\
Name: el-stub
Version: 1
Release: 1
Summary: What an EL machine provides
License: MIT
BuildArch: noarch
Provides: {python} python(abi) = {abi} glib2 rpm gnupg2 systemd shadow-utils /bin/sh
%description
The machine is Debian's, and its rpm database is empty.
%files
"""

if not (os.geteuid() == 0 and (in_ci() or os.environ.get("REPOWATCH_PACKAGING"))):
    collect_ignore_glob = ["test_*.py"]


@dataclass(frozen=True, slots=True)
class Packages:
    """What was built."""

    binary: Path
    newer: Path  # the same with a higher release, rebuilt from `source`
    source: Path
    stub: Path  # provides what the package requires, for a machine that is not EL


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Packages:
    """The packages, as `make rpm` builds them; the newer one without a network."""
    scratch = tmp_path_factory.mktemp("packages")
    built = Path(os.environ.get("REPOWATCH_PACKAGES", scratch / "built"))  # to try a test again in seconds
    if not built.exists():
        run("env", f"DIST={built}", TOP / "packaging/rpm/build", timeout=400)
        [source] = built.glob("*.src.rpm")
        _rpmbuild(built / "again", "--rebuild", source, "--define=dist .2")
    [source] = built.glob("*.src.rpm")
    [binary] = built.glob("*.x86_64.rpm")
    [newer] = built.rglob("again/RPMS/**/*.rpm")
    python = run("rpm", "-qp", "--requires", binary).split("/usr/bin/python")[1].split()[0]
    specification = scratch / "el-stub.spec"
    specification.write_text(_STUB.format(python=f"/usr/bin/python{python}", abi=python))
    _rpmbuild(scratch / "stub", "-bb", specification)
    [stub] = (scratch / "stub").rglob("RPMS/**/*.rpm")
    return Packages(binary, newer, source, stub)


def _rpmbuild(top: Path, *arguments: str | Path) -> None:
    command = ("unshare", "--net", "rpmbuild", "--quiet", f"--define=_topdir {top}")
    run(*command, *arguments, timeout=400)


@pytest.fixture(scope="session")
def bare_root() -> Path:
    """A directory with a small Debian that was never booted, kept for the next run."""
    root = CACHE / "root"
    if not root.exists():
        scratch = CACHE / "root.part"
        shutil.rmtree(scratch, ignore_errors=True)
        CACHE.mkdir(parents=True, exist_ok=True)
        run("debootstrap", "--variant=minbase", _suite(), scratch, timeout=600)
        shutil.copy("/etc/resolv.conf", scratch / "etc/resolv.conf")
        _apt(scratch, "update")
        _apt(scratch, "install", "--no-install-recommends", *_PROGRAMS)
        _apt(scratch, "clean")
        shutil.rmtree(scratch / "var/lib/apt/lists")
        scratch.rename(root)
    return root


def _suite() -> str:
    """The Debian of this machine, because the package is built for its python."""
    return platform.freedesktop_os_release()["VERSION_CODENAME"]


def _apt(root: Path, *arguments: str) -> None:
    environment = ("env", "DEBIAN_FRONTEND=noninteractive")
    run(*environment, "chroot", root, "apt-get", "-qq", "-y", *arguments, timeout=600)


@pytest.fixture(scope="session")
def bare_disk(bare_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A disk with that root, to be copied and booted."""
    image = tmp_path_factory.mktemp("disk") / "bare.img"
    make_disk(bare_root, image)
    return image
