"""PROPFIND: the same answers as WsgiDAV's own, in pieces, and whatever names a directory holds."""

from __future__ import annotations

import gc
import io
import os
import re
import tracemalloc
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple
from wsgiref.types import WSGIApplication
from xml.etree.ElementTree import canonicalize, fromstring, tostring

import pytest
from wsgidav.dav_provider import DAVProvider

from repowatch.web.replies import Headers
from repowatch.web.uploads import Refusal
from repowatch.web.webdav import dav
from repowatch.web.webdav.propfind import BLOCK, Asked, Known, Multistatus, asked_for
from tests.kit.served import serve

NOTHING = Known({}, {})
ALL = Asked("allprop", ())
LOCK = (
    b'<D:lockinfo xmlns:D="DAV:"><D:lockscope><D:exclusive/></D:lockscope><D:locktype><D:write/></D:locktype>'
    b'<D:owner>a &lt;person&gt; <x xmlns="urn:x">&#x1F4E6;</x></D:owner></D:lockinfo>'
)
PROPERTIES = (
    b'<D:propertyupdate xmlns:D="DAV:"><D:set><D:prop><color xmlns="urn:x" a="&lt;">r &amp; g<b/></color>'
    b"<plain>&#x1F4E6;</plain></D:prop></D:set></D:propertyupdate>"
)
NAMED = (
    b'<D:propfind xmlns:D="DAV:"><D:prop><D:getetag/><D:resourcetype/><D:nonsense/><color xmlns="urn:x"/>'
    b'<other xmlns="urn:&lt;&amp;&quot;"/><plain/><D:getcontentlength/><D:lockdiscovery/></D:prop>'
    b"</D:propfind>"
)


class Response(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


def request(
    application: WSGIApplication, method: str, path: str, body: bytes = b"", **fields: str
) -> Response:
    """One request to a WSGI application; fields by their names in an environment."""
    said: list[Any] = []
    environ = {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "/r pm",
        "PATH_INFO": path,
        "HTTP_HOST": "localhost",
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.input": io.BytesIO(body),
        "wsgi.url_scheme": "http",
        "wsgidav.auth.user_name": "",
        **fields,
    }

    def start(status: str, headers: Headers, exc_info: Any = None, /) -> Any:
        said.extend((status, headers))

    blocks = application(environ, start)
    return Response(int(said[0].split()[0]), dict(said[1]), b"".join(blocks))


def told(multistatus: bytes) -> dict[str, dict[str, set[str]]]:
    """The properties in canonical XML, by href and status."""
    found: dict[str, dict[str, set[str]]] = {}
    for response in fromstring(multistatus).findall("{DAV:}response"):
        statuses = found.setdefault(response.findtext("{DAV:}href", ""), {})
        for propstat in response.findall("{DAV:}propstat"):
            properties = propstat.find("{DAV:}prop")
            assert properties is not None
            statuses[propstat.findtext("{DAV:}status", "")] = {canonical(each) for each in properties}
    return found


def canonical(element: Any) -> str:
    """Also without what WsgiDAV gets wrong (an ETag without its quotes), and what the clock changes."""
    element.tail = None
    text = canonicalize(tostring(element), rewrite_prefixes=True)
    return re.sub(r"Second-\d+", "Second-N", text.replace('"</', "</").replace('>"', ">"))


def multistatus(root: Path, location_href: str = "", *, members: bool = True, asked: Asked = ALL) -> bytes:
    return b"".join(Multistatus(serve(root), location_href, members=members, asked=asked, known=NOTHING))


def displayed(body: bytes) -> dict[str, str | None]:
    """Display names by href."""
    names = fromstring(body).findall("{DAV:}response")
    return {each.findtext("{DAV:}href", ""): each.findtext(".//{DAV:}displayname") for each in names}


@pytest.mark.parametrize("path", ["/", "/d", "/d/", "/f & <g>.xml", "/d/file.rpm", "/\u00e9 \U0001f4e6(1)"])
@pytest.mark.parametrize("body", [b"", NAMED], ids=["allprop", "named"])
@pytest.mark.parametrize("stored", [False, True], ids=["bare", "with locks and dead properties"])
def test_the_answer_is_the_one_that_wsgidav_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, body: bytes, stored: bool
) -> None:
    (tmp_path / "d").mkdir()
    for name in ("f & <g>.xml", "d/file.rpm", "\u00e9 \U0001f4e6(1)"):
        (tmp_path / name).write_text(name)
    application = dav.application(serve(tmp_path), max_upload=None)
    inside = path.encode().decode("latin-1")
    if stored:
        assert request(application, "PROPPATCH", inside, PROPERTIES).status == 207
        assert request(application, "LOCK", inside, LOCK, HTTP_DEPTH="0").status == 200
    ours = request(application, "PROPFIND", inside, body, HTTP_DEPTH="0")
    monkeypatch.setattr(dav._Provider, "custom_request_handler", DAVProvider.custom_request_handler)
    theirs = request(application, "PROPFIND", inside, body, HTTP_DEPTH="0")
    assert told(ours.body) == told(theirs.body)
    assert ours.status == theirs.status
    assert ours.headers["Content-Type"] == theirs.headers["Content-Type"]
    assert int(ours.headers["Content-Length"]) == len(ours.body)


