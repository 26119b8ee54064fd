"""What curl is told about its uploads, and what becomes of them."""

from __future__ import annotations

import hashlib
import os
import socket
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.clients.conftest import Corner
from tests.clients.curl import curl, upload
from tests.kit.daemon import Answer, Daemon, wait_until
from tests.kit.metadata import locations
from tests.kit.rpms import WRITTEN, flip_byte, layout, make_rpm, truncate

pytestmark = pytest.mark.client("curl")

HELLO = "hello-1.0-1.noarch.rpm"
LARGEST = 1 << 20


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    scratch = tmp_path_factory.mktemp("shared")
    for name in ("rpm", "fixed"):
        (scratch / name).mkdir()
    configuration = f"""
max_upload: {LARGEST}
repositories:
  rpm: {{path: {scratch}/rpm}}
  fixed: {{path: {scratch}/fixed, replace: deny}}
"""
    with Daemon(scratch=scratch, configuration=configuration) as daemon:
        yield daemon


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def revision(daemon: Daemon) -> int:
    return int(daemon.repository("rpm")["revision"])


def assert_refused(answer: Answer, status: int, reason: str) -> None:
    assert answer.status == status
    assert answer.headers.get_content_type() == "text/plain"
    assert answer.text.endswith("\n")
    assert len(answer.text.splitlines()) == 1
    assert reason in answer.text


def assert_nothing_kept(corner: Corner) -> None:
    assert corner.files() == set()
    assert corner.rejected() == {}
    wait_until(lambda: not os.listdir(corner.staging))


def test_a_new_package_is_listed_when_curl_returns(corner: Corner, tmp_path: Path) -> None:
    answer = upload(make_rpm(tmp_path), corner.url)
    assert corner.listed() == {HELLO}
    assert answer.status == 201
    assert int(answer.headers["Repowatch-Revision"]) == revision(corner.daemon)
    assert answer.headers["ETag"] == f'"{sha256(tmp_path / HELLO)}"'
    assert corner.pkgid(HELLO) == sha256(tmp_path / HELLO)
    assert (corner.path / HELLO).read_bytes() == (tmp_path / HELLO).read_bytes()


def test_the_same_content_again_publishes_nothing(corner: Corner, tmp_path: Path) -> None:
    first = upload(make_rpm(tmp_path), corner.url)
    repomd = corner.daemon.get("/rpm/repodata/repomd.xml").body
    again = upload(tmp_path / HELLO, corner.url)
    assert again.status == 204
    assert again.body == b""
    assert again.headers["Repowatch-Revision"] == first.headers["Repowatch-Revision"]
    assert corner.daemon.get("/rpm/repodata/repomd.xml").body == repomd


def test_other_content_under_the_same_name_is_listed_in_its_place(corner: Corner, tmp_path: Path) -> None:
    first = upload(make_rpm(tmp_path), corner.url)
    second = upload(make_rpm(tmp_path, summary="Another one"), corner.url)
    assert second.status == 204
    assert int(second.headers["Repowatch-Revision"]) > int(first.headers["Repowatch-Revision"])
    assert corner.listed() == {HELLO}
    assert corner.pkgid(HELLO) == sha256(tmp_path / HELLO)


def _truncated(path: Path) -> None:
    truncate(path, size=layout(path).payload + 1)


def _corrupt(path: Path) -> None:
    flip_byte(path, offset=layout(path).end - 1)


def _no_rpm(path: Path) -> None:
    path.write_bytes(b"<html>504 Gateway Time-out</html>" * 10)


def _without_digest(path: Path) -> None:
    make_rpm(path.parent, omit=WRITTEN[4])


BAD = [
    pytest.param(_truncated, "bytes", id="truncated"),
    pytest.param(_corrupt, "corrupt", id="corrupt"),
    pytest.param(_no_rpm, "RPM", id="not a package"),
    pytest.param(_without_digest, "no digest", id="without digest"),
]


