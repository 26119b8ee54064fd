from __future__ import annotations

import configparser
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from repowatch.web.info.clients import repo_file, repo_id, script, told
from repowatch.web.served import Served
from tests.kit.served import serve

BASE = "https://rpm.example.org"
EVIL = "a'b $(touch x) `y`\\"


@pytest.fixture
def repository(tmp_path: Path) -> Served:
    return replace(serve(tmp_path), name="rpm")


def parsed(text: str) -> configparser.SectionProxy:
    parser = configparser.RawConfigParser()
    parser.read_string(text)
    [section] = parser.sections()
    return parser[section]


def test_a_file_for_clients_says_that_nothing_is_signed(repository: Served) -> None:
    section = parsed(repo_file(repository, base_url=BASE))
    assert dict(section) == {
        "name": "rpm",
        "baseurl": f"{BASE}/r%20pm/",
        "enabled": "1",
        "gpgcheck": "0",
        "repo_gpgcheck": "0",
        "metadata_expire": "60",
        "autorefresh": "1",
    }


def test_each_key_of_the_metadata_is_named(repository: Served) -> None:
    signed = replace(repository, metadata_keys=lambda: ["repodata/AA.key", "repodata/B B.key"])
    section = parsed(repo_file(signed, base_url=BASE))
    assert (section["gpgcheck"], section["repo_gpgcheck"]) == ("0", "1")
    assert section["gpgkey"] == f"{BASE}/r%20pm/repodata/AA.key {BASE}/r%20pm/repodata/B%20B.key"


def test_packages_are_checked_where_each_was_signed_by_a_known_key(repository: Served) -> None:
    checked = replace(repository, package_keys=lambda: b"-----BEGIN\nkey\n")
    section = parsed(repo_file(checked, base_url=BASE))
    assert (section["gpgcheck"], section["repo_gpgcheck"]) == ("1", "0")
    assert section["gpgkey"] == f"{BASE}/-/rpm/packages.key"
    keys = told("/-/rpm/packages.key", [checked], base_url=BASE, asks=lambda name: False)
    assert keys == "-----BEGIN\nkey"


def test_there_is_no_key_where_none_is_known(repository: Served) -> None:
    assert told("/-/rpm/packages.key", [repository], base_url=BASE, asks=lambda name: False) is None


def test_the_variables_of_clients_stand_in_the_place_of_a_path(repository: Served) -> None:
    family = replace(repository, baseurl=lambda: "/el$releasever/$basearch/")
    assert parsed(repo_file(family, base_url=BASE))["baseurl"] == f"{BASE}/el$releasever/$basearch/"


def test_whoever_has_to_log_in_is_told_where_the_password_goes(repository: Served) -> None:
    text = repo_file(repository, base_url=BASE, must_log_in=True)
    assert text.startswith("# Reading needs a password, which is not in this file.")
    assert dict(parsed(text)) == dict(parsed(repo_file(repository, base_url=BASE)))


def test_a_name_that_dnf_would_not_take_is_made_into_one_that_it_takes() -> None:
    assert repo_id("rpm-9.x_y:z") == "rpm-9.x_y:z"
    assert repo_id("ä b/'\"") == "__b___"
    assert repo_id("main") == "main_"


def host(root: Path, *tools: str) -> Path:
    (root / "usr" / "bin").mkdir(parents=True)
    for tool in tools:
        (root / "usr" / "bin" / tool).touch(0o755)
    return root


def run(text: str, *arguments: str | Path, shell: str = "sh") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [shell, "-s", "--", *map(str, arguments)],
        input=text,
        capture_output=True,
        text=True,
        check=False,
        cwd=arguments[0],
    )


@pytest.mark.parametrize(
    ("tools", "directories"),
    [
        (["dnf"], ["etc/yum.repos.d"]),
        (["dnf5"], ["etc/yum.repos.d"]),
        (["yum"], ["etc/yum.repos.d"]),
        (["zypper"], ["etc/zypp/repos.d"]),
        (["dnf", "zypper"], ["etc/yum.repos.d", "etc/zypp/repos.d"]),
    ],
)
def test_the_script_writes_the_file_where_the_tools_of_the_host_look(
    repository: Served, tmp_path: Path, tools: list[str], directories: list[str]
) -> None:
    root, text = host(tmp_path / "a b", *tools), repo_file(repository, base_url=BASE)
    for said in ("is written", "is up to date"):
        done = run(script(repository, repo_text=text), root)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.count(said) == len(directories)
        found = [path for path in root.rglob("*") if path.is_file() and "etc" in path.parts]
        assert sorted(found) == [root / each / "rpm.repo" for each in directories]
        assert all(path.read_text() == text and path.stat().st_mode & 0o777 == 0o644 for path in found)


def test_the_script_refuses_a_host_without_any_of_them(repository: Served, tmp_path: Path) -> None:
    done = run(script(repository, repo_text="[rpm]\n"), host(tmp_path / "debian"))
    assert done.returncode == 1
    assert done.stderr == (
        f"setup.sh: there is no dnf, yum or zypper in {tmp_path}/debian/usr/bin; nothing was done\n"
    )
    assert not (tmp_path / "debian" / "etc").exists()


def test_the_script_leaves_the_password_that_the_host_added_and_its_mode(
    repository: Served, tmp_path: Path
) -> None:
    root = host(tmp_path / "root", "dnf")
    file = root / "etc" / "yum.repos.d" / "rpm.repo"
    file.parent.mkdir(parents=True)
    file.write_text("[rpm]\nname=old\nusername=ci\npassword = secret\nsslcacert=/ca.pem\n")
    file.chmod(0o600)
    text = repo_file(repository, base_url=BASE)
    for said in ("is written", "is up to date"):
        assert said in run(script(repository, repo_text=text), root).stdout
        assert file.read_text() == f"{text}username=ci\npassword = secret\nsslcacert=/ca.pem\n"
        assert file.stat().st_mode & 0o777 == 0o600


def test_a_script_that_was_cut_off_does_nothing(repository: Served, tmp_path: Path) -> None:
    root = host(tmp_path / "root", "dnf")
    text = script(repository, repo_text=repo_file(repository, base_url=BASE))
    for length in range(0, len(text) - len('main "$@"'), 7):
        run(text[:length], root)
        assert not (root / "etc").exists(), text[:length]
    run(text, root)
    assert (root / "etc").exists()


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_no_name_gets_out_of_its_quotes(repository: Served, tmp_path: Path, shell: str) -> None:
    root, named = host(tmp_path / "root", "dnf"), replace(repository, name=EVIL)
    text = repo_file(named, base_url=BASE)
    assert run(script(named, repo_text=text), root, shell=shell).returncode == 0
    [file] = (root / "etc" / "yum.repos.d").iterdir()
    assert file.read_text() == text
    assert not (root / "x").exists()
