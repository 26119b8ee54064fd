"""An operator's day with everything on at once: a signed family of repositories, and real clients."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.clients.conftest import run
from tests.clients.curl import curl
from tests.clients.test_groups import ADVISORY, COMPS
from tests.kit.daemon import Answer, Daemon, repowatch, wait_until
from tests.kit.keyrings import Keyring
from tests.kit.metadata import locations
from tests.kit.rpms import make_rpm
from tests.kit.signers import Signer
from tests.kit.users import write_users

pytestmark = [
    pytest.mark.client("curl", "dnf", "gpg", "gpgv", "rpm", "rpmsign"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can install into a root of its own"),
]

CONFIGURATION = """
users: {scratch}/users
control: {scratch}/control
audit: {scratch}/audit
sign: {{keys: {keys}, keyring: {keyring}}}
trusted_proxies: []
accounts:
  ci: {{repositories: ["el{{1}}-{{2}}"], names: ["*.rpm"], delete: false}}
repositories:
  "el{{1}}-{{2}}":
    path: "{scratch}/srv/el*/*"
    url: "/el{{1}}/{{2}}/"
    packages: {{signed_by: [{signed_by}]}}
    same_nevra: newest_build
    checksum: sha512
    prune: [{{match: "pump-*", keep: {keep}}}]
    grace: 1h
    settle: 0.05s
    write: [anna, ci]
  stable:
    path: {scratch}/stable
    packages: {{signed_by: [{signed_by}]}}
    profile: modern
    replace: deny
    write: [anna]
  loose: {{path: {scratch}/loose, write: [anna]}}
