"""What the audit is told of a request: the change that was made, and nothing where none was."""

from __future__ import annotations

import errno
from collections.abc import Callable
from concurrent.futures import Future
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest

from repowatch.model.package import Entry, Nevra, Stamp
from repowatch.model.publication import Listed, Publication, RepomdFile
from repowatch.system.audit import Change
from repowatch.web.records import Outcome, Recorder
from repowatch.web.replies import Headers
from repowatch.web.rights.guard import IDENTITY
from repowatch.web.rights.rules import Identity
from repowatch.web.served import Served
from repowatch.web.uploads import ANSWER, Answer

OLD, NEW = "a" * 64, "b" * 64  # checksums


class Tree:
    """A repository that lists what a test says."""

    def __init__(self, root: Path) -> None:
        self.listed: dict[str, Entry] = {}
        done: Future[Listed] = Future()
        self.served = Served(
            name="rpm",
            url="/rpm/",
            root=str(root),
            staging=lambda: str(root),
            is_local=lambda: True,
            reserve=0,
            replace=True,
            is_package_name=lambda name: name.endswith(".rpm"),
            may_lead_to=lambda path: False,
            publication=self._publication,
            expect=lambda: lambda: None,
            admit=lambda *arguments, **named: done,
            remove=lambda *arguments, **named: done,
            look=lambda name: done,
            health=lambda: None,
            status=dict,
        )

    def _publication(self) -> Publication:
        return Publication(7, (), self.listed, RepomdFile("", 0), 0.0, 0.0)

    def lists(self, location: str, name: str, checksum: str) -> None:
        nevra = Nevra(name, "0", "1", "2", "noarch")
        self.listed[location] = Entry(location, checksum, nevra, Stamp(1, 2, 3, 4))


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def changes(
    tree: Tree,
    method: str,
    location: str,
    status: int,
    *,
    answer: Answer | None = None,
    destination: str | None = None,
    meanwhile: Callable[[], object] = lambda: None,
) -> list[Change]:
    """What is recorded of a request that `meanwhile` stands for."""
    recorded: list[Change] = []
    environ: dict[str, Any] = {
        "REQUEST_METHOD": method,
        "REMOTE_ADDR": "192.0.2.1",
        "HTTP_HOST": "localhost",
        IDENTITY: Identity("anna", "basic"),
    }
    if destination is not None:
        environ["HTTP_DESTINATION"] = f"/rpm/{destination}"

    def write(change: Change, *, durable: bool) -> None:
        recorded.append(change)

    recorder = Recorder(write)
    with recorder.change(tree.served, f"/rpm/{location}", environ, lambda *said: lambda data: None) as start:
        meanwhile()
        if answer is not None:
            environ[ANSWER] = answer
        start(f"{status} words", [])
    return recorded


def test_an_upload_is_recorded_with_the_package_that_it_is(tree: Tree) -> None:
    [change] = changes(
        tree,
        "PUT",
        "a/new.rpm",
        201,
        answer=Answer(HTTPStatus.CREATED, revision=8, checksum=NEW),
        meanwhile=lambda: tree.lists("a/new.rpm", "new", NEW),
    )
    assert change == Change(
        at=change.at,
        who="anna",
        how="basic",
        address="192.0.2.1",
        method="PUT",
        repository="rpm",
        location="a/new.rpm",
        sha256=NEW,
        nevra="new-1-2.noarch",
        revision=8,
        status=201,
    )


def test_an_upload_is_recorded_with_the_checksum_of_its_repository(tree: Tree) -> None:
    pkgid = NEW * 2
    answer = Answer(HTTPStatus.CREATED, revision=8, checksum=pkgid)
    put = lambda: tree.lists("a/new.rpm", "new", pkgid)  # noqa: E731
    [change] = changes(tree, "PUT", "a/new.rpm", 201, answer=answer, meanwhile=put)
    assert (change.sha256, change.sha512, change.nevra) == (None, pkgid, "new-1-2.noarch")


def test_an_upload_that_is_listed_later_is_not_taken_for_the_package_before(tree: Tree) -> None:
    tree.lists("a.rpm", "old", OLD)
    [change] = changes(tree, "PUT", "a.rpm", 202, answer=Answer(HTTPStatus.ACCEPTED, checksum=NEW))
    assert (change.sha256, change.nevra, change.revision) == (NEW, None, None)


def test_an_empty_upload_is_not_taken_for_the_package_that_it_replaces(tree: Tree) -> None:
    tree.lists("a.rpm", "old", OLD)
    [change] = changes(
        tree,
        "PUT",
        "a.rpm",
        204,
        answer=Answer(HTTPStatus.NO_CONTENT, revision=8),
        meanwhile=tree.listed.clear,
    )
    assert (change.sha256, change.nevra, change.revision) == (None, None, 8)


def test_what_is_no_package_is_recorded_with_its_checksum(tree: Tree) -> None:
    [change] = changes(tree, "PUT", "a.txt", 201, answer=Answer(HTTPStatus.CREATED, checksum=NEW))
    assert (change.sha256, change.nevra) == (NEW, None)


def test_a_removed_package_is_recorded_as_what_it_was(tree: Tree) -> None:
    tree.lists("a.rpm", "old", OLD)
    [change] = changes(tree, "DELETE", "a.rpm", 204, meanwhile=tree.listed.clear)
    assert (change.sha256, change.nevra, change.destination) == (OLD, "old-1-2.noarch", None)


