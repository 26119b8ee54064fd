"""What systemd is told of the daemon, and what its operator is told where the sandbox is too narrow.

sd_notify(3) by hand: a datagram of lines to the socket that NOTIFY_SOCKET names.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import pwd
import socket
import threading
import time
from collections.abc import Callable, Iterable, MutableMapping, Sequence
from dataclasses import dataclass

from repowatch.errors import RepowatchError, UsageError
from repowatch.system.clock import Clock
from repowatch.system.logs import printable

log = logging.getLogger(__name__)

LONGEST = 1000  # characters of a status: systemd drops a datagram of more than 4096 bytes (its PIPE_BUF)
EVERY = 2.0  # seconds between two texts of the status, at least: each one is a signal on the bus
PATIENCE = 1.0  # seconds that systemd may take to receive a datagram: it restarts itself on upgrades
EXTENSION = 30.0  # seconds more that are asked for at once, and
EXTEND_EVERY = 10.0  # seconds until they are asked for again

_NOT_WRITABLE = {errno.EROFS, errno.EACCES}


class ServiceManager:
    """Whoever started the service and wants to know how it is; without one, nothing is told to nobody."""

    def __init__(self, address: str | None = None, *, clock: Clock, watchdog: float | None = None) -> None:
        """`address` is that of NOTIFY_SOCKET; a beat is expected at least every `watchdog` seconds."""
        self.watchdog = watchdog
        self._address = address
        self._clock = clock
        self._status = ""
        self._status_at = float("-inf")
        self._failing = False

    @classmethod
    def of(cls, environ: MutableMapping[str, str] = os.environ, *, clock: Clock) -> ServiceManager:
        """The one that the environment names: sd_notify(3), sd_watchdog_enabled(3).

        The variables are removed, so that no child takes them for its own.
        """
        address = environ.pop("NOTIFY_SOCKET", "")
        period = environ.pop("WATCHDOG_USEC", "")
        pid = environ.pop("WATCHDOG_PID", "")
        if address and address[0] not in "/@":
            log.warning("systemd is told nothing: NOTIFY_SOCKET=%s is of a kind that is not known", address)
            address = ""
        is_ours = pid in ("", str(os.getpid()))
        is_watched = bool(address) and is_ours and period.isdecimal() and int(period) > 0
        return cls(address or None, clock=clock, watchdog=int(period) / 1e6 if is_watched else None)

    @property
    def is_there(self) -> bool:
        return self._address is not None

    def ready(self) -> None:
        """The start is over, or the reload."""
        self._tell("READY=1")

    def reloading(self) -> None:
        """`ready` has to follow. The time is what Type=notify-reload asks for (systemd 253)."""
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._tell("RELOADING=1", f"MONOTONIC_USEC={now}")

    def stopping(self) -> None:
        self._tell("STOPPING=1", "STATUS=finishing what is in hand")

    def beat(self) -> None:
        self._tell("WATCHDOG=1")

    def extend(self, seconds: float) -> None:
        """Let the start or the stop take so much longer, from now."""
        self._tell(f"EXTEND_TIMEOUT_USEC={round(seconds * 1e6)}")

    def status(self, text: str) -> None:
        """What `systemctl status` shows: told when it changed, and not more often than `EVERY`."""
        now = self._clock.monotonic()
        if text != self._status and now - self._status_at >= EVERY:
            self._status, self._status_at = text, now
            self._tell(_status(text))

    def last_words(self, text: str) -> None:
        """Why it ends, at once."""
        self._tell(_status(text))

    def _tell(self, *lines: str) -> None:
        """Never raises: the daemon serves clients, whether or not systemd listens."""
        if self._address is None:
            return
        address = f"\0{self._address[1:]}" if self._address[0] == "@" else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as opened:
                opened.settimeout(PATIENCE)
                opened.sendto("\n".join(lines).encode(), address)
        except OSError as error:
            if not self._failing:
                log.warning("systemd can not be told %s: %s", lines[0], error.strerror or error)
            self._failing = True
        else:
            self._failing = False


def _status(text: str) -> str:
    """One line, whatever is in it: a line more would be another message."""
    shown = printable(" ".join(text.split()))
    return f"STATUS={shown if len(shown) <= LONGEST else f'{shown[: LONGEST - 3]}...'}"


class Extension:
    """Asks again and again for more time, in a thread of its own, while a start or a stop goes on."""

    def __init__(self, manager: ServiceManager, *, every: float = EXTEND_EVERY) -> None:
        self._manager = manager
        self._every = every
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self, *, most: float) -> None:
        """Ask until `end`, but for no longer than `most` seconds: what hangs is to be ended."""
        if self._manager.is_there:
            self._ended.clear()
            arguments = (time.monotonic() + most,)
            self._thread = threading.Thread(target=self._ask, args=arguments, name="extension", daemon=True)
            self._thread.start()

    def end(self) -> None:
        self._ended.set()
        if self._thread:
            self._thread.join()
            self._thread = None

    def _ask(self, until: float) -> None:
        while not self._ended.is_set() and time.monotonic() < until:
            self._manager.extend(EXTENSION)
            self._ended.wait(self._every)


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the daemon without which it only seems to live."""

    name: str
    pulse: Callable[[], object]  # another value each time it went on; quick, and waits for nothing
    patience: float  # seconds for which it may be the same


