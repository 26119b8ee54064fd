"""What the configuration says of pruning."""

from __future__ import annotations

import math

import pytest

from repowatch.config import PruneConfig, RepositoryConfig
from repowatch.config.file import ConfigurationError, parse
from repowatch.model.pruning import Rule
from repowatch.pruning import prune_rules

ONE = "repositories:\n  rpm:\n    path: /srv/rpm\n"


def only(settings: str) -> RepositoryConfig:
    (found,) = parse(f"{ONE}    {settings}\n", source="c.yaml").repositories
    return found


def mistakes(settings: str) -> list[str]:
    """Those of a repository that has the settings from line 4 on."""
    with pytest.raises(ConfigurationError) as caught:
        only(settings)
    return str(caught.value).splitlines()


def test_nothing_is_pruned_where_nothing_says_so() -> None:
    assert only("settle: 1s").prune == ()
    assert only("prune: []").prune == ()
    assert only("settle: 1s").grace == 86400


def test_rules_are_read_in_their_order() -> None:
    text = 'prune: [{match: "*SNAPSHOT*", older_than: 1d}, {match: kernel-*, keep: 3}, {older_than: 30d}]'
    assert only(text).prune == (
        PruneConfig(match="*SNAPSHOT*", older_than=86400),
        PruneConfig(match="kernel-*", keep=3),
        PruneConfig(older_than=30 * 86400),
    )
    assert only("prune: {older_than: 800d}").prune == (PruneConfig(older_than=800 * 86400),)


def test_only_who_writes_zero_lets_the_newest_version_go() -> None:
    config = only("prune: [{match: a, older_than: 1d, keep: 0}, {match: b, keep: all}, {older_than: 1d}]")
    assert prune_rules(config) == [
        Rule("a", older_than=86400, spares_newest=False),
        Rule("b", keep=math.inf),
        Rule("*", older_than=86400),
    ]


def test_the_grace_may_be_none() -> None:
    assert only("grace: 0s").grace == 0
    assert only("grace: 2h").grace == 7200


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("prune: 30d", "a rule has keys; write it like {match:"),
        ("prune: {match: a}", "says when nothing goes; add `older_than: 30d`"),
        ("prune: {keep: 0}", "keeps nothing, whatever its age; write how many versions stay"),
        ("prune: {keep: all, older_than: 1d}", "keeps all, so `older_than` means nothing"),
        ("prune: {keep: -1}", "`-1` is neither a number nor `all`"),
        ("prune: {older_than: 0s}", "`0s` is out of range"),
        ("prune: {older_than: a month}", "`a month` is not a duration; write it like 12h, 1d or 30d"),
        ('prune: {match: "", keep: 1}', "has no value"),
        ("prune: {older: 1d}", "unknown key `older`; did you mean `older_than`?"),
        ("grace: -1s", "`-1s` is not a duration"),
        ("grace: 400d", "out of range"),
    ],
)
def test_a_mistake_is_told_with_its_line(settings: str, said: str) -> None:
    told = mistakes(settings)
    assert told[0].startswith("c.yaml:4: ")
    assert said in told[0].replace("'", "`").replace('"', "`") or said in told[0]


def test_all_mistakes_of_all_rules_are_told_at_once() -> None:
    told = mistakes("prune:\n      - {older_than: 1d}\n      - {keep: x}\n      - {match: a}")
    assert [line.split(":")[1] for line in told] == ["6", "6", "7", "7"]
    assert "a rule before it is for *; nothing is left" in told[0] + told[1]
