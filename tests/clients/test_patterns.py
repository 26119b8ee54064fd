"""Directories that come and go below a pattern, with a daemon that serves each as a repository."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.conftest import run
from tests.clients.test_dnf import Dnf
from tests.kit.daemon import Daemon, repowatch, wait_until
from tests.kit.metadata import locations
from tests.kit.rpms import make_rpm
from tests.kit.users import basic, write_users

CONFIGURATION = """
users: {scratch}/users
audit: {scratch}/audit
accounts:
  ci9: {{repositories: [el9-x86_64]}}
  ci: {{repositories: ["el{{1}}-{{2}}"]}}
repositories:
  "el{{1}}-{{2}}": {{path: "{scratch}/srv/el*/*", url: "/el{{1}}/{{2}}/", write: [anna, ci, ci9]}}
"""

USERS = ("anna", "ben", "ci", "ci9")
ANNA = basic("anna", "secret")


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    write_users(tmp_path / "users", dict.fromkeys(USERS, "secret"))
    make_rpm(tmp_path / "srv" / "el8" / "x86_64")
    with Daemon(scratch=tmp_path, configuration=CONFIGURATION.format(scratch=tmp_path)) as daemon:
        yield daemon


def names(daemon: Daemon) -> list[str]:
    return [each["name"] for each in daemon.status()["repositories"]]


def mkcol(daemon: Daemon, path: str, user: str, body: bytes | None = None) -> int:
    return daemon.request("MKCOL", path, body, headers=basic(user, "secret")).status


def test_a_directory_is_served_soon_after_it_came_and_until_it_goes(daemon: Daemon, tmp_path: Path) -> None:
    tree = tmp_path / "srv" / "el9" / "x86_64"
    make_rpm(tree, "nine")
    wait_until(lambda: names(daemon) == ["el8-x86_64", "el9-x86_64"])
    wait_until(lambda: daemon.get("/el9/x86_64/repodata/repomd.xml").status == 200)
    assert locations(daemon, "el9/x86_64") == {"nine-1.0-1.noarch.rpm"}
    make_rpm(tree, "later")
    wait_until(lambda: len(locations(daemon, "el9/x86_64")) == 2)
    assert 'repowatch_packages{repository="el9-x86_64"} 2.0' in daemon.get("/metrics").text
    shutil.rmtree(tree.parent)
    wait_until(lambda: names(daemon) == ["el8-x86_64"])
    assert daemon.get("/el9/x86_64/repodata/repomd.xml").status == 404
    assert not tree.parent.exists()
    assert daemon.get("/readyz").status == 200
    assert "el9-x86_64" not in daemon.get("/metrics").text
    assert daemon.terminate() == 0


def test_a_directory_that_is_renamed_takes_its_packages_along(daemon: Daemon, tmp_path: Path) -> None:
    before = locations(daemon, "el8/x86_64")
    (tmp_path / "srv" / "el8").rename(tmp_path / "srv" / "el88")
    wait_until(lambda: names(daemon) == ["el88-x86_64"])
    wait_until(lambda: daemon.get("/el88/x86_64/repodata/repomd.xml").status == 200)
    assert locations(daemon, "el88/x86_64") == before
    assert daemon.get("/el8/x86_64/").status == 404


@pytest.mark.client("dnf")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can install into a root of its own")
def test_one_repo_file_serves_dnf_on_every_release(daemon: Daemon, tmp_path: Path) -> None:
    architecture = run("uname", "-m").strip()
    path = f"/el9/{architecture}/"
    assert mkcol(daemon, path, "anna") == 201
    package = make_rpm(tmp_path, "made")
    assert daemon.request("PUT", path + package.name, package.read_bytes(), headers=ANNA).status == 201
    text = daemon.get("/el8-x86_64.repo").text
    assert f"baseurl={daemon.url}el$releasever/$basearch/\n" in text
    (tmp_path / "repos").mkdir()
    (tmp_path / "repos" / "family.repo").write_text(text)
    (tmp_path / "dnf.conf").write_text("[main]\n")
    dnf = Dnf(tmp_path, (f"--setopt=reposdir={tmp_path}/repos",))
    assert dnf.available() == {"made-1.0-1.noarch"}
    dnf("install", "made")
    assert (dnf.root / "usr/share/doc/made/README").exists()


def test_who_may_write_to_what_the_pattern_finds_may_make_one(daemon: Daemon, tmp_path: Path) -> None:
    assert daemon.request("MKCOL", "/el9/x86_64/").status == 401
    assert mkcol(daemon, "/el9/x86_64/", "ben") == 403
    assert mkcol(daemon, "/el10/x86_64/", "ci9") == 403
    assert not (tmp_path / "srv" / "el9").exists()
    assert mkcol(daemon, "/el9/x86_64", "ci9") == 201
    assert mkcol(daemon, "/el10/x86_64/", "ci") == 201
    assert mkcol(daemon, "/el10/x86_64/", "ci") == 405
    assert names(daemon) == ["el8-x86_64", "el9-x86_64", "el10-x86_64"]
    assert daemon.get("/el9/x86_64/repodata/repomd.xml").status == 200
    made = [json.loads(line) for line in (tmp_path / "audit").read_text().splitlines()]
    keys = ("who", "method", "repository", "location", "status")
    assert [tuple(each[key] for key in keys) for each in made] == [
        ("ci9", "MKCOL", "el9-x86_64", "", 201),
        ("ci", "MKCOL", "el10-x86_64", "", 201),
    ]


def test_what_can_be_no_repository_is_refused_with_the_reason(daemon: Daemon, tmp_path: Path) -> None:
    assert mkcol(daemon, "/fedora/x86_64/", "anna") == 405
    assert mkcol(daemon, "/el9/", "anna") == 405
    assert mkcol(daemon, "/el9/x86_64/", "anna", b"<x/>") == 415
    assert not (tmp_path / "srv" / "el9").exists()
    answer = daemon.request("MKCOL", "/el9/lost+found/", headers=ANNA)
    assert (answer.status, answer.text) == (409, "this can be no repository: it belongs to the file system\n")
    (tmp_path / "srv" / "el9").write_text("a file")
    assert mkcol(daemon, "/el9/x86_64/", "anna") == 409
    assert (tmp_path / "srv" / "el9").read_text() == "a file"


def test_what_is_not_served_is_told_with_its_reason(daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "srv" / "el8" / ".old").mkdir()
    told = {"path": f"{tmp_path}/srv/el8/.old", "reason": "hidden directories are never served"}
    wait_until(lambda: daemon.status()["not_served"] == [told])
    line = f"not served: {told['path']}: {told['reason']}"
    assert line in repowatch("status", "--url", daemon.url).stdout
    assert line in repowatch("check-config", tmp_path / "repowatch.yaml").stdout
    assert told["path"] in daemon.get("/").text
    assert "repowatch_directories_not_served 1.0" in daemon.get("/metrics").text


def test_a_lock_of_webdav_outlives_the_coming_of_others(daemon: Daemon, tmp_path: Path) -> None:
    body = (
        b'<D:lockinfo xmlns:D="DAV:"><D:lockscope><D:exclusive/></D:lockscope>'
        b"<D:locktype><D:write/></D:locktype></D:lockinfo>"
    )
    locked = daemon.request("LOCK", "/el8/x86_64/hello-1.0-1.noarch.rpm", body, headers=ANNA)
    assert locked.status == 200
    assert mkcol(daemon, "/el9/x86_64/", "anna") == 201
    package = make_rpm(tmp_path, files={"/usr/share/doc/hello/README": b"other\n"})
    put = daemon.request("PUT", f"/el8/x86_64/{package.name}", package.read_bytes(), headers=ANNA)
    assert put.status == 423


def test_uploads_to_one_that_goes_are_answered(daemon: Daemon, tmp_path: Path) -> None:
    tree = tmp_path / "srv" / "el8"
    statuses: list[int] = []

    def upload(number: int) -> None:
        package = make_rpm(tmp_path / "made", f"p{number}")
        path = f"/el8/x86_64/{package.name}"
        statuses.append(daemon.request("PUT", path, package.read_bytes(), headers=ANNA).status)

    threads = [threading.Thread(target=upload, args=(number,)) for number in range(20)]
    for thread in threads[:10]:
        thread.start()
    tree.rename(tmp_path / "away")
    for thread in threads[10:]:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(statuses) == 20
    kept = {each.name for each in (tmp_path / "away" / "x86_64").glob("p*.rpm")}
    assert len(kept) >= statuses.count(201)
    wait_until(lambda: names(daemon) == [])


def test_another_configuration_is_taken_over_with_its_repositories(daemon: Daemon, tmp_path: Path) -> None:
    make_rpm(tmp_path / "rpm", "named")
    text = CONFIGURATION.format(scratch=tmp_path)
    (tmp_path / "repowatch.yaml").write_text(f"{text}  rpm: {{path: {tmp_path}/rpm}}\n")
    daemon.signal(signal.SIGHUP)
    wait_until(lambda: names(daemon) == ["el8-x86_64", "rpm"])
    wait_until(lambda: daemon.get("/rpm/repodata/repomd.xml").status == 200)
    (tmp_path / "repowatch.yaml").write_text(
        f"users: {tmp_path}/users\nrepositories: {{rpm: {{path: {tmp_path}/rpm}}}}"
    )
    daemon.signal(signal.SIGHUP)
    wait_until(lambda: names(daemon) == ["rpm"])
    assert "repositories: changes take effect" not in daemon.log
    (tmp_path / "repowatch.yaml").write_text(
        f"users: {tmp_path}/users\nrepositories: {{rpm: {{path: {tmp_path}/rpm, settle: 1s}}}}"
    )
    daemon.signal(signal.SIGHUP)
    wait_until(lambda: "repositories: changes take effect at the next start" in daemon.log)


def test_a_killed_daemon_finds_all_again(daemon: Daemon, tmp_path: Path) -> None:
    assert mkcol(daemon, "/el9/x86_64/", "anna") == 201
    daemon.kill()
    make_rpm(tmp_path / "srv" / "el10" / "aarch64")
    daemon.start()
    assert names(daemon) == ["el10-aarch64", "el8-x86_64", "el9-x86_64"]
