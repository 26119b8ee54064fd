"""One thread that owns every connection nobody works for: it accepts, collects heads, sends the rest.

A client that is silent, trickles or reads slowly costs an entry in a table here, never a thread. Whoever
works for a connection (a worker with its request, a handshake, a login) owns it alone, and gives it back
with `give_back`.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import select
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http import HTTPStatus

from repowatch.errors import RepowatchError
from repowatch.web.http.head import BadHead, Head, end_of_head, parse
from repowatch.web.http.outgoing import AT_ONCE, Sent
from repowatch.web.http.sockets import Listening, account_of
from repowatch.web.http.wire import TRY_LATER, WINDOW, State, Wait, Wire

log = logging.getLogger(__name__)

RECEIVED = 64 * 1024  # bytes taken from a connection at once while a head is collected
GATHERED = 16 * 1024  # bytes of a body, as PROPFIND and LOCK send, that are collected with the head
HANDSHAKE = 10.0  # seconds that a TLS handshake may take
LINGER = 5.0  # seconds, and
DRAINED = 64 << 20  # bytes, more than the buffers between us hold, that a refused client may go on sending
LOOK = 0.5  # seconds between two looks at what is overdue
NEWCOMER = 2.0  # seconds in which a client that has just come may still send its first request on a stop
UNSENT = 256 * 1024  # bytes that the kernel keeps of an answer, beyond what is on its way
PIPELINED = 8  # requests of one connection that are answered in a row
TRICKLE = 4  # receives of one head that come at once; later ones wait
TRICKLE_EVERY = 0.05  # seconds

_READ, _WRITE, _GONE = select.EPOLLIN, select.EPOLLOUT, select.EPOLLRDHUP
_TCP_NOTSENT_LOWAT = 25  # linux/tcp.h; Python's socket has no name for it
_BUSY = {State.WORKING, State.SENDING, State.PARKED}
_OUT_OF_DESCRIPTORS = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a client may take. Times in seconds."""

    connections: int = 4096
    head_time: float = 20.0  # from the first byte of a head to its last
    idle: float = 75.0  # between two requests
    least_rate: float = 1024.0  # bytes a second, in bodies and in answers


def comes_whole(head: Head) -> bool:
    """Whether the body is so small that nobody has to wait for it: it is collected as the head is."""
    return head.length is not None and head.length <= GATHERED and not head.expects_continue