def test_a_directory_is_told_with_its_members_and_what_is_stored_with_each(tmp_path: Path) -> None:
    (tmp_path / "d" / "sub").mkdir(parents=True)
    (tmp_path / "d" / "file").touch()
    (tmp_path / "d" / "sub" / "deeper").touch()
    application = dav.application(serve(tmp_path), max_upload=None)
    request(application, "PROPPATCH", "/d/file", PROPERTIES), request(application, "LOCK", "/d/sub", LOCK)
    found = told(request(application, "PROPFIND", "/d", HTTP_DEPTH="1").body)
    assert set(found) == {"/r%20pm/d/", "/r%20pm/d/sub/", "/r%20pm/d/file"}
    for path, href in {"/d": "/r%20pm/d/", "/d/sub": "/r%20pm/d/sub/", "/d/file": "/r%20pm/d/file"}.items():
        alone = told(request(application, "PROPFIND", path, HTTP_DEPTH="0").body)
        assert alone == {href: found[href]}


def test_names_alone_are_told_where_they_are_asked_for(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    application = dav.application(serve(tmp_path), max_upload=None)
    request(application, "PROPPATCH", "/f", PROPERTIES)
    body = b'<D:propfind xmlns:D="DAV:"><D:propname/></D:propfind>'
    [properties] = fromstring(request(application, "PROPFIND", "/f", body, HTTP_DEPTH="0").body).iter(
        "{DAV:}prop"
    )
    assert all(not len(each) and not each.text for each in properties)
    names = {each.tag for each in properties}
    assert names > {"{DAV:}getetag", "{DAV:}displayname", "{DAV:}lockdiscovery", "{urn:x}color", "plain"}


def test_what_is_to_be_included_is_told_beside_all(tmp_path: Path) -> None:
    body = b'<D:propfind xmlns:D="DAV:"><D:allprop/><D:include><D:getetag/><D:x/></D:include></D:propfind>'
    (tmp_path / "f").touch()
    [found] = told(multistatus(tmp_path, "f", asked=asked_for(body))).values()
    [everything] = told(multistatus(tmp_path, "f")).values()
    assert found["HTTP/1.1 200 OK"] == everything["HTTP/1.1 200 OK"]
    assert len(found["HTTP/1.1 404 Not Found"]) == 1


@pytest.mark.parametrize(
    "content",
    [
        "",
        "<D:unknown/>",
        "<D:allprop/><D:propname/>",
        "<D:prop/><D:prop/>",
        "<D:prop>" + "".join(f"<D:a{i}/>" for i in range(300)) + "</D:prop>",
        '<D:prop><x xmlns:y=""/></D:prop>',
    ],
)
def test_a_request_that_makes_no_sense_is_refused(content: str) -> None:
    with pytest.raises(Refusal) as refusal:
        asked_for(f'<D:propfind xmlns:D="DAV:">{content}</D:propfind>'.encode())
    assert refusal.value.status == 400


def test_any_name_is_told_by_its_href(tmp_path: Path) -> None:
    for name in (b"\xff\x80", b"line\nfeed", b"a&b<c>", b"q?#%;", "\u00e9\u202e".encode()):
        (tmp_path / os.fsdecode(name)).touch()
    assert displayed(multistatus(tmp_path)) == {
        "/r%20pm/": "",
        "/r%20pm/%FF%80": None,
        "/r%20pm/line%0Afeed": None,
        "/r%20pm/a%26b%3Cc%3E": "a&b<c>",
        "/r%20pm/q%3F%23%25%3B": "q?#%;",
        "/r%20pm/%C3%A9%E2%80%AE": None,
    }


def test_what_has_no_date_in_http_is_told_without_one(tmp_path: Path) -> None:
    for name, mtime in (("late", 2**33), ("early", -5)):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (mtime, mtime))
    responses = fromstring(multistatus(tmp_path)).findall("{DAV:}response")
    dated = {each.findtext("{DAV:}href"): each.findtext(".//{DAV:}getlastmodified") for each in responses}
    assert dated["/r%20pm/early"] is None
    assert dated["/r%20pm/late"] is not None  # never later than now


