"""Lets a request in or not, before its body is read: who asks, by certificate or password, and may it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from math import ceil
from typing import TypeAlias
from wsgiref.types import WSGIEnvironment

from repowatch.errors import Forbidden
from repowatch.web.replies import Reply
from repowatch.web.rights.peer import Peer, Trusted, is_safe_for_passwords, peer_of
from repowatch.web.rights.rules import NOBODY, Action, Decision, Identity, Rules
from repowatch.web.rights.users import Throttle, Users, log_in, parse_basic
from repowatch.web.served import Asker

IDENTITY = "repowatch.identity"

_CHALLENGE = ("WWW-Authenticate", 'Basic realm="repowatch", charset="UTF-8"')

# What, the repository, the location_href (None: of some file, see Rules.may).
Act: TypeAlias = tuple[Action, str, str | None]


@dataclass(frozen=True, slots=True)
class Login:
    """A password that has to be hashed before it is known whose request it is; `check` may take a second."""

    check: Callable[[], Reply | None]


class Guard:
    """What the doors of all repositories ask."""

    def __init__(
        self, *, rules: Rules, users: Users | None, throttle: Throttle, trusted: Trusted, over_http: bool
    ) -> None:
        """`over_http`: passwords are taken over plain HTTP from anywhere."""
        self._rules = rules
        self._users = users
        self._throttle = throttle
        self._trusted = trusted
        self._over_http = over_http

    def peer(self, environ: WSGIEnvironment) -> Peer:
        """The client behind a connection; the environment says the same from now on."""
        peer = peer_of(
            environ["REMOTE_ADDR"] or None,
            environ["wsgi.url_scheme"],
            environ["repowatch.fields"],
            trusted=self._trusted,
        )
        environ["REMOTE_ADDR"] = peer.address or ""
        environ["wsgi.url_scheme"] = peer.scheme
        environ["repowatch.proxied"] = peer.proxied
        return peer

    def is_public(self, repository: str) -> bool:
        """Whether anyone may read a repository, from anywhere."""
        return self._rules.is_public(repository)

    def asks_readers(self, repository: str) -> bool:
        """Whether readers of a repository have to say who they are."""
        # A snapshot is read by who may read its repository.
        return self._rules.needs_identity(Action.READ, repository.partition("@")[0])

    def address(self, direct: str | None, fields: Mapping[str, str]) -> str | None:
        """The client's, behind a connection from `direct`; None for a unix socket."""
        return peer_of(direct, "http", fields, trusted=self._trusted).address

    def admit(
        self, environ: WSGIEnvironment, acts: Iterable[Act], *, ask_who: bool = False
    ) -> Reply | Login | None:
        """None when the request may do all of `acts`; the identity is in the environment then.

        Else why not: 401, 403, or 429 for an address that guesses passwords; or a Login to be checked.
        `ask_who`: heed credentials also where none are needed.
        """
        acts = tuple(acts)
        peer = self.peer(environ)
        if operator := environ.get("repowatch.operator"):
            return self._enter(environ, Identity(operator, "control"), acts, peer)
        if not ask_who and not any(
            self._rules.needs_identity(action, repository) for action, repository, _ in acts
        ):
            environ[IDENTITY] = NOBODY
            return self._decide(environ, acts, peer)
        # A proxy's own certificate says nothing of its clients.
        if (name := environ["repowatch.certificate"]) and not peer.proxied:
            return self._enter(environ, Identity(name, "certificate"), acts, peer)
        field = environ.get("HTTP_AUTHORIZATION")
        if field is None or self._users is None:
            environ[IDENTITY] = NOBODY
            return self._decide(environ, acts, peer)
        return self._by_password(environ, field, acts, peer, self._users)

    def may_read(self, environ: WSGIEnvironment, repository: str) -> bool:
        """Whether whoever was admitted may read a repository: what it is told about may depend on it."""
        return self.why_not(environ, (Action.READ, repository, "")) is None

    def asker(self, environ: WSGIEnvironment, repository: str) -> Asker:
        """Whoever was admitted, and what it may do to single names of a repository."""
        identity: Identity = environ.get(IDENTITY, NOBODY)

        def may(action: Action, location_href: str) -> None:
            if reason := self.why_not(environ, (action, repository, location_href)):
                raise Forbidden(f"{location_href}: {reason}" if location_href else reason)

        return Asker(
            identity.name,
            identity.how,
            may_read=partial(may, Action.READ),
            may_write=partial(may, Action.WRITE),
            may_delete=partial(may, Action.DELETE),
        )

    def why_not(self, environ: WSGIEnvironment, act: Act) -> str | None:
        """Why whoever was admitted may not do something more; None where it may."""
        verdict = self._rules.may(
            environ.get(IDENTITY, NOBODY), *act, address=environ["REMOTE_ADDR"] or None, now=time.time()
        )
        return None if verdict.decision is Decision.ALLOWED else verdict.reason

    def _by_password(
        self, environ: WSGIEnvironment, field: str, acts: tuple[Act, ...], peer: Peer, users: Users
    ) -> Reply | Login | None:
        if not is_safe_for_passwords(peer, over_http=self._over_http):
            return Reply(HTTPStatus.FORBIDDEN, "passwords are taken over TLS only")
        if wait := self._throttle.wait(peer.address):
            return _too_often(wait)
        credentials = parse_basic(field)
        if credentials is None:
            return _unauthorized("the Authorization field is not Basic with a user and a password")
        user, password = credentials
        if users.known(user, password):
            self._throttle.succeeded(peer.address, user)
            return self._enter(environ, Identity(user, "basic"), acts, peer)

        def check() -> Reply | None:
            came = log_in(users, self._throttle, address=peer.address, user=user, password=password)
            if came.wait:
                return _too_often(came.wait)
            if not came.right:
                return _unauthorized("wrong user or password")
            return self._enter(environ, Identity(user, "basic"), acts, peer)

        return Login(check)

    def _enter(
        self, environ: WSGIEnvironment, identity: Identity, acts: tuple[Act, ...], peer: Peer
    ) -> Reply | None:
        environ[IDENTITY] = identity
        environ["REMOTE_USER"] = identity.name
        return self._decide(environ, acts, peer)

    def _decide(self, environ: WSGIEnvironment, acts: tuple[Act, ...], peer: Peer) -> Reply | None:
        for action, repository, location_href in acts:
            verdict = self._rules.may(
                environ[IDENTITY],
                action,
                repository,
                location_href,
                address=peer.address,
                now=time.time(),
            )
            if verdict.decision is Decision.FORBIDDEN:
                return Reply(HTTPStatus.FORBIDDEN, verdict.reason)
            if verdict.decision is Decision.LOGIN:
                return self._ask(verdict.reason, peer)
        return None

    def _ask(self, reason: str, peer: Peer) -> Reply:
        """401, but never where the answer to it would be a password in the clear."""
        if self._users is None:
            return Reply(HTTPStatus.FORBIDDEN, f"{reason}, with a client certificate")
        if not is_safe_for_passwords(peer, over_http=self._over_http):
            return Reply(HTTPStatus.FORBIDDEN, f"{reason}; passwords are taken over TLS only")
        return _unauthorized(reason)


def _unauthorized(reason: str) -> Reply:
    return Reply(HTTPStatus.UNAUTHORIZED, reason, [_CHALLENGE])


def _too_often(wait: float) -> Reply:
    seconds = max(1, ceil(wait))
    return Reply(
        HTTPStatus.TOO_MANY_REQUESTS,
        f"too many failed logins from this address; come back in {seconds} s",
        [("Retry-After", str(seconds))],
    )
