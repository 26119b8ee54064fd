"""What curl gets: files, ranges, listings, and what the daemon says of itself."""

from __future__ import annotations

import configparser
import email
import hashlib
import json
import os
from pathlib import Path

import pytest

from tests.clients.conftest import Corner
from tests.clients.curl import curl, upload
from tests.kit.daemon import Daemon, wait_until
from tests.kit.metadata import listed
from tests.kit.rpms import make_rpm, truncate

pytestmark = pytest.mark.client("curl")

HELLO = "hello-1.0-1.noarch.rpm"


@pytest.fixture
def content(corner: Corner, tmp_path: Path) -> bytes:
    """Of a package that is listed in the corner."""
    package = make_rpm(tmp_path, files={"/usr/share/large": os.urandom(1 << 20)})
    assert upload(package, corner.url).status == 201
    return package.read_bytes()


def test_a_package_comes_back_as_it_was_sent(corner: Corner, content: bytes) -> None:
    answer = curl(corner.url + HELLO)
    assert answer.status == 200
    assert answer.body == content
    assert answer.headers["ETag"] == f'"{hashlib.sha256(content).hexdigest()}"'
    assert answer.headers["Content-Type"] == "application/x-rpm"
    assert answer.headers["Accept-Ranges"] == "bytes"


def test_head_says_what_get_would(corner: Corner, content: bytes) -> None:
    head, get = curl("--head", corner.url + HELLO), curl(corner.url + HELLO)
    assert corner.daemon.request("HEAD", corner.href + HELLO).body == b""
    assert int(head.headers["Content-Length"]) == len(content)
    for name in ("ETag", "Last-Modified", "Content-Type"):
        assert head.headers[name] == get.headers[name]


@pytest.mark.parametrize(
    ("asked", "part"),
    [
        ("0-0", slice(0, 1)),
        ("96-4095", slice(96, 4096)),
        ("1000000-", slice(1000000, None)),
        ("-10", slice(-10, None)),
    ],
)
def test_one_range_is_that_part_of_the_file(corner: Corner, content: bytes, asked: str, part: slice) -> None:
    answer = curl("--range", asked, corner.url + HELLO)
    assert answer.status == 206
    assert answer.body == content[part]
    start = content.index(content[part])
    assert answer.headers["Content-Range"] == f"bytes {start}-{start + len(answer.body) - 1}/{len(content)}"


def test_several_ranges_come_in_one_answer(corner: Corner, content: bytes) -> None:
    answer = curl("--range", "0-99,400000-700000,-5", corner.url + HELLO)
    assert answer.status == 206
    head = f"Content-Type: {answer.headers['Content-Type']}\r\n\r\n".encode()
    parts = email.message_from_bytes(head + answer.body).get_payload()
    assert isinstance(parts, list)
    assert [part["Content-Range"] for part in parts if isinstance(part, email.message.Message)] == [
        f"bytes 0-99/{len(content)}",
        f"bytes 400000-700000/{len(content)}",
        f"bytes {len(content) - 5}-{len(content) - 1}/{len(content)}",
    ]
    for wanted in (content[:100], content[400000:700001], content[-5:]):
        assert b"\r\n\r\n" + wanted + b"\r\n--" in answer.body


def test_a_range_behind_the_end_can_not_be_satisfied(corner: Corner, content: bytes) -> None:
    answer = curl("--range", f"{len(content)}-", corner.url + HELLO)
    assert answer.status == 416
    assert answer.headers["Content-Range"] == f"bytes */{len(content)}"


def test_a_broken_download_is_resumed(corner: Corner, content: bytes, tmp_path: Path) -> None:
    (tmp_path / "part").write_bytes(content[:1000])
    etag = curl("--head", corner.url + HELLO).headers["ETag"]
    answer = curl("-r", "1000-", "-H", f"If-Range: {etag}", corner.url + HELLO)
    assert (tmp_path / "part").read_bytes() + answer.body == content
    assert curl("-r", "1000-", "-H", 'If-Range: "other"', corner.url + HELLO).body == content


def test_a_file_that_the_client_has_is_not_sent_again(corner: Corner, content: bytes) -> None:
    first = curl(corner.url + HELLO)
    for field in (f"If-None-Match: {first.headers['ETag']}", f"If-Modified-Since: {first.headers['Date']}"):
        answer = curl("-H", field, corner.url + HELLO)
        assert answer.status == 304
        assert answer.body == b""
        assert answer.headers["ETag"] == first.headers["ETag"]


