"""The profiles, as clients see them: the same packages, read by those that each profile is for."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.clients import locate
from tests.kit.daemon import Daemon
from tests.kit.metadata import locations
from tests.kit.rpms import make_rpm

PACKAGES = 150  # enough for more than one segment


@pytest.fixture(scope="module")
def modern(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    directory = tmp_path_factory.mktemp("modern")
    tree = directory / "rpm"
    for number in range(PACKAGES):
        make_rpm(tree, f"p{number}", files={f"/usr/share/p{number}/file": b""})
    configuration = f"repositories: {{rpm: {{path: {tree}, profile: modern}}}}\n"
    with Daemon(scratch=directory, configuration=configuration) as daemon:
        assert daemon.put("/rpm/late.rpm", make_rpm(directory / "in", "late")).status == 201
        yield daemon


def tree_of(daemon: Daemon) -> Path:
    return Path(str(daemon.repository("rpm")["path"]))


def records(daemon: Daemon) -> list[str]:
    return [path.name for path in (tree_of(daemon) / "repodata").iterdir() if "-primary." in path.name]


def test_modern_metadata_is_zstd_and_says_the_same(modern: Daemon) -> None:
    assert all(name.endswith(".xml.zst") for name in records(modern))
    assert len(locations(modern, "rpm")) == PACKAGES + 1


@pytest.mark.client("dnf")
def test_dnf_reads_modern_metadata(modern: Daemon, tmp_path: Path) -> None:
    query = [
        *("dnf", "--quiet", f"--setopt=cachedir={tmp_path}", "--setopt=reposdir=/nonexistent"),
        *(f"--repofrompath=rpm,{modern.repository_url('rpm')}", "--repo=rpm", "--releasever=9"),
        *("repoquery", "--queryformat=%{name}", "--file=/usr/share/p*/file"),
    ]
    found = subprocess.run(query, capture_output=True, text=True, check=True)
    assert len(found.stdout.split()) == PACKAGES


@pytest.mark.client("zypper")
def test_zypper_reads_modern_metadata(modern: Daemon, tmp_path: Path) -> None:
    zypper = ["zypper", f"--root={tmp_path}", "--non-interactive", "--no-gpg-checks"]
    environment = {"PATH": "/usr/bin:/bin", "ZYPP_LOGFILE": str(tmp_path / "log"), "HOME": str(tmp_path)}
    for command in (["addrepo", "--no-gpgcheck", modern.repository_url("rpm"), "rpm"], ["refresh"]):
        subprocess.run([*zypper, *command], env=environment, capture_output=True, check=True)
    found = subprocess.run(
        [*zypper, "search", "--details"], env=environment, capture_output=True, text=True, check=True
    )
    assert sum("| package |" in line for line in found.stdout.splitlines()) == PACKAGES + 1


@pytest.mark.client("createrepo_c")
def test_createrepo_c_goes_on_from_modern_metadata(modern: Daemon, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-a", tree_of(modern), copy], check=True)
    update = [str(locate("createrepo_c")), "--update", "--verbose", str(copy)]
    done = subprocess.run(update, capture_output=True, text=True, check=True)
    assert f"Loaded information about {PACKAGES + 1} packages" in done.stdout + done.stderr


def test_a_profile_that_is_changed_is_published_at_the_next_start(tmp_path: Path) -> None:
    tree = tmp_path / "rpm"
    make_rpm(tree)
    for profile, suffix in (("compatible", "gz"), ("modern", "zst"), ("compatible", "gz")):
        text = f"repositories: {{rpm: {{path: {tree}, profile: {profile}}}}}\n"
        with Daemon(scratch=tmp_path / profile, configuration=text) as daemon:
            repomd = daemon.get("/rpm/repodata/repomd.xml").text
            assert f"-primary.xml.{suffix}" in repomd
            assert len(locations(daemon, "rpm")) == 1
            assert daemon.terminate() == 0