@pytest.mark.parametrize("method", ["MOVE", "COPY"])
def test_a_moved_package_is_recorded_and_not_what_it_replaced(tree: Tree, method: str) -> None:
    tree.lists("a.rpm", "moved", NEW)
    tree.lists("b.rpm", "old", OLD)
    [change] = changes(tree, method, "a.rpm", 204, destination="b.rpm")
    assert (change.location, change.destination) == ("a.rpm", "b.rpm")
    assert (change.sha256, change.nevra) == (NEW, "moved-1-2.noarch")


def test_a_file_that_becomes_a_package_by_its_name_is_recorded_as_one(tree: Tree) -> None:
    [change] = changes(
        tree,
        "MOVE",
        "a.part",
        201,
        destination="a%20b.rpm",
        meanwhile=lambda: tree.lists("a b.rpm", "new", NEW),
    )
    assert (change.destination, change.nevra) == ("a b.rpm", "new-1-2.noarch")


@pytest.mark.parametrize("method", ["PUT", "DELETE", "MOVE", "COPY", "MKCOL"])
@pytest.mark.parametrize("status", [304, 401, 409, 412, 422, 500, 507])
def test_what_changed_nothing_is_not_recorded(tree: Tree, method: str, status: int) -> None:
    assert changes(tree, method, "a.rpm", status) == []


@pytest.mark.parametrize("method", ["OPTIONS", "PROPFIND", "LOCK", "UNLOCK"])
def test_what_asks_is_not_recorded(tree: Tree, method: str) -> None:
    assert changes(tree, method, "a.rpm", 200) == []


def test_a_request_that_fails_unexpectedly_is_not_recorded(tree: Tree) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        changes(tree, "PUT", "a.rpm", 201, meanwhile=fail)


def test_an_audit_that_can_not_be_written_does_not_undo_the_change(
    tree: Tree, caplog: pytest.LogCaptureFixture
) -> None:
    def write(change: Change, *, durable: bool) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    environ = {"REQUEST_METHOD": "MKCOL", "REMOTE_ADDR": "", IDENTITY: Identity(None, "none")}
    said: list[str] = []

    def start_response(status: str, headers: Headers, exc_info: Any = None, /) -> Callable[[bytes], object]:
        said.append(status)
        return lambda data: None

    with Recorder(write).change(tree.served, "/rpm/a", environ, start_response) as start:
        start("201 Created", [])
    assert said == ["201 Created"]
    assert "the audit lacks MKCOL of a: No space left on device" in caplog.text


@pytest.mark.parametrize("location", ["a", "a/"])
def test_each_package_of_a_directory_that_goes_has_a_line_of_its_own(tree: Tree, location: str) -> None:
    (Path(tree.served.root) / "a" / "b").mkdir(parents=True)
    for name in ("a/one.rpm", "a/b/two.rpm", "ab/three.rpm", "four.rpm"):
        tree.lists(name, name.rpartition("/")[2].removesuffix(".rpm"), OLD)
    recorded = changes(
        tree,
        "MOVE",
        location,
        201,
        destination="c",
        answer=Answer(HTTPStatus.CREATED, revision=8),
        meanwhile=tree.listed.clear,
    )
    assert [(each.location, each.destination, each.nevra) for each in recorded] == [
        ("a/one.rpm", "c/one.rpm", "one-1-2.noarch"),
        ("a/b/two.rpm", "c/b/two.rpm", "two-1-2.noarch"),
        (location, "c", None),
    ]
    assert {each.revision for each in recorded} == {8}


def test_a_directory_that_stays_has_no_lines_for_what_is_in_it(tree: Tree) -> None:
    (Path(tree.served.root) / "a").mkdir()
    tree.lists("a/one.rpm", "one", OLD)
    assert changes(tree, "DELETE", "a", 423) == []


def test_only_a_lock_that_makes_a_file_is_a_change(tree: Tree) -> None:
    assert changes(tree, "LOCK", "a", 200) == []
    assert [each.method for each in changes(tree, "LOCK", "a", 201)] == ["LOCK"]


def test_a_rollback_is_told_with_each_package_that_came_or_left_by_it(tree: Tree) -> None:
    for name in ("back.rpm", "other.rpm"):
        tree.lists(name, name, NEW)
    told = {"revision": 8, "returned": ["back.rpm"], "replaced": ["other.rpm"], "retired": ["new.rpm"]}
    outcome = Outcome.of(tree.served, told)
    assert [each.location_href for each in outcome.came] == ["back.rpm", "other.rpm"]
    assert list(outcome.gone) == ["new.rpm"]


def test_an_operation_is_told_with_each_package_that_came_or_left_by_it(tree: Tree) -> None:
    written: list[Change] = []
    tree.lists("a.rpm", "a", NEW)
    outcome = Outcome.of(
        tree.served, {"revision": 8, "locations": ["a.rpm", "gone.rpm"], "removed": ["b.rpm"]}
    )
    environ = {IDENTITY: Identity("anna", "basic"), "REMOTE_ADDR": "192.0.2.7"}

    def write(change: Change, *, durable: bool) -> None:
        written.append(change)

    recorder = Recorder(write)
    recorder.operation("rpm", "commit", {"batch": "b"}, environ, outcome=outcome)
    assert [(each.method, each.location, each.sha256, each.revision) for each in written] == [
        ("commit", "a.rpm", NEW, 8),
        ("commit", "b.rpm", None, 8),
        ("commit", '{"batch": "b"}', None, 8),
    ]