class Watchdog:
    """Beats while all parts live."""

    def __init__(self, manager: ServiceManager, parts: Sequence[Part], *, clock: Clock) -> None:
        self._manager = manager
        self._clock = clock
        now = clock.monotonic()
        self._seen: dict[Part, tuple[object, float]] = {part: (part.pulse(), now) for part in parts}
        self._late: frozenset[str] = frozenset()
        self._beat_at = now

    def take(self, parts: Iterable[Part]) -> None:
        """Look at these from now on; those that were known keep what was seen of them."""
        now = self._clock.monotonic()
        self._seen = {part: self._seen.get(part) or (part.pulse(), now) for part in parts}

    def look(self) -> None:
        """Feel each pulse, and send a beat when it is time and none is late. To be called often."""
        if self._manager.watchdog is None:
            return
        now = self._clock.monotonic()
        late = frozenset(part.name for part in self._seen if self._rest(part, now) > part.patience)
        for name in sorted(late - self._late):
            log.error("%s hangs; systemd is no longer told that the daemon lives", name)
        for name in sorted(self._late - late):
            log.warning("%s goes on", name)
        self._late = late
        if now >= self._beat_at and not late:
            self._beat_at = now + self._manager.watchdog / 4
            self._manager.beat()

    def _rest(self, part: Part, now: float) -> float:
        """Seconds since it was seen to go on."""
        pulse, since = part.pulse(), now
        before, seen_at = self._seen[part]
        if pulse == before:
            since = seen_at
        self._seen[part] = pulse, since
        return now - since


def explained(error: RepowatchError, paths: Iterable[str]) -> RepowatchError:
    """The error, with the drop-in to write where it is one of writing what the unit does not let us write.

    `paths` are the directories that the configuration has us write. Which of them can not be is asked of the
    system, so that all are told at once. See ReadWritePaths= in systemd.exec(5).
    """
    number = _errno(error)
    closed = [each for each in dict.fromkeys(paths) if os.path.isdir(each) and not os.access(each, os.W_OK)]
    if number not in _NOT_WRITABLE or "INVOCATION_ID" not in os.environ or not closed:
        return error
    lines = "".join(f"    ReadWritePaths={_quoted(each)}\n" for each in closed)
    text = (
        f"{error}\n"
        "The configuration names what the unit may not write. Run `systemctl edit repowatch`, write there\n"
        f"    [Service]\n{lines}"
        "and then run `systemctl restart repowatch`."
    )
    if number == errno.EACCES:
        text += f"\nIf that is there already, they belong to others than {_user()}: see chown(1)."
    return UsageError(text) if isinstance(error, UsageError) else RepowatchError(text)


def _errno(error: BaseException | None) -> int | None:
    """That of the system call which failed."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error.errno if error else None


def _quoted(path: str) -> str:
    """A path as a word of a unit file: systemd.syntax(7), and `%` of systemd.unit(5)."""
    word = path.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{word}"' if set(word) & set(" \t\"'\\") else word


def _user() -> str:
    with contextlib.suppress(KeyError):
        return pwd.getpwuid(os.geteuid()).pw_name
    return f"user {os.geteuid()}"
