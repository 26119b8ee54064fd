"""Opens the sockets that the server listens on, or takes those that systemd hands over."""

from __future__ import annotations

import contextlib
import errno
import os
import pwd
import socket
import stat
import struct
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass
from typing import Any

from repowatch.errors import UsageError

_FIRST = 3  # SD_LISTEN_FDS_START of sd_listen_fds(3)
_ATTEMPTS = 10  # to find a port that is free on every address of a name
_LONGEST = 107  # bytes of a unix socket's path: sun_path of unix(7) without the NUL at its end

_Addresses = list[tuple[socket.AddressFamily, tuple[Any, ...]]]


@dataclass(frozen=True, slots=True)
class Listening:
    """A socket that clients can connect to: listening, non-blocking, and not inherited by child processes."""

    socket: socket.socket
    address: str  # for people: 127.0.0.1:8080, [::1]:8080, unix:/run/x.sock
    tls: bool
    is_unix: bool
    file: tuple[int, int] | None = None  # device and inode of the socket file that we made
    is_control: bool = False  # whoever may connect is an operator, who may do everything

    @property
    def url(self) -> str:
        """http://HOST:PORT, https://HOST:PORT, or unix:PATH."""
        return self.address if self.is_unix else f"{'https' if self.tls else 'http'}://{self.address}"


def listen_tcp(host: str, port: int, *, tls: bool, backlog: int = 1024) -> list[Listening]:
    """Listen on all addresses that a name resolves to; on one port, also where 0 asks for any free one.

    An IPv6 socket takes IPv6 alone, so that `::` and 0.0.0.0 stand side by side. `localhost` is 127.0.0.1
    and ::1 (RFC 6761 section 6.3), those of the two that the machine has. All or nothing: raises OSError,
    with the address as its file name, and socket.gaierror for a name that does not resolve.
    """
    addresses = _loopback(port) if host.lower() == "localhost" else _resolve(host, port)
    for _ in range(_ATTEMPTS - 1):
        try:
            return _listen_on(addresses, tls=tls, backlog=backlog)
        except OSError as error:
            if port or len(addresses) == 1 or error.errno != errno.EADDRINUSE:
                raise
    return _listen_on(addresses, tls=tls, backlog=backlog)


def listen_unix(path: str, *, mode: int = 0o660, is_control: bool = False) -> Listening:
    """Listen on a socket file that is made with `mode`; one that nobody listens on any more is replaced.

    Raises OSError with the path: EADDRINUSE where somebody listens, EEXIST where it is no socket.
    """
    if len(os.fsencode(path)) > _LONGEST:
        raise OSError(
            errno.ENAMETOOLONG, f"longer than the {_LONGEST} bytes that a socket's path may have", path
        )
    _remove_abandoned(path)
    opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        opened.setblocking(False)
        with _naming(path):
            opened.bind(path)
            # Between bind and listen nobody can connect, so nobody does by the wider mode that bind gives.
            os.chmod(path, mode)
            opened.listen(1024)
            status = os.lstat(path)
    except BaseException:
        opened.close()
        raise
    return Listening(
        opened,
        f"unix:{path}",
        tls=False,
        is_unix=True,
        file=(status.st_dev, status.st_ino),
        is_control=is_control,
    )


def close(listening: Listening) -> None:
    """Stop listening, and remove the socket file if we made it and nobody put another in its place."""
    if listening.file:
        path = listening.address.removeprefix("unix:")
        with contextlib.suppress(OSError):
            status = os.lstat(path)
            if (status.st_dev, status.st_ino) == listening.file:
                os.unlink(path)
    listening.socket.close()


def inherited(environ: MutableMapping[str, str] = os.environ, *, tls: bool) -> list[Listening]:
    """The sockets that systemd hands over to this process, per sd_listen_fds(3); none without systemd.

    Unix sockets and those with `FileDescriptorName=http` are plain, the others as `tls` says. The variables
    are removed, so that no child takes them for its own. Raises UsageError for what is no use.
    """
    pid = environ.pop("LISTEN_PID", "")
    count = environ.pop("LISTEN_FDS", "")
    names = environ.pop("LISTEN_FDNAMES", "")
    environ.pop("LISTEN_PIDFDID", None)
    if pid != str(os.getpid()) or not count:
        return []
    descriptors = _descriptors(count)
    name_of = dict(zip(descriptors, names.split(":") if names else (), strict=False))
    with contextlib.ExitStack() as opened:
        listening = []
        for descriptor in descriptors:
            each = _take(descriptor, name=name_of.get(descriptor, "unknown"), tls=tls)
            opened.callback(each.socket.close)
            listening.append(each)
        opened.pop_all()
    return listening