@pytest.mark.parametrize(("damage", "reason"), BAD)
def test_what_is_no_whole_package_is_refused_with_its_reason(
    corner: Corner, tmp_path: Path, damage: Callable[[Path], None], reason: str
) -> None:
    before = revision(corner.daemon)
    damage(make_rpm(tmp_path))
    assert_refused(upload(tmp_path / HELLO, corner.url), 422, reason)
    assert_nothing_kept(corner)
    assert revision(corner.daemon) == before


@pytest.mark.parametrize(("damage", "reason"), BAD)
def test_a_refused_package_leaves_the_one_that_has_its_name(
    corner: Corner, tmp_path: Path, damage: Callable[[Path], None], reason: str
) -> None:
    upload(make_rpm(tmp_path), corner.url)
    good = sha256(tmp_path / HELLO)
    damage(tmp_path / HELLO)
    assert_refused(upload(tmp_path / HELLO, corner.url), 422, reason)
    assert sha256(corner.path / HELLO) == good == corner.pkgid(HELLO)


def test_announced_checksums_that_hold_are_accepted(corner: Corner, tmp_path: Path) -> None:
    content = make_rpm(tmp_path).read_bytes()
    hexadecimal = hashlib.sha256(content).hexdigest().upper()
    base64 = b64encode(hashlib.sha512(content).digest()).decode()
    fields = (f"X-Checksum-Sha256: {hexadecimal}", f"Content-Digest: md5=:AAAA:, sha-512=:{base64}:")
    assert upload(tmp_path / HELLO, corner.url, *fields).status == 201


@pytest.mark.parametrize(
    ("field", "reason"),
    [
        (f"X-Checksum-Sha256: {'0' * 64}", "sha256"),
        (f"Content-Digest: sha-256=:{b64encode(bytes(32)).decode()}:", "sha256"),
        (f"Content-Digest: sha-512=:{b64encode(bytes(64)).decode()}:", "sha512"),
        ("X-Checksum-Sha256: 123", "64 hexadecimal digits"),
    ],
    ids=["X-Checksum-Sha256", "Content-Digest sha-256", "Content-Digest sha-512", "no checksum"],
)
def test_an_announced_checksum_that_does_not_hold_refuses_the_upload(
    corner: Corner, tmp_path: Path, field: str, reason: str
) -> None:
    assert_refused(upload(make_rpm(tmp_path), corner.url, field), 400, reason)
    assert_nothing_kept(corner)


def test_an_upload_that_does_not_want_to_wait_is_listed_later(corner: Corner, tmp_path: Path) -> None:
    answer = upload(make_rpm(tmp_path), corner.url, "Prefer: respond-async")
    assert answer.status == 202
    assert "will be listed" in answer.text
    assert corner.files() == {HELLO}
    corner.await_listed(HELLO)


def test_if_none_match_refuses_to_replace(corner: Corner, tmp_path: Path) -> None:
    only_new = "If-None-Match: *"
    assert upload(make_rpm(tmp_path), corner.url, only_new).status == 201
    assert_refused(upload(make_rpm(tmp_path, summary="Another"), corner.url, only_new), 412, "If-None-Match")
    assert corner.pkgid(HELLO) != sha256(tmp_path / HELLO)


def test_if_match_replaces_only_what_was_seen(corner: Corner, tmp_path: Path) -> None:
    seen = upload(make_rpm(tmp_path), corner.url).headers["ETag"]
    make_rpm(tmp_path, summary="Another")
    assert_refused(upload(tmp_path / HELLO, corner.url, 'If-Match: "something"'), 412, "If-Match")
    assert upload(tmp_path / HELLO, corner.url, f"If-Match: {seen}").status == 204
    assert corner.pkgid(HELLO) == sha256(tmp_path / HELLO)
    assert_refused(upload(make_rpm(tmp_path), corner.url, f"If-Match: {seen}"), 412, "If-Match")


