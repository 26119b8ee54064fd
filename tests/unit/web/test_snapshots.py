"""Which paths mean a snapshot, and what is answered there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus
from pathlib import Path

import pytest

from repowatch.errors import Conflict, Nameless
from repowatch.web.served import Served
from repowatch.web.snapshots import Meant, answer, as_repositories, refusal, url_of
from tests.kit.served import serve


@dataclass(frozen=True, slots=True)
class File:
    path: str
    etag: str | None


class View:
    """A snapshot of two packages, of which one is lost."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def find(self, location_href: str) -> File | None:
        if location_href == "lost.rpm":
            raise Conflict("the file was written over")
        path = self.root / location_href
        return File(str(path), "pkgid") if path.is_file() else None

    def entries(self, directory: str) -> Sequence[tuple[str, bool, int, float]] | None:
        path = self.root / directory
        return [(each.name, each.is_dir(), 1, 1.0) for each in path.iterdir()] if path.is_dir() else None


@pytest.fixture
def repository(tmp_path: Path) -> Served:
    (tmp_path / "repodata").mkdir()
    for name in ("a.rpm", ".hidden", "repodata/repomd.xml", "repodata/repomd.xml.asc", "repodata/K.key"):
        (tmp_path / name).write_text(name)

    def snapshot(name: str) -> View:
        if name != "one":
            raise Nameless(f"there is no snapshot {name}")
        return View(tmp_path)

    return replace(serve(tmp_path), url="/rpm/", snapshot=snapshot)


@dataclass(frozen=True, slots=True)
class Door:
    url: str


@pytest.mark.parametrize(
    ("path", "name", "location_href"),
    [
        ("/rpm@one", "one", ""),
        ("/rpm@one/", "one", ""),
        ("/rpm@one/a.rpm", "one", "a.rpm"),
        ("/rpm@one/sub/a@b.rpm", "one", "sub/a@b.rpm"),
        ("/rpm@x.repo/", "x.repo", ""),
    ],
)
def test_a_path_behind_the_sign_means_a_snapshot(
    repository: Served, path: str, name: str, location_href: str
) -> None:
    assert Meant.by(path, [repository], door=None) == Meant(repository, name, location_href)


@pytest.mark.parametrize("path", ["/rpm/", "/rpm/a@b.rpm", "/rpm", "/other@one/", "/rpm@one.repo", "/"])
def test_others_do_not(repository: Served, path: str) -> None:
    assert Meant.by(path, [repository], door=None) is None


def test_a_repository_at_the_root_has_snapshots_as_well(repository: Served) -> None:
    root = replace(repository, url="/")
    assert Meant.by("/@one/a.rpm", [root], door=Door("/")) == Meant(root, "one", "a.rpm")
    assert Meant.by("/sub/@one/a.rpm", [root], door=Door("/")) is None
    assert url_of(root, "one") == "/@one/"


def test_a_repository_that_lies_deeper_wins(repository: Served) -> None:
    assert Meant.by("/rpm@one/x/a.rpm", [repository], door=Door("/rpm@one/x/")) is None
    assert Meant.by("/rpm@one/x/a.rpm", [repository], door=Door("/")) is not None


def test_who_wants_more_than_to_read_is_refused() -> None:
    assert refusal("GET") is refusal("HEAD") is None
    for method in ("PUT", "DELETE", "PROPFIND", "NONSENSE"):
        reply = refusal(method)
        assert reply and reply.status is HTTPStatus.METHOD_NOT_ALLOWED
    options = refusal("OPTIONS")
    assert options and options.headers == [("Allow", "GET, HEAD, OPTIONS")]


def get(repository: Served, path: str) -> tuple[str, dict[str, str]]:
    said: list[tuple[str, dict[str, str]]] = []
    meant = Meant.by(path, [repository], door=None)
    assert meant
    body = answer(
        meant,
        path,
        {"REQUEST_METHOD": "GET"},
        lambda status, headers, *rest: said.append((status, dict(headers))),  # type: ignore[arg-type]
    )
    b"".join(body)
    return said[-1]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("a.rpm", "200 OK"),
        ("", "200 OK"),
        ("repodata/", "200 OK"),
        ("repodata", "301 Moved Permanently"),
        ("lost.rpm", "410 Gone"),
        ("nothing", "404 Not Found"),
        (".hidden", "404 Not Found"),
    ],
)
def test_what_is_there_is_given_and_what_is_lost_is_told(repository: Served, path: str, status: str) -> None:
    assert get(repository, f"/rpm@one/{path}")[0] == status


def test_a_package_is_tagged_with_its_pkgid(repository: Served) -> None:
    assert get(repository, "/rpm@one/a.rpm")[1]["ETag"] == '"pkgid"'


def test_what_does_not_exist_is_not_found(repository: Served) -> None:
    assert get(repository, "/rpm@two/a.rpm")[0] == "404 Not Found"


@pytest.mark.parametrize("path", ["/rpm@one.repo", "/-/rpm@one/setup.sh"])
def test_clients_are_told_of_it_as_of_a_repository(repository: Served, path: str) -> None:
    (found,) = as_repositories(path, [repository])
    assert (found.name, found.url, found.baseurl()) == ("rpm@one", "/rpm@one/", "/rpm@one/")
    assert found.metadata_keys() == ["repodata/K.key"]


@pytest.mark.parametrize("path", ["/rpm@two.repo", "/rpm.repo", "/-/rpm/setup.sh", "/-/rpm", "/rpm@.repo"])
def test_of_others_they_are_not(repository: Served, path: str) -> None:
    assert as_repositories(path, [repository]) == ()
