"""What goes, and why."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import pytest

from repowatch.model.package import Entry, Nevra, Stamp
from repowatch.model.pruning import Plan, Rule, plan

DAY = 86400.0
NOW = 1000 * DAY


def entry(evr: str, name: str = "foo", *, arch: str = "x86_64", directory: str = "") -> Entry:
    epoch, colon, rest = evr.rpartition(":")
    version, _, release = rest.partition("-")
    nevra = Nevra(name, epoch if colon else "0", version, release or "1", arch)
    location_href = f"{directory}{name}-{version}-{release or '1'}.{arch}.rpm"
    pkgid = hashlib.sha256(f"{location_href}{epoch}".encode()).hexdigest()
    return Entry(location_href, pkgid, nevra, Stamp(1, 0, 0, 0))


def planned(entries: Sequence[Entry], *rules: Rule, days: dict[str, float] | None = None) -> Plan:
    """`days`: how old a version is; one that is not named is new."""
    born = {each.pkgid: NOW - (days or {}).get(each.nevra.version, 0.0) * DAY for each in entries}
    return plan(entries, rules, born=born, now=NOW)


def out(*arguments: Sequence[Entry] | Rule, days: dict[str, float] | None = None) -> list[str]:
    """The versions that go."""
    entries, *rules = arguments
    found = planned(entries, *rules, days=days)  # type: ignore[arg-type]
    return [each.entry.nevra.version for each in found.out]


def test_without_a_rule_nothing_goes() -> None:
    assert out([entry("1"), entry("2")], days={"1": 900}) == []


def test_the_newest_versions_of_each_name_and_architecture_stay() -> None:
    entries = [entry(each) for each in ("1.9", "1.10", "1.10~rc1", "1.10^git1", "1:0.1")]
    assert out(entries, Rule(keep=2)) == ["1.9", "1.10~rc1", "1.10"]
    other = [entry("1.9", arch="noarch"), entry("1.9", name="bar")]
    assert out([*entries, *other], Rule(keep=2)) == ["1.9", "1.10~rc1", "1.10"]


def test_files_of_one_version_stay_or_go_together() -> None:
    entries = [entry("1"), entry("2"), entry("2", directory="again/"), entry("3")]
    assert out(entries, Rule(keep=2)) == ["1"]
    assert out(entries, Rule(keep=1)) == ["1", "2", "2"]


def test_a_package_goes_when_it_is_older_than_the_rule_allows_but_the_newest_stays() -> None:
    entries = [entry("1"), entry("2"), entry("3")]
    days = {"1": 31.0, "2": 29.0, "3": 900.0}
    assert out(entries, Rule(older_than=30 * DAY), days=days) == ["1"]
    assert out(entries, Rule(older_than=30 * DAY, spares_newest=False), days=days) == ["1", "3"]


def test_the_newest_is_that_of_the_whole_repository() -> None:
    entries = [entry("1.0"), entry("1.0~SNAPSHOT1")]
    rules = Rule("*SNAPSHOT*", older_than=DAY), Rule(older_than=30 * DAY)
    assert out(entries, *rules, days={"1.0": 2, "1.0~SNAPSHOT1": 2}) == ["1.0~SNAPSHOT1"]
    assert out(entries[1:], *rules, days={"1.0~SNAPSHOT1": 2}) == []


def test_versions_are_kept_of_those_that_the_rule_is_for() -> None:
    snapshots = [entry(f"1.0~SNAPSHOT{number}") for number in range(4)]
    assert out([entry("1.0"), entry("2.0"), *snapshots], Rule("*SNAPSHOT*", keep=3)) == ["1.0~SNAPSHOT0"]


def test_a_rule_with_both_keeps_the_newest_and_the_young() -> None:
    entries = [entry(each) for each in "12345"]
    days = dict.fromkeys("1345", 90.0) | {"2": 1.0}
    assert out(entries, Rule(older_than=30 * DAY, keep=2), days=days) == ["1", "3"]


def test_the_first_rule_that_matches_decides_alone() -> None:
    entries = [entry("1", name="kernel-core"), entry("2", name="kernel-core"), entry("1", name="ker")]
    rules = Rule("kernel-*", keep=math.inf), Rule(older_than=DAY, spares_newest=False)
    assert [each.entry.nevra.name for each in planned(entries, *rules, days={"1": 9, "2": 9}).out] == ["ker"]


@pytest.mark.parametrize("pattern", ["*SNAPSHOT*.rpm", "nightly/*", "nightly/foo-1*", "*"])
def test_a_pattern_is_for_the_name_of_the_file_or_for_its_location(pattern: str) -> None:
    rule = Rule(pattern, older_than=DAY, spares_newest=False)
    assert out([entry("1-SNAPSHOT", directory="nightly/")], rule, days={"1": 2}) == ["1"]
    assert out([entry("1", directory="nights/")], Rule("nightly/*", DAY), days={"1": 2}) == []


def test_the_reason_says_rule_age_and_versions() -> None:
    entries = [entry("1"), entry("2"), entry("3")]
    rule = Rule("foo-*", older_than=1.5 * DAY, keep=1)
    first, second = planned(entries, Rule("bar", keep=1), rule, days={"1": 2.25, "2": 90}).out
    assert (
        first.reason
        == "rule 2 (foo-*): 2.2 d old, which is more than 1.5 d; 2 versions are newer, and 1 kept"
    )
    assert second.reason.endswith("1 version is newer, and 1 kept")


def test_the_next_moment_is_when_the_oldest_of_those_that_stay_is_due() -> None:
    entries = [entry("1"), entry("2"), entry("3")]
    rule = Rule(older_than=30 * DAY)
    found = planned(entries, rule, days={"1": 10, "2": 20, "3": 29})
    assert found.out == ()
    assert found.next_at == NOW + 10 * DAY  # of 2; the newest is never due
    assert plan(entries, [rule], born={each.pkgid: NOW for each in entries}, now=found.next_at + 20 * DAY).out
    assert planned(entries, Rule(keep=3)).next_at == math.inf


def test_who_is_not_known_is_new() -> None:
    entries = [entry("1"), entry("2")]
    assert plan(entries, [Rule(older_than=1.0)], born={}, now=NOW).out == ()