"""

ARCH = os.uname().machine
MEMBER, URL = f"el9-{ARCH}", f"/el9/{ARCH}/"


@dataclass(frozen=True, slots=True)
class Host:
    """A machine that has a `.repo` file of the daemon, and checks everything."""

    scratch: Path

    @classmethod
    def made(cls, scratch: Path, repo_text: str) -> Host:
        (scratch / "repos").mkdir(parents=True)
        (scratch / "repos" / "all.repo").write_text(repo_text)
        (scratch / "dnf.conf").write_text("[main]\ngpgcheck=1\nlocalpkg_gpgcheck=1\n")
        return cls(scratch)

    def dnf(self, *arguments: str, refresh: bool = True) -> str:
        return run(
            *("dnf", "--assumeyes", "--releasever=9", f"--config={self.scratch}/dnf.conf"),
            *(f"--installroot={self.scratch}/root", f"--setopt=cachedir={self.scratch}/cache"),
            *(f"--setopt=reposdir={self.scratch}/repos", *(["--refresh"] if refresh else [])),
            *arguments,
        )

    def readme(self, name: str) -> str:
        return (self.scratch / "root/usr/share/doc" / name / "README").read_text()


@dataclass(frozen=True, slots=True)
class House:
    """The daemon, its keys, and what the operator types."""

    scratch: Path
    signer: Signer
    daemon: Daemon

    @property
    def root(self) -> Path:
        return self.scratch / "srv" / "el9" / ARCH

    @property
    def configuration(self) -> Path:
        return self.scratch / "repowatch.yaml"

    def configure(self, *keys: str, keep: int = 2) -> None:
        """Write the configuration: the names of the keys that sign the metadata, and the rule."""
        text = CONFIGURATION.format(
            scratch=self.scratch,
            keys=json.dumps([self.signer.fingerprints[each] for each in keys]),
            keyring=self.signer.keyring.home,
            signed_by=self.scratch / "packages.asc",
            keep=keep,
        )
        self.configuration.write_text(text)

    def package(self, name: str, version: str, *, key: str = "packages", build: int = 1) -> Path:
        """A signed package, whose README tells version and build."""
        content = f"{version} {build}".encode()
        path = make_rpm(
            self.scratch / "made" / str(build),
            name,
            version,
            files={f"/usr/share/doc/{name}/README": content},
            build_time=1_700_000_000 + build,
        )
        return self.signer.sign(path, key)

    def curl(self, user: str, path: str, *arguments: str | Path) -> Answer:
        return curl("--user", f"{user}:secret", *arguments, self.daemon.url + path.lstrip("/"))

    def put(self, user: str, package: Path, *fields: str, to: str = URL) -> Answer:
        return self.curl(user, to, "-T", package, *(part for each in fields for part in ("-H", each)))

    def post(self, user: str, path: str, **arguments: Any) -> Answer:
        return self.curl(user, f"/-/api/v1/{path}", "--data", json.dumps(arguments))

    def command(self, *arguments: str) -> str:
        """What a command of repowatch prints, which asks by the control socket. Raises AssertionError."""
        done = repowatch(*arguments, "--config", self.configuration)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def verify(self) -> None:
        for root in (self.root, self.scratch / "stable", self.scratch / "loose"):
            done = repowatch("verify", root, "--config", self.configuration)
            assert done.returncode == 0, done.stdout + done.stderr

    def host(self, name: str, repository: str) -> Host:
        """A machine with the `.repo` file of a repository."""
        text = self.daemon.get(f"/{repository}.repo").text
        assert "gpgcheck=1\nrepo_gpgcheck=1\n" in text
        return Host.made(self.scratch / "hosts" / name, text)

    def signers(self, name: str) -> list[str]:
        """By whose keys the metadata is signed that clients see."""
        url = self.daemon.repository(name)["url"]
        files = [self.daemon.get(f"{url}repodata/repomd.xml{end}").body for end in ("", ".asc")]
        return list(dict.fromkeys(self.signer.keyring.good(*files)))

    def listed(self, name: str = URL) -> set[str]:
        return {each.removesuffix("-1.noarch.rpm") for each in locations(self.daemon, name.strip("/"))}


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with Keyring() as keyring:
        signer = Signer(keyring)
        for name in ("old", "new", "packages", "stranger"):
            signer.make_key(name)
        signer.export(tmp_path, "packages")
        write_users(tmp_path / "users", dict.fromkeys(("anna", "ci", "ben"), "secret"))
        for name in ("srv", "stable", "loose"):
            (tmp_path / name).mkdir()
        house = House(tmp_path, signer, Daemon(scratch=tmp_path, configuration=""))
        house.configure("old")
        with house.daemon:
            yield house


def test_a_day_with_everything_on(house: House) -> None:
    host = a_repository_and_its_first_host(house)
    a_snapshot_and_what_came_after_it(house)
    promotion_to_other_rules(house)
    groups_and_advisories(house, host)
    pruning(house, host)
    back_to_the_morning(house, host)
    another_rule_and_another_key(house, host)
    a_kill_at_any_moment(house)
    what_is_told(house)
    a_directory_that_goes(house)


def a_repository_and_its_first_host(house: House) -> Host:
    """MKCOL, and a batch by an account that may do little more."""
    assert house.curl("ci", URL, "-X", "MKCOL").status == 403
    assert house.curl("anna", URL, "-X", "MKCOL").status == 201
    for name, version in (("pump", "1.0"), ("pump", "1.0~rc1"), ("hose", "1.0")):
        assert house.put("ci", house.package(name, version), "Repowatch-Batch: first").status == 202
    stranger = house.put("ci", house.package("odd", "1", key="stranger"), "Repowatch-Batch: first")
    assert (stranger.status, "does not name" in stranger.text) == (422, True)
    assert house.post("ben", f"{MEMBER}/commit", batch="first").status == 403
    assert house.listed() == set()
    assert house.post("ci", f"{MEMBER}/commit", batch="first").status == 200
    assert house.listed() == {"pump-1.0", "pump-1.0~rc1", "hose-1.0"}
    host = house.host("first", MEMBER)
    host.dnf("install", "pump-1.0", "hose")
    assert host.readme("pump") == "1.0 1"
    return host


def a_snapshot_and_what_came_after_it(house: House) -> None:
    assert house.post("ci", f"{MEMBER}/snapshot", name="morning").status == 403
    assert "3 packages" in house.command("snapshot", MEMBER, "morning")
    assert house.put("ci", house.package("pump", "2.0")).status == 201
    assert house.curl("anna", f"{URL}rebuilt/", "-X", "MKCOL").status == 201
    assert house.put("ci", house.package("hose", "1.0", build=2), to=f"{URL}rebuilt/").status == 201
    assert "hose-1.0-1.noarch.rpm" in house.daemon.rejected(MEMBER)
    then = house.host("then", f"{MEMBER}@morning")
    then.dnf("install", "pump", "hose")
    assert (then.readme("pump"), then.readme("hose")) == ("1.0 1", "1.0 1")


def promotion_to_other_rules(house: House) -> None:
    """Into a repository with another checksum and profile, which has all of it the second time."""
    assert house.post("ci", "stable/promote", **{"from": MEMBER, "packages": ["pump"]}).status == 403
    told = [
        json.loads(house.post("anna", "stable/promote", **{"from": MEMBER, "packages": ["*"]}).body)
        for _ in range(2)
    ]
    assert len(told[0]["locations"]) == 4
    assert (told[1]["locations"], told[1]["already"]) == ([], told[0]["locations"])
    back = json.loads(
        house.post("anna", f"{MEMBER}/promote", **{"from": "stable", "packages": ["pump"]}).body
    )
    assert (back["locations"], len(back["already"])) == ([], 3)
    assert house.put("anna", make_rpm(house.scratch / "made", "bare"), to="/loose/").status == 201
    refused = house.post("anna", "stable/promote", **{"from": "loose", "packages": ["bare"]})
    assert (refused.status, "not signed" in refused.text) == (409, True)
    host = house.host("stable", "stable")
    host.dnf("install", "pump", "hose")
    assert (host.readme("pump"), host.readme("hose")) == ("2.0 1", "1.0 2")


def groups_and_advisories(house: House, host: Host) -> None:
    (house.scratch / "fix.yaml").write_text(ADVISORY)
    (house.scratch / "comps.xml").write_text(COMPS)
    assert house.curl("anna", f"{URL}advisories/", "-X", "MKCOL").status == 201
    for user, status in (("ci", 403), ("anna", 201)):
        for name in ("advisories/fix.yaml", "comps.xml"):
            file = house.scratch / os.path.basename(name)
            assert house.curl(user, URL + name, "-T", file).status == status
    assert "FIX-2026-1" in host.dnf("updateinfo", "list")
    assert "Field Tools" in host.dnf("group", "list")
    host.dnf("upgrade", "--security")
    assert (host.readme("pump"), host.readme("hose")) == ("2.0 1", "1.0 1")
    house.verify()


def pruning(house: House, host: Host) -> None:
    """What goes by a rule is still there for who has the metadata of before."""
    host.dnf("makecache")
    oldest = f"{URL}pump-1.0~rc1-1.noarch.rpm"
    if "pump-1.0~rc1" in house.listed():
        assert "pump-1.0~rc1" in house.command("prune", "--repository", MEMBER)
    wait_until(lambda: "pump-1.0~rc1" not in house.listed())
    assert house.daemon.get(oldest).status == 200
    host.dnf("--setopt=*.metadata_expire=-1", "downgrade", "pump-1.0~rc1", refresh=False)
    assert host.readme("pump") == "1.0~rc1 1"
    # A directory takes the name of the retired package, and gives it back.
    assert house.curl("anna", f"{oldest}/", "-X", "MKCOL").status == 201
    assert house.daemon.get(oldest).status == 301
    refused = house.post("anna", f"{MEMBER}/rollback", name="morning")
    assert (refused.status, "directory" in refused.text) == (409, True), refused.text
    assert house.daemon.get("/readyz").status == 200
    assert house.curl("anna", f"{oldest}/", "-X", "DELETE").status == 204
    assert house.daemon.get(oldest).status == 200


def back_to_the_morning(house: House, host: Host) -> None:
    told = house.command("rollback", MEMBER, "morning", "--keep", "noon")
    assert "- rebuilt/hose-1.0-1.noarch.rpm" in told
    assert house.listed() == {"pump-1.0", "pump-1.0~rc1", "hose-1.0"}
    assert house.daemon.get(f"{URL}pump-2.0-1.noarch.rpm").status == 200
    host.dnf("distro-sync")
    assert (host.readme("pump"), host.readme("hose")) == ("1.0 1", "1.0 1")
    assert len(house.listed(f"{URL.strip('/')}@noon")) == 3
    house.verify()


def another_rule_and_another_key(house: House, host: Host) -> None:
    for keys in (("old", "new"), ("new",)):
        house.configure(*keys, keep=1)
        house.daemon.signal(signal.SIGHUP)
        wanted = [house.signer.fingerprints[each] for each in keys]
        for name in (MEMBER, "stable"):
            wait_until(lambda name=name, wanted=wanted: house.signers(name) == wanted)  # type: ignore[misc]
        host.dnf("makecache")
    if "pump-1.0~rc1" in house.listed():
        house.command("prune", "--repository", MEMBER)
    assert house.listed() == {"pump-1.0", "hose-1.0"}
    # A snapshot has the signature and the keys of then.
    house.host("later", f"{MEMBER}@noon").dnf("install", "pump-2.0")


def a_kill_at_any_moment(house: House) -> None:
    """What was answered is there after it, in a repository that is what the tree says."""
    packages = [house.package(f"p{number}", "1") for number in range(12)]
    answered: list[str] = []

    def upload() -> None:
        for package in packages:
            with contextlib.suppress(AssertionError):  # curl: the daemon is gone
                if house.put("ci", package).status == 201:
                    answered.append(package.name.removesuffix("-1.noarch.rpm"))

    thread = threading.Thread(target=upload)
    thread.start()
    enough = random.randrange(1, 8)
    wait_until(lambda: len(answered) >= enough)
    house.daemon.kill()
    thread.join()
    house.daemon.start()
    assert {*answered, "pump-1.0", "hose-1.0"} <= house.listed()
    assert house.daemon.get(f"{URL}pump-2.0-1.noarch.rpm").status == 200
    assert len(house.listed(f"{URL.strip('/')}@noon")) == 3
    house.verify()


def what_is_told(house: House) -> None:
    status = house.daemon.repository(MEMBER)
    assert [each["name"] for each in status["snapshots"]["list"]] == ["morning", "noon"]
    assert status["pruning"]["retired"] == 3
    assert status["companions"] and status["trouble"] is None and status["rejected"] == []
    assert (status["checksum"], status["signatures"]["packages"]) == ("sha512", "signed_by")
    said = house.command("status")
    assert "snapshots: 2" in said and "retired packages are still served" in said
    page = house.daemon.get(f"/-/{MEMBER}").text
    assert "morning" in page and house.signer.fingerprints["new"] in page.replace(" ", "")
    metrics = house.daemon.get("/metrics").text
    for name, number in (("snapshots", 2), ("retired_packages", 3), ("rejected", 0)):
        assert f'repowatch_{name}{{repository="{MEMBER}"}} {number}.0' in metrics
    lines = [json.loads(line) for line in (house.scratch / "audit").read_text().splitlines()]
    methods = {(each["who"], each["method"]) for each in lines}
    assert {("anna", "MKCOL"), ("ci", "PUT"), ("ci", "commit"), ("anna", "promote")} <= methods
    assert {"snapshot", "rollback"} <= {each["method"] for each in lines}


def a_directory_that_goes(house: House) -> None:
    """With its snapshots; all others go on, and the name is free for a new one."""
    shutil.rmtree(house.root)
    wait_until(
        lambda: [each["name"] for each in house.daemon.status()["repositories"]] == ["stable", "loose"]
    )
    assert house.daemon.get(f"{URL.rstrip('/')}@noon/repodata/repomd.xml").status == 404
    assert house.curl("anna", URL, "-X", "MKCOL").status == 201
    assert house.put("ci", house.package("pump", "2.0")).status == 201
    assert house.listed() == {"pump-2.0"}
    assert house.daemon.repository(MEMBER)["snapshots"]["list"] == []
    assert house.daemon.terminate() == 0
