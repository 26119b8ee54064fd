"""What is in the package, what it tells of itself, and what its unit may do."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.kit.daemon import repowatch
from tests.packaging.conftest import TOP, Packages
from tests.packaging.machines import run


@pytest.fixture(scope="module")
def contents(packages: Packages, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the package, unpacked."""
    directory = tmp_path_factory.mktemp("contents")
    run("sh", "-c", 'rpm2cpio "$1" | cpio -idm --quiet -D "$2"', "sh", packages.binary, directory)
    return directory


def test_it_provides_itself_and_says_what_it_bundles(packages: Packages) -> None:
    provided = run("rpm", "-qp", "--provides", packages.binary).splitlines()
    plain = {line.split()[0] for line in provided if not line.startswith("bundled(")}
    assert plain == {"repowatch", "repowatch(x86-64)", "config(repowatch)"}
    assert any(line.startswith("bundled(python3dist(cheroot)) = ") for line in provided)


def test_it_requires_no_private_library(packages: Packages) -> None:
    required = {line.split()[0] for line in run("rpm", "-qp", "--requires", packages.binary).splitlines()}
    required = {each for each in required if not each.startswith(("rpmlib(", "/usr/bin/python3."))}
    of_itself = {"/bin/sh", "config(repowatch)", "user(repowatch)", "group(repowatch)"}
    assert required - of_itself == {"python(abi)", "glib2", "rpm", "gnupg2", "systemd", "shadow-utils"}


def test_rpmlint_finds_no_error_that_is_not_explained(packages: Packages) -> None:
    explained = TOP / "packaging/rpm/rpmlintrc"
    found = run("rpmlint", "-r", explained, packages.binary, packages.source, check=False)
    assert "2 packages" in found
    assert [line for line in found.splitlines() if " E: " in line] == []


def test_every_library_has_its_licence_with_it(packages: Packages, contents: Path) -> None:
    bundled = re.findall(r"bundled\(python3dist\((.*)\)\)", run("rpm", "-qp", "--provides", packages.binary))
    with_licence = {
        each.name for each in (contents / "usr/share/licenses/repowatch").iterdir() if each.is_dir()
    }
    assert with_licence == set(bundled)


def test_the_configuration_is_the_one_of_the_sources(contents: Path) -> None:
    installed = contents / "etc/repowatch/repowatch.yaml"
    assert installed.read_bytes() == (TOP / "conf/repowatch.yaml").read_bytes()


def test_the_manual_tells_every_command_and_every_setting(contents: Path) -> None:
    pages = contents / "usr/share/man"
    commands = run("man", "--local-file", pages / "man8/repowatch.8.gz")
    names = re.findall(r"^ {4}([a-z-]+)", repowatch("--help").stdout, re.MULTILINE)
    assert {"serve", "snapshot", "rollback"} <= set(names)
    for command in names:
        assert f"usage: repowatch {command} " in commands
    settings = run("man", "--local-file", pages / "man5/repowatch.yaml.5.gz")
    assert "#keep_space: 4GiB" in settings


def test_the_exposure_of_the_unit_is_small(contents: Path, tmp_path: Path) -> None:
    unit = contents / "usr/lib/systemd/system/repowatch.service"
    assert exposure(unit) <= 1.5
    drop_in = (contents / "usr/share/doc/repowatch/tighter.conf").read_text()
    tighter = tmp_path / "repowatch.service"
    text = unit.read_text()
    tighter.write_text(text.replace("[Install]", drop_in.partition("[Service]\n")[2] + "\n[Install]"))
    assert exposure(tighter) <= 1.0


def exposure(unit: Path) -> float:
    """What systemd-analyze security says: 0 is nothing, 10 is everything."""
    told = run("systemd-analyze", "security", "--no-pager", "--offline=yes", unit, check=False)
    print(told)
    [level] = re.findall(r"Overall exposure level for repowatch.service: ([0-9.]+)", told)
    return float(level)


def test_nothing_in_it_can_be_written_by_the_daemon_but_packages_and_logs(packages: Packages) -> None:
    listed = run("rpm", "-qp", "--queryformat", "[%{FILEUSERNAME} %{FILENAMES}\n]", packages.binary)
    owned = {line.split()[1] for line in listed.splitlines() if line.startswith("repowatch ")}
    assert owned == {"/var/www/repos/rpm-repo", "/var/log/repowatch", "/var/lib/repowatch"}


def test_compiled_modules_are_never_written_again(contents: Path) -> None:
    for path in (contents / "usr/lib/repowatch/repowatch").rglob("*.pyc"):
        flags = int.from_bytes(path.read_bytes()[4:8], "little")
        assert flags == 0b01, f"{path} is not of PEP 552's unchecked kind"
    assert not os.access(contents / "usr/lib/repowatch/cheroot/test", os.F_OK)
