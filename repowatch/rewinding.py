"""What the doors offer of snapshots: the operations and the report, joined from both wings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from repowatch.errors import Conflict, Nameless
from repowatch.model.snapshot import Difference
from repowatch.repository.rollback import Outcome, Rollback, patiently, preview
from repowatch.repository.snapshots import Snapshots
from repowatch.repository.updater import Updater
from repowatch.web.operations import flag, text
from repowatch.web.served import Asker, Operation

MOST_TOLD = 100  # packages that cannot come back are named, of each snapshot


def operations(updater: Updater) -> Mapping[str, Operation]:
    """By their names. Whoever asks needs the rights to all of the repository."""

    def snapshot(arguments: dict[str, Any], asker: Asker) -> dict[str, Any]:
        asker.may_write("")
        name = text(arguments, "name")
        if flag(arguments, "delete"):
            asker.may_delete("")
            updater.do(lambda: updater.index.forget_snapshot(name)).result()
            return {"deleted": name}
        updater.index.snapshots.prepare(updater.index.tree)
        return asdict(patiently(updater, lambda: updater.index.snapshot(name, by=asker.name)))

    def rollback(arguments: dict[str, Any], asker: Asker) -> dict[str, Any]:
        asker.may_read("")  # it is told what is there
        asker.may_write("")
        asker.may_delete("")
        name, keep = text(arguments, "name"), arguments.get("keep")
        if keep is not None:
            keep = text(arguments, "keep")
        if flag(arguments, "dry_run"):
            return _told(preview(updater.index, name), done=False) | {"dry_run": True}
        rollback = Rollback(updater, name, keep=keep, by=asker.name, how=asker.how)
        return _told(rollback.run(), done=True)

    return {
        "snapshot": Operation(snapshot, takes=frozenset({"name", "delete"})),
        "rollback": Operation(rollback, takes=frozenset({"name", "keep", "dry_run"})),
    }


def reports(snapshots: Snapshots) -> Mapping[str, Callable[[], Any]]:
    """By their names."""
    return {"snapshots": lambda: listed(snapshots)}


def listed(snapshots: Snapshots) -> Sequence[dict[str, Any]]:
    """Every snapshot, with the locations of packages that nothing has any more."""
    told: list[dict[str, Any]] = []
    for each in snapshots.summaries:
        try:
            lost = snapshots.lost(each.name)
        except Nameless:  # it was deleted a moment ago
            continue
        except (Conflict, OSError) as error:
            told.append({"name": each.name, "trouble": str(error)})
        else:
            told.append({**asdict(each), "lost": len(lost), "lost_packages": lost[:MOST_TOLD]})
    return told + [{"name": name, "trouble": why} for name, why in snapshots.damaged.items()]


def told(snapshots: Snapshots) -> dict[str, Any]:
    """What the status says of them. Sizes in bytes."""
    return {
        "list": [asdict(each) for each in snapshots.summaries],
        "damaged": [{"name": name, "reason": why} for name, why in snapshots.damaged.items()],
        "extra_size": snapshots.extra(),
    }


def _told(outcome: Outcome, *, done: bool) -> dict[str, Any]:
    found: Difference = outcome.difference
    return {
        "done": done,
        "revision": outcome.revision,
        "returned": list(found.missing),
        "replaced": list(found.changed),
        "retired": list(found.surplus),
        "lost": list(outcome.lost),
    }
