"""Opens the doors that the configuration describes: sockets, certificates, users, logs, the server."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import resource
import socket
import ssl
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeAlias

from repowatch.config import Address, Config, RepositoryConfig, TcpAddress
from repowatch.config.patterns import pattern_of
from repowatch.errors import RepowatchError, UsageError
from repowatch.model.figures import Figures
from repowatch.system.audit import Audit
from repowatch.system.clock import SystemClock
from repowatch.web.access import AccessLog
from repowatch.web.http import sockets
from repowatch.web.http.connections import Limits
from repowatch.web.http.sockets import Listening
from repowatch.web.http.tls import Certificates
from repowatch.web.info.counts import Counts
from repowatch.web.info.metrics import Metrics
from repowatch.web.openings import Opening, Unserved
from repowatch.web.records import Recorder
from repowatch.web.rights.guard import Guard
from repowatch.web.rights.peer import Trusted, network_of
from repowatch.web.rights.rules import Account, Rights, Rules
from repowatch.web.rights.users import Throttle, Users
from repowatch.web.served import Served
from repowatch.web.server import Server
from repowatch.web.site import Site

log = logging.getLogger(__name__)

DESCRIPTORS = 512  # that the rest of the daemon may need, beside one for each connection and one for its file

# What a running daemon takes over, beside the rights of repositories.
_LIVE = frozenset(
    {
        "accounts",
        "allow_anonymous_upload",
        "auth_over_http",
        "groups",
        "public_url",
        "trusted_proxies",
        "users",
    }
)

Failed: TypeAlias = Callable[[str], None]


class Doors:
    """Everything that clients reach the daemon by."""

    def __init__(self, config: Config, *, handed_over: Sequence[Listening], version: str) -> None:
        """`handed_over`: sockets of systemd, which are used in the place of `listen`.

        Raises RepowatchError where the users or the certificate are of no use.
        """
        self._config = config
        self._guard = _guard(config)
        self._certificates = _certificates(config)
        self._handed_over = handed_over
        self._version = version
        self._at_start = config
        self._site: Site | None = None
        self._server: Server | None = None
        self._stack = contextlib.ExitStack()
        self._access: AccessLog | None = None
        self._audit: Audit | None = None

    def open(
        self,
        served: Sequence[Served],
        *,
        figures: Callable[[], Sequence[Figures]],
        opening: Callable[[str], Opening | None],
        unserved: Callable[[], Sequence[Unserved]],
        failed: Failed,
    ) -> list[str]:
        """Answer clients; the URLs to reach them by. Raises RepowatchError, and then nothing stays open.

        `opening` tells what may be made where no repository is, `unserved` which directories are none.
        """
        with contextlib.ExitStack() as stack:
            urls = self._open(
                served, stack, figures=figures, opening=opening, unserved=unserved, failed=failed
            )
            self._stack = stack.pop_all()
        return urls

    def serve(self, served: Sequence[Served]) -> None:
        """Serve these repositories from now on; from another thread."""
        if self._site:
            self._site.serve(served)

    def close(self) -> None:
        """No new connections; requests in hand finish."""
        self._stack.close()

    def reopen(self) -> None:
        """Begin the log files anew: they were rotated."""
        if self._access:
            self._access.reopen()
        if self._audit:
            self._audit.reopen()

    @property
    def turns(self) -> int:
        """How often the loop that keeps the connections went around."""
        return self._server.turns if self._server else 0

    def take(self, config: Config) -> list[str]:
        """Use what can change while clients are served; the keys whose changes wait for the next start.

        Raises RepowatchError where the users are of no use, and then nothing changes.
        """
        guard = _guard(config)
        self._config = config
        if self._site:
            self._site.take(guard)
        self._at_start = _running(self._at_start, config)
        return _changed(self._at_start, config)

    def _open(
        self,
        served: Sequence[Served],
        stack: contextlib.ExitStack,
        *,
        figures: Callable[[], Sequence[Figures]],
        opening: Callable[[str], Opening | None],
        unserved: Callable[[], Sequence[Unserved]],
        failed: Failed,
    ) -> list[str]:
        config, counts = self._config, Counts()
        metrics = Metrics(
            version=self._version,
            figures=figures,
            counts=counts,
            connections=lambda: server.connections,
            expires_at=partial(_expires_at, self._certificates) if self._certificates else None,
            unserved=lambda: len(unserved()),
        )
        if config.access_log:
            self._access = AccessLog(config.access_log)
            stack.callback(self._access.close)
        if config.audit:
            self._audit = Audit(config.audit)
            stack.callback(self._audit.close)
        listening = list(self._handed_over) or self._listen(stack)
        urls = [each.url for each in listening]
        if control := config.control or _default_control():
            listening += self._listen_for_operators(control, stack)
        self._site = site = Site(
            served,
            guard=self._guard,
            base_url=lambda: self._config.public_url or _told(urls[0]),
            max_upload=config.max_upload,
            version=self._version,
            record=Recorder(self._audit.record) if self._audit else None,
            counts=counts,
            metrics=metrics,
            opening=opening,
            unserved=unserved,
        )
        self._server = server = Server(
            site,
            listening=listening,
            name=f"repowatch/{self._version}",
            limits=_limits(config),
            uploads=config.limits.uploads,
            grace=config.limits.stop,
            context=self._certificates.context if self._certificates else _no_tls,
            access=self._access,
            counts=counts,
        )
        server.start(failed=failed)
        stack.callback(server.stop)
        return urls

    def _listen_for_operators(self, path: str, stack: contextlib.ExitStack) -> list[Listening]:
        try:
            control = sockets.listen_unix(path, mode=0o600, is_control=True)
        except OSError as error:
            raise UsageError(
                f"control: can not listen on {path}: {error.strerror or error}; choose another path"
            ) from error
        stack.callback(sockets.close, control)
        return [control]

    def _listen(self, stack: contextlib.ExitStack) -> list[Listening]:
        listening: list[Listening] = []
        for address in self._config.listen:
            try:
                opened = _listen_on(address, tls=self._config.speaks_tls(address))
            except OSError as error:
                raise UsageError(
                    f"can not listen on {address}: {error.strerror or error}; choose another address "
                    "(--listen), or stop what has it"
                ) from error
            for each in opened:
                stack.callback(sockets.close, each)
            listening += opened
        return listening


def _default_control() -> str | None:
    """In the first directory that systemd made for the service (RuntimeDirectory=, systemd.exec(5))."""
    directory = os.environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    return os.path.join(directory, "control") if directory else None


def _changed(before: Config, now: Config) -> list[str]:
    """The keys that differ and are read at the start only."""
    fixed = [_without_rights(each) for each in (before, now)]
    names = (each.name for each in dataclasses.fields(Config) if each.name not in _LIVE)
    differing = [name for name in names if getattr(fixed[0], name) != getattr(fixed[1], name)]
    return list(dict.fromkeys("repositories" if name == "patterns" else name for name in differing))


def _running(before: Config, now: Config) -> Config:
    """What runs: as it was read at the start, but with the repositories of now that are others."""
    known = {(each.name, each.path, each.url): each for each in (*before.repositories, *before.patterns)}

    def kept(repositories: Sequence[RepositoryConfig]) -> tuple[RepositoryConfig, ...]:
        return tuple(known.get((each.name, each.path, each.url), each) for each in repositories)

    return dataclasses.replace(before, repositories=kept(now.repositories), patterns=kept(now.patterns))


def _without_rights(config: Config) -> Config:
    def fixed(repositories: Sequence[RepositoryConfig]) -> tuple[RepositoryConfig, ...]:
        return tuple(
            dataclasses.replace(each, read=(), write=None, allow=(), deny=(), sign=None, prune=(), grace=0.0)
            for each in repositories
        )

    return dataclasses.replace(
        config, repositories=fixed(config.repositories), patterns=fixed(config.patterns)
    )


def _listen_on(address: Address, *, tls: bool) -> list[Listening]:
    if isinstance(address, TcpAddress):
        return sockets.listen_tcp(address.host, address.port, tls=tls)
    return [sockets.listen_unix(address.path)]


def _told(url: str) -> str:
    """What clients are told where no public_url is configured, without a slash at the end."""
    scheme, _, address = url.partition("://")
    if not address:
        return "http://localhost"
    host, _, port = address.rpartition(":")
    if host in ("0.0.0.0", "[::]"):  # noqa: S104 - compared, not bound
        host = socket.getfqdn()
    return f"{scheme}://{host}:{port}"


def _limits(config: Config) -> Limits:
    limits = config.limits
    return Limits(
        connections=_most_connections(limits.connections),
        head_time=limits.head_time,
        idle=limits.idle,
        least_rate=limits.least_rate,
    )


def _most_connections(wanted: int) -> int:
    """As many as wanted, as far as there are descriptors for them and the files they are sent."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 2 * wanted + DESCRIPTORS
    if soft < needed:
        soft = min(needed, hard) if hard != resource.RLIM_INFINITY else needed
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    possible = max(16, (resource.getrlimit(resource.RLIMIT_NOFILE)[0] - DESCRIPTORS) // 2)
    if possible < wanted:
        log.warning(
            "only %d connections at once, for this process may open no more files; raise LimitNOFILE",
            possible,
        )
    return min(wanted, possible)


def _guard(config: Config) -> Guard:
    users = None
    if config.users:
        users = Users(config.users, clock=SystemClock())
        users.load()
    rules = Rules(
        rights={each.name: _rights(each) for each in config.repositories},
        found=partial(_rights_of_found, config.patterns),
        groups={name: frozenset(members) for name, members in config.groups.items()},
        accounts={
            name: Account(
                repositories=None if each.repositories is None else frozenset(each.repositories),
                names=each.names,
                delete=each.delete,
                expires=each.expires,
            )
            for name, each in config.accounts.items()
        },
        anonymous_write=not config.knows_names,
    )
    return Guard(
        rules=rules,
        users=users,
        throttle=Throttle(clock=SystemClock()),
        trusted=Trusted.of(config.trusted_proxies),
        over_http=config.auth_over_http,
    )


def _rights_of_found(patterns: Sequence[RepositoryConfig], name: str) -> Rights | None:
    pattern = pattern_of(patterns, name)
    return dataclasses.replace(_rights(pattern), family=pattern.name) if pattern else None


def _rights(config: RepositoryConfig) -> Rights:
    return Rights(
        read=frozenset(config.read),
        write=None if config.write is None else frozenset(config.write),
        allow=tuple(map(network_of, config.allow)),
        deny=tuple(map(network_of, config.deny)),
    )


def _certificates(config: Config) -> Certificates | None:
    if config.tls is None:
        return None
    return Certificates(
        certificate=config.tls.certificate,
        key=config.tls.key,
        client_ca=config.tls.client_ca,
        clock=SystemClock(),
    )


def _expires_at(certificates: Certificates) -> float:
    """Of the certificate as it is now, which may be a new one though nobody connected since."""
    certificates.context()
    return certificates.expires_at()


def _no_tls() -> ssl.SSLContext:
    raise RepowatchError("no certificate is configured")
