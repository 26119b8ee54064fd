"""DELETE, MOVE, COPY and MKCOL with curl: what is listed follows what is done, at once."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from xml.etree.ElementTree import fromstring

import pytest

from tests.clients.conftest import Corner
from tests.clients.curl import curl, upload
from tests.kit.daemon import Answer, Daemon, wait_until
from tests.kit.rpms import append, make_rpm
from tests.kit.wire import Client, head

pytestmark = pytest.mark.client("curl")

HELLO = "hello-1.0-1.noarch.rpm"
OTHER = "other-1.0-1.noarch.rpm"

LOCK = (
    '<D:lockinfo xmlns:D="DAV:"><D:lockscope><D:exclusive/></D:lockscope>'
    "<D:locktype><D:write/></D:locktype></D:lockinfo>"
)
BOMB = (
    '<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>'
    '<D:propfind xmlns:D="DAV:"><D:prop>&b;</D:prop></D:propfind>'
)


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
    token = curl("-X", "LOCK", "--data-binary", LOCK, corner.url + HELLO).headers["Lock-Token"]
    make_rpm(tmp_path, summary="Another")
    assert upload(tmp_path / HELLO, corner.url).status == 423
    assert dav("DELETE", corner.url + HELLO).status == 423
    assert (corner.path / HELLO).read_bytes() == hello
    assert upload(tmp_path / HELLO, corner.url, f"If: ({token})").status == 204
    assert curl("-X", "UNLOCK", "-H", f"Lock-Token: {token}", corner.url + HELLO).status == 204


@pytest.mark.parametrize("locked", [HELLO, ""])
def test_a_lock_that_comes_while_an_upload_does_holds_against_it(
    corner: Corner, hello: bytes, tmp_path: Path, locked: str
) -> None:
    """Of the file, or of the directory that it is to be in."""
    content = make_rpm(tmp_path, summary="Another").read_bytes()
    with closing(Client(corner.daemon.address)) as client:
        client.send(head("PUT", corner.href + HELLO, f"Content-Length: {len(content)}"))
        client.send(content[:1000])
        wait_until(lambda: any(corner.staging.iterdir()))
        token = curl("-X", "LOCK", "--data-binary", LOCK, corner.url + locked).headers["Lock-Token"]
        client.send(content[1000:])
        assert client.answer(to="PUT").status == 423
    assert (corner.path / HELLO).read_bytes() == hello
    assert not any(corner.staging.iterdir())
    assert curl("-X", "UNLOCK", "-H", f"Lock-Token: {token}", corner.url + locked).status == 204


def test_propfind_shows_one_level_and_nothing_hidden(corner: Corner) -> None:
    directory_of_two(corner)
    answer = dav("PROPFIND", corner.url + "d/", None, "Depth: 1")
    assert answer.status == 207
    assert HELLO in answer.text
    assert "sub/" in answer.text
    assert OTHER not in answer.text
    assert ".repowatch" not in dav("PROPFIND", corner.daemon.repository_url("rpm"), None, "Depth: 1").text
    assert dav("PROPFIND", corner.url, None, "Depth: infinity").status == 403


@pytest.mark.parametrize("depth", ["2", "-1", "1,1", "00", "one", "9" * 400])
def test_a_depth_that_is_none_is_refused(corner: Corner, depth: str) -> None:
    answer = dav("PROPFIND", corner.url, None, f"Depth: {depth}")
    assert answer.status == 400
    assert len(answer.text.splitlines()) == 1


def test_a_large_directory_is_told_on_a_connection_that_goes_on(corner: Corner) -> None:
    names = {f"file-{number}" for number in range(500)}
    for name in names:
        (corner.path / name).touch()
    connection = http.client.HTTPConnection(*corner.daemon.address, timeout=40)
    for _ in range(2):
        connection.request("PROPFIND", corner.href, headers={"Depth": "1"})
        response = connection.getresponse()
        told = {each.text for each in fromstring(response.read()).iter("{DAV:}href")}
        assert told == {corner.href} | {corner.href + name for name in names}
        assert response.getheader("Content-Length") is None
        assert response.getheader("Connection") is None
    connection.close()


@pytest.mark.parametrize("method", ["PROPFIND", "PROPPATCH", "LOCK"])
def test_entities_and_bodies_without_an_end_are_refused(corner: Corner, hello: bytes, method: str) -> None:
    def send(body: str, *headers: str) -> int:
        fields = [part for field in ("Depth: 0", *headers) for part in ("-H", field)]
        return curl("-X", method, *fields, "--data-binary", "@-", corner.url + HELLO, stdin=body).status

    large = f"<a>{' ' * 100_000}</a>"
    assert send(BOMB) == 400
    assert send("<a") == 400
    assert send(large) == 413
    assert send(large, "Transfer-Encoding: chunked") == 413
    assert dav("PROPFIND", corner.url + HELLO, None, "Depth: 0").status == 207


@pytest.mark.parametrize("method", ["DELETE", "MOVE", "COPY", "MKCOL"])
def test_a_method_without_a_use_for_a_body_does_not_take_a_large_one(
    corner: Corner, hello: bytes, method: str
) -> None:
    fields = ("-H", f"Destination: {corner.url}new", "--data-binary", "@-")
    target = corner.url + ("new" if method == "MKCOL" else HELLO)
    assert curl("-X", method, *fields, target, stdin="x" * 100_000).status == 413
    assert corner.files() == {HELLO}


@pytest.mark.parametrize("tagged", [False, True])
def test_a_new_file_comes_as_davfs2_sends_it(corner: Corner, tmp_path: Path, tagged: bool) -> None:
    """LOCK, an empty PUT, what there is of it, the file, UNLOCK: davfs2 1.7, dav_lock and dav_put."""
    package = make_rpm(tmp_path)
    locked = curl("-X", "LOCK", "-H", "Timeout: Second-300", "--data-binary", LOCK, corner.url + HELLO)
    token = locked.headers["Lock-Token"]
    assert locked.status == 201
    holds = f"If: <{corner.url}{HELLO}> ({token})" if tagged else f"If: ({token})"
    empty = tmp_path / "empty"
    empty.touch()
    assert curl("-T", empty, "-H", holds, corner.url + HELLO).status == 204
    assert curl("--head", corner.url + HELLO).headers["Content-Length"] == "0"
    assert upload(package, corner.url).status == 423
    assert upload(package, corner.url, holds).status == 204
    assert corner.listed() == {HELLO}
    assert token[1:-1] in dav("PROPFIND", corner.url + HELLO, None, "Depth: 0").text
    assert curl("-X", "UNLOCK", "-H", f"Lock-Token: {token}", corner.url + HELLO).status == 204
    assert (corner.path / HELLO).read_bytes() == package.read_bytes()


@pytest.mark.parametrize("field", ["(", "()", "(Not)", "nonsense"])
def test_a_condition_that_can_not_be_read_does_not_hold(corner: Corner, tmp_path: Path, field: str) -> None:
    assert upload(make_rpm(tmp_path), corner.url, f"If: {field}").status == 400
    assert corner.files() == set()


def test_a_condition_is_held_against_the_url_that_it_is_tagged_with(corner: Corner, hello: bytes) -> None:
    etag = curl("--head", corner.url + HELLO).headers["ETag"]
    for condition, status in ((f"[{etag}]", 207), ('["other"]', 412)):
        for tag in (corner.url + HELLO, corner.href + HELLO):
            fields = ("Depth: 0", f"If: <{tag}> ({condition})")
            assert dav("PROPFIND", corner.url + HELLO, None, *fields).status == status
    assert dav("DELETE", corner.url + HELLO, None, f'If: <{corner.url}{HELLO}> (["other"])').status == 412
    assert corner.files() == {HELLO}


@pytest.mark.parametrize("method", ["MOVE", "COPY"])
def test_the_scheme_of_a_destination_may_be_that_of_a_proxy(
    corner: Corner, hello: bytes, method: str
) -> None:
    there = f"{corner.url}new.rpm".replace("http:", "https:")
    assert dav(method, corner.url + HELLO, there).status == 201
    assert "new.rpm" in corner.listed()


@pytest.mark.parametrize("method", ["MOVE", "COPY"])
@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("http://elsewhere.example{href}new.rpm", 502),
        ("{url}../../other/new.rpm", 400),
        ("{url}%2e%2e/new.rpm", 400),
        ("{url}a%2Fnew.rpm", 400),
        ("{url}a%00", 400),
        ("{url}%ff", 400),
        ("{url}new.rpm?a", 400),
        ("ftp://host{href}new.rpm", 400),
        ("new.rpm", 400),
        ("{server}other/new.rpm", 502),
        ("{server}rpm/", 403),
        ("{server}rpm", 403),
        ("{url}a;b.rpm", 501),
    ],
)
def test_a_destination_that_is_none_in_the_repository_is_refused(
    corner: Corner, hello: bytes, method: str, target: str, status: int
) -> None:
    there = target.format(url=corner.url, href=corner.href, server=corner.daemon.url)
    answer = dav(method, corner.url + HELLO, there)
    assert answer.status == status
    assert len(answer.text.splitlines()) == 1
    assert corner.files() == {HELLO}


@contextmanager
def reading(corner: Corner, name: str) -> Iterator[set[int]]:
    """Have a client that reads a file again and again; the statuses that it is told."""
    statuses: set[int] = set()
    done, began = threading.Event(), threading.Event()

    def read() -> None:
        connection = http.client.HTTPConnection(*corner.daemon.address, timeout=40)
        while not done.is_set():
            connection.request("GET", corner.href + name)
            response = connection.getresponse()
            response.read()
            statuses.add(response.status)
            began.set()
        connection.close()

    thread = threading.Thread(target=read)
    thread.start()
    try:
        assert began.wait(20)
        yield statuses
    finally:
        done.set()
        thread.join()


@pytest.mark.parametrize("method", ["MOVE", "COPY"])
def test_a_file_that_is_replaced_is_there_all_the_time(corner: Corner, method: str) -> None:
    (corner.path / "read").write_text("old")
    with reading(corner, "read") as statuses:
        for number in range(100):
            (corner.path / "new").write_text(f"new {number}")
            assert dav(method, corner.url + "new", corner.url + "read").status == 204
    assert statuses == {200}


def test_a_package_that_is_replaced_is_there_all_the_time(
    corner: Corner, tmp_path: Path, hello: bytes
) -> None:
    with reading(corner, HELLO) as statuses:
        for number in range(15):
            upload(make_rpm(tmp_path / str(number), "other", f"{number}"), corner.url + OTHER)
            assert dav("MOVE", corner.url + OTHER, corner.url + HELLO).status == 204
    assert statuses == {200}


def test_a_directory_in_the_way_is_kept_when_the_move_is_refused(corner: Corner, tmp_path: Path) -> None:
    names = directory_of_two(corner)
    (corner.path / "d").rename(corner.path / "d.rpm")
    corner.await_listed(*(f"d.rpm/{name}" for name in names))
    damaged = make_rpm(tmp_path, "damaged")
    append(damaged, data=b"?")
    upload(damaged, corner.url + "damaged.bin")
    assert dav("MOVE", corner.url + "damaged.bin", corner.url + "d.rpm").status == 422
    assert corner.listed() == {f"d.rpm/{name}" for name in names}
    upload(make_rpm(tmp_path), corner.url + "new.bin")
    assert dav("MOVE", corner.url + "new.bin", corner.url + "d.rpm").status == 204
    corner.await_listed("d.rpm")
