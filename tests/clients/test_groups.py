"""Groups, modules and advisories as dnf and zypper see them, put there by file and over HTTP."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from repowatch.model.repomd import Record, parse
from tests.clients.conftest import run
from tests.kit.clients import locate
from tests.kit.daemon import Daemon, repowatch, wait_until
from tests.kit.rpms import make_rpm

PROFILES = ("compatible", "modern")

COMPS = """\
<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE comps PUBLIC "-//Red Hat, Inc.//DTD Comps info//EN" "comps.dtd">
<comps>
  <group>
    <id>tools</id>
    <name>Field Tools</name>
    <description>What a field engineer needs</description>
    <default>true</default>
    <uservisible>true</uservisible>
    <packagelist>
      <packagereq type="mandatory">wrench</packagereq>
    </packagelist>
  </group>
</comps>
"""
MODULES = """\
---
document: modulemd
version: 2
data:
  name: workshop
  stream: "1.10"
  version: 20261128
  context: 9edba152
  arch: noarch
  summary: A workshop
  description: >-
    With a bench.
  license:
    module: [MIT]
  profiles:
    default:
      rpms: [bench]
  artifacts:
    rpms:
    - bench-0:1.0-1.noarch
...
---
document: modulemd-defaults
version: 1
data:
  module: workshop
  stream: "1.10"
  profiles:
    "1.10": [default]
...
"""
ADVISORY = """\
id: FIX-2026-1
type: security
severity: Important
title: "pump: does not burst"
issued: 2026-11-28
description: |
  A pump could burst.
references: [CVE-2026-12345]
packages: [pump-2.0-1.noarch]
"""
UPDATEINFO = """\
<?xml version="1.0"?>
<updates>
  <update from="example" status="final" type="bugfix" version="1">
    <id>BUG-2026-7</id>
    <title>hose: does not leak</title>
    <issued date="2026-11-27 10:00:00"/>
    <description>It leaked.</description>
    <pkglist><collection short="x"><name>x</name>
      <package name="hose" version="2.0" release="1" epoch="0" arch="noarch">
        <filename>hose-2.0-1.noarch.rpm</filename>
      </package>
    </collection></pkglist>
  </update>
</updates>
"""

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can install into a root of its own")


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A repository of each profile, with what dnf and zypper are to see."""
    scratch = tmp_path_factory.mktemp("groups")
    lines = ["repositories:"]
    for profile in PROFILES:
        tree = scratch / profile
        for name in ("wrench", "bench"):
            make_rpm(tree, name)
        for name in ("pump", "hose"):
            for version in ("1.0", "2.0"):
                make_rpm(tree, name, version)
        lines.append(f"  {profile}: {{path: {tree}, profile: {profile}, metadata: {{productid: meta/id}}}}")
    with Daemon(scratch=scratch, configuration="\n".join(lines) + "\n") as daemon:
        for profile in PROFILES:
            for name, text in (
                ("comps.xml", COMPS),
                ("modules.yaml", MODULES),
                ("updateinfo.xml", UPDATEINFO),
            ):
                assert daemon.put(f"/{profile}/{name}", text.encode()).status == 201
            (scratch / profile / "advisories").mkdir()
            (scratch / profile / "advisories" / "1.yaml").write_text(ADVISORY)
            (scratch / profile / "meta").mkdir()
            (scratch / profile / "meta" / "id").write_bytes(b"a certificate")
        wait_until(lambda: all({"updateinfo", "productid"} <= set(records(daemon, p)) for p in PROFILES))
        wait_until(lambda: all(len(daemon.repository(p)["companions"]) == 5 for p in PROFILES))
        yield daemon


def records(daemon: Daemon, name: str) -> dict[str, Record]:
    """The records of a repository by type; each has its file."""
    found = parse(daemon.get(f"/{name}/repodata/repomd.xml").body).records
    for record in found:
        assert len(daemon.get(f"/{name}/{record.location_href}").body) == record.size
    return {record.type: record for record in found}


@dataclass(frozen=True, slots=True)
class Dnf:
    """dnf on a machine that does not exist, with one repository."""

    scratch: Path
    url: str

    def __call__(self, *arguments: str, check: bool = True) -> str:
        return run(
            *("dnf", "--assumeyes", "--releasever=9", "--nogpgcheck", "--refresh"),
            *("--setopt=module_platform_id=platform:el9", "--setopt=reposdir=/nonexistent"),
            *(f"--config={self.scratch}/dnf.conf", f"--installroot={self.scratch}/root"),
            *(f"--setopt=cachedir={self.scratch}/cache", f"--repofrompath=r,{self.url}"),
            *arguments,
            check=check,
        )

    def has(self, name: str, content: str = "hello") -> bool:
        path = self.scratch / "root/usr/share/doc" / name / "README"
        return path.exists() and path.read_text().strip() == content


