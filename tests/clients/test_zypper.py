"""zypper with a root of its own: what was uploaded a moment ago is found and installed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.clients.conftest import Corner, run
from tests.kit.daemon import Daemon
from tests.kit.rpms import make_rpm

pytestmark = [
    pytest.mark.client("zypper"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can install into a root of its own"),
]


@pytest.fixture
def zypper(tmp_path: Path) -> Callable[..., str]:
    """zypper on a machine that does not exist; gives what it printed, AssertionError when it failed."""
    options = ("--root", tmp_path / "root", "--no-gpg-checks", "--non-interactive")
    return lambda *arguments: run("env", f"ZYPP_LOGFILE={tmp_path}/log", "zypper", *options, *arguments)


@pytest.fixture
def added(shared: Daemon, zypper: Callable[..., str]) -> None:
    """The repository is known to zypper, and was never refreshed."""
    zypper("addrepo", shared.repository_url("rpm"), "rpm")


@pytest.mark.usefixtures("added")
def test_a_package_is_installed_as_soon_as_its_upload_was_answered(
    corner: Corner, zypper: Callable[..., str], tmp_path: Path
) -> None:
    package = make_rpm(tmp_path, "sooner")
    assert corner.daemon.put(corner.href + package.name, package).status == 201
    zypper("refresh")
    zypper("install", "sooner")
    assert (tmp_path / "root/usr/share/doc/sooner/README").read_bytes() == b"hello\n"


def test_the_repo_file_that_the_daemon_makes_is_all_that_is_needed(
    corner: Corner, zypper: Callable[..., str], tmp_path: Path
) -> None:
    package = make_rpm(tmp_path, "configured")
    assert corner.daemon.put(corner.href + package.name, package).status == 201
    zypper("addrepo", corner.daemon.url + "rpm.repo")
    zypper("install", "configured")
    assert (tmp_path / "root/usr/share/doc/configured/README").exists()


@pytest.mark.usefixtures("added")
def test_a_newer_version_is_an_update(corner: Corner, zypper: Callable[..., str], tmp_path: Path) -> None:
    for version in ("1.9", "1.10"):
        content = version.encode()
        package = make_rpm(tmp_path, "grown", version, files={"/usr/share/doc/grown/README": content})
        assert corner.daemon.put(corner.href + package.name, package).status == 201
        zypper("refresh")
        zypper("update" if version == "1.10" else "install", "grown")
        assert (tmp_path / "root/usr/share/doc/grown/README").read_bytes() == content


@pytest.mark.usefixtures("added")
def test_a_deleted_package_is_not_found_any_more(
    corner: Corner, zypper: Callable[..., str], tmp_path: Path
) -> None:
    package = make_rpm(tmp_path, "leaving")
    assert corner.daemon.put(corner.href + package.name, package).status == 201
    zypper("refresh")
    assert "leaving" in zypper("packages")
    assert corner.daemon.request("DELETE", corner.href + package.name).status == 204
    zypper("refresh")
    assert "leaving" not in zypper("packages")
