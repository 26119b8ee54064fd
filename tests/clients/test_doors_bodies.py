"""Bodies that nobody wants: refused before they come, and never kept in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import PIPE, run

import pytest

from tests.clients.conftest import Corner
from tests.clients.curl import curl
from tests.kit.daemon import COMMAND, Answer, Daemon, wait_until
from tests.kit.rpms import make_rpm
from tests.kit.wire import MOST, Client, as_shipped, chunked, endless, head

MIB = 1 << 20
HUGE = 1 << 30  # bytes of each body
CROWD = 8  # clients at once
MEMORY = 16 * MIB  # that they may cost together
TAKEN = 128 * MIB  # of each body at most, with what lies in the buffers of two kernels
MAX_UPLOAD = 2 * MIB

CONFIGURATION = """
users: {0}/users
max_upload: 2MiB
limits: {{reserve: 1MiB}}
repositories:
  rpm: {{path: {0}/rpm, write: [anyone]}}
  closed: {{path: {0}/closed}}
"""

# Method, path and answers; each is refused whatever the body is.
REFUSED = {
    "no user": ("PUT", "/closed/x", {401}),
    "a reserved name": ("PUT", "/rpm/repodata/x", {403}),
    "no repository": ("PUT", "/nowhere/x", {405}),
    "no parent": ("PUT", "/rpm/none/x", {409}),
    "a package without a parent": ("PUT", "/rpm/none/x.rpm", {409}),
    "too large a file": ("PUT", "/rpm/x", {413}),
    "too large, and no package": ("PUT", "/rpm/x.rpm", {413, 422}),
    "too large an XML body": ("PROPFIND", "/rpm/", {413}),
    "a body where none belongs": ("MKCOL", "/rpm/none/x", {413}),
    "a body with a GET": ("GET", "/rpm/repodata/none", {404}),
}
CODINGS = ("length", "chunked", "one chunk")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    scratch = tmp_path_factory.mktemp("shared")
    for name in ("rpm", "closed"):
        (scratch / name).mkdir()
    run([*COMMAND, "passwd", scratch / "users", "anna"], input="secret\n", text=True, stdout=PIPE, check=True)
    with Daemon(scratch=scratch, configuration=CONFIGURATION.format(scratch)) as daemon:
        yield daemon


def peak(pid: int) -> int:
    """The most memory that a process had at once since `forget_peak`, in bytes."""
    [line] = [each for each in Path(f"/proc/{pid}/status").read_text().splitlines() if "VmHWM" in each]
    return int(line.split()[1]) * 1024


def forget_peak(pid: int) -> int:
    """Set the peak to what is used now, in bytes (proc_pid_clear_refs(5))."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    return peak(pid)


def cost(pid: int, act: Callable[[], object]) -> int:
    """The memory that an act takes of a process on its way, in bytes."""
    before = forget_peak(pid)
    act()
    return peak(pid) - before


def send_huge(address: tuple[str, int], method: str, path: str, *, coding: str) -> tuple[int, Answer]:
    """Send without a look at the answer; the bytes that were taken, and the answer."""
    field, blocks = endless(HUGE, coding=coding)
    with Client(address) as client:
        client.send(head(method, path, field))
        taken = client.send_while_taken(blocks)
        answer = client.answer(to=method)
        assert client.rest() == b""
        return taken, answer


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize(("method", "path", "statuses"), REFUSED.values(), ids=REFUSED)
def test_a_refused_body_is_answered_and_costs_no_memory(
    shared: Daemon, corner: Corner, method: str, path: str, statuses: set[int], coding: str
) -> None:
    sent: list[tuple[int, Answer]] = []

    def all_at_once() -> None:
        with ThreadPoolExecutor(CROWD) as pool:
            for each in [
                pool.submit(send_huge, shared.address, method, path, coding=coding) for _ in range(CROWD)
            ]:
                sent.append(each.result())

    assert cost(shared.pid, all_at_once) < MEMORY
    assert {answer.status for _, answer in sent} <= statuses
    assert max(taken for taken, _ in sent) < TAKEN
    assert shared.get("/rpm/x").status == shared.get("/rpm/x.rpm").status == 404


def test_the_bound_on_memory_convicts_cheroot_as_shipped(tmp_path: Path) -> None:
    with as_shipped(tmp_path, password="secret") as (process, address), Client(address) as client:

        def send() -> None:
            field, blocks = endless(4 * MEMORY, coding="length")
            client.send(head("PUT", "/x", field))
            client.send_while_taken(blocks)
            assert client.answer().status == 401

        assert cost(process.pid, send) > MEMORY


@pytest.mark.parametrize("length", [1, 1000, MOST])
def test_a_small_body_that_is_refused_leaves_the_connection_usable(corner: Corner, length: int) -> None:
    with Client(corner.daemon.address) as client:
        for path, status in (("/closed/x", 401), ("/rpm/none/x", 409), ("/rpm/repodata/x", 403)):
            client.send(head("PUT", path, f"Content-Length: {length}"))
            assert client.answer().status == status
            client.send(b"GET /smuggled"[:length].ljust(length, b"x"))
            assert client.ask("GET", "/healthz").status == 200