class Loop:
    """The thread, its table of connections, and its listening sockets."""

    def __init__(
        self,
        listening: Sequence[Listening],
        *,
        limits: Limits,
        context: Callable[[], ssl.SSLContext],
        answer: Callable[[Wire, Head], None],
        refuse: Callable[[Wire, BadHead], None],
        resume: Callable[[Wire], None],
        turned: Callable[[], None],
    ) -> None:
        """`answer` is called in this thread with each whole head: it lays an answer out, takes the
        connection away (`take`), or parks it (`park`). `refuse` lays out the answer to a bad head. `resume`
        gets a connection whose wait is over, or whose next block has to be made. `turned` is called at the
        end of each turn.
        """
        self._listening = {each.socket.fileno(): each for each in listening}
        self._limits = limits
        self._context = context
        self._answer = answer
        self._refuse = refuse
        self._resume = resume
        self._turned = turned
        self._wires: dict[int, Wire] = {}
        self._returned: deque[Wire] = deque()
        self._later: deque[tuple[float, Wire]] = deque()  # when to listen again to whose head trickles
        self._next: deque[Wire] = deque()  # have more requests at hand, and let others go first
        self._epoll = select.epoll()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._handshakes = ThreadPoolExecutor(2, thread_name_prefix="handshake")
        self._waste = bytearray(RECEIVED)  # what nobody wants
        self._stopping = False
        self._ended = False
        self._stirred = False  # some that are parked may have waited long enough
        self._waking = threading.Lock()  # between who stirs and the end of the descriptor
        self._is_closed = False
        self.turns = 0  # a pulse: how often the thread went around
        self._next_look = 0.0
        self._epoll.register(self._wake, _READ)
        for descriptor in self._listening:
            self._epoll.register(descriptor, _READ)

    # What others call.

    def give_back(self, wire: Wire) -> None:
        """Return a connection that was taken; from any thread."""
        self._returned.append(wire)
        self._nudge()

    def stir(self) -> None:
        """There is news: look whose wait is over; from any thread, at any time."""
        with self._waking:
            if not self._is_closed:
                self._stirred = True
                self._nudge()

    def stop(self) -> None:
        """Accept no more, close what waits for a request; from any thread.

        Answers in hand go on, and who has only just been accepted gets one: a socket that systemd keeps
        has told such a client that somebody is there, and nobody else has its connection.
        """
        self._stopping = True
        self._nudge()

    def end(self) -> None:
        """Close what is left, and return from `run`; from any thread."""
        self._ended = True
        self._nudge()

    @property
    def busy(self) -> int:
        """How many connections have an answer to come, or going out."""
        return sum(1 for wire in list(self._wires.values()) if wire.state in _BUSY)

    @property
    def is_quiet(self) -> bool:
        """Whether a stop has nothing to wait for any more."""
        newest = time.monotonic() - NEWCOMER
        wires = list(self._wires.values())
        return not self._listening and not any(
            wire.state in _BUSY or _is_newcomer(wire, newest) for wire in wires
        )

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._wires)

    # The thread.

    def run(self) -> None:
        """Serve until `end`."""
        while not self._ended:
            self._turn()
            self.turns += 1
        self._handshakes.shutdown(wait=False, cancel_futures=True)
        for wire in list(self._wires.values()):
            if wire.state in (State.WORKING, State.SHAKING):  # its owner finds out
                with contextlib.suppress(OSError):
                    # Not SSLSocket's own: after that its `recv` hands out what was never decrypted.
                    socket.socket.shutdown(wire.socket, socket.SHUT_RDWR)
            else:
                self._close(wire)
        self._turned()

    def close(self) -> None:
        """Let go of what the thread used: after its end, and that of whoever gives connections back."""
        for wire in list(self._wires.values()):
            self._close(wire)
        self._epoll.close()
        with self._waking:
            self._is_closed = True
            os.close(self._wake)

    def _turn(self) -> None:
        for descriptor, _ in self._epoll.poll(self._patience()):
            if descriptor == self._wake:
                self._take_back()
            elif descriptor in self._listening:
                self._accept(self._listening[descriptor])
            elif wire := self._wires.get(descriptor):
                self._safely(wire, self._ready)
        for _ in range(len(self._next)):
            wire = self._next.popleft()
            if wire.state is State.HEAD:
                self._safely(wire, self._process)
        now = time.monotonic()
        while self._later and self._later[0][0] <= now:
            _, wire = self._later.popleft()
            if wire.state is State.HEAD:
                self._watch(wire, _READ)
        if now >= self._next_look:
            self._look(now)
        self._turned()

    def _patience(self) -> float:
        if self._next:
            return 0
        return TRICKLE_EVERY if self._later else LOOK

    def _nudge(self) -> None:
        with contextlib.suppress(OSError):
            os.eventfd_write(self._wake, 1)

    def _safely(self, wire: Wire, act: Callable[..., None], *arguments: object) -> None:
        """What goes wrong with one connection ends that connection."""
        try:
            act(wire, *arguments)
        except OSError as error:
            log.debug("connection from %s: %s", wire.address, error)
            self._close(wire)
        except RepowatchError as error:
            log.warning("%s; the connection is closed", error)
            self._close(wire)
        except Exception:
            log.exception("unexpected error with a connection from %s", wire.address)
            self._close(wire)

    def _ready(self, wire: Wire) -> None:
        match wire.state:
            case State.HEAD:
                self._receive(wire)
            case State.SENDING:
                self.send(wire)
            case State.LINGERING:
                self._drain(wire)
            case State.PARKED:
                self._close(wire)  # the client is gone
            case State.HANDSHAKE:
                self.take(wire, state=State.SHAKING)
                self._handshakes.submit(self._shake, wire)
            case _:
                pass  # it was given away in this very turn

    # Accepting.

    def _accept(self, listening: Listening) -> None:
        for _ in range(64):
            try:
                connection, address = listening.socket.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _OUT_OF_DESCRIPTORS:
                    log.error("no new connection can be accepted: %s", error.strerror)
                    self._make_room()
                return
            if len(self._wires) >= self._limits.connections:
                self._make_room()
            try:
                self._begin(connection, address, listening)
            except OSError as error:
                log.debug("a connection ended before it began: %s", error)
                connection.close()

    def _begin(self, connection: socket.socket, address: object, listening: Listening) -> None:
        connection.setblocking(False)
        host, port = (None, 0) if listening.is_unix else address[:2]  # type: ignore[index]
        if not listening.is_unix:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, UNSENT)
        if listening.tls:
            connection = self._context().wrap_socket(
                connection, server_side=True, do_handshake_on_connect=False, suppress_ragged_eofs=True
            )
        wire = Wire(connection, address=host, port=port, tls=listening.tls, rate=self._limits.least_rate)
        if listening.is_control:
            wire.operator = account_of(connection)
        wire.since = time.monotonic()
        wire.deadline = wire.since + (HANDSHAKE if listening.tls else self._limits.head_time)
        self._wires[wire.descriptor] = wire
        self._epoll.register(wire.descriptor, _READ)

    def _make_room(self) -> None:
        """Close those that wait the longest for a request, so that no silent crowd keeps others out.

        Where all have only just come, the one that takes the longest to read its answer.
        """
        long_ago = time.monotonic() - LOOK
        silent = self._oldest(State.HEAD, State.HANDSHAKE, State.LINGERING, State.PARKED)
        waiting = [wire for wire in silent if wire.since < long_ago]
        for wire in waiting[: max(1, len(waiting) // 16)] or self._oldest(State.SENDING)[:1] or silent[:1]:
            self._close(wire)

    def _oldest(self, *states: State) -> list[Wire]:
        """Those in these states, the one that asked for nothing for the longest time first."""
        found = [wire for wire in self._wires.values() if wire.state in states]
        return sorted(found, key=lambda wire: wire.since)

    def _shake(self, wire: Wire) -> None:
        """One step of a TLS handshake, in a thread of its own: it computes for a millisecond."""
        try:
            wire.socket.do_handshake()  # type: ignore[attr-defined]
            wire.secure = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLWantWriteError:
            pass  # a few hundred bytes always fit; the client's next packet brings us here again
        except (OSError, ValueError) as error:
            log.debug("no TLS with %s: %s", wire.address, error)
            wire.closing = True
        self.give_back(wire)

    # Heads.

    def _receive(self, wire: Wire) -> None:
        try:
            data = wire.socket.recv(RECEIVED)
        except TRY_LATER:
            return
        if not data:
            self._close(wire)
            return
        wire.buffer += data
        wire.receives += 1
        self._process(wire)

    def _process(self, wire: Wire) -> None:
        """Answer what the buffer holds; wait for more when it holds no whole head."""
        for _ in range(PIPELINED):
            if wire.state is not State.HEAD:
                return
            if wire.skip:
                dropped = min(wire.skip, len(wire.buffer))
                del wire.buffer[:dropped]
                wire.skip -= dropped
            try:
                if not wire.skip and not wire.head:
                    self._take_head(wire)
                if wire.head and len(wire.buffer) >= wire.collected:
                    self._take_request(wire, wire.head)
                elif self._wait_for_more(wire):
                    continue
                else:
                    return
            except BadHead as error:
                self._refuse(wire, error)
                wire.lingers = wire.closing = True
            if wire.state is State.HEAD:
                self.send(wire)
        if wire.state is State.HEAD:
            self._next.append(wire)

    def _wait_for_more(self, wire: Wire) -> bool:
        """Whether there is more at hand already."""
        if (wire.buffer or wire.head) and not wire.searched:
            wire.deadline = time.monotonic() + self._limits.head_time
        wire.searched = len(wire.buffer)
        if wire.tls and wire.socket.pending():  # type: ignore[attr-defined]
            with contextlib.suppress(*TRY_LATER):
                wire.buffer += wire.socket.recv(RECEIVED)
                return True
        if wire.buffer and wire.receives > TRICKLE:
            # Bytes that come one by one would wake us for each of them.
            self._watch(wire, 0)
            self._later.append((time.monotonic() + TRICKLE_EVERY, wire))
        return False

    def _take_head(self, wire: Wire) -> None:
        """Parse the head at the beginning of the buffer, if it is there to its end."""
        end = end_of_head(wire.buffer, wire.searched)
        if end < 0:
            return
        data = bytes(wire.buffer[:end])
        del wire.buffer[:end]
        wire.searched = 0
        wire.head = parse(data)
        # A PUT has a slot to wait in, and is refused before its body comes.
        is_collected = comes_whole(wire.head) and wire.head.method != "PUT"
        wire.collected = (wire.head.length or 0) if is_collected else 0

    def _take_request(self, wire: Wire, head: Head) -> None:
        wire.searched = wire.receives = 0
        wire.head = None
        wire.is_new = False
        wire.closing = not head.keep_alive or self._stopping
        self._answer(wire, head)

    # Sending.

    def send(self, wire: Wire) -> None:
        """Send what the client takes now; in this thread."""
        outcome = wire.outgoing.advance(wire.socket, make=False)
        if outcome is Sent.ALL:
            self._answered(wire)
        elif outcome is Sent.MAKE:
            self.take(wire)
            self._resume(wire)
        elif wire.state is not State.SENDING:
            wire.state = State.SENDING
            wire.acknowledged = wire.progress()
            wire.deadline = time.monotonic() + WINDOW
            self._watch(wire, _WRITE)

    def _answered(self, wire: Wire) -> None:
        """An answer is out: end, or wait for the next request."""
        if wire.closing or self._stopping:
            if wire.lingers:
                self._linger(wire)
            else:
                self._close(wire)
            return
        was = wire.state
        wire.state = State.HEAD
        wire.since = time.monotonic()
        wire.deadline = wire.since + self._limits.idle
        if was is not State.HEAD:
            self._watch(wire, _READ)
            self._process(wire)

    def _linger(self, wire: Wire) -> None:
        """Let a client that is still sending read its answer: a reset would take it away (RFC 9112, 9.6)."""
        wire.state = State.LINGERING
        wire.deadline = time.monotonic() + LINGER
        with contextlib.suppress(OSError, ValueError):
            if isinstance(wire.socket, ssl.SSLSocket):
                with contextlib.suppress(*TRY_LATER):
                    wire.socket.unwrap()  # says that we are done; the client's word is not waited for
            socket.socket.shutdown(wire.socket, socket.SHUT_WR)
        self._watch(wire, _READ)
        self._drain(wire)

    def _drain(self, wire: Wire) -> None:
        for _ in range(AT_ONCE // RECEIVED):
            try:
                count = wire.socket.recv_into(self._waste)
            except TRY_LATER:
                return
            wire.drained += count
            if count == 0 or wire.drained > DRAINED:
                self._close(wire)
                return

    # Giving away, taking back, ending.

    def take(self, wire: Wire, *, state: State = State.WORKING) -> None:
        """Stop watching a connection that somebody else will own until `give_back`; in this thread."""
        wire.state = state
        self._epoll.unregister(wire.descriptor)

    def park(self, wire: Wire, wait: Wait) -> None:
        """Keep a connection until its wait is over, then have it resumed; in this thread.

        Only its end is watched for: what the client sends meanwhile stays with the kernel.
        """
        wire.wait = wait
        wire.state = State.PARKED
        wire.deadline = time.monotonic() + wait.seconds
        if self._stopping or wait.is_over():
            self._unpark(wire)
        else:
            self._watch(wire, _GONE)

    def _unpark(self, wire: Wire) -> None:
        wire.wait = None
        self.take(wire)
        self._resume(wire)

    def _look_at_parked(self) -> None:
        for wire in list(self._wires.values()):
            if wire.state is State.PARKED and wire.wait and (self._stopping or wire.wait.is_over()):
                self._safely(wire, self._unpark)

    def _take_back(self) -> None:
        os.eventfd_read(self._wake)
        while self._returned:
            self._safely(self._returned.popleft(), self._went_on)
        if self._stopping and self._listening:
            self._close_doors()
        if self._stirred or self._stopping:
            self._stirred = False
            self._look_at_parked()

    def _went_on(self, wire: Wire) -> None:
        """Go on with a connection that came back."""
        self._epoll.register(wire.descriptor, _READ)
        if wire.state is State.WORKING and wire.wait:
            self.park(wire, wire.wait)
        elif wire.state is State.WORKING:
            self.send(wire)
        elif wire.closing or (not wire.secure and wire.deadline < time.monotonic()):
            # Not left to `_look`: whoever sends a byte at a time is in the middle of a step at each look.
            self._close(wire)
        elif wire.secure:
            wire.state = State.HEAD
            wire.deadline = time.monotonic() + self._limits.head_time
            self._process(wire)
        else:
            wire.state = State.HANDSHAKE

    def _close_doors(self) -> None:
        for descriptor, listening in self._listening.items():
            self._epoll.unregister(descriptor)
            listening.socket.close()
        self._listening = {}
        newest = time.monotonic() - NEWCOMER
        for wire in list(self._wires.values()):
            if wire.state in (State.HEAD, State.LINGERING) and not _is_newcomer(wire, newest):
                self._close(wire)

    def _watch(self, wire: Wire, events: int) -> None:
        self._epoll.modify(wire.descriptor, events)

    def _look(self, now: float) -> None:
        """Close what is overdue."""
        self._next_look = now + LOOK
        for wire in list(self._wires.values()):
            if wire.deadline > now or wire.state in (State.WORKING, State.SHAKING):
                continue
            if wire.state is State.SENDING:
                self._safely(wire, self._look_at_sending, now)
            elif wire.state is State.PARKED:
                self._safely(wire, self._unpark)
            elif wire.state is State.HEAD and (wire.buffer or wire.head):
                self._refuse(wire, BadHead(HTTPStatus.REQUEST_TIMEOUT, "the head did not come in time"))
                wire.closing = True
                self._safely(wire, self.send)
            else:
                self._close(wire)

    def _look_at_sending(self, wire: Wire, now: float) -> None:
        progress = wire.progress()
        if progress - wire.acknowledged < self._limits.least_rate * WINDOW:
            log.info("%s reads its answer too slowly and is cut off", wire.address or "a client")
            self._close(wire)
            return
        wire.acknowledged = progress
        wire.deadline = now + WINDOW

    def _close(self, wire: Wire) -> None:
        with contextlib.suppress(OSError, ValueError, FileNotFoundError):
            self._epoll.unregister(wire.descriptor)
        wire.close()
        if self._wires.get(wire.descriptor) is wire:
            del self._wires[wire.descriptor]


def _is_newcomer(wire: Wire, newest: float) -> bool:
    """Whether a client that came after a moment has yet to send its first request."""
    return wire.is_new and wire.since > newest and wire.state is not State.CLOSED
