"""Who may do what."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from repowatch.web.rights.peer import network_of
from repowatch.web.rights.rules import (
    NOBODY,
    Account,
    Action,
    Decision,
    Identity,
    Rights,
    Rules,
    Verdict,
    mistake_in_user_name,
)

ALLOWED, LOGIN, FORBIDDEN = Decision.ALLOWED, Decision.LOGIN, Decision.FORBIDDEN
READ, WRITE, DELETE = Action.READ, Action.WRITE, Action.DELETE

ANNA, BEN, CI = (Identity(name, "basic") for name in ("anna", "ben", "ci"))
NEW_YEAR = datetime(2027, 1, 1, tzinfo=UTC).timestamp()

OPEN = Rights()
ADMINS = Rights(write=frozenset({"ci", "@admins"}))
CLOSED = Rights(read=frozenset({"ci", "@admins"}), write=frozenset({"ci", "@admins"}))


def rules(
    rights: Rights, *, account: Account | None = None, anonymous_write: bool = False, also: Rights = OPEN
) -> Rules:
    return Rules(
        rights={"rpm": rights, "other": also},
        groups={"admins": ["anna"]},
        accounts={"ci": account} if account else {},
        anonymous_write=anonymous_write,
    )


def verdict(
    these: Rules,
    identity: Identity,
    action: Action,
    location_href: str = "a.rpm",
    *,
    repository: str = "rpm",
    address: str | None = "192.0.2.7",
    now: float = NEW_YEAR - 1,
) -> Verdict:
    return these.may(identity, action, repository, location_href, address=address, now=now)


def decision(these: Rules, identity: Identity, action: Action, location_href: str = "a.rpm") -> Decision:
    return verdict(these, identity, action, location_href).decision


def test_by_default_anyone_reads_and_users_write() -> None:
    these = rules(OPEN)
    assert decision(these, NOBODY, READ) is ALLOWED
    for action in (WRITE, DELETE):
        assert decision(these, NOBODY, action) is LOGIN
        assert decision(these, ANNA, action) is ALLOWED
        assert decision(these, Identity("anna", "certificate"), action) is ALLOWED


def test_without_users_whoever_comes_may_write_where_no_writers_are_named() -> None:
    these = rules(OPEN, anonymous_write=True, also=ADMINS)
    assert decision(these, NOBODY, WRITE) is ALLOWED
    assert decision(these, NOBODY, DELETE) is ALLOWED
    assert verdict(these, NOBODY, WRITE, repository="other").decision is LOGIN


def test_users_and_groups_may_what_is_given_to_them() -> None:
    these = rules(CLOSED)
    for action in Action:
        assert decision(these, CI, action) is ALLOWED
        assert decision(these, ANNA, action) is ALLOWED
        assert decision(these, NOBODY, action) is LOGIN
        assert decision(these, BEN, action) is FORBIDDEN
    assert verdict(these, BEN, WRITE).reason == "ben may not write to rpm"
    assert verdict(these, NOBODY, READ).reason == "log in to read rpm"


@pytest.mark.parametrize("name", ["@admins", "anyone", "@nobody", ""])
def test_a_certificate_made_out_to_a_group_is_not_the_group(name: str) -> None:
    these = rules(Rights(write=frozenset({"@admins", "@nobody", ""})), also=OPEN)
    assert decision(these, Identity(name, "certificate"), WRITE) is FORBIDDEN
    assert verdict(these, Identity(name, "certificate"), WRITE, repository="other").decision is FORBIDDEN


def test_a_group_that_is_not_there_has_nobody_in_it() -> None:
    assert decision(rules(Rights(write=frozenset({"@nobody"}))), ANNA, WRITE) is FORBIDDEN


def test_what_anyone_may_needs_no_identity() -> None:
    anyone_writes = Rights(write=frozenset({"anyone", "ci"}))
    assert not rules(OPEN).needs_identity(READ, "rpm")
    assert rules(OPEN).needs_identity(WRITE, "rpm")
    assert rules(CLOSED).needs_identity(READ, "rpm")
    assert not rules(OPEN, anonymous_write=True).needs_identity(DELETE, "rpm")
    assert rules(ADMINS, anonymous_write=True).needs_identity(DELETE, "rpm")
    assert not rules(anyone_writes).needs_identity(DELETE, "rpm")
    assert decision(rules(anyone_writes), NOBODY, DELETE) is ALLOWED


def test_a_repository_that_is_not_known_is_closed() -> None:
    these = rules(OPEN, anonymous_write=True)
    assert these.needs_identity(READ, "strange")
    for identity in (NOBODY, ANNA):
        assert verdict(these, identity, READ, repository="strange").decision is FORBIDDEN


@pytest.mark.parametrize(
    ("address", "allow", "deny", "open_to_it"),
    [
        ("192.0.2.7", (), (), True),
        ("192.0.2.7", ("192.0.2.0/24",), (), True),
        ("198.51.100.1", ("192.0.2.0/24",), (), False),
        ("192.0.2.7", (), ("192.0.2.7",), False),
        ("192.0.2.8", (), ("192.0.2.7",), True),
        ("192.0.2.7", ("192.0.2.0/24",), ("192.0.2.7",), False),
        ("192.0.2.7", ("192.0.2.7",), ("192.0.2.0/24",), False),
        ("::ffff:192.0.2.7", ("192.0.2.0/24",), (), True),
        ("::ffff:192.0.2.7", (), ("192.0.2.0/24",), False),
        ("2001:db8::1", ("2001:db8::/32",), (), True),
        ("2001:db8::1", ("0.0.0.0/0",), (), False),
        ("unknown", ("0.0.0.0/0", "::/0"), (), False),
        ("unknown", (), ("192.0.2.7",), False),
        ("unknown", (), (), True),
        (None, ("192.0.2.0/24",), ("0.0.0.0/0",), True),
    ],
)
def test_addresses_are_denied_first_and_else_must_be_allowed(
    address: str | None, allow: tuple[str, ...], deny: tuple[str, ...], open_to_it: bool
) -> None:
    rights = replace(OPEN, allow=tuple(map(network_of, allow)), deny=tuple(map(network_of, deny)))
    for identity, action in ((NOBODY, READ), (ANNA, WRITE)):
        found = verdict(rules(rights), identity, action, address=address)
        assert found.decision is (ALLOWED if open_to_it else FORBIDDEN)
    assert open_to_it or found.reason == f"rpm is not open to the address {address}"


def test_an_address_that_may_not_come_is_not_asked_to_log_in() -> None:
    rights = replace(CLOSED, deny=(network_of("192.0.2.7"),))
    assert decision(rules(rights), NOBODY, READ) is FORBIDDEN


def test_an_account_ends_when_it_expires() -> None:
    these = rules(CLOSED, account=Account(expires=NEW_YEAR))
    for action in Action:
        assert verdict(these, CI, action, now=NEW_YEAR - 1).decision is ALLOWED
        expired = verdict(these, CI, action, now=NEW_YEAR)
        assert expired == Verdict(FORBIDDEN, "account ci expired on 2027-01-01")
    assert verdict(these, ANNA, WRITE, now=NEW_YEAR).decision is ALLOWED


def test_an_account_that_ends_within_a_day_tells_the_minute() -> None:
    these = rules(OPEN, account=Account(expires=NEW_YEAR + 5400))
    assert (
        verdict(these, CI, WRITE, now=NEW_YEAR + 9000).reason == "account ci expired on 2027-01-01 01:30 UTC"
    )


def test_an_account_is_kept_to_its_repositories() -> None:
    these = rules(CLOSED, account=Account(repositories=frozenset({"rpm"})), also=CLOSED)
    for action in Action:
        assert decision(these, CI, action) is ALLOWED
        found = verdict(these, CI, action, repository="other")
        assert found == Verdict(FORBIDDEN, "account ci is not for the repository other")


def test_what_anyone_may_read_a_narrowed_account_may_as_well() -> None:
    narrow = Account(repositories=frozenset(), names=(), delete=False, expires=0)
    assert decision(rules(OPEN, account=narrow), CI, READ) is ALLOWED


def test_an_account_may_be_kept_from_deleting() -> None:
    these = rules(OPEN, account=Account(delete=False))
    assert decision(these, CI, WRITE) is ALLOWED
    assert verdict(these, CI, DELETE) == Verdict(FORBIDDEN, "account ci may not delete")
    assert decision(these, ANNA, DELETE) is ALLOWED


@pytest.mark.parametrize(
    ("pattern", "location_href", "matches"),
    [
        ("foo-*.rpm", "foo-1.rpm", True),
        ("foo-*.rpm", "el9/x86_64/foo-1.rpm", True),
        ("foo-*.rpm", "bar-1.rpm", False),
        ("foo-*.rpm", "foo-1/bar.rpm", False),
        ("foo-*.rpm", "FOO-1.rpm", False),
        ("foo-[0-9].rpm", "foo-1.rpm", True),
        ("foo-[!0-9].rpm", "foo-1.rpm", False),
        ("el9/*", "el9/foo.rpm", True),
        ("el9/*", "el9/x86_64/foo.rpm", True),
        ("el9/*", "el8/foo.rpm", False),
        ("el9/*", "x/el9/foo.rpm", False),
        ("*", "a\nb.rpm", True),
        ("*", "el9/", False),
        ("*", "", False),
        ("el9/*", "el9/x86_64/", False),
    ],
)
def test_an_account_is_kept_to_its_names(pattern: str, location_href: str, matches: bool) -> None:
    these = rules(CLOSED, account=Account(names=("nothing-such", pattern)))
    for action in (WRITE, DELETE):
        assert decision(these, CI, action, location_href) is (ALLOWED if matches else FORBIDDEN)
    assert decision(these, CI, READ, location_href) is ALLOWED


def test_an_account_that_is_kept_to_names_may_ask_for_some_of_them() -> None:
    these = rules(OPEN, account=Account(names=("foo-*.rpm",), expires=NEW_YEAR))
    assert decision(these, CI, WRITE, "") is FORBIDDEN
    some = these.may(CI, WRITE, "rpm", None, address=None, now=NEW_YEAR - 1)
    assert some.decision is ALLOWED
    assert these.may(CI, WRITE, "rpm", None, address=None, now=NEW_YEAR).decision is FORBIDDEN
    elsewhere = rules(OPEN, account=Account(names=("foo-*.rpm",), repositories=frozenset({"other"})))
    assert elsewhere.may(CI, WRITE, "rpm", None, address=None, now=0).decision is FORBIDDEN


def test_a_refused_name_is_told_which_names_are_taken() -> None:
    these = rules(OPEN, account=Account(names=("foo-*", "el9/*")))
    assert verdict(these, CI, WRITE, "bar.rpm").reason == "account ci is only for names like foo-*, el9/*"
    assert "directories" in verdict(these, CI, DELETE, "el9/").reason


@pytest.mark.parametrize(
    "name",
    ["", " anna", "anna ", "an:na", "an\nna", "an\0na", "anyone", "@admins", "#anna", "a\x85", "\udcff"],
)
def test_some_names_no_user_can_have(name: str) -> None:
    assert mistake_in_user_name(name)


@pytest.mark.parametrize("name", ["anna", "ci@host", "Anna B", "änna", "anyone2", "a#b"])
def test_other_names_a_user_can_have(name: str) -> None:
    assert mistake_in_user_name(name) is None
