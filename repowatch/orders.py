"""Commands that have a running daemon do something: what they take, and what is told of it."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from getpass import getpass
from typing import TYPE_CHECKING, Any, TypeAlias

from repowatch.errors import UsageError
from repowatch.model.units import in_units
from repowatch.system.logs import printable

if TYPE_CHECKING:
    from repowatch.asking import Door

Add: TypeAlias = Callable[..., argparse.ArgumentParser]

_REPOSITORY = "the name of a repository"


def add_where(command: argparse.ArgumentParser) -> None:
    """The options that say where the daemon is asked, and by whom."""
    command.add_argument(
        "--url",
        metavar="URL",
        help="where the daemon answers: http://, https:// or unix:PATH (default http://127.0.0.1:8080)",
    )
    command.add_argument("--config", metavar="FILE", help="take the address from this configuration")
    command.add_argument(
        "--user",
        metavar="NAME",
        help="who asks; the password comes from REPOWATCH_PASSWORD, a prompt, or a pipe",
    )


def doors(options: argparse.Namespace) -> Sequence[Door]:
    """Where the daemon is asked. Raises UsageError for a configuration that can not be used."""
    # These load half of the standard library, which other commands do not need.
    from repowatch.asking import DEFAULT, Door, doors_of, installed  # noqa: PLC0415
    from repowatch.config import load  # noqa: PLC0415

    if options.url is not None:
        found = [Door(options.url)]
    else:
        found = doors_of(load(options.config)) if options.config else [*installed(), DEFAULT]
    if options.user is None:
        return found
    credentials = options.user, os.environ.get("REPOWATCH_PASSWORD") or _asked_password(options.user)
    # Whoever comes by the operators' door is none of the users.
    return [replace(each, credentials=credentials) for each in found if not each.is_control]


def _asked_password(user: str) -> str:
    """The password from a prompt, or the first line of what is piped in. Raises UsageError."""
    if not sys.stdin.isatty():
        return sys.stdin.readline().removesuffix("\n")
    try:
        return getpass(f"Password of {user}: ")
    except EOFError:
        raise UsageError("no password was given") from None


def act(options: argparse.Namespace, operation: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Have something done to `options.repository`; what is told of it. Raises RepowatchError."""
    from repowatch.asking import act  # noqa: PLC0415 - see `doors`

    return act(doors(options), options.repository, operation, arguments)


# -- batches and promotion -------------------------------------------------------------------


def add_batch(add: Add) -> None:
    """The command `batch`."""
    batch = add(
        "batch",
        help="publish uploads that wait for each other, or drop them",
        description="Uploads with the field `Repowatch-Batch: NAME` wait for each other. `commit` publishes "
        "all of a batch at once, `discard` drops it, `list` tells which are open. Exit code 1 when it can "
        "not be done; then nothing is changed.",
    )
    batch.add_argument("what", choices=["commit", "discard", "list"], help="what to do")
    batch.add_argument("repository", metavar="REPOSITORY", help=_REPOSITORY)
    batch.add_argument("batch", metavar="NAME", nargs="?", help="the batch (not for list)")
    add_where(batch)
    batch.set_defaults(run=lambda options: _batch(batch, options))


