"""Pruning, joined from both wings: the rules that are configured, and the operation that the doors offer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any

from repowatch.config import RepositoryConfig
from repowatch.errors import Misunderstood, RepowatchError
from repowatch.model.pruning import Out, Rule
from repowatch.model.publication import Listed
from repowatch.repository.updater import Updater
from repowatch.web.operations import flag
from repowatch.web.served import Asker, Operation

PATIENCE = 600.0  # seconds for the publication of what is pruned


def prune_rules(config: RepositoryConfig) -> list[Rule]:
    """What is pruned of it."""
    return [
        Rule(each.match, each.older_than, math.inf if each.keep is None else each.keep, each.spares_newest)
        for each in config.prune
    ]


def operations(updater: Updater) -> Mapping[str, Operation]:
    """By their names."""

    def prune(arguments: dict[str, Any], asker: Asker) -> dict[str, Any]:
        """Ask the rules now: {"dry_run": false}. To do it takes the rights to all of the repository.

        A dry run may bring "rules" in the place of those in use: [{"match", "older_than", "keep"}, ...].
        """
        asker.may_read("")  # it is told what is there
        if flag(arguments, "dry_run"):
            found = updater.would_prune(_rules(arguments["rules"]) if "rules" in arguments else None)
            return {**told(), "dry_run": True, "packages": [_row(each, None) for each in found.out]}
        if "rules" in arguments:
            raise Misunderstood('"rules" can only be tried with "dry_run"; configure them, and reload')
        asker.may_write("")
        asker.may_delete("")
        found, answers = updater.prune()
        outcomes = [_outcome(each) for each in answers]
        rows = [_row(each, trouble) for each, (_, trouble) in zip(found.out, outcomes, strict=True)]
        return {
            **told(),
            "dry_run": False,
            "packages": rows,
            "removed": [row["location"] for row in rows if row["trouble"] is None],
            "revision": max((revision for revision, _ in outcomes if revision), default=None),
        }

    def told() -> dict[str, Any]:
        return {"grace": updater.index.keeping.retired.grace, "paused": updater.pruner.paused()}

    return {"prune": Operation(prune, takes=frozenset({"dry_run", "rules"}))}


def _rules(given: Any) -> list[Rule]:
    """Rules as JSON has them. Raises Misunderstood."""
    try:
        return [_rule(**each) for each in given]
    except (TypeError, ValueError, OverflowError) as error:
        known = '{"match": ..., "older_than": SECONDS, "keep": NUMBER, "spares_newest": true}'
        raise Misunderstood(f'"rules" can not be read ({error}); send a list of {known}') from None


def _rule(
    *, match: str = "*", older_than: float | None = None, keep: int | None = 0, spares_newest: bool = True
) -> Rule:
    """`keep` null is all. Raises TypeError and ValueError."""
    if not isinstance(match, str) or not isinstance(spares_newest, bool):
        raise TypeError("`match` is text, and `spares_newest` true or false")
    kept = math.inf if keep is None else int(keep)
    return Rule(match, None if older_than is None else float(older_than), kept, spares_newest)


def _row(out: Out, trouble: str | None) -> dict[str, Any]:
    entry = out.entry
    return {
        "location": entry.location_href,
        "nevra": str(entry.nevra),
        "size": entry.stamp.size,
        "modified_at": entry.stamp.mtime_ns / 1e9,
        "reason": out.reason,
        "trouble": trouble,
    }


def _outcome(answer: Future[Listed]) -> tuple[int | None, str | None]:
    """The revision without a package, or why it was not pruned."""
    try:
        return answer.result(timeout=PATIENCE).revision, None
    except TimeoutError:
        return None, f"it is not published after {PATIENCE:g} s; look at the status"
    except (OSError, RepowatchError) as error:
        return None, str(error)
