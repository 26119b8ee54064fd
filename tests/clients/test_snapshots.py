"""Snapshots and rollback as dnf, zypper, curl and the commands meet them, on real sequences of versions."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from repowatch.model.repomd import parse
from tests.clients.conftest import run
from tests.clients.curl import curl
from tests.clients.test_dnf import Dnf
from tests.kit.daemon import COMMAND, Daemon, wait_until
from tests.kit.keyrings import Keyring
from tests.kit.rpms import make_rpm
from tests.kit.users import basic, write_users
from tests.kit.views import over_http, read_view

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can install into a root of its own")

OLD = ("1.0~rc1", "1.0")  # what the snapshot has
NEW = ("1.0^git2", "1.9", "1.10")  # what comes later, each newer than the one before it


@dataclass(frozen=True, slots=True)
class Place:
    """A repository with the old versions of a tool, and a snapshot of them called stable."""

    daemon: Daemon
    scratch: Path

    @property
    def root(self) -> Path:
        return self.scratch / "rpm"

    @property
    def revision(self) -> int:
        return int(self.daemon.repository("rpm")["revision"])

    def put(self, *versions: str, name: str = "tool") -> list[Path]:
        made = [
            make_rpm(
                self.scratch / "made", name, each, files={f"/usr/share/doc/{name}/README": each.encode()}
            )
            for each in versions
        ]
        for package in made:
            assert self.daemon.put(f"/rpm/{package.name}", package).status in (201, 204)
        return made

    def command(self, *arguments: str, check: bool = True) -> str:
        return run(*COMMAND, *arguments, "--url", self.daemon.url, check=check)

    def dnf(self, name: str, *, of: str) -> Dnf:
        """A dnf of its own; knows what /NAME.repo says."""
        scratch = self.scratch / f"dnf-{name}"
        (scratch / "repos").mkdir(parents=True)
        (scratch / "dnf.conf").write_text("[main]\n")
        (scratch / "repos" / "rpm.repo").write_bytes(self.daemon.get(f"/{of}.repo").body)
        return Dnf(scratch, (f"--setopt=reposdir={scratch}/repos",))

    def files(self) -> set[str]:
        return {path.name for path in self.root.glob("*.rpm")}


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    (tmp_path / "rpm").mkdir()
    with Daemon(tmp_path / "rpm", scratch=tmp_path / "scratch") as daemon:
        place = Place(daemon, tmp_path)
        place.put(*OLD)
        assert "keeps revision" in place.command("snapshot", "rpm", "stable")
        yield place


def tools(*versions: str) -> set[str]:
    return {f"tool-{each}-1.noarch" for each in versions}


@as_root
@pytest.mark.client("dnf")
def test_dnf_installs_from_a_snapshot_what_left_the_tree(place: Place) -> None:
    place.put(*NEW)
    for number, version in enumerate(OLD):
        path = place.root / f"tool-{version}-1.noarch.rpm"
        if number:
            assert place.daemon.request("DELETE", f"/rpm/{path.name}").status == 204
        else:
            path.unlink()
    wait_until(lambda: place.daemon.repository("rpm")["packages"] == len(NEW))
    now, then = place.dnf("now", of="rpm"), place.dnf("then", of="rpm@stable")
    assert (now.available(), then.available()) == (tools(*NEW), tools(*OLD))
    readme = then.root / "usr/share/doc/tool/README"
    then("install", "tool-1.0~rc1")
    assert readme.read_bytes() == b"1.0~rc1"
    then("upgrade", "tool")
    assert readme.read_bytes() == b"1.0"


@as_root
@pytest.mark.client("dnf")
def test_dnf_sees_the_old_versions_again_after_a_rollback(place: Place) -> None:
    place.put(*NEW)
    (place.root / "tool-1.0-1.noarch.rpm").unlink()
    wait_until(lambda: place.daemon.repository("rpm")["packages"] == 4)
    dnf, before = place.dnf("now", of="rpm"), place.revision
    assert dnf.available() == tools(OLD[0], *NEW)
    told = place.command("rollback", "rpm", "stable", "--dry-run")
    assert told.splitlines() == [
        "+ tool-1.0-1.noarch.rpm",
        *(f"- tool-{each}-1.noarch.rpm" for each in sorted(NEW)),
        "stable: 4 changes; nothing was done",
    ]
    assert place.revision == before
    assert "published in revision" in place.command("rollback", "rpm", "stable", "--keep", "newer")
    assert place.revision > before
    assert dnf.available() == tools(*OLD)  # the same cache, with metadata that was newer than the snapshot
    assert place.files() == {f"{each}.rpm" for each in tools(*OLD)}
    # Who still has yesterday's metadata gets its packages.
    assert place.daemon.get(f"/rpm/tool-{NEW[-1]}-1.noarch.rpm").status == 200
    place.command("rollback", "rpm", "newer")
    assert dnf.available() == tools(OLD[0], *NEW)
    dnf("install", "tool")
    assert (dnf.root / "usr/share/doc/tool/README").read_bytes() == b"1.10"


@as_root
@pytest.mark.client("zypper")
def test_zypper_installs_from_a_snapshot(place: Place) -> None:
    place.put(*NEW)
    root = place.scratch / "root"
    zypper = ("zypper", "--root", root, "--no-gpg-checks", "--non-interactive")
    run(*zypper, "addrepo", f"{place.daemon.url}rpm@stable.repo")
    run(*zypper, "install", "tool")
    assert (root / "usr/share/doc/tool/README").read_bytes() == b"1.0"


@as_root
@pytest.mark.client("dnf")
@pytest.mark.client("gpg")
def test_a_snapshot_of_a_signed_repository_is_signed(tmp_path: Path) -> None:
    with Keyring() as keyring:
        key = keyring.make_key("Repository <repo@example.org>")
        (tmp_path / "rpm").mkdir()
        configuration = (
            f"sign: {{keys: [{key}], keyring: {keyring.home}}}\n"
            f"repositories:\n  rpm: {{path: {tmp_path}/rpm}}\n"
        )
        with Daemon(scratch=tmp_path / "scratch", configuration=configuration) as daemon:
            place = Place(daemon, tmp_path)
            place.put(*OLD)
            place.command("snapshot", "rpm", "stable")
            place.put(*NEW)
            repo = daemon.get("/rpm@stable.repo").text
            assert "repo_gpgcheck=1" in repo and f"rpm@stable/repodata/{key}.key" in repo.replace("%40", "@")
            repomd, signature = (
                daemon.get(f"/rpm@stable/repodata/repomd.xml{end}").body for end in ("", ".asc")
            )
            assert keyring.good(repomd, signature) == [key]
            dnf = place.dnf("then", of="rpm@stable")
            assert dnf.available() == tools(*OLD)


def test_uploads_that_come_during_rollbacks_are_all_kept(place: Place) -> None:
    made = [make_rpm(place.scratch / "many", f"p{number}") for number in range(30)]

    def upload(package: Path) -> int:
        return place.daemon.put(f"/rpm/{package.name}", package).status

    with ThreadPoolExecutor(3) as pool:
        uploads = [pool.submit(upload, package) for package in made]
        for _ in range(5):
            place.command("rollback", "rpm", "stable")
            view = read_view(over_http(place.daemon.repository_url("rpm")))
            assert {f"{each}.rpm" for each in tools(*OLD)} <= view.packages.keys()
        assert {each.result() for each in uploads} == {201}
    # What a rollback undid is still served; what came after it is in the tree.
    for package in made:
        assert place.daemon.get(f"/rpm/{package.name}").body == package.read_bytes()
    place.command("rollback", "rpm", "stable")
    assert place.files() == {f"{each}.rpm" for each in tools(*OLD)}


def test_records_of_groups_travel_along(place: Place) -> None:
    comps = b"<comps><group><id>g</id><name>Tools</name></group></comps>"
    assert place.daemon.put("/rpm/comps.xml", comps).status == 201

    def types(of: str) -> set[str]:
        return {each.type for each in parse(place.daemon.get(f"/{of}/repodata/repomd.xml").body).records}

    wait_until(lambda: "group" in types("rpm"))
    place.command("snapshot", "rpm", "grouped")
    assert place.daemon.request("DELETE", "/rpm/comps.xml").status == 204
    wait_until(lambda: "group" not in types("rpm"))
    assert {"group", "group_gz"} <= types("rpm@grouped")
    for record in parse(place.daemon.get("/rpm@grouped/repodata/repomd.xml").body).records:
        content = place.daemon.get(f"/rpm@grouped/{record.location_href}").body
        assert hashlib.new(record.checksum_type, content).hexdigest() == record.checksum


def test_curl_reads_a_snapshot_and_can_not_write_it(place: Place, tmp_path: Path) -> None:
    package = tmp_path / "made" / "tool-1.0-1.noarch.rpm"
    url = f"{place.daemon.url}rpm@stable/"
    (place.root / package.name).unlink()
    assert curl(url + package.name).body == package.read_bytes()
    head = place.daemon.request("HEAD", f"/rpm@stable/{package.name}")
    part = place.daemon.get(f"/rpm@stable/{package.name}", headers={"Range": "bytes=10-19"})
    assert (part.status, part.body) == (206, package.read_bytes()[10:20])
    same = place.daemon.get(f"/rpm@stable/{package.name}", headers={"If-None-Match": head.headers["ETag"]})
    assert same.status == 304
    assert package.name in curl(url).body.decode()
    repomd = parse(place.daemon.get("/rpm@stable/repodata/repomd.xml").body)
    for record in repomd.records:
        answer = place.daemon.get(f"/rpm@stable/{record.location_href}")
        assert (answer.status, len(answer.body)) == (200, record.size)
        assert "immutable" in answer.headers["Cache-Control"]
    for method in ("PUT", "DELETE", "MKCOL", "PROPFIND", "LOCK", "MOVE", "COPY", "PATCH", "POST"):
        assert place.daemon.request(method, f"/rpm@stable/{package.name}", b"x").status == 405, method
    for path in ("/rpm@nothing/", "/rpm@stable/nothing", "/rpm@stable/.repowatch", "/rpm@nothing.repo"):
        assert place.daemon.get(path).status == 404, path


def test_commands_tell_what_they_did_and_why_not(place: Place) -> None:
    place.put("2")
    path = place.root / "tool-1.0-1.noarch.rpm"
    assert "there is a snapshot stable already" in place.command("snapshot", "rpm", "stable", check=False)
    assert "can not be the name" in place.command("snapshot", "rpm", "a/b", check=False)
    assert "there is stable" in place.command("rollback", "rpm", "other", check=False)
    for command in (("snapshot", "nope", "one"), ("snapshots", "nope")):
        assert "has no repository nope" in place.command(*command, check=False)
    listed = place.command("snapshots", "rpm")
    assert listed.startswith("stable  20") and "2 packages" in listed
    # Written over in place, as cp and scp do: told, refused, and nothing changed by that.
    path.write_bytes(make_rpm(place.scratch / "other", "tool", "1.0", summary="other").read_bytes())
    assert f"lost: {path.name}" in place.command("snapshots", "rpm", check=False)
    refused = place.command("rollback", "rpm", "stable", check=False)
    assert path.name in refused and "can not come back" in refused
    assert place.daemon.get(f"/rpm@stable/{path.name}").status == 410
    assert len(place.files()) == 3
    assert "snapshots: 1, the last stable of " in place.command("status")
    page = place.daemon.get("/-/rpm").text
    assert '<a href="/rpm%40stable/">stable</a>' in page
    metrics = place.daemon.get("/metrics").text
    assert 'repowatch_snapshots{repository="rpm"} 1.0' in metrics
    assert place.command("snapshot", "rpm", "stable", "--delete") == "stable: deleted\n"
    assert place.command("snapshots", "rpm") == ""
    assert place.daemon.get("/rpm@stable/").status == 404


def test_a_snapshot_and_a_rollback_need_the_rights_of_the_repository(tmp_path: Path) -> None:
    users = {name: f"secret-of-{name}" for name in ("anna", "ci", "eve")}
    write_users(tmp_path / "users", users)
    (tmp_path / "rpm").mkdir()
    make_rpm(tmp_path / "rpm", "tool")
    configuration = (
        f"users: {tmp_path}/users\naudit: {tmp_path}/audit\n"
        "accounts:\n  ci: {names: ['*.rpm']}\n"
        f"repositories:\n  rpm: {{path: {tmp_path}/rpm, read: [anna, ci], write: [anna, ci]}}\n"
    )
    anna, ci, eve = (basic(name, secret) for name, secret in users.items())
    with Daemon(scratch=tmp_path / "scratch", configuration=configuration) as daemon:

        def post(operation: str, who: dict[str, str], **arguments: object) -> int:
            body = json.dumps(arguments).encode()
            return daemon.request("POST", f"/-/api/v1/rpm/{operation}", body, headers=who).status

        for operation in ("snapshot", "rollback"):
            assert post(operation, {}, name="one") == 401
            assert post(operation, eve, name="one") == 403
            assert post(operation, ci, name="one") == 403
        assert post("snapshot", anna, name="one") == 200
        assert [daemon.get("/rpm@one/", headers=who).status for who in (anna, ci, eve, {})] == [
            200,
            200,
            403,
            401,
        ]
        assert post("rollback", anna, name="one") == 200
    assert '"snapshot"' in (tmp_path / "audit").read_text()
    assert "anna" in (tmp_path / "audit").read_text()
