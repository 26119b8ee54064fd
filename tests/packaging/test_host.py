"""The life of a host: installed from nothing but the package, used from outside, broken, upgraded and erased.

The tests of this module share host A, and come in the order of its life.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.kit.certificates import Authority
from tests.kit.daemon import wait_until
from tests.kit.keyrings import Keyring
from tests.kit.rpms import make_rpm
from tests.kit.signers import Signer
from tests.packaging.conftest import TOP, Packages
from tests.packaging.machines import ADDRESS, Machine, booted, run

URL = f"https://{ADDRESS}:8443"
PASSWORD = "correct horse battery staple"
CONFIGURATION = "/etc/repowatch/repowatch.yaml"
REPOSITORY = "var/www/repos/rpm-repo"
READY = 30.0  # seconds
SERVER = f"basicConstraints=CA:false\nextendedKeyUsage=serverAuth\nsubjectAltName=IP:{ADDRESS}\n"

SIGNING = TOP / "docs/signing.md"
EXAMPLE = "0123456789ABCDEF0123456789ABCDEF01234567"  # the key there
KEYRING = "/var/lib/repowatch/gnupg"
SIGNED = """\
  signed:
    path: /var/www/repos/signed
    packages: {signed_by: [/etc/pki/rpm-gpg/RPM-GPG-KEY-example]}
    prune: [{keep: 1}]
