"""Decides which packages are pruned: listed packages, rules and ages in; names out, each with why."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache

from repowatch.model.package import Entry
from repowatch.model.versions import Ranks, evr_key

_Evr = tuple[Ranks, Ranks, Ranks]

_evr_key = lru_cache(maxsize=65536)(evr_key)


@dataclass(frozen=True, slots=True)
class Rule:
    """What becomes of the packages that it matches and no rule before it does.

    One goes when it is older than `older_than` and is not one of the newest `keep` versions of its
    name.arch, counted among the packages that the rule decides about.
    """

    match: str = "*"  # fnmatch pattern, of the file's name or of its location
    older_than: float | None = None  # seconds; None: whatever its age
    keep: float = 0  # versions; inf: all, so nothing goes
    spares_newest: bool = True  # whether the newest version of a name.arch stays whatever its age

    def matches(self, location_href: str) -> bool:
        basename = location_href.rpartition("/")[2]
        return fnmatchcase(basename, self.match) or fnmatchcase(location_href, self.match)


@dataclass(frozen=True, slots=True)
class Out:
    """A package that goes, and why."""

    entry: Entry
    reason: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What goes now, the oldest version of a package first; and when the next one will, `inf` for never."""

    out: tuple[Out, ...]
    next_at: float


def plan(entries: Iterable[Entry], rules: Sequence[Rule], *, born: Mapping[str, float], now: float) -> Plan:
    """Decide. `born`: since when each pkgid is here; one that is missing is new. It and `now` in seconds.

    Versions are in rpm's order (epoch, version and release, with tildes and carets); those that differ only
    in their separators are one version, and stay or go together.
    """
    entries = list(entries)
    newest = _newest(entries)
    groups: dict[tuple[int, str, str], list[Entry]] = defaultdict(list)
    for entry in entries:
        number = _rule_of(entry.location_href, rules)
        if number is not None and rules[number].keep != math.inf:
            groups[number, entry.nevra.name, entry.nevra.arch].append(entry)
    out: list[Out] = []
    next_at = math.inf
    for (number, name, arch), group in groups.items():
        rule = rules[number]
        for entry, newer in _beyond(group, rule):
            if rule.spares_newest and _evr(entry) == newest[name, arch]:
                continue
            due_at = _due_at(entry, rule, born, now)
            if due_at <= now:
                out.append(Out(entry, _reason(entry, number, rule, newer=newer, born=born, now=now)))
            else:
                next_at = min(next_at, due_at)
    out.sort(key=lambda each: (each.entry.nevra.name, each.entry.nevra.arch, _evr(each.entry)))
    return Plan(tuple(out), next_at)


def _rule_of(location_href: str, rules: Sequence[Rule]) -> int | None:
    return next((number for number, rule in enumerate(rules) if rule.matches(location_href)), None)


def _evr(entry: Entry) -> _Evr:
    return _evr_key(entry.nevra.epoch, entry.nevra.version, entry.nevra.release)


def _newest(entries: Iterable[Entry]) -> dict[tuple[str, str], _Evr]:
    newest: dict[tuple[str, str], _Evr] = {}
    for entry in entries:
        key, evr = (entry.nevra.name, entry.nevra.arch), _evr(entry)
        if key not in newest or evr > newest[key]:
            newest[key] = evr
    return newest


def _beyond(group: Sequence[Entry], rule: Rule) -> Iterable[tuple[Entry, int]]:
    """The packages that a rule does not keep by their version, and how many versions are newer than each."""
    ranks = {evr: rank for rank, evr in enumerate(sorted({_evr(each) for each in group}, reverse=True))}
    return ((each, ranks[_evr(each)]) for each in group if ranks[_evr(each)] >= rule.keep)


def _due_at(entry: Entry, rule: Rule, born: Mapping[str, float], now: float) -> float:
    return now if rule.older_than is None else born.get(entry.pkgid, now) + rule.older_than


def _reason(
    entry: Entry, number: int, rule: Rule, *, newer: int, born: Mapping[str, float], now: float
) -> str:
    reasons = []
    if rule.older_than is not None:
        age = now - born.get(entry.pkgid, now)
        reasons.append(f"{told(age)} old, which is more than {told(rule.older_than)}")
    if rule.keep:
        versions = "1 version is" if newer == 1 else f"{newer} versions are"
        reasons.append(f"{versions} newer, and {rule.keep:.0f} kept")
    return f"rule {number + 1} ({rule.match}): {'; '.join(reasons)}"


def told(seconds: float) -> str:
    """A time for people, in the largest unit of which it has one."""
    for unit, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= unit:
            return f"{int(seconds / unit * 10) / 10:g} {name}"
    return f"{seconds:.0f} s"
