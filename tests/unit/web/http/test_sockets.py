"""Sockets that are opened on addresses and files, and those that systemd hands over."""

from __future__ import annotations

import errno
import json
import os
import random
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from repowatch.errors import UsageError
from repowatch.web.http import sockets
from repowatch.web.http.sockets import Listening, close, inherited, listen_tcp, listen_unix


@pytest.fixture
def closing() -> Iterator[ExitStack]:
    """What a test opens and leaves open."""
    with ExitStack() as stack:
        yield stack


def opened(closing: ExitStack, listening: list[Listening]) -> list[Listening]:
    for each in listening:
        closing.callback(close, each)
    return listening


def port_of(listening: Listening) -> int:
    port: int = listening.socket.getsockname()[1]
    return port


def anywhere() -> list[Listening]:
    """On all IPv4 addresses, on a port that no client of a busy machine was given and waits with."""
    for port in random.sample(range(20_000, 30_000), 100):
        try:
            return listen_tcp("0.0.0.0", port, tls=False)
        except OSError as error:
            assert error.errno == errno.EADDRINUSE
    pytest.fail("no free port")


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6 loopback")


def test_a_client_can_connect_to_an_address_listened_on(closing: ExitStack) -> None:
    (listening,) = opened(closing, listen_tcp("127.0.0.1", 0, tls=True))
    assert listening.address == f"127.0.0.1:{port_of(listening)}"
    assert listening.tls
    assert not listening.is_unix
    with socket.create_connection(("127.0.0.1", port_of(listening)), timeout=10) as client:
        accepted, address = listening.socket.accept()
        accepted.close()
        assert address == client.getsockname()


@pytest.mark.parametrize("family", ["tcp", "unix"])
def test_a_listening_socket_does_not_block_and_is_not_inherited(
    closing: ExitStack, tmp_path: Path, family: str
) -> None:
    if family == "tcp":
        (listening,) = opened(closing, listen_tcp("127.0.0.1", 0, tls=False))
    else:
        (listening,) = opened(closing, [listen_unix(str(tmp_path / "socket"))])
    assert not listening.socket.get_inheritable()
    with pytest.raises(BlockingIOError):
        listening.socket.accept()


@needs_ipv6
def test_localhost_is_both_loopback_addresses_on_one_port(closing: ExitStack) -> None:
    four, six = opened(closing, listen_tcp("LocalHost", 0, tls=False))
    assert four.address == f"127.0.0.1:{port_of(four)}"
    assert six.address == f"[::1]:{port_of(four)}"


