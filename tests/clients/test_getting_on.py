"""What the daemon gives to a host that is to use it: the `.repo` file and the script, with dnf and zypper."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.clients.conftest import run
from tests.clients.test_dnf import Dnf
from tests.kit.daemon import Daemon
from tests.kit.keyrings import Keyring
from tests.kit.rpms import make_rpm
from tests.kit.signers import Signer
from tests.kit.users import write_users

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can install into a root of its own")

CONFIGURATION = """
users: {scratch}/users
repositories:
  rpm: {{path: {scratch}/rpm}}
  main: {{path: {scratch}/main}}
  private: {{path: {scratch}/private, read: [anna]}}
"""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    scratch = tmp_path_factory.mktemp("shared")
    write_users(scratch / "users", {"anna": "secret"})
    for name in ("rpm", "main", "private"):
        make_rpm(scratch / name)
    with Daemon(scratch=scratch, configuration=CONFIGURATION.format(scratch=scratch)) as daemon:
        yield daemon


@pytest.fixture
def zypper(tmp_path: Path) -> Callable[..., str]:
    options = ("--root", tmp_path, "--non-interactive")
    return lambda *arguments: run("env", f"ZYPP_LOGFILE={tmp_path}/log", "zypper", *options, *arguments)


def set_up(daemon: Daemon, root: Path, name: str) -> str:
    """What a person runs on a host below a directory that has dnf and zypper; what it printed."""
    (root / "usr" / "bin").mkdir(parents=True, exist_ok=True)
    for tool in ("dnf", "zypper"):
        (root / "usr" / "bin" / tool).touch(0o755)
    line = 'curl -fsS "$1" | sh -s -- "$2"'
    return run("bash", "-o", "pipefail", "-ec", line, "-", f"{daemon.url}-/{name}/setup.sh", root)


def dnf_of(machine: Path) -> Dnf:
    (machine / "dnf.conf").write_text("[main]\n")
    return Dnf(machine, (f"--setopt=reposdir={machine}/etc/yum.repos.d",))


@pytest.mark.client("dnf", "zypper", "curl")
def test_one_line_of_shell_puts_a_repository_where_dnf_and_zypper_look(
    shared: Daemon, zypper: Callable[..., str], tmp_path: Path
) -> None:
    assert set_up(shared, tmp_path, "rpm").count("is written") == 2
    assert set_up(shared, tmp_path, "rpm").count("is up to date") == 2
    dnf = dnf_of(tmp_path)
    dnf("install", "hello")
    assert (dnf.root / "usr/share/doc/hello/README").exists()
    zypper("install", "hello")
    assert (tmp_path / "usr/share/doc/hello/README").exists()


@pytest.mark.client("dnf", "curl")
def test_a_repository_may_be_called_what_dnf_calls_its_own_settings(shared: Daemon, tmp_path: Path) -> None:
    set_up(shared, tmp_path, "main")
    assert dnf_of(tmp_path).available() == {"hello-1.0-1.noarch"}


@pytest.mark.client("curl")
def test_one_line_of_shell_changes_nothing_where_the_server_has_no_such_repository(
    shared: Daemon, tmp_path: Path
) -> None:
    with pytest.raises(AssertionError, match="404"):
        set_up(shared, tmp_path, "wrong")
    assert not (tmp_path / "etc").exists()


def test_the_script_is_read_by_every_shell(shared: Daemon) -> None:
    script = shared.get("/-/rpm/setup.sh")
    assert script.headers["Cache-Control"] == "no-cache"
    for shell in ("sh", "dash", "bash"):
        subprocess.run([shell, "-n"], input=script.body, check=True)


@pytest.mark.client("zypper")
def test_zypper_looks_for_news_by_itself_in_what_it_added_by_the_file(
    shared: Daemon, zypper: Callable[..., str]
) -> None:
    zypper("addrepo", f"{shared.url}rpm.repo")
    described = dict(line.split(":", 1) for line in zypper("repos", "rpm").splitlines() if ":" in line)
    values = {key.strip(): value.strip() for key, value in described.items()}
    assert (values["Enabled"], values["Autorefresh"]) == ("Yes", "On")


@pytest.mark.client("dnf", "zypper")
def test_who_has_to_log_in_adds_the_password_as_the_file_says(
    shared: Daemon, zypper: Callable[..., str], tmp_path: Path
) -> None:
    text = shared.get("/private.repo").text
    assert "username= and password=" in text
    assert "secret" not in text
    directories = [tmp_path / "etc" / each for each in ("yum.repos.d", "zypp/repos.d", "zypp/credentials.d")]
    for directory in directories:
        directory.mkdir(parents=True)
    (directories[0] / "private.repo").write_text(f"{text}username=anna\npassword=secret\n")
    assert "hello-1.0-1.noarch" in dnf_of(tmp_path).available()
    (directories[1] / "private.repo").write_text(text.replace("private/\n", "private/?credentials=private\n"))
    (directories[2] / "private").write_text("username=anna\npassword=secret\n")
    assert "hello" in zypper("packages")


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """Metadata that is signed, and packages by two keys, of which one is in a file without armor."""
    scratch = tmp_path_factory.mktemp("signed")
    with Keyring() as keyring:
        signer = Signer(keyring)
        for name in ("metadata", "one", "two"):
            signer.make_key(name)
        keys = [signer.export(scratch, "one"), scratch / "two.gpg"]
        keys[1].write_bytes(keyring.gpg("--export", signer.fingerprints["two"]))
        for name in ("one", "two"):
            signer.sign(make_rpm(scratch / "rpm", name), name)
        signed_by = f"{{signed_by: [{keys[0]}, {keys[1]}]}}"
        text = (
            f"sign: {{keys: [{signer.fingerprints['metadata']}], keyring: {keyring.home}}}\n"
            f"repositories: {{rpm: {{path: {scratch}/rpm, packages: {signed_by}}}}}\n"
        )
        with Daemon(scratch=scratch, configuration=text) as daemon:
            yield daemon


@pytest.mark.client("dnf", "gpg", "gpgv", "rpmsign")
def test_dnf_checks_all_that_is_signed_with_nothing_but_the_repo_file(signed: Daemon, tmp_path: Path) -> None:
    text = signed.get("/rpm.repo").text
    assert "gpgcheck=1\nrepo_gpgcheck=1\n" in text
    (tmp_path / "rpm.repo").write_text(text)
    (tmp_path / "dnf.conf").write_text("[main]\ngpgcheck=1\nlocalpkg_gpgcheck=1\n")
    told = run(
        *("dnf", "--assumeyes", "--releasever=9", f"--config={tmp_path}/dnf.conf"),
        *(f"--installroot={tmp_path}/root", f"--setopt=cachedir={tmp_path}/cache"),
        *(f"--setopt=reposdir={tmp_path}", "install", "one", "two"),
    )
    assert told.count("Key imported successfully") == 3
    assert {each.name for each in (tmp_path / "root/usr/share/doc").iterdir()} >= {"one", "two"}


@pytest.mark.client("zypper", "gpg", "gpgv", "rpmsign")
def test_zypper_checks_all_that_is_signed_with_nothing_but_the_repo_file(
    signed: Daemon, zypper: Callable[..., str], tmp_path: Path
) -> None:
    zypper("addrepo", f"{signed.url}rpm.repo")
    zypper("--gpg-auto-import-keys", "refresh")
    zypper("install", "one", "two")
    assert {each.name for each in (tmp_path / "usr/share/doc").iterdir()} >= {"one", "two"}


@pytest.mark.client("zypper", "gpg", "gpgv", "rpmsign")
def test_zypper_takes_nothing_from_keys_that_nobody_has_said_yes_to(
    signed: Daemon, zypper: Callable[..., str]
) -> None:
    zypper("addrepo", f"{signed.url}rpm.repo")
    with pytest.raises(AssertionError, match="reject the key"):
        zypper("refresh")
