"""Batches of uploads and promotion, with curl and dnf: seen together or not at all."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.clients.conftest import run
from tests.clients.curl import curl, upload
from tests.clients.test_dnf import Dnf
from tests.kit.daemon import Answer, Daemon, repowatch, wait_until
from tests.kit.rpms import flip_byte, make_rpm
from tests.kit.users import basic, write_users
from tests.kit.views import over_http, read_view

CONFIGURATION = """
users: {scratch}/users
control: {scratch}/control
audit: {scratch}/audit
accounts:
  ci: {{names: ["foo-*.rpm"], delete: false}}
repositories:
  rpm: {{path: {scratch}/rpm}}
  stable: {{path: {scratch}/stable, replace: deny, exclude: ["*-debuginfo-*"]}}
  hidden: {{path: {scratch}/hidden, read: [anna]}}
"""

ANNA, CI = basic("anna", "secret"), basic("ci", "secret")


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shared")


@pytest.fixture(scope="module")
def shared(scratch: Path) -> Iterator[Daemon]:
    write_users(scratch / "users", {"anna": "secret", "ci": "secret"})
    for name in ("rpm", "stable", "hidden"):
        make_rpm(scratch / name, f"first-{name}")
    with Daemon(scratch=scratch, configuration=CONFIGURATION.format(scratch=scratch)) as daemon:
        yield daemon


def put(daemon: Daemon, package: Path, batch: str, who: dict[str, str] = ANNA, **fields: str) -> Answer:
    headers = {
        "Repowatch-Batch": batch,
        **who,
        **{key.replace("_", "-"): each for key, each in fields.items()},
    }
    return daemon.put(f"/rpm/{package.name}", package, headers=headers)


def post(daemon: Daemon, path: str, arguments: Any, who: dict[str, str] = ANNA) -> Answer:
    return daemon.request("POST", f"/-/api/v1/{path}", json.dumps(arguments).encode(), headers=who)


def listed(daemon: Daemon, name: str) -> set[str]:
    return set(read_view(over_http(daemon.repository_url(name))).packages)


def open_batches(daemon: Daemon) -> dict[str, Any]:
    return {each["batch"]: each for each in json.loads(daemon.get("/-/api/v1/rpm/batches").body)}


class Reader:
    """Reads one view after the other, and keeps which of some packages each of them listed."""

    def __init__(self, url: str, names: Sequence[str]) -> None:
        self.seen: set[frozenset[str]] = set()
        self._names = frozenset(names)
        self._fetch = over_http(url)
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Reader:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ends.is_set():
            self.look()

    def look(self) -> None:
        self.seen.add(frozenset(read_view(self._fetch).packages) & self._names)


@pytest.mark.client("curl", "dnf")
def test_clients_see_all_of_a_batch_or_nothing(shared: Daemon, tmp_path: Path) -> None:
    url = shared.repository_url("rpm")
    packages = [make_rpm(tmp_path, f"together{number}") for number in range(3)]
    alone = [make_rpm(tmp_path, f"alone{number}") for number in range(3)]
    with Reader(url, [each.name for each in packages]) as reader:
        for package in packages:
            answer = upload(package, url, "Repowatch-Batch: night", "Authorization: " + ANNA["Authorization"])
            assert (answer.status, "waits for the commit" in answer.text) == (202, True)
            reader.look()
        assert shared.get(f"/rpm/{packages[0].name}").status == 404
        body = '{"batch": "night"}'
        answer = curl("--user", "anna:secret", "--data", body, f"{shared.url}-/api/v1/rpm/commit")
        assert (answer.status, len(json.loads(answer.body)["locations"])) == (200, 3)
        reader.look()
    assert reader.seen == {frozenset(), frozenset(each.name for each in packages)}
    with Reader(url, [each.name for each in alone]) as guilty:
        for package in alone:
            assert upload(package, url, "Authorization: " + ANNA["Authorization"]).status == 201
            guilty.look()
    assert len(guilty.seen) > 2, "a part was not seen where parts are published"
    if os.geteuid() == 0:
        (tmp_path / "dnf.conf").write_text("[main]\n")
        dnf = Dnf(tmp_path, ("--setopt=reposdir=/nonexistent", f"--repofrompath=rpm,{url}"))
        dnf("install", "together0", "together1", "together2")


def test_a_package_is_replaced_and_another_leaves_with_the_batch(shared: Daemon, tmp_path: Path) -> None:
    old, gone = make_rpm(tmp_path, "replaced"), make_rpm(tmp_path, "leaving")
    for package in (old, gone):
        assert shared.put(f"/rpm/{package.name}", package, headers=ANNA).status == 201
    twice = make_rpm(tmp_path / "twice", "replaced", summary="once")
    assert put(shared, twice, "swap").status == 202
    new = make_rpm(tmp_path / "new", "replaced", summary="twice")
    assert put(shared, new, "swap").status == 202
    fields = {"Repowatch-Batch": "swap", **ANNA}
    assert shared.request("DELETE", f"/rpm/{gone.name}", headers=fields).status == 202
    assert shared.get(f"/rpm/{gone.name}").status == 200
    assert open_batches(shared)["swap"]["files"] == 2
    told = json.loads(post(shared, "rpm/commit", {"batch": "swap"}).body)
    assert (told["locations"], told["removed"]) == ([old.name], [gone.name])
    assert shared.get(f"/rpm/{old.name}").body == new.read_bytes()
    assert shared.get(f"/rpm/{gone.name}").status == 404
    assert gone.name not in listed(shared, "rpm")
    again = post(shared, "rpm/commit", {"batch": "swap"})
    assert (again.status, json.loads(again.body)) == (200, told)


def test_what_can_not_wait_is_refused_at_once(shared: Daemon, tmp_path: Path) -> None:
    package, damaged = make_rpm(tmp_path, "refused"), make_rpm(tmp_path, "damaged")
    flip_byte(damaged, offset=damaged.stat().st_size - 3)
    (tmp_path / "empty.rpm").touch()
    (tmp_path / "notes.txt").write_text("no package")
    assert put(shared, damaged, "bad").status == 422
    assert put(shared, tmp_path / "empty.rpm", "bad").status == 422
    assert put(shared, tmp_path / "notes.txt", "bad").status == 400
    assert put(shared, package, "../bad").status == 400
    assert put(shared, package, "bad", X_Checksum_Sha256="0" * 64).status == 400
    assert put(shared, package, "bad", If_Match='"other"').status == 412
    fields = {"Repowatch-Batch": "bad", "Destination": "/rpm/other.rpm", **ANNA}
    assert shared.request("MOVE", "/rpm/first-rpm-1.0-1.noarch.rpm", headers=fields).status == 400
    assert shared.request("DELETE", "/rpm/missing.rpm", headers=fields).status == 404
    for condition, status in (({"If-Match": '"other"'}, 412), ({"If": "(<urn:x>)"}, 400)):
        headers = {**fields, **condition}
        answer = shared.request("DELETE", "/rpm/first-rpm-1.0-1.noarch.rpm", headers=headers)
        assert answer.status == status, answer.text
    assert post(shared, "rpm/commit", {"batch": "bad"}).status == 404
    assert post(shared, "rpm/commit", {}).status == 400
    assert "bad" not in open_batches(shared)


def test_one_that_is_refused_at_the_commit_keeps_all_away(shared: Daemon, tmp_path: Path) -> None:
    one, two = make_rpm(tmp_path, "fine"), make_rpm(tmp_path, "taken")
    for package in (one, two):
        assert put(shared, package, "late", If_None_Match="*").status == 202
    other = make_rpm(tmp_path / "other", "taken", summary="Another")
    assert shared.put(f"/rpm/{two.name}", other, headers=ANNA).status == 201
    answer = post(shared, "rpm/commit", {"batch": "late"})
    assert (answer.status, two.name in answer.text) == (409, True)
    assert one.name not in listed(shared, "rpm")
    assert json.loads(post(shared, "rpm/discard", {"batch": "late"}).body)["discarded"] == 2
    assert "late" not in open_batches(shared)


def test_what_was_replaced_since_it_was_to_leave_on_a_condition_stays(shared: Daemon, tmp_path: Path) -> None:
    package = make_rpm(tmp_path, "watched")
    etag = shared.put(f"/rpm/{package.name}", package, headers=ANNA).headers["ETag"]
    fields = {"Repowatch-Batch": "leave", "If-Match": etag, **ANNA}
    assert shared.request("DELETE", f"/rpm/{package.name}", headers=fields).status == 202
    other = make_rpm(tmp_path / "other", "watched", summary="Another")
    assert shared.put(f"/rpm/{package.name}", other, headers=ANNA).status == 204
    assert post(shared, "rpm/commit", {"batch": "leave"}).status == 409
    assert package.name in listed(shared, "rpm")
    assert post(shared, "rpm/discard", {"batch": "leave"}).status == 200


def test_what_was_discarded_is_nobodys_change(shared: Daemon, scratch: Path, tmp_path: Path) -> None:
    package = make_rpm(tmp_path, "dropped")
    assert put(shared, package, "drop").status == 202
    assert post(shared, "rpm/discard", {"batch": "drop"}).status == 200
    shutil.copy(package, scratch / "rpm")

    def events() -> list[Any]:
        return [each for each in shared.repository("rpm")["history"] if each["location"] == package.name]

    wait_until(events)
    assert [(each["who"], each["how"]) for each in events()] == [(None, "file")]
    told = repowatch("who", package.name, "--audit", scratch / "audit").stdout
    assert f"PUT  rpm/{package.name} (waits in the batch drop)" in told


def test_a_narrowed_account_commits_its_own_batch_and_no_other(
    shared: Daemon, scratch: Path, tmp_path: Path
) -> None:
    foo, bar = make_rpm(tmp_path, "foo"), make_rpm(tmp_path, "bar")
    assert put(shared, foo, "ci", CI).status == 202
    assert put(shared, bar, "ci", CI).status == 403
    fields = {"Repowatch-Batch": "ci", **CI}
    assert shared.request("DELETE", f"/rpm/{foo.name}", headers=fields).status == 403
    assert put(shared, bar, "ci").status == 409, "anna adds to the batch of ci"
    assert post(shared, "rpm/commit", {"batch": "ci"}).status == 404
    assert post(shared, "rpm/commit", {"batch": "ci"}, who={}).status == 401
    assert post(shared, "rpm/commit", {"batch": "ci"}, who=CI).status == 200
    assert foo.name in listed(shared, "rpm")
    assert put(shared, bar, "anna").status == 202
    assert post(shared, "rpm/discard", {"batch": "anna"}, who=CI).status == 404
    done = repowatch("batch", "commit", "rpm", "anna", "--url", f"unix:{scratch / 'control'}")
    assert (done.returncode, f"+ {bar.name}" in done.stdout) == (0, True), done.stderr


def test_an_open_batch_is_told_of_and_outlives_a_kill(tmp_path: Path) -> None:
    make_rpm(tmp_path / "rpm", "first")
    configuration = f"repositories: {{rpm: {{path: {tmp_path / 'rpm'}}}}}\n"
    one, two = make_rpm(tmp_path, "one"), make_rpm(tmp_path, "two")
    with Daemon(scratch=tmp_path / "scratch", configuration=configuration) as daemon:
        for package in (one, two):
            assert put(daemon, package, "kept", {}).status == 202
        url = daemon.url
        assert "open batch: kept of anyone, changes: 2" in repowatch("status", "--url", url).stdout
        assert "kept  changes: 2" in repowatch("batch", "list", "rpm", "--url", url).stdout
        assert "kept by anonymous, changes: 2" in daemon.get("/-/rpm").text
        assert 'repowatch_open_batches{repository="rpm"} 1.0' in daemon.get("/metrics").text
        daemon.kill()
        daemon.start()
        assert open_batches(daemon)["kept"]["files"] == 2
        assert repowatch("batch", "commit", "rpm", "kept", "--url", daemon.url).returncode == 0
        assert {one.name, two.name} < listed(daemon, "rpm")
        assert open_batches(daemon) == {}


def test_a_batch_that_nobody_commits_is_dropped_and_told(tmp_path: Path) -> None:
    make_rpm(tmp_path / "rpm", "first")
    configuration = f"repositories: {{rpm: {{path: {tmp_path / 'rpm'}, batch: 100ms}}}}\n"
    with Daemon(scratch=tmp_path / "scratch", configuration=configuration) as daemon:
        assert put(daemon, make_rpm(tmp_path, "one"), "lost", {}).status == 202
        wait_until(lambda: "the batch lost of anyone is given up" in daemon.log, 30)
        assert open_batches(daemon) == {}
        assert os.listdir(tmp_path / "rpm" / ".repowatch" / "batches") == []


# -- promotion


def promote(
    daemon: Daemon, *packages: str, to: str = "stable", who: dict[str, str] = ANNA, **more: Any
) -> Answer:
    return post(daemon, f"{to}/promote", {"from": "rpm", "packages": packages, **more}, who)


@pytest.mark.client("dnf")
def test_packages_are_promoted_in_one_publication_without_a_copy(
    shared: Daemon, scratch: Path, tmp_path: Path
) -> None:
    for version in ("1.0~rc1", "1.0", "1.0^git"):
        package = make_rpm(tmp_path, "grown", version)
        assert shared.put(f"/rpm/{package.name}", package, headers=ANNA).status == 201
    tag = shared.get(f"/rpm/{package.name}").headers["ETag"]
    before = shared.repository("stable")["revision"]
    told = json.loads(promote(shared, "grown", dry_run=True).body)
    assert (len(told["locations"]), shared.repository("stable")["revision"]) == (3, before)
    told = json.loads(promote(shared, "grown", newest=True).body)
    assert (told["locations"], told["already"]) == ([package.name], [])
    assert set(told["how"]) <= {"cloned", "linked"}
    assert (scratch / "stable" / package.name).read_bytes() == package.read_bytes()
    told = json.loads(promote(shared, "grown*.rpm").body)
    assert (len(told["locations"]), told["already"]) == (2, [package.name])
    assert shared.repository("stable")["revision"] == told["revision"]
    wait_until(lambda: shared.get(f"/rpm/{package.name}").headers["ETag"] == tag)
    wait_until(lambda: shared.get(f"/stable/{package.name}").headers["ETag"] == tag)
    if os.geteuid() == 0:
        (tmp_path / "dnf.conf").write_text("[main]\n")
        url = shared.repository_url("stable")
        dnf = Dnf(tmp_path, ("--setopt=reposdir=/nonexistent", f"--repofrompath=stable,{url}"))
        assert "1.0^git" in dnf("install", "grown")


def test_the_rules_of_the_target_hold_for_what_is_promoted(
    shared: Daemon, scratch: Path, tmp_path: Path
) -> None:
    for name in ("same", "free", "same-debuginfo"):
        package = make_rpm(tmp_path, name)
        assert shared.put(f"/rpm/{package.name}", package, headers=ANNA).status == 201
    other = make_rpm(tmp_path / "other", "same", summary="Another")
    assert shared.put(f"/stable/{other.name}", other, headers=ANNA).status == 201
    answer = promote(shared, "same", "free")
    assert (answer.status, other.name in answer.text) == (409, True)
    assert promote(shared, "same-debuginfo").status == 409
    assert promote(shared, "free", who=CI).status == 403
    answer = promote(shared, "fre")
    assert (answer.status, "there is free" in answer.text) == (404, True)
    assert post(shared, "stable/promote", {"from": "hidden", "packages": ["*"]}, CI).status == 404
    assert post(shared, "stable/promote", {"from": "stable", "packages": ["*"]}).status == 404
    assert not any(name.startswith("free") for name in listed(shared, "stable"))
    done = repowatch("promote", "rpm", "stable", "free", "--url", f"unix:{scratch / 'control'}")
    assert (done.returncode, "+ free-1.0-1.noarch.rpm" in done.stdout) == (0, True), done.stderr
    known = repowatch("who", "free-1.0-1.noarch", "--audit", scratch / "audit").stdout
    assert "promote  stable/free-1.0-1.noarch.rpm" in known


def test_a_promotion_reads_nothing_anew_in_the_source(tmp_path: Path) -> None:
    for name in ("testing", "stable"):
        (tmp_path / name).mkdir()
    package = make_rpm(tmp_path / "testing", "a")
    paths = (f"  {name}: {{path: {tmp_path / name}}}\n" for name in ("testing", "stable"))
    configuration = f"repositories:\n{''.join(paths)}"
    with Daemon(scratch=tmp_path / "scratch", configuration=configuration) as daemon:
        wait_until(lambda: daemon.repository("testing")["packages"] == 1)
        tag = daemon.get(f"/testing/{package.name}").headers["ETag"]
        body = {"from": "testing", "packages": ["a"]}
        assert post(daemon, "stable/promote", body, {}).status == 200
        assert run("stat", "--format=%h", package) in ("1\n", "2\n")
        wait_until(lambda: daemon.get(f"/testing/{package.name}").headers["ETag"] == tag)