def test_an_empty_package_is_accepted_and_listed_when_its_content_comes(
    corner: Corner, tmp_path: Path
) -> None:
    (tmp_path / "empty").touch()
    assert upload(tmp_path / "empty", corner.url + HELLO).status == 201
    assert corner.listed() == set()
    assert corner.rejected() == {HELLO: "empty file"}
    assert upload(make_rpm(tmp_path), corner.url).status == 204
    assert corner.listed() == {HELLO}
    assert corner.rejected() == {}


def test_an_empty_file_in_the_place_of_a_package_unlists_it(corner: Corner, tmp_path: Path) -> None:
    upload(make_rpm(tmp_path), corner.url)
    (tmp_path / "empty").touch()
    assert upload(tmp_path / "empty", corner.url + HELLO).status == 204
    assert corner.listed() == set()


def test_any_other_file_is_stored_and_not_listed(corner: Corner, tmp_path: Path) -> None:
    before = revision(corner.daemon)
    (tmp_path / "RPM-GPG-KEY").write_text("a key")
    assert upload(tmp_path / "RPM-GPG-KEY", corner.url).status == 201
    assert curl(corner.url + "RPM-GPG-KEY").text == "a key"
    (tmp_path / "RPM-GPG-KEY").write_text("another key")
    assert upload(tmp_path / "RPM-GPG-KEY", corner.url).status == 204
    assert curl(corner.url + "RPM-GPG-KEY").text == "another key"
    assert revision(corner.daemon) == before


def test_a_body_in_chunks_is_taken(corner: Corner, tmp_path: Path) -> None:
    make_rpm(tmp_path)
    answer = upload(tmp_path / HELLO, corner.url, "Transfer-Encoding: chunked")
    assert answer.status == 201
    assert corner.listed() == {HELLO}


def test_what_is_larger_than_max_upload_is_refused(corner: Corner, tmp_path: Path) -> None:
    large = make_rpm(tmp_path, files={"/usr/share/large": os.urandom(LARGEST)})
    assert_refused(upload(large, corner.url), 413, f"{LARGEST} bytes")
    assert_nothing_kept(corner)


def test_what_grows_larger_than_max_upload_is_refused(corner: Corner, tmp_path: Path) -> None:
    large = make_rpm(tmp_path, files={"/usr/share/large": os.urandom(LARGEST)})
    assert_refused(upload(large, corner.url, "Transfer-Encoding: chunked"), 413, f"{LARGEST} bytes")
    assert_nothing_kept(corner)


def test_replace_deny_refuses_other_content_and_takes_the_same(shared: Daemon, tmp_path: Path) -> None:
    url = shared.repository_url("fixed")
    assert upload(make_rpm(tmp_path), url).status == 201
    assert upload(tmp_path / HELLO, url).status == 204
    assert_refused(upload(make_rpm(tmp_path, summary="Another"), url), 409, HELLO)
    assert locations(shared, "fixed") == {HELLO}


def test_replace_deny_takes_the_content_of_an_empty_file(shared: Daemon, tmp_path: Path) -> None:
    url = shared.repository_url("fixed")
    package = make_rpm(tmp_path, "other")
    (tmp_path / "empty").touch()
    assert upload(tmp_path / "empty", url + package.name).status == 201
    assert upload(package, url).status == 204
    assert package.name in locations(shared, "fixed")


@pytest.mark.parametrize(
    "name", [".hidden.rpm", ".hidden/hello.rpm", ".repowatch/lock", "sub/.x", "repodata/repomd.xml"]
)
def test_hidden_names_and_repodata_can_not_be_written(shared: Daemon, tmp_path: Path, name: str) -> None:
    before = shared.get("/rpm/repodata/repomd.xml").body
    url = shared.repository_url("rpm") + name
    assert_refused(upload(make_rpm(tmp_path), url), 403, name)
    assert_refused(curl("-X", "DELETE", url), 403, name)
    assert_refused(curl("-X", "MKCOL", url), 403, name)
    assert shared.get("/rpm/repodata/repomd.xml").body == before


