"""Symbolic links: by no method out of the tree, but where `follow` allows to read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.conftest import Corner
from tests.clients.curl import curl
from tests.kit.daemon import Answer, Daemon

pytestmark = pytest.mark.client("curl")

SECRET = b"what clients may not see"
LOCK = (
    '<D:lockinfo xmlns:D="DAV:"><D:lockscope><D:exclusive/></D:lockscope>'
    "<D:locktype><D:write/></D:locktype></D:lockinfo>"
)
PROPPATCH = (
    '<D:propertyupdate xmlns:D="DAV:"><D:set><D:prop><a xmlns="x">b</a></D:prop></D:set></D:propertyupdate>'
)

READING = {"GET": [], "HEAD": ["--head"], "PROPFIND": ["-X", "PROPFIND", "-H", "Depth: 1"]}
WRITING = {
    "PUT": ["-X", "PUT", "--data-binary", "new"],
    "DELETE": ["-X", "DELETE"],
    "MKCOL": ["-X", "MKCOL"],
    "LOCK": ["-X", "LOCK", "--data-binary", LOCK],
    "PROPPATCH": ["-X", "PROPPATCH", "--data-binary", PROPPATCH],
}
ENDS = ["COPY from", "MOVE from", "COPY to", "MOVE to"]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon whose repository may lead to a directory called pool, and to no other."""
    scratch = tmp_path_factory.mktemp("shared")
    (scratch / "rpm").mkdir(), (scratch / "pool").mkdir()  # type: ignore[func-returns-value]
    configuration = f"repositories: {{rpm: {{path: {scratch}/rpm, follow: [{scratch}/pool]}}}}\n"
    with Daemon(scratch=scratch, configuration=configuration) as daemon:
        yield daemon


def fill(directory: Path) -> dict[str, tuple[bytes, int]]:
    directory.mkdir(exist_ok=True)
    (directory / "secret").write_bytes(SECRET)
    return content(directory)


def content(directory: Path) -> dict[str, tuple[bytes, int]]:
    """Every name below a directory, with what it holds and when that changed."""
    return {
        str(path.relative_to(directory)): (
            path.read_bytes() if path.is_file() else b"",
            path.stat().st_mtime_ns,
        )
        for path in directory.rglob("*")
    }


def ask(corner: Corner, method: str, name: str) -> Answer:
    """Do it to a name; COPY and MOVE from it, or to it."""
    if method not in ENDS:
        return curl(*(READING | WRITING)[method], corner.url + name)
    verb, end = method.split()
    (corner.path / "mine").write_bytes(b"mine")
    source, target = (name, "elsewhere") if end == "from" else ("mine", name)
    return curl("-X", verb, "-H", f"Destination: {corner.url}{target}", corner.url + source)


@pytest.mark.parametrize(
    "name", ["out/secret", "out/new", "out/", "out", "out-file", "dangling", "up/secret"]
)
@pytest.mark.parametrize("method", [*READING, *WRITING, *ENDS])
def test_nothing_outside_is_read_or_changed(corner: Corner, tmp_path: Path, method: str, name: str) -> None:
    outside = tmp_path / "outside"
    before = fill(outside)
    (corner.path / "out").symlink_to(outside)
    (corner.path / "up").symlink_to(f"../../../{tmp_path.name}/outside")
    (corner.path / "out-file").symlink_to(outside / "secret")
    (corner.path / "dangling").symlink_to(outside / "new")
    answer = ask(corner, method, name)
    assert content(outside) == before
    assert SECRET not in answer.body
    assert not any(path.read_bytes() == SECRET for path in corner.path.rglob("*") if not path.is_symlink())
    # A link itself may give its name to something else.
    is_replaced = method in ("PUT", "COPY to", "MOVE to") and "/" not in name.rstrip("/")
    assert answer.status in ((201, 204) if is_replaced else (403, 404, 405, 409))


@pytest.mark.parametrize("method", READING)
def test_what_follow_allows_is_read(corner: Corner, shared: Daemon, method: str) -> None:
    pool = corner.root.parent / "pool"
    fill(pool)
    (corner.path / "in").symlink_to(pool)
    (corner.path / "in-file").symlink_to(pool / "secret")
    for name in ("in/secret", "in-file"):
        answer = ask(corner, method, name)
        assert answer.status == (207 if method == "PROPFIND" else 200)
        assert (answer.body == SECRET) == (method == "GET")
    assert "in/secret" in curl(*READING["PROPFIND"], f"{corner.url}in/").text


@pytest.mark.parametrize("method", [*WRITING, *ENDS])
@pytest.mark.parametrize("name", ["in/secret", "in/new"])
def test_what_follow_allows_is_not_changed(corner: Corner, method: str, name: str) -> None:
    pool = corner.root.parent / "pool"
    before = fill(pool)
    (corner.path / "in").symlink_to(pool)
    assert ask(corner, method, name).status == 403
    assert content(pool) == before


def test_a_link_that_is_removed_leaves_what_it_led_to(corner: Corner) -> None:
    pool = corner.root.parent / "pool"
    before = fill(pool)
    for name, target in (("in", pool), ("in-file", pool / "secret")):
        (corner.path / name).symlink_to(target)
        assert ask(corner, "MOVE from", name).status == 403
        assert ask(corner, "DELETE", name).status == 204
        assert not (corner.path / name).is_symlink()
    assert content(pool) == before