@pytest.fixture(params=PROFILES)
def profile(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def dnf(daemon: Daemon, profile: str, tmp_path: Path) -> Dnf:
    (tmp_path / "dnf.conf").write_text("[main]\n")
    return Dnf(tmp_path, daemon.repository_url(profile))


@as_root
@pytest.mark.client("dnf")
def test_dnf_lists_and_installs_a_group(dnf: Dnf) -> None:
    assert "Field Tools" in dnf("group", "list")
    dnf("group", "install", "tools")
    assert dnf.has("wrench")


@as_root
@pytest.mark.client("dnf")
def test_dnf_lists_a_module_and_installs_its_profile(dnf: Dnf) -> None:
    listed = dnf("module", "list")
    assert "workshop" in listed and "1.10 [d]" in listed
    dnf("module", "install", "workshop:1.10/default")
    assert dnf.has("bench")


@as_root
@pytest.mark.client("dnf")
def test_dnf_updates_just_what_an_advisory_calls_a_security_fix(dnf: Dnf) -> None:
    dnf("install", "pump-1.0", "hose-1.0")
    listed = dnf("updateinfo", "list")
    assert "FIX-2026-1" in listed and "Important/Sec." in listed and "BUG-2026-7" in listed
    told = dnf("updateinfo", "info", "FIX-2026-1")
    assert "CVE-2026-12345" in told and "2026-11-28 00:00:00" in told and "does not burst" in told
    dnf("update", "--security")
    installed = run("rpm", f"--root={dnf.scratch}/root", "-qa")
    assert "pump-2.0" in installed and "hose-1.0" in installed


@as_root
@pytest.mark.client("zypper")
def test_zypper_lists_and_installs_patches(daemon: Daemon, profile: str, tmp_path: Path) -> None:
    def zypper(*arguments: str) -> str:
        options = ("--root", tmp_path / "root", "--no-gpg-checks", "--non-interactive")
        return run("env", f"ZYPP_LOGFILE={tmp_path}/log", "zypper", *options, *arguments)

    zypper("addrepo", daemon.repository_url(profile), "r")
    zypper("install", "pump=1.0", "hose=1.0")
    listed = zypper("list-patches")
    assert "FIX-2026-1" in listed and "security" in listed and "BUG-2026-7" in listed
    zypper("patch", "--category", "security")
    installed = run("rpm", f"--root={tmp_path}/root", "-qa")
    assert "pump-2.0" in installed and "hose-1.0" in installed


@pytest.mark.client("createrepo_c")
def test_the_records_of_groups_are_those_of_createrepo_c(daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "comps.xml").write_text(COMPS)
    command = [str(locate("createrepo_c")), "--quiet", "--compatibility"]
    subprocess.run([*command, f"--groupfile={tmp_path}/comps.xml", str(tmp_path)], check=True)
    theirs = {each.type: each for each in parse((tmp_path / "repodata/repomd.xml").read_bytes()).records}
    for profile in PROFILES:
        ours = records(daemon, profile)
        assert ours["group"].location_href == theirs["group"].location_href
        assert ours["group"].open_checksum is None is theirs["group"].open_checksum
        # Version 1 writes it no more; those before did, and yum of EL7 wants it.
        assert ours["group_gz"].open_checksum == theirs["group"].checksum
        assert ours["group_gz"].open_size == theirs["group"].size


def test_other_metadata_travels_along_as_it_is(daemon: Daemon, profile: str) -> None:
    record = records(daemon, profile)["productid"]
    assert daemon.get(f"/{profile}/{record.location_href}").body == b"a certificate"


def test_verify_finds_that_all_of_it_is_published(daemon: Daemon, tmp_path: Path) -> None:
    for profile in PROFILES:
        tree = Path(daemon.repository(profile)["path"])
        done = repowatch("verify", tree)
        assert done.returncode == 0, done.stdout
        copy = tmp_path / profile
        subprocess.run(["cp", "-a", tree, copy], check=True)
        (copy / "advisories/1.yaml").write_text(ADVISORY.replace("burst", "explode"))
        (copy / "comps.xml").write_text("<comps>\n<group/></comps>")
        done = repowatch("verify", copy)
        assert done.returncode == 1
        assert "updateinfo: it does not say what is in advisories/1.yaml and updateinfo.xml" in done.stdout
        assert "comps.xml: line 2: the group that ends here has no <id> and no <name>" in done.stdout


# -- what can not be used, and what goes


@pytest.fixture
def spare(tmp_path: Path) -> Iterator[Daemon]:
    """A repository with a package and a group."""
    tree = tmp_path / "rpm"
    make_rpm(tree, "wrench")
    (tree / "comps.xml").write_text(COMPS)
    with Daemon(tree, scratch=tmp_path) as daemon:
        wait_until(lambda: "group" in records(daemon, "rpm"))
        yield daemon


BROKEN = {
    "comps.xml": (b"<comps>\n<group>\n", "line 3: not XML: no element found"),
    "modules.yaml": (
        MODULES.replace("  summary: A workshop\n", "").encode(),
        "line 5: `data` has no `summary`",
    ),
    "updateinfo.xml": (UPDATEINFO.replace("<id>BUG-2026-7</id>", "").encode(), "line 13: the <update>"),
    "advisories/1.yaml": (ADVISORY.replace("security", "secure").encode(), "line 2: `type` is not one of"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_clients_could_not_use_is_refused_with_line_and_reason(spare: Daemon, name: str) -> None:
    content, reason = BROKEN[name]
    spare.request("MKCOL", "/rpm/advisories/")
    before = records(spare, "rpm")
    answer = spare.put(f"/rpm/{name}", content)
    assert (answer.status, answer.text.startswith(reason)) == (422, True), answer.text
    assert records(spare, "rpm") == before
    assert spare.get(f"/rpm/{name}").status == (200 if name == "comps.xml" else 404)


def test_a_file_that_breaks_is_told_and_what_it_said_before_stays_even_after_a_kill(
    spare: Daemon, tmp_path: Path
) -> None:
    before = records(spare, "rpm")
    (tmp_path / "rpm/comps.xml").write_bytes(BROKEN["comps.xml"][0])
    wait_until(lambda: spare.rejected("rpm") == {"comps.xml": BROKEN["comps.xml"][1]})
    assert spare.repository("rpm")["companions"][0]["state"] == "kept"
    spare.put("/rpm/late.rpm", make_rpm(tmp_path / "in", "late"))
    assert records(spare, "rpm")["group"] == before["group"]
    spare.kill()
    spare.start()
    wait_until(lambda: spare.rejected("rpm") == {"comps.xml": BROKEN["comps.xml"][1]})
    assert records(spare, "rpm")["group"] == before["group"]
    (tmp_path / "rpm/comps.xml").write_text(COMPS.replace("Field", "Wood"))
    wait_until(lambda: records(spare, "rpm")["group"] != before["group"])
    assert spare.rejected("rpm") == {}


def test_put_move_copy_and_delete_are_answered_when_clients_see_it(spare: Daemon) -> None:
    assert spare.request("DELETE", "/rpm/comps.xml").status == 204
    assert "group" not in records(spare, "rpm")
    assert spare.put("/rpm/new.xml", COMPS.encode()).status == 201
    headers = {"Destination": f"{spare.url}rpm/comps.xml"}
    assert spare.request("COPY", "/rpm/new.xml", headers=headers).status == 201
    assert {"group", "group_gz"} <= records(spare, "rpm").keys()
    headers = {"Destination": f"{spare.url}rpm/old.xml"}
    assert spare.request("MOVE", "/rpm/comps.xml", headers=headers).status == 201
    assert "group" not in records(spare, "rpm")
    assert spare.put("/rpm/broken.xml", b"<comps>").status == 201
    headers = {"Destination": f"{spare.url}rpm/comps.xml"}
    assert spare.request("MOVE", "/rpm/broken.xml", headers=headers).status == 422
    assert spare.get("/rpm/broken.xml").status == 200
    answer = spare.put("/rpm/comps.xml", COMPS.encode())
    assert answer.status == 201
    assert f"<revision>{answer.headers['Repowatch-Revision']}<" in spare.get("/rpm/repodata/repomd.xml").text


def test_a_directory_of_advisories_comes_and_goes_with_its_name(spare: Daemon, tmp_path: Path) -> None:
    (tmp_path / "aside").mkdir()
    (tmp_path / "aside/1.yaml").write_text(ADVISORY)
    (tmp_path / "aside").rename(tmp_path / "rpm/advisories")
    wait_until(lambda: "updateinfo" in records(spare, "rpm"))
    [told] = [each for each in spare.repository("rpm")["companions"] if each["type"] == "updateinfo"]
    assert told["unlisted"] == ["pump-2.0-1.noarch"]
    (tmp_path / "rpm/advisories").rename(tmp_path / "aside")
    wait_until(lambda: "updateinfo" not in records(spare, "rpm"))


@pytest.mark.client("createrepo_c")
def test_groups_of_another_tool_stay_without_a_file_in_the_tree(tmp_path: Path) -> None:
    tree = tmp_path / "rpm"
    make_rpm(tree, "wrench")
    (tmp_path / "groups.xml").write_text(COMPS)
    command = [str(locate("createrepo_c")), "--quiet", f"--groupfile={tmp_path}/groups.xml", str(tree)]
    subprocess.run(command, check=True)
    with Daemon(tree, scratch=tmp_path) as daemon:
        daemon.put("/rpm/late.rpm", make_rpm(tmp_path / "in", "late"))
        theirs = records(daemon, "rpm")["group"]
        assert daemon.put("/rpm/comps.xml", COMPS.replace("Field", "Wood").encode()).status == 201
        assert records(daemon, "rpm")["group"] != theirs
        daemon.signal(signal.SIGKILL)
        daemon.wait()
        (tree / "comps.xml").unlink()
        daemon.start()
        wait_until(lambda: "group" not in records(daemon, "rpm"))