def test_a_large_body_that_is_refused_ends_the_connection(corner: Corner) -> None:
    with Client(corner.daemon.address) as client:
        client.send(head("PUT", "/closed/x", f"Content-Length: {MOST + 1}"))
        answer = client.answer()
        assert answer.status == 401
        assert answer.headers["Connection"] == "close"
        client.send(bytes(MOST + 1) + head("GET", "/healthz"))
        assert client.rest() == b""


# -- Expect: 100-continue ------------------------------------------------------------------------

EXPECT = "Expect: 100-continue"
LARGE = f"Content-Length: {MAX_UPLOAD + 1}"
SMALL = "Content-Length: 5"

INSTEAD = {
    "no user": ("PUT", "/closed/x", (SMALL,), 401),
    "a wrong password": ("PUT", "/closed/x", (SMALL, "Authorization: Basic YW5uYTp3cm9uZw=="), 401),
    "a reserved name": ("PUT", "/rpm/repodata/x", (SMALL,), 403),
    "a name that no file system takes": ("PUT", f"/rpm/{'x' * 256}", (SMALL,), 400),
    "no repository": ("PUT", "/nowhere", (SMALL,), 405),
    "no parent": ("PUT", "/rpm/none/x", (SMALL,), 409),
    "a condition": ("PUT", "/rpm/x", (SMALL, "If-Match: *"), 412),
    "too large": ("PUT", "/rpm/x", (LARGE,), 413),
    "too large a package": ("PUT", "/rpm/x.rpm", (LARGE,), 413),
    "too large an XML body": ("PROPFIND", "/rpm/", ("Content-Length: 2000000",), 413),
}


@pytest.mark.parametrize(("method", "path", "fields", "status"), INSTEAD.values(), ids=INSTEAD)
def test_a_refusal_comes_instead_of_100_continue(
    corner: Corner, method: str, path: str, fields: tuple[str, ...], status: int
) -> None:
    with Client(corner.daemon.address) as client:
        client.send(head(method, path, EXPECT, *fields))
        answer = client.answer(to=method)
        assert answer.status == status
        assert answer.headers["Connection"] == "close"  # whether the body comes all the same is not known


def test_an_unknown_expectation_is_refused(corner: Corner) -> None:
    with Client(corner.daemon.address) as client:
        client.send(head("PUT", f"{corner.href}x", "Expect: a-miracle", SMALL))
        assert client.answer().status == 417


def test_507_comes_instead_of_100_continue_when_the_reserve_would_be_touched(tmp_path: Path) -> None:
    (tmp_path / "rpm").mkdir()
    configuration = f"limits: {{reserve: 1000000GiB}}\nrepositories:\n  rpm: {{path: {tmp_path}/rpm}}\n"
    with (
        Daemon(scratch=tmp_path / "scratch", configuration=configuration) as daemon,
        Client(daemon.address) as client,
    ):
        client.send(head("PUT", "/rpm/x", EXPECT, SMALL))
        assert client.answer().status == 507
        assert daemon.get("/rpm/").status == 200


@pytest.mark.parametrize("name", ["x", "hello-1.0-1.noarch.rpm"])
def test_100_continue_comes_after_the_checks_and_before_the_body(
    corner: Corner, tmp_path: Path, name: str
) -> None:
    content = make_rpm(tmp_path).read_bytes()
    with Client(corner.daemon.address) as client:
        client.send(head("PUT", f"{corner.href}{name}", EXPECT, f"Content-Length: {len(content)}"))
        assert client.answer().status == 100
        client.send(content)
        assert client.answer().status == 201
        client.send(head("PUT", f"{corner.href}{name}", EXPECT, "Transfer-Encoding: chunked"))
        assert client.answer().status == 100
        client.send(chunked(content))
        assert client.answer().status == 204
    assert (corner.path / name).read_bytes() == content


def test_a_body_that_does_not_wait_for_100_continue_is_taken(corner: Corner) -> None:
    with Client(corner.daemon.address) as client:
        assert client.ask("PUT", f"{corner.href}x", EXPECT, body=b"hello").status in (100, 201)
    wait_until(lambda: corner.files() == {"x"})


@pytest.mark.client("curl")
def test_curl_waits_for_100_continue_before_it_sends_a_large_file(corner: Corner, tmp_path: Path) -> None:
    file = tmp_path / "large"
    file.write_bytes(bytes(MAX_UPLOAD))
    trace = tmp_path / "trace"
    expect = ("-H", EXPECT, "--expect100-timeout", "20", "--trace-ascii", trace)
    assert curl(*expect, "-T", file, f"{corner.url}large").status == 201
    assert "HTTP/1.1 100 Continue" in trace.read_text()
    assert curl(*expect, "-T", file, f"{corner.daemon.url}closed/large").status == 401
    said = trace.read_text()
    assert "100 Continue" not in said
    assert "=> Send data" not in said


def test_a_body_is_read_to_its_end_and_not_further(corner: Corner) -> None:
    with Client(corner.daemon.address) as client:
        put = head("PUT", f"{corner.href}x", "Content-Length: 5")
        also = head("PUT", f"{corner.href}y", "Transfer-Encoding: chunked")
        client.send(put + b"hello" + also + chunked(b"good", b"bye") + head("GET", f"{corner.href}y"))
        assert [client.answer().status for _ in range(2)] == [201, 201]
        assert client.answer().body == b"goodbye"
    assert corner.files() == {"x", "y"}
    assert (corner.path / "x").read_bytes() == b"hello"
