"""An operator's day with everything on at once: a signed family of repositories, its rules, and real clients."""

from __future__ import annotations

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
"""

ARCH = os.uname().machine
MEMBER, URL = f"el9-{ARCH}", f"/el9/{ARCH}/"


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
        for root in (self.root, self.scratch / "stable"):
            done = repowatch("verify", root, "--config", self.configuration)
            assert done.returncode == 0, done.stdout + done.stderr

    def listed(self, name: str = URL) -> set[str]:
        return {each.removesuffix("-1.noarch.rpm") for each in locations(self.daemon, name.strip("/"))}


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


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with Keyring() as keyring:
        signer = Signer(keyring)
        for name in ("old", "new", "packages", "stranger"):
            signer.make_key(name)
        signer.export(tmp_path, "packages")
        write_users(tmp_path / "users", dict.fromkeys(("anna", "ci", "ben"), "secret"))
        (tmp_path / "stable").mkdir()
        (tmp_path / "srv").mkdir()
        house = House(tmp_path, signer, Daemon(scratch=tmp_path, configuration=""))
        house.configure("old")
        with house.daemon:
            yield house


def test_a_day_with_everything_on(house: House, tmp_path: Path) -> None:
    # A repository, and a batch by the account that may do no more than that.
    assert house.curl("ci", URL, "-X", "MKCOL").status == 403
    assert house.curl("anna", URL, "-X", "MKCOL").status == 201
    for package in (house.package("pump", "1.0"), house.package("pump", "1.0~rc1"), house.package("hose", "1.0")):
        assert house.put("ci", package, "Repowatch-Batch: first").status == 202
    stranger = house.put("ci", house.package("odd", "1", key="stranger"), "Repowatch-Batch: first")
    assert (stranger.status, "does not name" in stranger.text) == (422, True)
    assert house.post("ben", f"{MEMBER}/commit", batch="first").status == 403
    assert house.listed() == set()
    assert house.post("ci", f"{MEMBER}/commit", batch="first").status == 200
    assert house.listed() == {"pump-1.0", "pump-1.0~rc1", "hose-1.0"}
    text = house.daemon.get(f"/{MEMBER}.repo").text
    assert "gpgcheck=1\nrepo_gpgcheck=1\n" in text
    host = Host.made(tmp_path / "host", text)
    host.dnf("install", "pump-1.0", "hose")
    assert host.readme("pump") == "1.0 1"

    # A snapshot; what the account may not; newer ones, and a newer build.
    assert house.post("ci", f"{MEMBER}/snapshot", name="morning").status == 403
    assert "3 packages" in house.command("snapshot", MEMBER, "morning")
    assert house.put("ci", house.package("pump", "2.0")).status == 201
    rebuilt = house.package("hose", "1.0", build=2)
    assert house.curl("ci", f"{URL}rebuilt/", "-T", rebuilt).status in (201, 409)
    if not (house.root / "rebuilt").is_dir():
        assert house.curl("anna", f"{URL}rebuilt/", "-X", "MKCOL").status == 201
        assert house.curl("ci", f"{URL}rebuilt/", "-T", rebuilt).status == 201
    assert "hose-1.0-1.noarch.rpm" in house.daemon.rejected(MEMBER)
    then = Host.made(tmp_path / "then", house.daemon.get(f"/{MEMBER}@morning.repo").text)
    then.dnf("install", "pump", "hose")
    assert (then.readme("pump"), then.readme("hose")) == ("1.0 1", "1.0 1")

    # Promotion into a repository with another checksum, profile and policy; and once more.
    promoted = json.loads(house.post("anna", "stable/promote", **{"from": MEMBER, "packages": ["*"], "newest": True}).body)
    print(promoted)
    assert house.post("ci", "stable/promote", **{"from": MEMBER, "packages": ["pump"]}).status == 403
    stable = Host.made(tmp_path / "stable-host", house.daemon.get("/stable.repo").text)
    stable.dnf("install", "pump", "hose")
    assert (stable.readme("pump"), stable.readme("hose")) == ("2.0 1", "1.0 2")
    again = house.post("anna", "stable/promote", **{"from": MEMBER, "packages": ["*"], "newest": True})
    assert again.status == 200, again.text
    assert json.loads(again.body)["locations"] == []

    # Advisories and groups, by PUT and in a snapshot.
    assert house.curl("anna", f"{URL}advisories/", "-X", "MKCOL").status == 201
    (tmp_path / "fix.yaml").write_text(ADVISORY)
    (tmp_path / "comps.xml").write_text(COMPS.replace("wrench", "hose"))
    assert house.curl("ci", f"{URL}advisories/fix.yaml", "-T", tmp_path / "fix.yaml").status == 403
    assert house.curl("anna", f"{URL}advisories/fix.yaml", "-T", tmp_path / "fix.yaml").status == 201
    assert house.curl("anna", f"{URL}comps.xml", "-T", tmp_path / "comps.xml").status == 201
    assert "FIX-2026-1" in host.dnf("updateinfo", "list")
    assert "Field Tools" in host.dnf("group", "list")
    house.verify()

    # What is pruned is still there for who knows it by yesterday's metadata.
    host.dnf("makecache")
    told = house.command("prune", "--dry-run", "--repository", MEMBER)
    print(told)
    wait_until(lambda: "pump-1.0~rc1" not in house.listed(), 90)
    assert house.daemon.get(f"{URL}pump-1.0~rc1-1.noarch.rpm").status == 200
    host.dnf("--setopt=*.metadata_expire=-1", "downgrade", "pump-1.0~rc1", refresh=False)
    assert host.readme("pump") == "1.0~rc1 1"
    # A directory in the place of a retired package.
    # Back to the morning.
    house.command("snapshot", MEMBER, "noon")
    print(house.command("rollback", MEMBER, "morning", "--keep", "before"))
    assert house.listed() >= {"pump-1.0", "hose-1.0"}
    house.verify()
    print(house.listed(), house.daemon.rejected(MEMBER))
    host.dnf("distro-sync")
