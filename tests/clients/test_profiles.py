"""The profiles and checksums, as clients see them: the same packages, read by those that each is for."""

from __future__ import annotations

import functools
import hashlib
import http.server
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import createrepo_c
import pytest

from tests.clients.conftest import run
from tests.kit.clients import locate
from tests.kit.daemon import COMMAND, Daemon
from tests.kit.metadata import listed, locations
from tests.kit.rpms import flip_byte, layout, make_rpm

PACKAGES = 150  # enough for more than one segment
CHANGELOG = [(1_600_000_000 + 86400 * day, "Anna <anna@example.org>", f"- day {day}") for day in range(12)]
KINDS = {
    "compatible": "profile: compatible",
    "compatible-sha512": "profile: compatible, checksum: sha512, changelogs: all",
    "modern": "profile: modern",
    "modern-sha512": "profile: modern, checksum: sha512, changelogs: 0",
}

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can install into a root of its own")
of_each_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """The same packages in a repository of each kind, and one that came later by upload."""
    directory = tmp_path_factory.mktemp("profiles")
    pool = directory / "pool"
    for number in range(PACKAGES):
        make_rpm(pool, f"p{number}", files={f"/usr/share/p{number}/file": b""})
    lines = ["repositories:"]
    for kind, keys in KINDS.items():
        shutil.copytree(pool, directory / kind, copy_function=os.link)
        lines.append(f"  {kind}: {{path: {directory / kind}, {keys}}}")
    with Daemon(scratch=directory, configuration="\n".join(lines) + "\n") as daemon:
        late = make_rpm(directory / "in", "late", changelog=CHANGELOG)
        for kind in KINDS:
            assert daemon.put(f"/{kind}/late.rpm", late).status == 201
        yield daemon


def tree_of(daemon: Daemon, kind: str) -> Path:
    return Path(str(daemon.repository(kind)["path"]))


def checksum_of(kind: str) -> str:
    return "sha512" if kind.endswith("sha512") else "sha256"


@of_each_kind
def test_each_kind_is_what_its_configuration_says(daemon: Daemon, kind: str) -> None:
    repomd = createrepo_c.Repomd(str(tree_of(daemon, kind) / "repodata" / "repomd.xml"))
    suffix = ".xml.zst" if kind.startswith("modern") else ".xml.gz"
    assert all(record.location_href.endswith(suffix) for record in repomd.records)
    told = {(record.checksum_type, record.checksum_open_type) for record in repomd.records}
    packages = listed(daemon, kind)
    assert told == {(checksum_of(kind), checksum_of(kind))}
    assert {package.checksum_type for package in packages.values()} == {checksum_of(kind)}
    assert len(packages) == PACKAGES + 1
    wanted = {"compatible-sha512": 12, "modern-sha512": 0}.get(kind, 10)
    assert len(packages["late.rpm"].changelogs) == wanted


@of_each_kind
def test_the_etag_of_a_package_is_its_checksum_and_the_door_takes_sha256(
    daemon: Daemon, kind: str, tmp_path: Path
) -> None:
    package = make_rpm(tmp_path, "checked")
    content = package.read_bytes()
    wrong, right = "0" * 64, hashlib.sha256(content).hexdigest()
    assert daemon.put(f"/{kind}/checked.rpm", package, headers={"X-Checksum-Sha256": wrong}).status == 400
    assert daemon.put(f"/{kind}/checked.rpm", package, headers={"X-Checksum-Sha256": right}).status == 201
    etag = daemon.request("HEAD", f"/{kind}/checked.rpm").headers["ETag"]
    assert etag == f'"{hashlib.new(checksum_of(kind), content).hexdigest()}"'
    (found,) = json.loads(daemon.get(f"/-/api/v1/{kind}?match=checked").body)["found"]
    assert f'"{found[checksum_of(kind)]}"' == etag
    assert daemon.put(f"/{kind}/checked.rpm", package).status == 204  # it is there already
    assert daemon.request("DELETE", f"/{kind}/checked.rpm").status == 204


@pytest.fixture
def dnf(tmp_path: Path) -> Callable[..., str]:
    """dnf on a machine that does not exist; gives what it printed, AssertionError when it failed."""
    (tmp_path / "dnf.conf").write_text("[main]\n")
    return lambda url, *arguments: run(
        *("dnf", "--assumeyes", "--releasever=9", "--nogpgcheck", "--refresh"),
        *(f"--config={tmp_path}/dnf.conf", f"--setopt=cachedir={tmp_path}/cache"),
        *("--setopt=reposdir=/nonexistent", f"--repofrompath=rpm,{url}"),
        *(f"--installroot={tmp_path}/root", *arguments),
    )


@as_root
@pytest.mark.client("dnf")
@of_each_kind
def test_dnf_reads_and_installs(daemon: Daemon, dnf: Callable[..., str], tmp_path: Path, kind: str) -> None:
    url = daemon.repository_url(kind)
    found = dnf(url, "--quiet", "repoquery", "--queryformat=%{name}", "--file=/usr/share/p*/file")
    assert len(found.split()) == PACKAGES
    dnf(url, "install", "p7", "late")
    assert (tmp_path / "root/usr/share/p7/file").exists()