@needs_ipv6
def test_another_port_is_tried_where_one_of_the_addresses_has_it_taken(
    closing: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = sockets._bind
    refused: list[object] = []

    def taken_once(opened: socket.socket, address: tuple[object, ...], *, backlog: int) -> None:
        if opened.family == socket.AF_INET6 and not refused:
            refused.append(address)
            raise OSError(errno.EADDRINUSE, "Address already in use")
        real(opened, address, backlog=backlog)

    monkeypatch.setattr(sockets, "_bind", taken_once)
    four, six = opened(closing, listen_tcp("localhost", 0, tls=False))
    assert refused
    assert port_of(four) == port_of(six)


@needs_ipv6
def test_all_addresses_of_both_families_stand_side_by_side(closing: ExitStack) -> None:
    (four,) = opened(closing, anywhere())
    (six,) = opened(closing, listen_tcp("::", port_of(four), tls=False))
    assert four.address == f"0.0.0.0:{port_of(four)}"
    assert six.address == f"[::]:{port_of(four)}"


def test_an_address_in_use_is_refused_by_name(closing: ExitStack) -> None:
    (first,) = opened(closing, listen_tcp("127.0.0.1", 0, tls=False))
    with pytest.raises(OSError) as raised:
        listen_tcp("127.0.0.1", port_of(first), tls=False)
    assert raised.value.errno == errno.EADDRINUSE
    assert raised.value.filename == first.address


@needs_ipv6
def test_nothing_stays_open_where_one_of_the_addresses_is_in_use(closing: ExitStack) -> None:
    (six,) = opened(closing, listen_tcp("::1", 0, tls=False))
    with pytest.raises(OSError) as raised:
        listen_tcp("localhost", port_of(six), tls=False)
    assert raised.value.errno == errno.EADDRINUSE
    opened(closing, listen_tcp("127.0.0.1", port_of(six), tls=False))


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(OSError) as raised:
        listen_tcp("192.0.2.1", 0, tls=False)
    assert raised.value.errno == errno.EADDRNOTAVAIL
    assert raised.value.filename == "192.0.2.1:0"


@pytest.mark.parametrize("host", ["x" * 64, "a..b"])
def test_what_can_be_no_name_does_not_resolve(host: str) -> None:
    with pytest.raises(socket.gaierror):
        listen_tcp(host, 0, tls=False)


def test_an_address_is_free_again_at_once_after_it_served(closing: ExitStack) -> None:
    (listening,) = listen_tcp("127.0.0.1", 0, tls=False)
    port = port_of(listening)
    with socket.create_connection(("127.0.0.1", port), timeout=10):
        accepted, _ = listening.socket.accept()
        accepted.close()  # our side closes first, so that ours is the one that waits
    close(listening)
    opened(closing, listen_tcp("127.0.0.1", port, tls=False))


@pytest.mark.parametrize("mode", [0o660, 0o600, 0o666])
def test_a_socket_file_has_its_mode_whatever_the_umask(closing: ExitStack, tmp_path: Path, mode: int) -> None:
    path = tmp_path / "socket"
    before = os.umask(0o077)
    try:
        (listening,) = opened(closing, [listen_unix(str(path), mode=mode)])
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == mode
    assert listening.address == f"unix:{path}"
    assert listening.is_unix
    assert not listening.tls


def test_nobody_can_connect_before_a_socket_file_has_its_mode(
    closing: ExitStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, real, refused = str(tmp_path / "socket"), os.chmod, []

    def tried(*arguments: object) -> None:
        with socket.socket(socket.AF_UNIX) as client, pytest.raises(ConnectionRefusedError):
            client.connect(path)
        refused.append(path)
        real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "chmod", tried)
    opened(closing, [listen_unix(path)])
    assert refused


def test_a_client_can_connect_to_a_socket_file(closing: ExitStack, tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    (listening,) = opened(closing, [listen_unix(path)])
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
        accepted, _ = listening.socket.accept()
        accepted.close()


def test_a_socket_file_that_nobody_listens_on_is_replaced(closing: ExitStack, tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    listen_unix(path).socket.close()
    assert os.path.exists(path)
    opened(closing, [listen_unix(path)])
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)


def test_a_socket_file_in_use_is_refused_and_stays(closing: ExitStack, tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    opened(closing, [listen_unix(path)])
    with pytest.raises(OSError) as raised:
        listen_unix(path)
    assert raised.value.errno == errno.EADDRINUSE
    assert raised.value.filename == path
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)


def test_a_socket_file_whose_queue_is_full_is_in_use(closing: ExitStack, tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    busy = closing.enter_context(socket.socket(socket.AF_UNIX))
    busy.bind(path)
    busy.listen(0)
    with pytest.raises(BlockingIOError):
        for _ in range(10):
            client = closing.enter_context(socket.socket(socket.AF_UNIX))
            client.setblocking(False)
            client.connect(path)
    with pytest.raises(OSError) as raised:
        listen_unix(path)
    assert raised.value.errno == errno.EADDRINUSE


@pytest.mark.parametrize("kind", ["file", "directory", "link"])
def test_what_is_no_socket_is_refused_and_stays(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "socket"
    match kind:
        case "file":
            path.write_text("kept")
        case "directory":
            path.mkdir()
        case _:
            abandoned = tmp_path / "abandoned"
            listen_unix(str(abandoned)).socket.close()
            path.symlink_to(abandoned)
    before = path.lstat()
    with pytest.raises(FileExistsError) as raised:
        listen_unix(str(path))
    assert raised.value.filename == str(path)
    assert path.lstat() == before


def test_a_path_longer_than_a_socket_can_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OSError) as raised:
        listen_unix(str(tmp_path / ("x" * 108)))
    assert raised.value.errno == errno.ENAMETOOLONG


def test_a_missing_directory_is_told_with_the_path(tmp_path: Path) -> None:
    path = str(tmp_path / "missing" / "socket")
    with pytest.raises(FileNotFoundError) as raised:
        listen_unix(path)
    assert raised.value.filename == path


def test_a_socket_file_is_removed_when_it_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    close(listen_unix(str(path)))
    assert not path.exists()


def test_a_socket_file_that_another_process_put_there_stays(closing: ExitStack, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    ours = listen_unix(str(path))
    path.rename(tmp_path / "aside")
    opened(closing, [listen_unix(str(path))])
    close(ours)
    assert path.exists()


# Lays the descriptors it is given from 3 on, as systemd does, and becomes the process that takes them.
_HAND_OVER = """
import fcntl, json, os, sys
handed, environ, program = json.loads(sys.argv[1])
safe = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, 100) for descriptor in handed]
for number, descriptor in enumerate(safe, 3):
    os.dup2(descriptor, number)
environ = {key: value.replace("PID", str(os.getpid())) for key, value in environ.items()}
os.execve(sys.executable, [sys.executable, "-c", program], {**os.environ, **environ})
"""

_TAKE = """
import json, os
from repowatch.errors import UsageError
from repowatch.web.http.sockets import inherited
try:
    found = [
        [each.address, each.tls, each.is_unix, each.socket.fileno(), each.socket.get_inheritable(),
         each.socket.getblocking(), each.file]
        for each in inherited(tls=True)
    ]
except UsageError as error:
    found = str(error)
print(json.dumps([found, [name for name in os.environ if name.startswith("LISTEN_")]]))
"""


def handed_over(*given: socket.socket | int, **environ: str) -> object:
    """What a child finds that was started as systemd starts it; PID in a variable stands for its own."""
    handed = [each if isinstance(each, int) else each.fileno() for each in given]
    variables = {"LISTEN_PID": "PID", "LISTEN_FDS": str(len(handed)), **environ}
    done = subprocess.run(
        [sys.executable, "-c", _HAND_OVER, json.dumps([handed, variables, _TAKE])],
        pass_fds=handed,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    found, left = json.loads(done.stdout)
    assert left == []
    return found


def test_the_sockets_of_systemd_are_taken_by_their_names(closing: ExitStack, tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    secure, plain = (opened(closing, listen_tcp("127.0.0.1", 0, tls=False))[0] for _ in range(2))
    (unix,) = opened(closing, [listen_unix(path)])
    for each in (secure, plain, unix):
        each.socket.setblocking(True)
    found = handed_over(secure.socket, plain.socket, unix.socket, LISTEN_FDNAMES="web:http:unix")
    assert found == [
        [secure.address, True, False, 3, False, False, None],
        [plain.address, False, False, 4, False, False, None],
        [unix.address, False, True, 5, False, False, None],
    ]


def test_a_name_that_only_contains_http_is_not_plain(closing: ExitStack) -> None:
    (listening,) = opened(closing, listen_tcp("127.0.0.1", 0, tls=False))
    assert handed_over(listening.socket, LISTEN_FDNAMES="https") == [
        [listening.address, True, False, 3, False, False, None]
    ]


def test_sockets_without_names_speak_as_the_server_does(closing: ExitStack) -> None:
    (listening,) = opened(closing, listen_tcp("127.0.0.1", 0, tls=False))
    assert handed_over(listening.socket) == [[listening.address, True, False, 3, False, False, None]]


def test_an_abstract_socket_is_shown_as_systemd_writes_it(closing: ExitStack) -> None:
    abstract = closing.enter_context(socket.socket(socket.AF_UNIX))
    abstract.bind(f"\0repowatch-test-{os.getpid()}")
    abstract.listen()
    assert handed_over(abstract) == [
        [f"unix:@repowatch-test-{os.getpid()}", False, True, 3, False, False, None]
    ]


def test_sockets_for_another_process_are_left(closing: ExitStack) -> None:
    (listening,) = opened(closing, listen_tcp("127.0.0.1", 0, tls=False))
    assert handed_over(listening.socket, LISTEN_PID="1") == []


def test_what_does_not_listen_is_refused_by_number_and_name(closing: ExitStack, tmp_path: Path) -> None:
    idle = closing.enter_context(socket.socket())
    datagram = closing.enter_context(socket.socket(type=socket.SOCK_DGRAM))
    datagram.bind(("127.0.0.1", 0))
    file = os.open(tmp_path, os.O_RDONLY)
    closing.callback(os.close, file)
    (good,) = opened(closing, listen_tcp("127.0.0.1", 0, tls=False))
    for bad in (idle, datagram, file):
        found = str(handed_over(good.socket, bad, LISTEN_FDNAMES="web:other"))
        assert found.startswith(
            "systemd handed over descriptor 4 (other), which is no listening stream socket"
        )


def test_a_descriptor_that_is_not_open_is_refused() -> None:
    assert "descriptor 3 (unknown)" in str(handed_over(LISTEN_FDS="1"))


@pytest.mark.parametrize("count", ["two", "-1", "1.5", "²"])
def test_a_count_that_is_no_number_is_refused(count: str) -> None:
    environ = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": count, "PATH": "/bin"}
    with pytest.raises(UsageError, match="LISTEN_FDS is"):
        inherited(environ, tls=False)
    assert environ == {"PATH": "/bin"}


def test_without_systemd_nothing_is_inherited() -> None:
    assert inherited({}, tls=True) == []