def test_installation_trees_may_carry_their_hidden_files(corner: Corner, tmp_path: Path) -> None:
    (tmp_path / ".treeinfo").write_text("[general]\n")
    assert upload(tmp_path / ".treeinfo", corner.url).status == 201
    assert curl(corner.url + ".treeinfo").text == "[general]\n"


@pytest.mark.parametrize(
    "name", ["../x.rpm", "%2e%2e/x.rpm", "a%2fb.rpm", "x%00.rpm", f"{'x' * 252}.rpm", "x%zz.rpm"]
)
@pytest.mark.parametrize("method", ["PUT", "GET", "DELETE"])
def test_names_that_no_file_can_have_are_bad_requests(
    corner: Corner, tmp_path: Path, name: str, method: str
) -> None:
    body = ["-T", make_rpm(tmp_path)] if method == "PUT" else ["-X", method]
    assert_refused(curl(*body, corner.url + name), 400, "path")
    assert_nothing_kept(corner)


def test_a_directory_has_to_be_made_first(corner: Corner, tmp_path: Path) -> None:
    answer = upload(make_rpm(tmp_path), corner.url + "a/b/")
    assert answer.status == 409
    assert curl("-X", "MKCOL", corner.url + "a").status == 201
    assert curl("-X", "MKCOL", corner.url + "a/b").status == 201
    assert upload(tmp_path / HELLO, corner.url + "a/b/").status == 201
    assert corner.listed() == {f"a/b/{HELLO}"}


@pytest.mark.parametrize(
    "name", ["c++-1~rc1^git.rpm", "a b.rpm", "100%.rpm", "ä & <ö>.rpm", "#?;=.rpm", "'\".rpm"]
)
def test_odd_names_are_listed_as_they_are(corner: Corner, tmp_path: Path, name: str) -> None:
    package = make_rpm(tmp_path, filename=name)
    encoded = "".join(f"%{byte:02X}" for byte in name.encode())
    assert upload(package, corner.url + encoded).status == 201
    assert corner.files() == {name}
    assert corner.listed() == {name}
    assert curl(corner.url + encoded).body == package.read_bytes()


def test_nothing_can_be_written_outside_of_a_repository(shared: Daemon, tmp_path: Path) -> None:
    assert upload(make_rpm(tmp_path), shared.url).status == 405
    assert upload(tmp_path / HELLO, shared.url + "unknown/").status == 405


def test_a_connection_that_is_cut_off_leaves_nothing(corner: Corner, tmp_path: Path) -> None:
    content = make_rpm(tmp_path, files={"/usr/share/large": os.urandom(1 << 18)}).read_bytes()
    head = f"PUT {corner.href}{HELLO} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(content)}\r\n\r\n"
    with socket.create_connection(corner.daemon.address) as connection:
        connection.sendall(head.encode() + content[: len(content) // 2])
        wait_until(lambda: os.listdir(corner.staging))
        assert corner.files() == set()
    wait_until(lambda: not os.listdir(corner.staging))
    assert_nothing_kept(corner)
    assert corner.listed() == set()


def test_a_connection_that_is_half_closed_early_is_told_so(corner: Corner, tmp_path: Path) -> None:
    content = make_rpm(tmp_path).read_bytes()
    head = f"PUT {corner.href}{HELLO} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(content)}\r\n\r\n"
    with socket.create_connection(corner.daemon.address, timeout=10) as connection:
        connection.sendall(head.encode() + content[:-10])
        connection.shutdown(socket.SHUT_WR)
        line = connection.makefile("rb").readline()
    assert line.split()[1] in (b"400", b"422")
    assert_nothing_kept(corner)
