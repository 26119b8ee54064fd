"""Users and their passwords: the file they stand in, who shows the right one, and how often one may try."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import hashlib
import hmac
import ipaddress
import logging
import os
import re
import secrets
import stat
import tempfile
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import bcrypt

from repowatch.errors import UsageError
from repowatch.system.clock import Clock
from repowatch.system.files import make_sure_of
from repowatch.web.rights.peer import address_of
from repowatch.web.rights.rules import mistake_in_user_name

log = logging.getLogger(__name__)

LONGEST_PASSWORD = 72  # bytes: bcrypt takes no more

_LOOK = 0.5  # seconds between two looks at the file
_REMEMBERED = 1024  # users whose last success is known
_DEFAULT_COST = 12  # about 0.25 s

# The last character of the salt carries 2 bits; bcrypt reads no others. Costs above 16 take 4 s and more.
_BCRYPT = re.compile(rb"\$2[aby]\$(0[4-9]|1[0-6])\$[./A-Za-z0-9]{21}[.Oeu][./A-Za-z0-9]{31}")

# Padding is checked here: releases of Python differ in what they let pass (RFC 4648 section 4).
_BASIC = re.compile(r"(?i:basic) +((?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?) *")

_Stamp = tuple[int, int, int, int]


def parse_basic(field: str) -> tuple[str, bytes] | None:
    """The user and the password in an Authorization field of the scheme Basic (RFC 7617 section 2).

    None where it is of another scheme or malformed. Clients write the user in UTF-8 or else in Latin-1; it
    may be any text without control characters of ASCII.
    """
    match = _BASIC.fullmatch(field)
    if match is None:
        return None
    decoded = base64.b64decode(match[1])
    user, colon, password = decoded.partition(b":")
    if not colon or any(byte < 32 or byte == 127 for byte in decoded):
        return None
    try:
        return user.decode(), password
    except UnicodeDecodeError:
        return user.decode("latin-1"), password


@dataclass(frozen=True, slots=True)
class _Content:
    """The users file at one moment."""

    hashes: dict[str, bytes]
    cost: int  # the highest in it

    @classmethod
    def of(cls, raw: bytes, *, path: str) -> _Content:
        """Raises UsageError with every mistake and the line it stands on; no hash or password is told."""
        hashes: dict[str, bytes] = {}
        mistakes = []
        for number, line in enumerate(map(bytes.strip, raw.splitlines()), start=1):
            if not line or line.startswith(b"#"):
                continue
            user, _, stored = line.partition(b":")
            name = user.decode(errors="surrogateescape")
            if mistake := _mistake_in(name, stored, hashes, path=path):
                mistakes.append(f"{path}:{number}: {mistake}")
            else:
                hashes[name] = stored
        if mistakes:
            raise UsageError("\n".join(mistakes))
        return cls(hashes, max(map(_cost, hashes.values()), default=_DEFAULT_COST))


def _mistake_in(name: str, stored: bytes, before: dict[str, bytes], *, path: str) -> str | None:
    if not stored:
        return "not a line of the form USER:HASH; remove it, or put a # before it"
    if mistake := mistake_in_user_name(name):
        return f"not the name of a user: {mistake}; remove the line"
    if name in before:
        return f"{name} was there before; remove one of the lines"
    if not _BCRYPT.fullmatch(stored):
        return (
            f"the password of {name} is no bcrypt hash (cost 4 to 16); run `repowatch passwd {path} {name}`"
        )
    return None


def _cost(stored: bytes) -> int:
    return int(stored[4:6])


class Users:
    """The users of one htpasswd file (bcrypt only), which is looked at again when it changed."""

    def __init__(self, path: str, *, clock: Clock, work: int = 2) -> None:
        """`work`: how many passwords are hashed at once; each keeps a processor busy."""
        self._path = path
        self._clock = clock
        self._slots = threading.BoundedSemaphore(work)
        self._key = secrets.token_bytes(64)
        self._lock = threading.Lock()  # for what follows
        self._content = _Content({}, _DEFAULT_COST)
        self._stamp: _Stamp | None = None
        self._looked = clock.monotonic()
        self._right: OrderedDict[str, bytes] = OrderedDict()

    def load(self) -> None:
        """Read the file. Raises UsageError, which names each mistake and its line."""
        with self._lock:
            self._looked = self._clock.monotonic()
            self._stamp, self._content = _read(self._path)

    def known(self, user: str, password: bytes) -> bool | None:
        """True when this password was right before and still is; None when `verify` has to be asked.

        Takes microseconds. Ask `Throttle.wait` first: to who may guess without a limit, this tells as well.
        """
        stored = self._stored(user)
        right = self._right.get(user, b"")
        return True if hmac.compare_digest(right, self._tag(user, stored, password)) else None

    def verify(
        self, user: str, password: bytes, *, is_wanted: Callable[[], bool] = lambda: True
    ) -> bool | None:
        """Whether this is the password of this user; waits for a slot and hashes, some 0.05 to 0.3 s.

        `is_wanted` is asked when there is a slot: where it says no, nothing is hashed and the answer is None.
        An unknown user, or one with a cheaper hash than others, takes as long as any.
        """
        if len(password) > LONGEST_PASSWORD or b"\0" in password:
            return False
        with self._slots:
            # Another request of the same client may have been first.
            if self.known(user, password):
                return True
            if not is_wanted():
                return None
            stored = self._stored(user)
            if not self._fits(password, stored):
                return False
            self._remember(user, self._tag(user, stored, password))
            return True

    def _fits(self, password: bytes, stored: bytes) -> bool:
        highest = self._content.cost
        if not stored:
            bcrypt.checkpw(password, _dummy(highest))
            return False
        right = bcrypt.checkpw(password, stored)
        if not right:
            # 2^c + 2^c + 2^(c+1) + ... + 2^(highest-1) rounds are 2^highest.
            for cost in range(_cost(stored), highest):
                bcrypt.checkpw(password, _dummy(cost))
        return right

    def _tag(self, user: str, stored: bytes, password: bytes) -> bytes:
        name = user.encode(errors="surrogatepass")
        # Neither a user nor a hash has a colon: no two triples make the same text.
        text = b":".join((name, stored, password))
        return hashlib.blake2b(text, key=self._key, digest_size=32).digest()

    def _remember(self, user: str, tag: bytes) -> None:
        with self._lock:
            self._right[user] = tag
            self._right.move_to_end(user)
            if len(self._right) > _REMEMBERED:
                self._right.popitem(last=False)

    def _stored(self, user: str) -> bytes:
        """The hash of a user as the file has it now, b"" for an unknown one."""
        if self._clock.monotonic() - self._looked >= _LOOK:
            self._look()
        return self._content.hashes.get(user, b"")

    def _look(self) -> None:
        with self._lock:
            if self._clock.monotonic() - self._looked < _LOOK:
                return
            self._looked = self._clock.monotonic()
            stamp = _stamp_at(self._path)
            if stamp == self._stamp:
                return
            self._stamp = stamp
            try:
                self._stamp, self._content = _read(self._path)
            except UsageError as error:
                log.error("the users stay as they were: %s", error)
            else:
                log.info("%s: read again, %d users", self._path, len(self._content.hashes))


def _read(path: str) -> tuple[_Stamp, _Content]:
    try:
        with open(path, "rb", opener=_open_at_once) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise UsageError(f"{path}: not a file; write the path of an htpasswd file")
            return _stamp(status), _Content.of(file.read(), path=path)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UsageError(f"{path}: {reason}; make it with `repowatch passwd {path} USER`") from None


def _open_at_once(path: str, flags: int) -> int:
    """Opens without waiting for a writer, where it is a pipe."""
    return os.open(path, flags | os.O_NONBLOCK)


def _stamp_at(path: str) -> _Stamp | None:
    try:
        return _stamp(os.stat(path))
    except OSError:
        return None


def _stamp(status: os.stat_result) -> _Stamp:
    return status.st_mtime_ns, status.st_size, status.st_ino, status.st_ctime_ns


def _dummy(cost: int) -> bytes:
    """A hash that no password has."""
    return b"$2b$%02d$" % cost + b"." * 53


class Throttle:
    """Slows down failed logins by the address they come from, and nobody else.

    An address is an IPv4 one, or an IPv6 network of 64 bits, which is what one machine has.
    """

    _FREE = 5  # failures before there is a wait
    _WINDOW = 300.0  # seconds in which they count
    _LONGEST = 60.0  # seconds of wait
    _COUNTED = 16  # failures that are remembered of one address; 11 make the longest wait
    _ADDRESSES = 4096

    def __init__(self, *, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._failures: OrderedDict[str | int, deque[tuple[float, int]]] = OrderedDict()

    def wait(self, address: str | None) -> float:
        """Seconds for which nothing that an address shows is to be looked at; 0.0 where there is no wait.

        5 failures within 5 minutes make 1 s after the last, each further one twice as much, at most 60 s.
        None is a unix socket, which never waits.
        """
        if not self._failures or address is None:
            return 0.0
        now = self._clock.monotonic()
        with self._lock:
            times = [when for when, _ in self._failures.get(_key(address), ())]
        counted = sum(when > now - self._WINDOW for when in times)
        if counted < self._FREE:
            return 0.0
        delay = min(2.0 ** (counted - self._FREE), self._LONGEST)
        return max(0.0, times[-1] + delay - now)

    def failed(self, address: str | None, user: str) -> None:
        """A login as `user` failed."""
        if address is None:
            return
        key = _key(address)
        with self._lock:
            times = self._failures.setdefault(key, deque(maxlen=self._COUNTED))
            times.append((self._clock.monotonic(), hash(user)))
            self._failures.move_to_end(key)
            if len(self._failures) > self._ADDRESSES:
                self._failures.popitem(last=False)

    def succeeded(self, address: str | None, user: str) -> None:
        """A login as `user` went well: its failures are forgotten.

        Those of other users are not: who knows one password could else guess at all others.
        """
        if not self._failures or address is None:
            return
        key = _key(address)
        with self._lock:
            times = self._failures.get(key)
            if times is None:
                return
            others = [each for each in times if each[1] != hash(user)]
            if others:
                self._failures[key] = deque(others, maxlen=self._COUNTED)
            else:
                del self._failures[key]


def _key(address: str) -> str | int:
    number = address_of(address)
    return int(number) >> 64 if isinstance(number, ipaddress.IPv6Address) else str(number or address)


@dataclass(frozen=True, slots=True)
class Login:
    """What came of showing a password."""

    right: bool
    wait: float = 0.0  # seconds; more than none: it was not looked at, to be answered 429 with Retry-After


def log_in(users: Users, throttle: Throttle, *, address: str | None, user: str, password: bytes) -> Login:
    """Whether a client at `address` (None: a unix socket) is `user`; may take seconds, see `Users.verify`.

    An address is asked about again before a hash is made, so that many tries at once are not more than one
    after the other. Failed logins are logged.
    """
    if wait := throttle.wait(address):
        return Login(right=False, wait=wait)
    right = users.verify(user, password, is_wanted=lambda: not throttle.wait(address))
    if right is None:
        return Login(right=False, wait=throttle.wait(address))
    if right:
        throttle.succeeded(address, user)
    else:
        throttle.failed(address, user)
        # Quoted: it is any text that a stranger sent.
        log.warning("login failed from %s as %a", address or "a unix socket", user[:64])
    return Login(right=right)


def set_password(path: str, user: str, password: bytes, *, cost: int = _DEFAULT_COST) -> bool:
    """Give a user of the file a password; the file is made where it is missing. True when the user is new.

    All other lines stay as they are. `cost` is 4 to 16. Raises UsageError for a name or a password that can
    not be, and for a file that can not be changed; Unfinished when it was changed, but may not last.
    """
    if mistake := mistake_in_user_name(user):
        raise UsageError(f"{user!r} can not be the name of a user: {mistake}; choose another")
    if not password:
        raise UsageError("the password is empty; choose another")
    if len(password) > LONGEST_PASSWORD:
        raise UsageError(f"the password is longer than {LONGEST_PASSWORD} bytes; choose a shorter one")
    if any(byte < 32 or byte == 127 for byte in password):
        raise UsageError("the password has a control character, which HTTP can not carry; choose another")
    hashed = bcrypt.hashpw(password, bcrypt.gensalt(cost))
    # $2y$ is the same as $2b$, under the name that Apache httpd knows as well.
    return not _replace_lines(path, user, user.encode() + b":$2y$" + hashed[4:] + b"\n")


def remove_user(path: str, user: str) -> bool:
    """Take a user out of the file. True when it was there. Raises UsageError as `set_password` does."""
    return _replace_lines(path, user, b"")


def _replace_lines(path: str, user: str, line: bytes) -> bool:
    """Put `line` in the place of the user's first line, or at the end; whether there was one."""
    path = os.path.realpath(path)
    try:
        with _alone_in(os.path.dirname(path)):
            old = _old(path)
            lines = old.splitlines(keepends=True)
            own = [index for index, each in enumerate(lines) if _is_of(user, each)]
            if not own and not line:
                return False
            if not own and lines and not lines[-1].endswith((b"\n", b"\r")):
                lines[-1] += b"\n"
            for index in own:
                lines[index] = b""
            lines.insert(own[0] if own else len(lines), line)
            _replace(path, b"".join(lines))
            make_sure_of(os.path.dirname(path))
            return bool(own)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UsageError(f"{path}: {reason}; nothing was changed") from None


def _is_of(user: str, line: bytes) -> bool:
    name, colon, _ = line.partition(b":")
    return bool(colon) and name.strip() == user.encode(errors="surrogateescape")


def _old(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return b""


@contextlib.contextmanager
def _alone_in(directory: str) -> Iterator[None]:
    """Wait until no other process changes a users file in a directory. Raises OSError."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _replace(path: str, content: bytes) -> None:
    """Put a file in the place of another, with its mode and owner. Raises OSError."""
    directory, name = os.path.split(path)
    descriptor, aside = tempfile.mkstemp(prefix=f".{name}.", dir=directory)
    try:
        with open(descriptor, "wb") as file:
            try:
                old = os.stat(path)
            except FileNotFoundError:
                os.fchmod(descriptor, 0o640)
            else:
                # Before the mode: a change of the owner takes bits away.
                os.fchown(descriptor, old.st_uid, old.st_gid)
                os.fchmod(descriptor, stat.S_IMODE(old.st_mode))
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        os.rename(aside, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(aside)
        raise