def _loopback(port: int) -> _Addresses:
    """Both, whatever /etc/hosts says, so that plain access without users stays on this host."""
    hosts = ("127.0.0.1", "::1") if _ipv6_is_on() else ("127.0.0.1",)
    return [address for host in hosts for address in _resolve(host, port)]


def _ipv6_is_on() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::1", 0))
    except OSError as error:
        return error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)
    return True


def _resolve(host: str, port: int) -> _Addresses:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except UnicodeError as error:  # of Python's IDNA, which looks at a name before the resolver does
        raise socket.gaierror(socket.EAI_NONAME, f"{host!r} is no host name") from error
    # Once each: two lines of /etc/hosts may say the same.
    return list(dict.fromkeys((family, address) for family, _, _, _, address in found))


def _listen_on(addresses: _Addresses, *, tls: bool, backlog: int) -> list[Listening]:
    listening: list[Listening] = []
    with contextlib.ExitStack() as opened:
        for family, (host, asked, *scope) in addresses:
            port = asked or (listening[0].socket.getsockname()[1] if listening else 0)
            each = opened.enter_context(socket.socket(family, socket.SOCK_STREAM))
            with _naming(_shown((host, port))):
                _bind(each, (host, port, *scope), backlog=backlog)
            listening.append(Listening(each, _shown(each.getsockname()), tls=tls, is_unix=False))
        opened.pop_all()
    return listening


def _bind(opened: socket.socket, address: tuple[Any, ...], *, backlog: int) -> None:
    opened.setblocking(False)
    # A restart does not wait until the last connections of the process before have timed out.
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if opened.family == socket.AF_INET6:
        opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    opened.bind(address)
    opened.listen(backlog)


def account_of(connection: socket.socket) -> str:
    """The name of the account whose process is at the other end of a unix socket (unix(7), SO_PEERCRED)."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, user, _ = struct.unpack("3i", credentials)
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return f"uid {user}"


def _remove_abandoned(path: str) -> None:
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(status.st_mode):
        raise OSError(errno.EEXIST, "exists and is no socket", path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe, _naming(path):
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
        except (FileNotFoundError, BlockingIOError):
            pass  # gone by now; or somebody listens who does not keep up, and bind refuses


def _descriptors(count: str) -> range:
    if not (count.isascii() and count.isdigit()):
        raise UsageError(f"LISTEN_FDS is {count!r}, no number; unset it, or let systemd set it")
    return range(_FIRST, _FIRST + int(count))


def _take(descriptor: int, *, name: str, tls: bool) -> Listening:
    try:
        os.set_inheritable(descriptor, False)
        taken = socket.socket(fileno=descriptor)
    except OSError as error:
        raise _no_use(descriptor, name) from error
    try:
        if taken.type != socket.SOCK_STREAM or not taken.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            raise _no_use(descriptor, name)
        if taken.family not in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX):
            raise _no_use(descriptor, name)
        taken.setblocking(False)
    except BaseException:
        taken.close()
        raise
    is_unix = taken.family == socket.AF_UNIX
    plain = is_unix or name == "http"
    return Listening(taken, _shown(taken.getsockname()), tls=tls and not plain, is_unix=is_unix)


def _no_use(descriptor: int, name: str) -> UsageError:
    return UsageError(
        f"systemd handed over descriptor {descriptor} ({name}), which is no listening stream socket; "
        "let the .socket unit have ListenStream= with Accept=no"
    )


def _shown(address: str | bytes | tuple[Any, ...]) -> str:
    """A socket's own address for people; an abstract one of unix(7) with `@`, as systemd writes it."""
    if isinstance(address, tuple):
        host, port, *_ = address
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    path = os.fsdecode(address)
    return f"unix:@{path[1:]}" if path.startswith("\0") else f"unix:{path}"


@contextlib.contextmanager
def _naming(address: str) -> Iterator[None]:
    """Let an OSError tell which address it was about."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), address) from error
