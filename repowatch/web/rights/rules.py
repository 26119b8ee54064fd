"""Decides who may do what: an identity, an action and a name in, a verdict out."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from fnmatch import fnmatchcase
from typing import Literal

from repowatch.web.rights.peer import IPNetwork, address_of, is_in

ANYONE = "anyone"


class Action(Enum):
    """What a request does to one name; each value completes "may not ..."."""

    READ = "read"
    WRITE = "write to"
    DELETE = "delete from"


class Decision(Enum):
    ALLOWED = "allowed"
    LOGIN = "login"  # 401: nobody yet, and credentials would help
    FORBIDDEN = "forbidden"  # 403


@dataclass(frozen=True, slots=True)
class Verdict:
    """A decision, and why, in one line for the client ("" where it is allowed)."""

    decision: Decision
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a client has shown itself to be; `name` None is nobody."""

    name: str | None
    how: Literal["basic", "certificate", "control", "none"]  # control: an operator of this host


NOBODY = Identity(None, "none")


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What narrows a user, such as one for CI; None does not narrow.

    `names` are globs of files: with a slash against the whole location_href (where `*` takes slashes, too),
    else against its last part.
    """

    repositories: frozenset[str] | None = None
    names: tuple[str, ...] | None = None
    delete: bool = True
    expires: float | None = None  # seconds since 1970; from then on it may nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Rights:
    """Who may come to one repository: `anyone`, users, and "@group"; from which addresses."""

    read: frozenset[str] = frozenset({ANYONE})
    write: frozenset[str] | None = None  # None: every user
    allow: tuple[IPNetwork, ...] = ()  # if there are any, nobody else
    deny: tuple[IPNetwork, ...] = ()  # wins over `allow`
    family: str | None = None  # the name of a pattern that finds it, by which an account may name it


_ALLOWED = Verdict(Decision.ALLOWED)


def mistake_in_user_name(name: str) -> str | None:
    """Why something can not be the name of a user, None when it can.

    RFC 7617 section 2 leaves out colons and control characters, the rules `anyone` and "@group", and the
    users file comments and surrounding blanks.
    """
    if not name or name != name.strip():
        return "it is empty, or has a blank at an end"
    if ":" in name or not name.isprintable():
        return "it has a colon or a character that is not printable"
    if name == ANYONE or name.startswith(("@", "#")):
        return f"{ANYONE} and names that begin with @ or # mean something else"
    return None


class Rules:
    """The rules of all repositories; each value that it is given may change behind it."""

    def __init__(
        self,
        *,
        rights: Mapping[str, Rights],
        groups: Mapping[str, Collection[str]],
        accounts: Mapping[str, Account],
        anonymous_write: bool,
        found: Callable[[str], Rights | None] = lambda name: None,
    ) -> None:
        """`rights` by repository, `groups` without their @, `accounts` by user.

        `anonymous_write`: there are no users, and whoever reaches a repository that names no writers may
        write. `found` tells the rights of a repository without a name in `rights`, also before there is one.
        """
        self._rights = rights
        self._found = found
        self._groups = groups
        self._accounts = accounts
        self._anonymous_write = anonymous_write

    def may(
        self,
        identity: Identity,
        action: Action,
        repository: str,
        location_href: str | None,
        *,
        address: str | None,
        now: float,
    ) -> Verdict:
        """Whether `identity` may do something to a name.

        The location_href of a directory is "" or ends with a slash; None is some file, and it is asked
        again which. `address` is the client's, None for a
        unix socket, which no list of addresses is about; `now` is in seconds since 1970.
        """
        rights = self._rights_of(repository)
        if rights is None:
            return _forbidden(f"there is no repository {repository}")
        if not _may_come(address, rights):
            return _forbidden(f"{repository} is not open to the address {address}")
        if identity.how == "control" or not self.needs_identity(action, repository):
            return _ALLOWED
        name = identity.name
        if name is None:
            return Verdict(Decision.LOGIN, f"log in to {action.value} {repository}")
        if not self._is_among(name, rights.read if action is Action.READ else rights.write):
            return _forbidden(f"{name} may not {action.value} {repository}")
        account = self._accounts.get(name)
        why = account and _narrowed(account, action, repository, location_href, family=rights.family, now=now)
        return _forbidden(f"account {name} {why}") if why else _ALLOWED

    def needs_identity(self, action: Action, repository: str) -> bool:
        """Whether it matters who the client is; else its credentials need not be looked at."""
        rights = self._rights_of(repository)
        if rights is None:
            return True
        entries = rights.read if action is Action.READ else rights.write
        return ANYONE not in entries if entries is not None else not self._anonymous_write

    def is_public(self, repository: str) -> bool:
        """Whether anyone may read a repository, from anywhere."""
        rights = self._rights_of(repository)
        return rights is not None and ANYONE in rights.read and not (rights.allow or rights.deny)

    def _rights_of(self, repository: str) -> Rights | None:
        return self._rights.get(repository) or self._found(repository)

    def _is_among(self, name: str, entries: frozenset[str] | None) -> bool:
        # A certificate may be made out to any name, "@admins" among them.
        if mistake_in_user_name(name):
            return False
        return entries is None or name in entries or any(self._is_in_group(name, each) for each in entries)

    def _is_in_group(self, name: str, entry: str) -> bool:
        return entry.startswith("@") and name in self._groups.get(entry[1:], ())


def _forbidden(reason: str) -> Verdict:
    return Verdict(Decision.FORBIDDEN, reason)


def _may_come(address: str | None, rights: Rights) -> bool:
    if address is None or not (rights.allow or rights.deny):
        return True
    # What is no address is in no list, and comes in by none.
    if address_of(address) is None or is_in(address, rights.deny):
        return False
    return not rights.allow or is_in(address, rights.allow)


def _narrowed(
    account: Account,
    action: Action,
    repository: str,
    location_href: str | None,
    *,
    family: str | None,
    now: float,
) -> str | None:
    """Why an account may not, None when it may; completes "account ci ..."."""
    if account.expires is not None and now >= account.expires:
        return f"expired on {_day(account.expires)}"
    if account.repositories is not None and not account.repositories & {repository, family}:
        return f"is not for the repository {repository}"
    if action is Action.READ:
        return None
    if action is Action.DELETE and not account.delete:
        return "may not delete"
    if account.names is not None and location_href is not None:
        return _narrowed_by_name(account.names, location_href)
    return None


def _narrowed_by_name(patterns: tuple[str, ...], location_href: str) -> str | None:
    # What lies below a directory goes with it, whatever it is called.
    if location_href == "" or location_href.endswith("/"):
        return "is for certain files, and may not make, move or remove directories"
    last = location_href.rpartition("/")[2]
    if any(fnmatchcase(location_href if "/" in pattern else last, pattern) for pattern in patterns):
        return None
    return f"is only for names like {', '.join(patterns)}"


def _day(seconds: float) -> str:
    moment = datetime.fromtimestamp(seconds, UTC)
    return f"{moment:%Y-%m-%d}" if seconds % 86400 == 0 else f"{moment:%Y-%m-%d %H:%M} UTC"
