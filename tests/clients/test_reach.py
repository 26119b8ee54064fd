"""What clients reach by POST: who is told what, what is refused, and what the audit says of it."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.clients.curl import curl
from tests.kit.daemon import Answer, Daemon
from tests.kit.rpms import make_rpm
from tests.kit.users import basic, write_users

WRITER, READER, BOTH = basic("writer", "w"), basic("reader", "r"), basic("both", "b")

CONFIGURATION = """
users: {scratch}/users
audit: {scratch}/audit
repositories:
  rpm:
    path: {scratch}/rpm
    read: [reader, both]
    write: [writer, both]
    prune: [{{match: "old-*", keep: 1}}]
"""


@dataclass(frozen=True, slots=True)
class Host:
    """A daemon with a repository that `writer` may write to without reading it."""

    daemon: Daemon
    tree: Path
    audit: Path

    def post(self, operation: str, who: dict[str, str], /, **arguments: Any) -> Answer:
        body = json.dumps(arguments).encode()
        return self.daemon.request("POST", f"/-/api/v1/rpm/{operation}", body, headers=who)

    def told(self) -> list[tuple[str, str]]:
        """Method and location of each line of the audit."""
        lines = self.audit.read_text().splitlines() if self.audit.exists() else []
        return [(each["method"], each["location"]) for each in map(json.loads, lines)]


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    write_users(tmp_path / "users", {"writer": "w", "reader": "r", "both": "b"})
    make_rpm(tmp_path / "rpm", "first")
    configuration = CONFIGURATION.format(scratch=tmp_path)
    with Daemon(scratch=tmp_path / "scratch", configuration=configuration) as daemon:
        yield Host(daemon, tmp_path / "rpm", tmp_path / "audit")


def test_who_may_write_and_not_read_is_not_told_what_there_is(host: Host) -> None:
    assert host.post("snapshot", WRITER, name="now").status == 200
    everything = {"rules": [{"keep": 0, "older_than": 0, "spares_newest": False}]}
    for operation, arguments in (
        ("prune", {"dry_run": True, **everything}),
        ("prune", {}),
        ("rollback", {"name": "now", "dry_run": True}),
        ("rollback", {"name": "now"}),
    ):
        answer = host.post(operation, WRITER, **arguments)
        assert (answer.status, answer.text) == (403, "writer may not read rpm\n")
        assert host.post(operation, BOTH, **arguments).status == 200


def test_a_dry_run_is_no_change_and_a_rollback_is_told_with_its_packages(host: Host, tmp_path: Path) -> None:
    assert host.post("snapshot", BOTH, name="before").status == 200
    came = make_rpm(tmp_path, "came")
    assert host.daemon.put(f"/rpm/{came.name}", came, headers=BOTH).status == 201
    before = host.told()
    told = json.loads(host.post("rollback", BOTH, name="before", dry_run=True).body)
    assert (told["done"], told["dry_run"], told["retired"]) == (False, True, [came.name])
    assert host.post("rollback", BOTH, **{"name": "before", "dry-run": True}).status == 400
    assert host.told() == before
    assert host.post("rollback", BOTH, name="before").status == 200
    assert host.told()[len(before) :] == [("rollback", came.name), ("rollback", '{"name": "before"}')]


@pytest.mark.parametrize("rules", [[{"keep": math.inf}], [{"keep": "x"}], [{"older": 1}], [1], 1, None])
def test_rules_that_can_not_be_read_are_refused(host: Host, rules: object) -> None:
    answer = host.post("prune", BOTH, dry_run=True, rules=rules)
    assert (answer.status, answer.text.count("\n")) == (400, 1)
    assert '"rules" can not be read' in answer.text


@pytest.mark.client("curl")
def test_a_page_of_another_site_changes_nothing_by_a_browser_that_knows_the_password(
    host: Host, tmp_path: Path
) -> None:
    url = host.daemon.url
    post = (f"{url}-/api/v1/rpm/snapshot", "-u", "both:b", "-d", '{"name": "made"}')
    # As Firefox and Chromium send it for fetch(..., {method: "POST", mode: "no-cors"}).
    for fields in (("Sec-Fetch-Site: cross-site",), ("Origin: http://evil.example.org",), ("Origin: null",)):
        assert curl(*post, *(f"-H{each}" for each in fields)).status == 403
    package = make_rpm(tmp_path, "pushed")
    assert (
        curl("-T", package, "-u", "both:b", "-HOrigin: http://evil.example.org", f"{url}rpm/").status == 403
    )
    delete = ("-X", "DELETE", "-u", "both:b", f"{url}rpm/first-1.0-1.noarch.rpm")
    assert curl(*delete, "-HSec-Fetch-Site: same-site").status == 403
    assert host.told() == []
    assert curl(*post).status == 200
    own = f"-HOrigin: {url.rstrip('/')}"
    assert curl("-T", package, "-u", "both:b", own, f"{url}rpm/").status == 201


@pytest.mark.client("curl")
def test_a_page_whose_name_was_made_to_lead_here_changes_nothing_where_nobody_logs_in(tmp_path: Path) -> None:
    tree = tmp_path / "rpm"
    tree.mkdir()
    package = make_rpm(tmp_path, "pushed")
    with Daemon(tree, scratch=tmp_path / "scratch") as daemon:
        port = daemon.address[1]
        page = ("-HSec-Fetch-Site: same-origin", f"-HOrigin: http://evil.example.org:{port}")
        evil = f"-HHost: evil.example.org:{port}"
        assert curl("-T", package, *page, evil, f"{daemon.url}rpm/").status == 403
        post = ("-d", '{"name": "made"}', f"{daemon.url}-/api/v1/rpm/snapshot")
        assert curl(*page, evil, *post).status == 403
        assert not (tree / package.name).exists()
        assert curl("-T", package, evil, f"{daemon.url}rpm/").status == 201  # no browser
        own = ("-HSec-Fetch-Site: same-origin", f"-HOrigin: http://localhost:{port}")
        assert curl(*own, f"-HHost: localhost:{port}", *post).status == 200


def test_what_an_operation_takes_is_told(host: Host) -> None:
    path = "/-/api/v1/rpm/prune"
    for method, status in (("OPTIONS", 200), ("PUT", 405), ("DELETE", 405), ("MKCOL", 405)):
        answer = host.daemon.request(method, path, headers=BOTH)
        assert (answer.status, answer.headers["Allow"]) == (status, "POST, OPTIONS")
        assert host.daemon.request(method, path).status == 401
        assert host.daemon.request(method, path, headers=READER).status == 403


def test_what_needs_a_password_is_not_for_caches_that_others_share(host: Host) -> None:
    assert host.post("snapshot", BOTH, name="now").status == 200
    for directory in ("/rpm/", "/rpm@now/"):
        listing = host.daemon.get(f"{directory}repodata/", headers=READER).text
        [name] = [each for each in listing.split('"') if each.endswith("-primary.xml.gz")]
        answer = host.daemon.get(f"{directory}repodata/{name}", headers=READER)
        assert answer.headers["Cache-Control"] == "max-age=31536000, immutable"


def test_a_snapshot_that_was_damaged_meanwhile_is_told_and_not_cut_off(host: Host) -> None:
    for name in ("list", "metadata", "whole"):
        assert host.post("snapshot", BOTH, name=name).status == 200
    there = host.tree / ".repowatch" / "snapshots"
    (there / "list" / "packages").write_bytes(b"x")
    shutil.rmtree(there / "metadata" / "repodata")
    for path, status, said in (
        ("/rpm@list/", 410, "the snapshot list is damaged: "),
        ("/rpm@metadata/repodata/", 503, "the snapshot can not be read: no such file"),
        ("/rpm@metadata/repodata/repomd.xml", 503, "the snapshot can not be read: no such file"),
        ("/rpm@metadata.repo", 404, "not found"),
        ("/rpm@whole/repodata/repomd.xml", 200, "<?xml"),
        ("/rpm@a%0Ab/", 404, r"there is no snapshot a\nb"),
    ):
        answer = host.daemon.get(path, headers=READER)
        assert (answer.status, answer.text.startswith(said)) == (status, True), (path, answer.text)
    assert host.post("rollback", BOTH, name="list").status == 409
    told = json.loads(host.daemon.get("/-/api/v1/rpm/snapshots", headers=READER).body)
    assert {each["name"]: "trouble" in each for each in told} == {
        "list": True,
        "metadata": False,
        "whole": False,
    }
    assert "Traceback" not in host.daemon.log
