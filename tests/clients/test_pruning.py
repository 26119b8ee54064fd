"""Pruning as a client and an operator see it: dnf with yesterday's metadata, `repowatch prune`, the pages."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.clients.conftest import run
from tests.kit.daemon import Daemon, repowatch, wait_until
from tests.kit.metadata import locations
from tests.kit.rpms import make_rpm

RULES = """
repositories:
  graceful:
    path: {0}/graceful
    prune:
      - {{match: "kernel-*", keep: 2}}
      - {{match: "*SNAPSHOT*.rpm", older_than: 1s, keep: 0}}
      - {{match: "tool-*", keep: 1}}
    grace: 1h
  nightly:
    path: {0}/nightly
    prune: [{{match: "*SNAPSHOT*.rpm", older_than: 1s, keep: 0}}]
  hasty:
    path: {0}/hasty
    prune: [{{match: "tool-*", keep: 1}}]
    grace: 0s
  careless:
    path: {0}/careless
"""


@dataclass(frozen=True, slots=True)
class Host:
    """A daemon with its configuration, asked as on its own host."""

    daemon: Daemon
    configuration: Path
    made: Path

    def upload(self, repository: str, name: str, *versions: str) -> None:
        for version in versions:
            epoch, colon, rest = version.rpartition(":")
            package = make_rpm(
                self.made,
                name,
                rest,
                epoch=int(epoch) if colon else None,
                filename=f"{name}-{version.replace(':', '_')}.rpm",
            )
            assert self.daemon.put(f"/{repository}/{package.name}", package).status == 201

    def prune(self, *arguments: str) -> str:
        done = repowatch("prune", "--url", self.daemon.url.rstrip("/"), *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    scratch = tmp_path_factory.mktemp("pruning")
    for name in ("graceful", "hasty", "nightly", "careless"):
        (scratch / name).mkdir()
    configuration = RULES.format(scratch)
    with Daemon(scratch=scratch / "scratch", configuration=configuration) as daemon:
        yield Host(daemon, scratch / "scratch/repowatch.yaml", scratch / "made")


def test_a_dry_run_tells_what_would_go_and_a_prune_does_it(host: Host) -> None:
    # In the order of rpm: the epoch first, a tilde before and a caret after what it is added to.
    host.upload("graceful", "kernel", "6.10", "6.9", "6.10^git1", "1:1.0", "6.10~rc1")
    wait_until(lambda: len(kernels(host)) == 2 or "4 versions are newer" in host.prune("--dry-run"))
    told = host.prune("--repository", "graceful")
    wait_until(lambda: len(kernels(host)) == 2)
    assert kernels(host) == {"kernel-1_1.0.rpm", "kernel-6.10^git1.rpm"}, told
    page = host.daemon.get("/-/graceful").text
    assert "retired" in page


def kernels(host: Host) -> set[str]:
    return {each for each in locations(host.daemon, "graceful") if each.startswith("kernel")}


def test_a_snapshot_goes_by_itself_when_it_is_old(host: Host) -> None:
    host.upload("nightly", "app", "1.SNAPSHOT1")
    wait_until(lambda: "app-1.SNAPSHOT1.rpm" not in locations(host.daemon, "nightly"), 30)
    answer = host.daemon.get("/nightly/app-1.SNAPSHOT1.rpm")
    assert answer.status == 200
    assert answer.body == (host.made / "app-1.SNAPSHOT1.rpm").read_bytes()
    assert "app-1.SNAPSHOT1" not in host.daemon.get("/nightly/").text
    listing = host.daemon.request("PROPFIND", "/nightly/", headers={"Depth": "1"})
    assert "app-1.SNAPSHOT1" not in listing.text


def test_a_retired_package_is_served_as_any_other(host: Host) -> None:
    host.upload("graceful", "tool", "1", "2")
    host.prune("--repository", "graceful")
    wait_until(lambda: "tool-1.rpm" not in locations(host.daemon, "graceful"))
    content = (host.made / "tool-1.rpm").read_bytes()
    tag = host.daemon.get("/graceful/tool-1.rpm").headers["ETag"]
    part = host.daemon.get("/graceful/tool-1.rpm", headers={"Range": "bytes=10-19", "If-Range": tag})
    assert (part.status, part.body) == (206, content[10:20])
    assert host.daemon.get("/graceful/tool-1.rpm", headers={"If-None-Match": tag}).status == 304
    head = host.daemon.request("HEAD", "/graceful/tool-1.rpm")
    assert (head.status, head.headers["Content-Length"]) == (200, str(len(content)))


def test_a_package_that_comes_again_is_listed_and_its_removal_is_one(host: Host) -> None:
    host.upload("graceful", "again", "1.SNAPSHOT1")
    wait_until(lambda: "again-1.SNAPSHOT1.rpm" in host.prune())
    assert "again-1.SNAPSHOT1.rpm" not in locations(host.daemon, "graceful")
    host.upload("graceful", "again", "1.SNAPSHOT1")
    assert "again-1.SNAPSHOT1.rpm" in locations(host.daemon, "graceful")
    assert host.daemon.request("DELETE", "/graceful/again-1.SNAPSHOT1.rpm").status == 204
    assert host.daemon.get("/graceful/again-1.SNAPSHOT1.rpm").status == 404


def test_rules_are_tried_before_they_are_in_use_and_taken_over_on_reload(host: Host) -> None:
    host.upload("careless", "lib", "1.9", "1.10", "1.10~rc1")
    before = host.configuration.read_text()
    with_rule = before.rstrip() + '\n    prune: [{match: "lib-*", keep: 1}]\n'
    host.configuration.write_text(with_rule)
    try:
        told = host.prune("--dry-run", "--repository", "careless", "--config", str(host.configuration))
        assert [line.split(":")[0] for line in told.splitlines()] == [
            "- careless/lib-1.9.rpm",
            "- careless/lib-1.10~rc1.rpm",
            "careless",
        ]
        assert len(locations(host.daemon, "careless")) == 3
        host.daemon.signal(signal.SIGHUP)
        wait_until(lambda: locations(host.daemon, "careless") == {"lib-1.10.rpm"}, 30)
        assert "the configuration is in use as it is now" in host.daemon.log
    finally:
        host.configuration.write_text(before)
        host.daemon.signal(signal.SIGHUP)
        wait_until(lambda: host.daemon.repository("careless")["pruning"]["rules"] == 0)


def test_where_no_rule_is_configured_the_command_says_so(host: Host) -> None:
    done = repowatch("prune", "--url", host.daemon.url.rstrip("/"), "--repository", "careless")
    assert done.returncode == 1
    assert "no `prune` is configured" in done.stderr
    for body in (b'{"dry_run": "yes"}', b'{"rules": []}', b'{"dry_run": true, "rules": [{"age": 1}]}'):
        assert host.daemon.request("POST", "/-/api/v1/graceful/prune", body).status == 400


def test_the_metrics_count_what_was_pruned(host: Host) -> None:
    host.upload("hasty", "tool", "1", "2")
    host.prune("--repository", "hasty")
    wait_until(
        lambda: 'repowatch_pruned_packages_total{repository="hasty"} ' in host.daemon.get("/metrics").text
    )
    text = host.daemon.get("/metrics").text
    assert 'repowatch_pruned_packages_total{repository="hasty"} 0' not in text
    assert 'repowatch_retired_packages{repository="hasty"} 0' in text


@pytest.mark.client("dnf")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can install into a root of its own")
@pytest.mark.parametrize("repository", ["graceful", "hasty"])
def test_dnf_with_older_metadata_installs_what_was_pruned_within_the_grace(
    host: Host, repository: str, tmp_path: Path
) -> None:
    """Where there is no grace, it meets the 404 that the others are spared."""
    (tmp_path / "dnf.conf").write_text("[main]\n")
    dnf = (
        *("dnf", "--assumeyes", "--releasever=9", "--nogpgcheck", f"--config={tmp_path}/dnf.conf"),
        *(f"--installroot={tmp_path}/root", f"--setopt=cachedir={tmp_path}/cache"),
        *("--setopt=reposdir=/nonexistent", f"--repofrompath=r,{host.daemon.repository_url(repository)}"),
        *("--setopt=r.metadata_expire=-1", "--setopt=retries=1"),
    )
    name = f"tool-{repository}"
    host.upload(repository, name, "1")
    run(*dnf, "makecache")
    host.upload(repository, name, "2")
    host.prune("--repository", repository)
    wait_until(lambda: f"{name}-1.rpm" not in locations(host.daemon, repository))
    told = run(*dnf, "install", f"{name}-1", check=False)
    is_installed = (tmp_path / "root/usr/share/doc" / name / "README").exists()
    assert is_installed == (repository == "graceful"), told
    assert ("404" in told) == (repository == "hasty"), told