def test_what_clients_may_not_see_is_not_told(tmp_path: Path) -> None:
    root, outside, pool = tmp_path / "root", tmp_path / "outside", tmp_path / "pool"
    for directory in (root, outside, pool):
        directory.mkdir()
    for name in (".hidden", ".treeinfo", "file"):
        (root / name).touch()
    os.mkfifo(root / "fifo")
    for name, target in {
        "out": outside,
        "pool": pool,
        "in": root / "file",
        "dangling": root / "none",
    }.items():
        (root / name).symlink_to(target)
    repository = serve(root, may_lead_to=lambda path: path == str(pool))
    body = b"".join(Multistatus(repository, "", members=True, asked=ALL, known=NOTHING))
    hrefs = {href.removeprefix("/r%20pm/") for href in displayed(body)}
    assert hrefs == {"", ".treeinfo", "file", "in", "pool/"}


def test_a_large_directory_is_told_in_blocks_and_never_held_whole(tmp_path: Path) -> None:
    for number in range(3000):
        (tmp_path / f"file-{number}").touch()
    tracemalloc.start()
    body = Multistatus(serve(tmp_path), "", members=True, asked=ALL, known=NOTHING)
    sizes = [len(block) for block in body]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert body.length is None
    assert sum(sizes) > 1_500_000
    assert max(sizes) < 2 * BLOCK
    assert peak < 1_000_000


def test_a_directory_is_closed_when_the_client_goes_away(tmp_path: Path) -> None:
    for number in range(500):
        (tmp_path / f"file-{number}").touch()
    gc.collect()
    before = os.listdir("/proc/self/fd")
    body = Multistatus(serve(tmp_path), "", members=True, asked=ALL, known=NOTHING)
    blocks = iter(body)
    assert next(blocks)
    assert len(os.listdir("/proc/self/fd")) > len(before)
    body.close()
    assert os.listdir("/proc/self/fd") == before


def test_a_directory_that_can_not_be_read_is_told_before_the_first_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> Iterable[object]:
        raise PermissionError(13, "Permission denied")

    application = dav.application(serve(tmp_path), max_upload=None)
    monkeypatch.setattr(os, "scandir", refuse)
    assert request(application, "PROPFIND", "/", HTTP_DEPTH="1").status == 403
    assert request(application, "PROPFIND", "/", HTTP_DEPTH="0").status == 207