@as_root
@pytest.mark.client("zypper")
@of_each_kind
def test_zypper_reads_and_installs(daemon: Daemon, tmp_path: Path, kind: str) -> None:
    options = (f"--root={tmp_path}/root", "--non-interactive", "--no-gpg-checks")
    zypper = functools.partial(run, "env", f"ZYPP_LOGFILE={tmp_path}/log", "zypper", *options)
    zypper("addrepo", "--no-gpgcheck", daemon.repository_url(kind), "rpm")
    zypper("refresh")
    found = zypper("search", "--details")
    assert sum("| package |" in line for line in found.splitlines()) == PACKAGES + 1
    zypper("install", "p7", "late")
    assert (tmp_path / "root/usr/share/p7/file").exists()


@pytest.mark.client("createrepo_c")
@of_each_kind
def test_createrepo_c_goes_on_from_it(daemon: Daemon, tmp_path: Path, kind: str) -> None:
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-a", tree_of(daemon, kind), copy], check=True)
    told = run(
        *(locate("createrepo_c") or "createrepo_c", "--update", "--verbose"),
        *(f"--checksum={checksum_of(kind)}", copy),
    )
    assert f"Loaded information about {PACKAGES + 1} packages" in told


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def mirror(daemon: Daemon, tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A copy of the repository with SHA-512, and where a plain web server has it."""
    copy = tmp_path / "mirror"
    subprocess.run(["cp", "-a", tree_of(daemon, "compatible-sha512"), copy], check=True)
    handler = functools.partial(Quiet, directory=copy)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield copy, f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@as_root
@pytest.mark.client("dnf")
def test_dnf_looks_at_the_sha512(mirror: tuple[Path, str], dnf: Callable[..., str]) -> None:
    """A package with one byte that is another is refused: so those above were compared."""
    copy, url = mirror
    package = copy / "p7-1.0-1.noarch.rpm"
    damaged = package.with_suffix(".damaged")
    shutil.copy2(package, damaged)
    flip_byte(damaged, offset=layout(damaged).payload)
    damaged.replace(package)
    with pytest.raises(AssertionError, match="hecksum"):
        dnf(url, "install", "p7")


def configuration(tree: Path, keys: str) -> str:
    return f"repositories: {{rpm: {{path: {tree}, {keys}}}}}\n"


def test_what_is_configured_anew_is_published_at_the_next_start(tmp_path: Path) -> None:
    tree = tmp_path / "rpm"
    make_rpm(tree, changelog=CHANGELOG)
    revision = 0
    for number, (keys, suffix, checksum, changelogs) in enumerate(
        [
            ("profile: compatible", "gz", "sha256", 10),
            ("profile: modern", "zst", "sha256", 10),
            ("profile: modern, checksum: sha512", "zst", "sha512", 10),
            ("checksum: sha512, changelogs: all", "gz", "sha512", 12),
            ("changelogs: 1", "gz", "sha256", 1),
        ]
    ):
        with Daemon(scratch=tmp_path / str(number), configuration=configuration(tree, keys)) as daemon:
            assert f"-primary.xml.{suffix}" in daemon.get("/rpm/repodata/repomd.xml").text
            (package,) = listed(daemon, "rpm").values()
            assert (package.checksum_type, len(package.changelogs)) == (checksum, changelogs)
            told = daemon.repository("rpm")
            assert told["checksum"] == checksum
            assert int(str(told["revision"])) > revision
            revision = int(str(told["revision"]))
            assert daemon.terminate() == 0


def test_a_view_from_before_stays_whole_after_the_checksum_changed(tmp_path: Path) -> None:
    tree = tmp_path / "rpm"
    make_rpm(tree)
    with Daemon(scratch=tmp_path / "a", configuration=configuration(tree, "checksum: sha256")) as daemon:
        before = createrepo_c.Repomd(str(tree / "repodata" / "repomd.xml")).records
        assert daemon.terminate() == 0
    with Daemon(scratch=tmp_path / "b", configuration=configuration(tree, "checksum: sha512")) as daemon:
        assert len(locations(daemon, "rpm")) == 1
        for record in before:
            content = daemon.get(f"/rpm/{record.location_href}").body
            assert hashlib.sha256(content).hexdigest() == record.checksum
        assert daemon.terminate() == 0


def test_the_commands_follow_the_configuration(tmp_path: Path) -> None:
    tree = tmp_path / "rpm"
    make_rpm(tree, changelog=CHANGELOG)
    strong = tmp_path / "strong.yaml"
    strong.write_text(configuration(tree, "profile: modern, checksum: sha512, changelogs: 3"))
    repowatch = functools.partial(run, *COMMAND)
    repowatch("index", str(tree), "--config", str(strong))
    (primary, *_) = createrepo_c.Repomd(str(tree / "repodata" / "repomd.xml")).records
    assert (primary.checksum_type, primary.location_href.endswith(".zst")) == ("sha512", True)
    assert "is what the tree says" in repowatch("verify", str(tree), "--config", str(strong))
    assert "other: " in repowatch("verify", str(tree), check=False)  # 10 changelogs are not 3
    repowatch("index", str(tree))
    (primary, *_) = createrepo_c.Repomd(str(tree / "repodata" / "repomd.xml")).records
    assert (primary.checksum_type, primary.location_href.endswith(".gz")) == ("sha256", True)
    told = repowatch("verify", str(tree), "--config", str(strong), check=False)
    assert "primary: its packages have sha256 checksums, not sha512 as it is configured" in told
