"""DELETE, MOVE, COPY and MKCOL with curl: what is listed follows what is done, at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.clients.conftest import Corner
from tests.clients.curl import curl, upload
from tests.kit.daemon import Answer, Daemon
from tests.kit.rpms import append, make_rpm

pytestmark = pytest.mark.client("curl")

HELLO = "hello-1.0-1.noarch.rpm"
OTHER = "other-1.0-1.noarch.rpm"


@pytest.fixture
def hello(corner: Corner, tmp_path: Path) -> bytes:
    """The content of a package that is listed in the corner."""
    package = make_rpm(tmp_path)
    assert upload(package, corner.url).status == 201
    return package.read_bytes()


def dav(method: str, url: str, destination: str | None = None, *headers: str) -> Answer:
    fields = [*([f"Destination: {destination}"] if destination else []), *headers]
    return curl("-X", method, *(part for field in fields for part in ("-H", field)), url)


def directory_of_two(corner: Corner, name: str = "d") -> set[str]:
    """Make a directory with two packages in the corner; their names in it."""
    make_rpm(corner.path / name), make_rpm(corner.path / name / "sub", "other")
    names = {HELLO, f"sub/{OTHER}"}
    corner.await_listed(*(f"{name}/{each}" for each in names))
    return names


def test_a_deleted_package_is_unlisted_and_gone(corner: Corner, hello: bytes) -> None:
    answer = dav("DELETE", corner.url + HELLO)
    assert corner.listed() == set()
    assert answer.status == 204
    assert answer.headers["Repowatch-Revision"]
    assert corner.files() == set()
    assert curl(corner.url + HELLO).status == 404
    assert dav("DELETE", corner.url + HELLO).status == 404


def test_a_deleted_file_is_gone(corner: Corner) -> None:
    (corner.path / "notes").touch()
    assert dav("DELETE", corner.url + "notes").status == 204
    assert corner.files() == set()


def test_a_deleted_directory_takes_its_packages_along(corner: Corner) -> None:
    directory_of_two(corner)
    assert dav("DELETE", corner.url + "d/").status == 204
    assert corner.listed() == set()
    assert not (corner.path / "d").exists()


def test_a_moved_package_is_listed_under_its_new_name(corner: Corner, hello: bytes) -> None:
    (corner.path / "sub").mkdir()
    answer = dav("MOVE", corner.url + HELLO, corner.url + "sub/new.rpm")
    assert corner.listed() == {"sub/new.rpm"}
    assert answer.status == 201
    assert answer.headers["Repowatch-Revision"]
    assert corner.files() == {"sub/new.rpm"}
    assert curl(corner.url + "sub/new.rpm").body == hello


def test_a_copied_package_is_listed_twice(corner: Corner, hello: bytes) -> None:
    assert dav("COPY", corner.url + HELLO, corner.url + "new.rpm").status == 201
    assert corner.listed() == {HELLO, "new.rpm"}
    assert (corner.path / "new.rpm").read_bytes() == hello


def test_a_package_may_be_moved_onto_another(corner: Corner, hello: bytes, tmp_path: Path) -> None:
    other = make_rpm(tmp_path, "other").read_bytes()
    upload(tmp_path / OTHER, corner.url)
    assert dav("MOVE", corner.url + OTHER, corner.url + HELLO, "Overwrite: F").status == 412
    assert corner.listed() == {HELLO, OTHER}
    assert dav("MOVE", corner.url + OTHER, corner.url + HELLO).status == 204
    assert corner.listed() == {HELLO}
    assert (corner.path / HELLO).read_bytes() == other


def test_a_package_may_be_copied_onto_another(corner: Corner, hello: bytes, tmp_path: Path) -> None:
    other = make_rpm(tmp_path, "other").read_bytes()
    upload(tmp_path / OTHER, corner.url)
    assert dav("COPY", corner.url + OTHER, corner.url + HELLO).status == 204
    assert corner.listed() == {HELLO, OTHER}
    assert (corner.path / HELLO).read_bytes() == other


@pytest.mark.parametrize("method", ["MOVE", "COPY"])
def test_what_is_no_package_does_not_get_the_name_of_one(
    corner: Corner, method: str, hello: bytes, tmp_path: Path
) -> None:
    damaged = make_rpm(tmp_path, "damaged")
    append(damaged, data=b"?")
    upload(damaged, corner.url + "damaged.bin")
    for target in ("x.rpm", HELLO):
        answer = dav(method, corner.url + "damaged.bin", corner.url + target)
        assert answer.status == 422
        assert answer.headers.get_content_type() == "text/plain"
        assert len(answer.text.splitlines()) == 1
    assert corner.files() == {"damaged.bin", HELLO}
    assert (corner.path / "damaged.bin").read_bytes() == damaged.read_bytes()
    assert (corner.path / HELLO).read_bytes() == hello
    assert corner.listed() == {HELLO}
    assert corner.rejected() == {}


def test_a_package_that_gets_another_kind_of_name_is_unlisted(corner: Corner, hello: bytes) -> None:
    assert dav("MOVE", corner.url + HELLO, corner.url + "aside.bak").status == 201
    corner.await_listed()
    assert corner.files() == {"aside.bak"}
    assert dav("MOVE", corner.url + "aside.bak", corner.url + HELLO).status == 201
    assert corner.listed() == {HELLO}


def test_the_packages_of_a_moved_directory_are_listed_in_their_new_place(corner: Corner) -> None:
    names = directory_of_two(corner)
    assert dav("MOVE", corner.url + "d/", corner.url + "e/").status == 201
    corner.await_listed(*(f"e/{name}" for name in names))
    assert corner.files() == {f"e/{name}" for name in names}


def test_the_packages_of_a_copied_directory_are_listed_in_both_places(corner: Corner) -> None:
    names = directory_of_two(corner)
    assert dav("COPY", corner.url + "d/", corner.url + "e/").status == 201
    assert corner.listed() == {f"{place}/{name}" for name in names for place in "de"}


def test_a_copy_of_depth_zero_is_an_empty_directory(corner: Corner) -> None:
    directory_of_two(corner)
    assert dav("COPY", corner.url + "d/", corner.url + "e/", "Depth: 0").status == 201
    assert list((corner.path / "e").iterdir()) == []


def test_a_directory_may_be_moved_onto_another(corner: Corner) -> None:
    names = directory_of_two(corner)
    make_rpm(corner.path / "e", "replaced")
    corner.await_listed("e/replaced-1.0-1.noarch.rpm", *(f"d/{name}" for name in names))
    assert dav("MOVE", corner.url + "d/", corner.url + "e/").status == 204
    corner.await_listed(*(f"e/{name}" for name in names))


@pytest.mark.parametrize("method", ["MOVE", "COPY"])
@pytest.mark.parametrize(
    ("target", "status"), [("/rpm/.x.rpm", 403), ("/rpm/repodata/x.rpm", 403), ("/rpm/a%2fb.rpm", 400)]
)
def test_moves_go_nowhere_where_uploads_may_not(
    corner: Corner, hello: bytes, method: str, target: str, status: int
) -> None:
    answer = dav(method, corner.url + HELLO, corner.daemon.url.rstrip("/") + target)
    assert answer.status == status
    assert corner.listed() == {HELLO}
    assert corner.files() == {HELLO}


@pytest.mark.parametrize("method", ["MOVE", "COPY"])
def test_a_directory_is_made_before_something_comes_into_it(
    corner: Corner, hello: bytes, method: str
) -> None:
    assert dav(method, corner.url + HELLO, f"{corner.url}none/{HELLO}").status == 409
    assert corner.files() == {HELLO}


@pytest.mark.parametrize("path", ["", "repodata/", "repodata/repomd.xml"])
def test_the_repository_itself_and_its_metadata_stay(shared: Daemon, path: str) -> None:
    url = shared.repository_url("rpm") + path
    assert dav("DELETE", url).status == 403
    assert dav("MOVE", url, shared.repository_url("rpm") + "elsewhere").status == 403
    assert shared.get("/rpm/repodata/repomd.xml").status == 200


def test_a_locked_package_is_not_written_without_its_token(
    corner: Corner, hello: bytes, tmp_path: Path
) -> None:
    body = (
        '<D:lockinfo xmlns:D="DAV:"><D:lockscope><D:exclusive/></D:lockscope>'
        "<D:locktype><D:write/></D:locktype></D:lockinfo>"
    )
    token = curl("-X", "LOCK", "--data-binary", body, corner.url + HELLO).headers["Lock-Token"]
    make_rpm(tmp_path, summary="Another")
    assert upload(tmp_path / HELLO, corner.url).status == 423
    assert dav("DELETE", corner.url + HELLO).status == 423
    assert (corner.path / HELLO).read_bytes() == hello
    assert upload(tmp_path / HELLO, corner.url, f"If: ({token})").status == 204
    assert curl("-X", "UNLOCK", "-H", f"Lock-Token: {token}", corner.url + HELLO).status == 204


def test_propfind_shows_one_level_and_nothing_hidden(corner: Corner) -> None:
    directory_of_two(corner)
    answer = dav("PROPFIND", corner.url + "d/", None, "Depth: 1")
    assert answer.status == 207
    assert HELLO in answer.text
    assert "sub/" in answer.text
    assert OTHER not in answer.text
    assert ".repowatch" not in dav("PROPFIND", corner.daemon.repository_url("rpm"), None, "Depth: 1").text
    assert dav("PROPFIND", corner.url, None, "Depth: infinity").status == 403