def _batch(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    if (options.what == "list") != (options.batch is None):
        parser.error("list takes a REPOSITORY alone, commit and discard the NAME of a batch as well")
    if options.what == "list":
        return _list_batches(options)
    told = act(options, options.what, {"batch": options.batch})
    if options.what == "discard":
        print(f"{options.batch}: {told['discarded']} changes are dropped")
        return 0
    for sign, key in (("+", "locations"), ("-", "removed")):
        for location in told[key]:
            print(f"{sign} {printable(location)}")
    _print_notes(told)
    print(f"{options.batch}: published in revision {told['revision']}")
    return 0


def _print_notes(told: Mapping[str, Any]) -> None:
    for note in told["notes"]:
        print(f"! {printable(note)}")


def _list_batches(options: argparse.Namespace) -> int:
    from repowatch.asking import report  # noqa: PLC0415 - see `doors`

    for each in report(doors(options), options.repository, "batches"):
        began = datetime.fromtimestamp(each["began_at"], UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        print(
            f"{each['batch']}  changes: {each['files']}, {in_units(each['bytes'])}  "
            f"by {printable(each['who'] or 'anyone')} since {began}, "
            f"dropped after {each['expires_in'] / 3600:.1f} h without a change"
        )
    return 0


def add_promote(add: Add) -> None:
    """The command `promote`."""
    promote = add(
        "promote",
        help="publish packages of one repository in another as well",
        description="Publish each PACKAGE of the repository FROM in the repository TO, under the same name, "
        "all in one publication. Nothing is copied where the file system can share blocks or give a file a "
        "second name. Exit code 1 when one of them can not be published; then none is.",
    )
    promote.add_argument("source", metavar="FROM", help="the repository that has them")
    promote.add_argument("repository", metavar="TO", help="the repository that is to have them")
    promote.add_argument(
        "packages", metavar="PACKAGE", nargs="+", help="a name, a NEVRA, a file name, or a pattern of them"
    )
    promote.add_argument(
        "--newest", action="store_true", help="only the newest of each name and architecture"
    )
    promote.add_argument(
        "--copy", action="store_true", help="copy where blocks can not be shared; never give a second name"
    )
    promote.add_argument("--dry-run", action="store_true", help="tell what would be done, and do nothing")
    add_where(promote)
    promote.set_defaults(run=_promote)


def _promote(options: argparse.Namespace) -> int:
    told = act(
        options,
        "promote",
        {
            "from": options.source,
            "packages": options.packages,
            "newest": options.newest,
            "copy": options.copy,
            "dry_run": options.dry_run,
        },
    )
    for sign, key in (("+", "locations"), ("=", "already")):
        for location in told[key]:
            print(f"{sign} {printable(location)}")
    if options.dry_run:
        print(f"{len(told['locations'])} would be published, {len(told['already'])} are there already")
        return 0
    _print_notes(told)
    how = ", ".join(f"{count} {what}" for what, count in sorted(told["how"].items()))
    print(f"published in revision {told['revision']}" if how else "all are there already", end="")
    print(f" ({how})" if how else "")
    return 0


# -- pruning ---------------------------------------------------------------------------------


def add_prune(add: Add) -> None:
    """The command `prune`."""
    prune = add(
        "prune",
        help="prune packages now, or tell which would go and why",
        description="Ask the rules of `prune:` in the running daemon's configuration now, and tell which "
        "packages go, each with the reason. They are no longer listed, and served under their names until "
        "the time of grace is over. With --dry-run and --config, the rules in that FILE are tried, which the "
        "daemon need not use yet. Exit code 1 when something could not be pruned.",
    )
    prune.add_argument("--repository", metavar="NAME", help="where (default: wherever there is a rule)")
    prune.add_argument("--dry-run", action="store_true", help="tell what would go, and do nothing")
    add_where(prune)
    prune.set_defaults(run=_prune)


def _prune(options: argparse.Namespace) -> int:
    from repowatch.asking import act, ask  # noqa: PLC0415 - see `doors`

    found = doors(options)
    told = json.loads(ask(found))["repositories"]
    rules = _rules_in(options.config, [each["name"] for each in told]) if options.dry_run else {}
    names = [options.repository]
    if options.repository is None:
        names = [each["name"] for each in told if rules.get(each["name"], each["pruning"]["rules"])]
    if not names:
        raise UsageError("no repository has a rule; configure `prune:`")
    outcomes = []
    for name in names:
        arguments: dict[str, Any] = {"dry_run": options.dry_run}
        arguments |= {"rules": rules[name]} if name in rules else {}
        outcomes.append((name, act(found, name, "prune", arguments)))
    return max([_tell_pruned(name, outcome) for name, outcome in outcomes])


def _rules_in(path: str | None, names: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """The rules that a configuration has for repositories of the daemon: they may not be in use yet."""
    if path is None:
        return {}
    from repowatch.config import load  # noqa: PLC0415 - see `doors`
    from repowatch.config.patterns import pattern_of  # noqa: PLC0415 - likewise

    config = load(path)
    own = {each.name: each for each in config.repositories}
    configured = {name: own.get(name) or pattern_of(config.patterns, name) for name in names}
    return {name: [asdict(rule) for rule in each.prune] for name, each in configured.items() if each}


def _tell_pruned(name: str, outcome: Mapping[str, Any]) -> int:
    """What a prune came to, in lines; the exit code."""
    packages = outcome["packages"]
    done = [each for each in packages if not each["trouble"]]
    for each in packages:
        line = f"- {name}/{each['location']}: {each['reason']}"
        print(printable(f"{line}; NOT PRUNED: {each['trouble']}" if each["trouble"] else line))
    what = "would go" if outcome["dry_run"] else "pruned"
    kept = f", served for another {outcome['grace'] / 3600:g} h" if outcome["grace"] and done else ""
    print(f"{printable(name)}: {len(done)} {what}, {in_units(sum(each['size'] for each in done))}{kept}")
    if outcome["paused"]:
        print(f"{printable(name)}: {outcome['paused']}")
    return 1 if len(done) < len(packages) else 0


def pruning_told(pruning: Mapping[str, Any]) -> str | None:
    """What the status says of pruning, in a line; None where there is nothing to say."""
    parts = []
    if pruning["retired"]:
        size = in_units(pruning["retired_size"])
        parts.append(f"{pruning['retired']} retired packages are still served, {size}")
    if pruning["last_at"]:
        parts.append(f"last pruned {pruning['last_packages']} at {_when(pruning['last_at'])}")
    if pruning["next_at"]:
        parts.append(f"next look at {_when(pruning['next_at'])}")
    if pruning["paused"]:
        parts.append(pruning["paused"])
    return "; ".join(parts) or None


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


# -- snapshots -------------------------------------------------------------------------------


def add_snapshot(add: Add) -> None:
    """The command `snapshot`."""
    snapshot = add(
        "snapshot",
        help="keep what is published now under a name, or delete that",
        description="Keep what REPOSITORY publishes now, to be read at /REPOSITORY@NAME/ and to be rolled "
        "back to. Nothing is copied, and nothing that it names is lost when it leaves the tree. Exit code 1 "
        "when it can not be done.",
    )
    snapshot.add_argument("repository", metavar="REPOSITORY", help=_REPOSITORY)
    snapshot.add_argument("name", metavar="NAME", help="letters, digits, dots, - and _")
    snapshot.add_argument("--delete", action="store_true", help="delete it, and what only it keeps")
    add_where(snapshot)
    snapshot.set_defaults(run=_snapshot)


def _snapshot(options: argparse.Namespace) -> int:
    told = act(options, "snapshot", {"name": options.name, "delete": options.delete})
    if options.delete:
        print(f"{options.name}: deleted")
    else:
        print(f"{options.name}: keeps revision {told['revision']}, {_counted(told)}")
    return 0


def add_snapshots(add: Add) -> None:
    """The command `snapshots`."""
    snapshots = add(
        "snapshots",
        help="list the snapshots of a repository",
        description="List the snapshots of REPOSITORY, the oldest first. Exit code 1 when one is damaged, or "
        "names a package that nothing has any more: then what is lost is told as well.",
    )
    snapshots.add_argument("repository", metavar="REPOSITORY", help=_REPOSITORY)
    add_where(snapshots)
    snapshots.set_defaults(run=_snapshots)


def _snapshots(options: argparse.Namespace) -> int:
    from repowatch.asking import report  # noqa: PLC0415 - see `doors`

    code = 0
    for each in report(doors(options), options.repository, "snapshots"):
        if "trouble" in each:
            print(f"{each['name']}  damaged: {printable(each['trouble'])}")
        else:
            at, by = _when(each["created_at"]), printable(each["by"] or "anyone")
            print(f"{each['name']}  {at}  by {by}  revision {each['revision']}, {_counted(each)}")
        for location in each.get("lost_packages", ()):
            print(f"  lost: {printable(location)}")
        if each.get("lost", 0) > len(each.get("lost_packages", ())):
            print(f"  lost: {each['lost']} in all")
        code = 1 if "trouble" in each or each["lost"] else code
    return code


def add_rollback(add: Add) -> None:
    """The command `rollback`."""
    rollback = add(
        "rollback",
        help="make a repository again what it was at a snapshot",
        description="Make REPOSITORY again what it was at the snapshot NAME, in one publication with a newer "
        "revision. What came since then is retired: gone from the metadata, and served for a while. Exit "
        "code 1 when it can not be done; then nothing is changed.",
    )
    rollback.add_argument("repository", metavar="REPOSITORY", help=_REPOSITORY)
    rollback.add_argument("name", metavar="NAME", help="the snapshot")
    rollback.add_argument("--keep", metavar="AS", help="first keep what is there now as a snapshot AS")
    rollback.add_argument("--dry-run", action="store_true", help="tell what would be done, and do nothing")
    add_where(rollback)
    rollback.set_defaults(run=_rollback)


def _rollback(options: argparse.Namespace) -> int:
    arguments = {"name": options.name, "dry_run": options.dry_run, "keep": options.keep}
    told = act(options, "rollback", arguments)
    for sign, key in (("+", "returned"), ("*", "replaced"), ("-", "retired"), ("!", "lost")):
        for location in told[key]:
            print(f"{sign} {printable(location)}{' can not come back' if key == 'lost' else ''}")
    if told["lost"]:
        print("a rollback would be refused: packages of the snapshot are lost")
        return 1
    changes = sum(len(told[key]) for key in ("returned", "replaced", "retired"))
    if not changes:
        print(f"{options.name}: the repository is as it was then; nothing was done")
        return 0
    done = f"published in revision {told['revision']}" if told["done"] else "nothing was done"
    print(f"{options.name}: {changes} changes; {done}")
    return 0


def _counted(told: Mapping[str, Any]) -> str:
    return f"{told['packages']:,} packages, {told['size']:,} bytes"


def snapshots_told(snapshots: Mapping[str, Any]) -> str | None:
    """What the status says of snapshots, in a line; None where there is nothing to say."""
    parts = []
    if listed := snapshots["list"]:
        last = listed[-1]
        parts.append(f"{len(listed)}, the last {last['name']} of {_when(last['created_at'])}")
        parts.append(f"{in_units(snapshots['extra_size'])} beyond the tree")
    parts += [f"DAMAGED {each['name']}: {printable(each['reason'])}" for each in snapshots["damaged"]]
    return "; ".join(parts) or None