"""

CHANGES = {
    "listen: 127.0.0.1:8080": "listen: 0.0.0.0:8443",
    "#public_url: https://rpm.example.org": f"public_url: {URL}",
    "#users: /etc/repowatch/users": "users: /etc/repowatch/users",
    "#tls:": "tls: {certificate: /etc/repowatch/tls/cert.pem, key: /etc/repowatch/tls/key.pem}",
    "#audit: /var": "audit: /var",
    "#access_log: /var": "access_log: /var",
}


@dataclass(frozen=True, slots=True)
class Other:
    """Host B, which knows host A by its network and its authority alone."""

    directory: Path
    authority: Path
    bare_root: Path

    def curl(self, machine: Machine, *arguments: str | Path, user: str | None = "anna") -> str:
        """What curl printed: the body, and the status in a line behind it."""
        login = ("--user", f"{user}:{PASSWORD}") if user else ()
        common = ("curl", "--silent", "--show-error", "--cacert", self.authority, "--max-time", "40")
        return machine.on_its_wire(*common, *login, "--write-out", "%{http_code}\n", *arguments, check=False)

    def upload(self, machine: Machine, package: Path, repository: str = "rpm") -> str:
        """The status of an upload."""
        to = f"{URL}/{repository}/"
        return self.curl(machine, "--output", "/dev/null", "--upload-file", package, to).strip()

    def install(self, machine: Machine, *names: str, check: str = "--nogpgcheck") -> Path:
        """Install by the `.repo` file that host A makes, into a root with a bare Debian; that root.

        `check`: an option of dnf, about signatures.
        """
        repos = self.directory / "repos"
        repos.mkdir(exist_ok=True)
        self.curl(machine, "--output", repos / "rpm.repo", f"{URL}/rpm.repo", user=None)
        root = self.directory / "root"
        if not root.exists():
            run("cp", "-a", "--reflink=auto", self.bare_root, root)
        (self.directory / "dnf.conf").write_text("[main]\n")
        machine.on_its_wire(
            *("dnf", "--assumeyes", "--releasever=9", check, "--refresh", f"--installroot={root}"),
            *(f"--config={self.directory}/dnf.conf", f"--setopt=cachedir={self.directory}/cache"),
            *(f"--setopt=reposdir={repos}", f"--setopt=sslcacert={self.authority}"),
            *("install", *names),
        )
        return root


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def other(authority: Authority, bare_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Other:
    return Other(tmp_path_factory.mktemp("b"), authority.certificate, bare_root)


@pytest.fixture(scope="module")
def host(
    packages: Packages, bare_disk: Path, authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Machine]:
    """Host A: the package is installed and configured, and the daemon runs."""
    directory = tmp_path_factory.mktemp("a")
    run("cp", "--sparse=always", bare_disk, directory / "disk.img")
    with booted(directory / "disk.img", directory, name="a") as machine:
        for package in (packages.binary, packages.newer, packages.stub):
            shutil.copy(package, machine.root / "root")
        dnf(machine, "install", f"/root/{packages.stub.name}", f"/root/{packages.binary.name}")
        configure(machine, authority)
        try:
            machine.run("systemctl", "enable", "--now", "repowatch")
        finally:
            print(machine.journal())
        yield machine
        print(machine.journal())


def dnf(machine: Machine, *arguments: str) -> str:
    return machine.run("dnf", "--assumeyes", "--nogpgcheck", "--releasever=9", *arguments)


def configure(machine: Machine, authority: Authority) -> None:
    """What its administrator does: a user, a certificate, and some lines of the configuration."""
    assert machine.run("rpm", "-V", "repowatch") == ""
    machine.run("repowatch", "passwd", "/etc/repowatch/users", "anna", stdin=f"{PASSWORD}\n")
    pair = authority.issue(f"/CN={ADDRESS}", extensions=SERVER)
    machine.run("install", "-d", "/etc/repowatch/tls")
    for source, name in ((pair.certificate, "cert.pem"), (pair.key, "key.pem")):
        shutil.copy(source, machine.root / "etc/repowatch/tls" / name)
        machine.run("chgrp", "repowatch", f"/etc/repowatch/tls/{name}")
        machine.run("chmod", "640", f"/etc/repowatch/tls/{name}")
    path = machine.root / CONFIGURATION.lstrip("/")
    text = path.read_text()
    for old, new in CHANGES.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    path.write_text(text)
    machine.run("repowatch", "check-config", CONFIGURATION)


def answers(machine: Machine, other: Other) -> bool:
    return other.curl(machine, f"{URL}/healthz", user=None).endswith("200\n")


def drop_in(machine: Machine, text: str, unit: str = "repowatch.service") -> None:
    """What `systemctl edit` does."""
    directory = machine.root / "etc/systemd/system" / f"{unit}.d"
    directory.mkdir(exist_ok=True)
    (directory / "override.conf").write_text(text)
    machine.run("systemctl", "daemon-reload")


def test_another_host_uploads_with_a_password_and_installs(
    host: Machine, other: Other, packages: Packages, tmp_path: Path
) -> None:
    package = make_rpm(tmp_path, "from-outside")
    refused = other.curl(host, "--upload-file", package, f"{URL}/rpm/", user=None)
    assert refused.endswith("401\n")
    assert other.upload(host, package) == "201"
    assert other.upload(host, packages.stub) == "201"
    root = other.install(host, "el-stub", "from-outside")
    assert (root / "usr/share/doc/from-outside/README").read_bytes() == b"hello\n"


def test_repowatch_is_installed_from_repowatch(host: Machine, other: Other, packages: Packages) -> None:
    assert other.upload(host, packages.binary) == "201"
    root = other.install(host, "repowatch")
    assert run("rpm", "--root", root, "-V", "repowatch") == ""
    assert run("chroot", root, "repowatch", "--version").startswith("repowatch ")


def test_its_files_can_be_read_by_other_servers_of_the_machine(host: Machine) -> None:
    for path in ("repodata/repomd.xml", "from-outside-1.0-1.noarch.rpm"):
        owner = host.run("stat", "--format=%U %A", f"/{REPOSITORY}/{path}").split()
        assert owner[0] == "repowatch"
        assert owner[1].endswith("r--")
    host.run("setpriv", "--reuid=nobody", "--clear-groups", "cat", f"/{REPOSITORY}/repodata/repomd.xml")


def test_its_sandbox_hides_no_limit_and_lets_threads_give_way(host: Machine, other: Other) -> None:
    pid = host.show("MainPID")
    limit = "/proc/sys/fs/inotify/max_user_watches"
    assert host.run("nsenter", f"--target={pid}", "--mount", "cat", limit) == Path(limit).read_text()
    status = json.loads(other.curl(host, f"{URL}/-/api/v1/status").removesuffix("200\n"))
    assert [each["watcher"] for each in status["repositories"]] == ["inotify"]
    assert "3" in host.run("ps", "-L", "-o", "ni=", "-p", pid).split()
    units = ("repowatch.service", "repowatch.socket")
    assert host.run("systemd-analyze", "verify", "--man=no", *units) == ""


def test_a_changed_users_file_is_still_not_for_everybody(host: Machine) -> None:
    users = host.run("stat", "--format=%U %G %a", "/etc/repowatch/users")
    assert users == "root repowatch 640\n"


def test_a_status_tells_what_it_does(host: Machine) -> None:
    assert host.show("ActiveState") == "active"
    assert "package" in host.show("StatusText")


def test_a_killed_daemon_is_back(host: Machine, other: Other) -> None:
    before = host.show("MainPID")
    host.run("systemctl", "kill", "--signal=KILL", "--kill-whom=main", "repowatch")
    wait_until(lambda: host.show("MainPID") not in ("0", before) and answers(host, other), READY)
    assert "from-outside" in other.curl(host, f"{URL}/rpm/")


def test_a_daemon_that_hangs_is_ended_and_is_back(host: Machine, other: Other) -> None:
    drop_in(host, "[Service]\nWatchdogSec=3\n")
    host.run("systemctl", "restart", "repowatch")
    before = host.show("MainPID")
    host.run("kill", "-STOP", before)
    wait_until(lambda: host.show("MainPID") not in ("0", before) and answers(host, other), READY)
    assert "watchdog" in host.journal().lower()
    drop_in(host, "")
    host.run("systemctl", "restart", "repowatch")


def test_a_reload_takes_over_who_may_write(host: Machine, other: Other, tmp_path: Path) -> None:
    package, probe = make_rpm(tmp_path, "after-reload"), make_rpm(tmp_path, "probe")
    path = host.root / CONFIGURATION.lstrip("/")
    text = path.read_text()
    before = host.show("MainPID")
    path.write_text(text.replace('#write: [ci, "@admins"]', "write: [ben]"))
    host.run("systemctl", "reload", "repowatch")
    wait_until(lambda: other.upload(host, probe) == "403")  # systemctl does not wait for who gets the signal
    path.write_text("listen: [\n")
    host.run("systemctl", "reload", "repowatch", check=False)
    assert answers(host, other)
    path.write_text(text)
    host.run("systemctl", "reload", "repowatch")
    wait_until(lambda: other.upload(host, package) == "201")
    assert host.show("MainPID") == before


def test_keys_that_are_made_as_the_manual_says_sign_in_the_sandbox(
    host: Machine, other: Other, tmp_path: Path
) -> None:
    [make, configured, *_] = re.findall(r"(?:^ {4}.*\n)+", SIGNING.read_text(), re.MULTILINE)
    said = host.run("bash", "-O", "expand_aliases", stdin=make)
    [fingerprint] = re.findall(r"^ +([0-9A-F]{40})$", said, re.MULTILINE)
    path = host.root / CONFIGURATION.lstrip("/")
    path.write_text(textwrap.dedent(configured).replace(EXAMPLE, fingerprint) + path.read_text())
    host.run("systemctl", "reload", "repowatch")
    wait_until(lambda: other.curl(host, f"{URL}/rpm/repodata/repomd.xml.asc", user=None).endswith("200\n"))

    host.run("runuser", "-u", "repowatch", "--", "gpgconf", "--homedir", KEYRING, "--kill", "gpg-agent")
    assert other.upload(host, make_rpm(tmp_path, "signed-in-there")) == "201"
    [agent] = host.run("pgrep", "--exact", "gpg-agent").split()
    assert "repowatch.service" in host.run("cat", f"/proc/{agent}/cgroup")
    assert "repo_gpgcheck=1\n" in other.curl(host, f"{URL}/rpm.repo", user=None)
    other.install(host, "signed-in-there", check="--setopt=rpm.repo_gpgcheck=1")
    host.run("systemctl", "restart", "repowatch")
    assert host.run("pgrep", "--exact", "gpg-agent", check=False).split() != [agent]
    host.run("systemctl", "stop", "repowatch")
    assert host.run("pgrep", "--uid=repowatch", check=False) == ""
    host.run("systemctl", "start", "repowatch")
    changed = host.run("rpm", "--verify", "repowatch", check=False).splitlines()
    assert {line.split()[-1] for line in changed} == {CONFIGURATION, "/etc/repowatch/users"}


def test_a_keyring_that_the_unit_may_not_write_is_told_with_the_line_that_is_missing(
    host: Machine, other: Other
) -> None:
    path = host.root / CONFIGURATION.lstrip("/")
    text = path.read_text()
    host.run("cp", "-a", KEYRING, "/srv/keys")
    path.write_text(text.replace(KEYRING, "/srv/keys", 1))
    host.run("systemctl", "reload", "repowatch")
    wait_until(lambda: "ReadWritePaths=/srv/keys" in other.curl(host, f"{URL}/healthz"))
    path.write_text(text)
    host.run("systemctl", "reload", "repowatch")
    wait_until(lambda: answers(host, other))


def test_packages_are_verified_in_the_sandbox(host: Machine, other: Other, tmp_path: Path) -> None:
    with Keyring() as keyring:
        signer = Signer(keyring)
        signer.make_key("packager")
        keys = host.root / "etc/pki/rpm-gpg/RPM-GPG-KEY-example"
        keys.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(signer.export(tmp_path, "packager"), keys)
        good = signer.sign(make_rpm(tmp_path, "by-the-packager"), "packager")
    host.run("install", "-d", "-o", "repowatch", "/var/www/repos/signed")
    path = host.root / CONFIGURATION.lstrip("/")
    path.write_text(path.read_text() + SIGNED)
    host.run("systemctl", "reload", "repowatch")
    wait_until(lambda: other.curl(host, f"{URL}/signed/").endswith("200\n"))
    assert other.upload(host, make_rpm(tmp_path, "by-nobody"), "signed") == "422"
    assert other.upload(host, good, "signed") == "201"


def test_root_operates_it_without_a_password_and_nobody_else_does(host: Machine) -> None:
    assert host.run("repowatch", "snapshot", "rpm", "now").startswith("now: keeps revision ")
    assert (
        host.run("repowatch", "rollback", "rpm", "now", "--dry-run")
        == "now: the repository is as it was then; nothing was done\n"
    )
    assert host.run("repowatch", "prune", "--dry-run") == "signed: 0 would go, 0 B\n"
    assert "\n  snapshots: 1, the last now of " in host.run("repowatch", "status")
    nobody = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups")
    for command in (("status",), ("snapshot", "rpm", "then"), ("prune", "--dry-run")):
        refused = host.run(*nobody, "repowatch", *command, check=False)
        assert "unix:/run/repowatch/control is not for this account; ask as root" in refused
    assert "now" in host.run("repowatch", "snapshots", "rpm")
    assert host.run("repowatch", "snapshot", "rpm", "now", "--delete") == "now: deleted\n"


def test_logs_that_were_rotated_go_on_in_a_new_file(host: Machine, other: Other, tmp_path: Path) -> None:
    host.run("logrotate", "--force", "/etc/logrotate.d/repowatch")
    access_log = host.root / "var/log/repowatch/access.log"
    wait_until(lambda: answers(host, other) and access_log.stat().st_size)
    assert host.run("repowatch", "who", "after-reload").split()[1] == "anna"


def test_a_path_that_the_unit_may_not_write_is_told_with_the_drop_in(host: Machine, other: Other) -> None:
    path = host.root / CONFIGURATION.lstrip("/")
    text = path.read_text()
    host.run("install", "-d", "-o", "repowatch", "/srv/elsewhere")
    path.write_text(text + "  elsewhere:\n    path: /srv/elsewhere\n")
    host.run("systemctl", "restart", "repowatch", check=False)
    assert "ReadWritePaths=/srv/elsewhere" in host.journal()
    drop_in(host, "[Service]\nReadWritePaths=/srv/elsewhere\n")
    host.run("systemctl", "reset-failed", "repowatch")
    host.run("systemctl", "restart", "repowatch")
    assert answers(host, other)
    path.write_text(text)
    drop_in(host, "")
    host.run("systemctl", "restart", "repowatch")


def test_a_stop_under_load_loses_nothing_that_was_answered(
    host: Machine, other: Other, tmp_path: Path
) -> None:
    packages = [make_rpm(tmp_path, f"load{number}") for number in range(40)]
    uploads = (
        f"curl -s -o /dev/null -w '%{{http_code}} {package.name}\\n' --cacert {other.authority} "
        f"--user 'anna:{PASSWORD}' -T {package} {URL}/rpm/"
        for package in packages
    )
    command = ("nsenter", f"--target={host.leader}", "--net", "sh", "-c", "\n".join(uploads))
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout
        answered = [client.stdout.readline() for _ in range(3)]
        host.run("systemctl", "stop", "repowatch")
        answered += client.stdout.readlines()
    assert host.show("Result") == "success"
    taken = [line.split()[1] for line in answered if line.startswith("201")]
    assert 3 <= len(taken) < 40
    for name in taken:
        assert (host.root / REPOSITORY / name).read_bytes() == (tmp_path / name).read_bytes()
    host.run("systemctl", "start", "repowatch")
    assert host.run("repowatch", "verify", f"/{REPOSITORY}").startswith("the metadata is what the tree says")


def test_an_upgrade_under_the_socket_unit_fails_no_download(
    host: Machine, other: Other, packages: Packages
) -> None:
    drop_in(host, f"[Socket]\nListenStream=\nListenStream={ADDRESS}:8443\n", "repowatch.socket")
    host.run("systemctl", "stop", "repowatch")
    host.run("systemctl", "enable", "--now", "repowatch.socket")
    host.run("systemctl", "start", "repowatch")
    before = host.show("MainPID")
    loop = (
        f"while [ ! -e {other.directory}/enough ]; do curl -s -o /dev/null -w '%{{http_code}}\\n' "
        f"--cacert {other.authority} {URL}/rpm/repodata/repomd.xml; done"
    )
    command = ("nsenter", f"--target={host.leader}", "--net", "sh", "-c", loop)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout
        try:
            assert client.stdout.readline() == "200\n"
            dnf(host, "upgrade", f"/root/{packages.newer.name}")
            wait_until(lambda: host.show("MainPID") not in ("0", before) and answers(host, other), READY)
        finally:
            (other.directory / "enough").touch()
        assert set(client.stdout.readlines()) == {"200\n"}
    assert host.run("rpm", "-q", "repowatch").strip() == packages.newer.name.removesuffix(".rpm")
    assert f"public_url: {URL}" in (host.root / CONFIGURATION.lstrip("/")).read_text()


def test_a_downgrade_reads_what_the_newer_one_left(host: Machine, other: Other, packages: Packages) -> None:
    listed = other.curl(host, f"{URL}/rpm/repodata/repomd.xml")
    dnf(host, "downgrade", f"/root/{packages.binary.name}")
    wait_until(lambda: answers(host, other), READY)
    assert other.curl(host, f"{URL}/rpm/repodata/repomd.xml") == listed


def test_power_is_lost_and_what_was_answered_is_there(
    host: Machine, other: Other, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    package = make_rpm(tmp_path, "before-the-cut")
    host.run("sync")  # what dnf and the administrator wrote is older
    assert other.upload(host, package) == "201"
    directory = tmp_path_factory.mktemp("cut")
    host.cut_power(directory / "disk.img")
    with booted(directory / "disk.img", directory, name="again") as again:
        wait_until(lambda: answers(again, other), READY)
        root = other.install(again, "before-the-cut")
        assert (root / "usr/share/doc/before-the-cut/README").exists()
        print(again.journal())


def test_an_erased_package_leaves_what_was_changed_and_nothing_else(host: Machine) -> None:
    dnf(host, "remove", "repowatch")
    assert host.show("ActiveState") == "inactive"
    assert host.show("ActiveState", "repowatch.socket") == "inactive"
    assert not (host.root / "usr/lib/repowatch").exists()
    assert not (host.root / "usr/lib/systemd/system/repowatch.service").exists()
    assert not list((host.root / "etc/systemd/system").rglob("repowatch.s*e"))
    left = {each.name for each in (host.root / "etc/repowatch").iterdir()}
    assert left == {"repowatch.yaml.rpmsave", "users.rpmsave", "tls"}
    assert (host.root / REPOSITORY / "from-outside-1.0-1.noarch.rpm").exists()
    assert (host.root / KEYRING.lstrip("/") / "pubring.kbx").exists()