def test_repomd_is_always_asked_for_and_its_records_never_again(corner: Corner, content: bytes) -> None:
    repodata = corner.daemon.repository_url("rpm") + "repodata/"
    repomd = curl(repodata + "repomd.xml")
    assert repomd.headers["Cache-Control"] == "no-cache"
    assert repomd.headers["ETag"] == f'"{hashlib.sha256(repomd.body).hexdigest()}"'
    assert curl("-H", f"If-None-Match: {repomd.headers['ETag']}", repodata + "repomd.xml").status == 304
    [name] = [path.name for path in (corner.root / "repodata").glob("*-primary.xml.gz")][:1]
    record = curl(repodata + name)
    assert "immutable" in record.headers["Cache-Control"]
    assert record.headers["ETag"] == f'"{name.partition("-")[0]}"'


def test_superseded_records_are_still_served(corner: Corner, content: bytes, tmp_path: Path) -> None:
    names = [path.name for path in (corner.root / "repodata").glob("*.gz")]
    upload(make_rpm(tmp_path, "another"), corner.url)
    for name in names:
        assert curl(f"{corner.daemon.url}rpm/repodata/{name}").status == 200


def test_a_listing_shows_folders_first_and_packages_by_version(corner: Corner) -> None:
    for version in ("1.10", "1.9", "1.9~rc1"):
        make_rpm(corner.path, "hello", version)
    (corner.path / "zoo").mkdir()
    (corner.path / ".hidden").mkdir()
    page = curl(corner.url)
    assert page.status == 200
    assert page.headers.get_content_type() == "text/html"
    order = [
        "zoo/",
        "hello-1.9~rc1-1.noarch.rpm",
        "hello-1.9-1.noarch.rpm",
        "hello-1.10-1.noarch.rpm",
    ]
    places = [page.text.index(f'href="{name}"') for name in order]
    assert places == sorted(places)
    assert ".hidden" not in page.text
    corner.await_listed(*order[1:])


def test_a_directory_is_found_without_its_slash(corner: Corner) -> None:
    answer = curl(corner.url.rstrip("/"))
    assert answer.status == 301
    assert answer.headers["Location"] == corner.href
    assert curl(corner.daemon.url + "rpm").headers["Location"] == "/rpm/"


@pytest.mark.parametrize(
    "path", ["/rpm/none", "/rpm/none/", "/none", "/none/x.rpm", "/rpm/.repowatch/lock", "/rpm/.repowatch/"]
)
def test_what_is_not_there_or_hidden_is_not_found(shared: Daemon, path: str) -> None:
    answer = curl(shared.url.rstrip("/") + path)
    assert answer.status == 404
    assert answer.headers.get_content_type() == "text/plain"
    assert len(answer.text.splitlines()) == 1


@pytest.mark.parametrize(
    "path", ["repodata/repomd.xml.asc", "repodata/repomd.xml.key", "media.1/media", "content"]
)
def test_what_zypper_probes_for_is_not_found(shared: Daemon, path: str) -> None:
    assert curl(shared.repository_url("rpm") + path).status == 404


def test_a_file_with_a_slash_behind_it_is_not_found(corner: Corner, content: bytes) -> None:
    assert curl(f"{corner.url}{HELLO}/").status == 404


def test_a_link_out_of_the_tree_is_neither_served_nor_listed(corner: Corner, tmp_path: Path) -> None:
    make_rpm(tmp_path / "outside")
    (corner.path / "link").symlink_to(tmp_path / "outside")
    (corner.path / HELLO).symlink_to(tmp_path / "outside" / HELLO)
    assert curl(corner.url + HELLO).status == 404
    assert curl(f"{corner.url}link/{HELLO}").status == 404
    assert 'href="link' not in curl(corner.url).text
    assert corner.listed() == set()


def test_health_is_told(shared: Daemon) -> None:
    for path in ("healthz", "readyz"):
        answer = curl(shared.url + path)
        assert (answer.status, answer.text) == (200, "ok\n")


def test_a_repo_file_is_made_for_clients(shared: Daemon) -> None:
    answer = curl(shared.url + "rpm.repo")
    assert answer.status == 200
    assert answer.headers["Cache-Control"] == "no-cache"
    told = configparser.ConfigParser()
    told.read_string(answer.text)
    assert told["rpm"]["baseurl"] == shared.repository_url("rpm")


def test_the_status_names_what_is_not_listed(corner: Corner, tmp_path: Path) -> None:
    truncate(make_rpm(tmp_path), size=200)
    (tmp_path / HELLO).rename(corner.path / HELLO)
    location = f"{corner.name}/{HELLO}"
    wait_until(lambda: HELLO in corner.rejected())
    status = json.loads(curl(corner.daemon.url + "-/api/v1/status").text)
    [repository] = status["repositories"]
    assert location in {each["location"] for each in repository["rejected"]}
    assert repository["packages"] == len(listed(corner.daemon, "rpm"))
    assert location in curl(corner.daemon.url + "-/rpm").text
