"""The command line: what was asked for, what came of it, and the exit code."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from getpass import getpass
from typing import Any, TypeAlias

from repowatch import __version__
from repowatch.errors import RepowatchError, UsageError
from repowatch.model.units import in_units
from repowatch.orders import (
    add_batch,
    add_promote,
    add_prune,
    add_rollback,
    add_snapshot,
    add_snapshots,
    add_where,
    doors,
    pruning_told,
    snapshots_told,
)
from repowatch.system import logs
from repowatch.system.logs import printable

log = logging.getLogger("repowatch")

_ABOUT = """\
Watch, index and serve trees of RPM packages: what is dropped into a directory, or uploaded,
is seen by dnf, yum and zypper within a moment.

  repowatch serve /srv/rpm                            serve it at http://127.0.0.1:8080/rpm/
  curl -T foo.rpm http://127.0.0.1:8080/rpm/          upload; answered when dnf can install it
  curl http://127.0.0.1:8080/rpm.repo                 a file for /etc/yum.repos.d
"""

_OF_DIR = "the configuration that says what is excluded and followed in DIR, and what its metadata is like"
_DIR = "a directory of packages"
_INSTALLED = "/etc/repowatch/repowatch.yaml"

_Add: TypeAlias = Callable[..., argparse.ArgumentParser]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code: 0 done, 1 different or failed, 2 wrong usage or configuration."""
    options = _parser().parse_args(arguments)
    logs.set_up(verbose=options.verbose, as_json=options.log_format == "json")
    try:
        code: int = options.run(options)
        return code
    except RepowatchError as error:
        _tell(error, as_json=options.log_format == "json")
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _tell(error: RepowatchError, *, as_json: bool) -> None:
    """Why a command ends: for people, or as whoever reads the log expects it."""
    if as_json or logs.is_journal(2):
        log.error("%s", error)
    else:
        print(f"repowatch: {error}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="repowatch", description=_ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"repowatch {__version__}")
    parser.set_defaults(verbose=False, log_format=None)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for add_command in (
        _add_serve,
        _add_index,
        _add_verify,
        _add_check_config,
        _add_passwd,
        _add_status,
        _add_wait,
        _add_who,
        add_promote,
        add_prune,
        add_batch,
        add_snapshot,
        add_snapshots,
        add_rollback,
    ):
        add_command(commands.add_parser)
    return parser


def _add_serve(add: _Add) -> None:
    serve = add(
        "serve",
        help="watch, index and serve directories",
        description="Watch, index and serve each DIR as a repository at /<its name>/, or what FILE "
        "configures. Prints `ready http://HOST:PORT/` when it answers; SIGTERM ends it in order.",
    )
    serve.add_argument("directories", nargs="*", metavar="DIR", help=_DIR)
    serve.add_argument(
        "--config", metavar="FILE", help="the configuration (YAML) to use in the place of DIRs"
    )
    serve.add_argument(
        "--listen",
        metavar="ADDRESS",
        action="append",
        default=[],
        help="where to listen: HOST:PORT (default 127.0.0.1:8080; port 0 is any), unix:PATH, "
        "http://HOST:PORT or https://HOST:PORT; may be given more than once",
    )
    serve.add_argument(
        "--allow-anonymous-upload",
        action="store_true",
        help="let anyone who can reach the address upload, also beyond the loopback",
    )
    serve.add_argument("--verbose", action="store_true", help="log more")
    serve.add_argument(
        "--log-format", choices=["text", "json"], help="text (the default), or an object of JSON in each line"
    )
    serve.set_defaults(run=_serve)


def _add_index(add: _Add) -> None:
    index = add(
        "index",
        help="bring DIR/repodata up to date once",
        description="Bring DIR/repodata up to date and exit: a fast `createrepo_c --update` that lists "
        "whole packages only. Exit code 2 when a daemon writes this repository already.",
    )
    index.add_argument("directory", metavar="DIR", help=_DIR)
    index.add_argument("--config", metavar="FILE", help=_OF_DIR)
    index.set_defaults(run=_index)


def _add_verify(add: _Add) -> None:
    verify = add(
        "verify",
        help="compare the published metadata with the tree",
        description="Read every package of DIR and compare the result with the published metadata, byte for "
        "byte; check every file that repomd.xml names. Writes nothing. Exit code 1 on any difference.",
    )
    verify.add_argument("directory", metavar="DIR", help=_DIR)
    verify.add_argument("--config", metavar="FILE", help=_OF_DIR)
    verify.set_defaults(run=_verify)


def _add_check_config(add: _Add) -> None:
    check = add(
        "check-config",
        help="tell all mistakes in a configuration",
        description="Tell every mistake in FILE, each with its line. Exit code 2 if there is one.",
    )
    check.add_argument("file", metavar="FILE", help="the configuration (YAML)")
    check.set_defaults(run=_check_config)


def _add_passwd(add: _Add) -> None:
    passwd = add(
        "passwd",
        help="add, change or remove a user",
        description="Set the password of USER in FILE, which `users:` of the configuration names, and add "
        "either where it is missing. Asks for the password, or reads one line where the input is no "
        "terminal. A running daemon knows it within a second.",
    )
    passwd.add_argument("file", metavar="FILE", help="an htpasswd file; passwords are kept as bcrypt")
    passwd.add_argument("user", metavar="USER", help="the name to log in with")
    passwd.add_argument("--delete", action="store_true", help="remove the user")
    passwd.set_defaults(run=_passwd)


def _add_status(add: _Add) -> None:
    status = add(
        "status",
        help="what the running daemon says",
        description="Ask the running daemon for its repositories, revisions, and files that are not listed "
        "and why. Exit code 1 when it can not be asked, or when clients do not see what is in a tree.",
    )
    add_where(status)
    status.add_argument("--json", action="store_true", help="print what the daemon sent, as it is")
    status.set_defaults(run=_status)


def _add_wait(add: _Add) -> None:
    wait = add(
        "wait",
        help="wait until a package is listed",
        description="Wait until the running daemon lists PACKAGE, and tell its NEVRA, its location and the "
        "revision. Exit code 1 when that does not come to pass in time.",
    )
    wait.add_argument("package", metavar="PACKAGE", help="a name, a NEVRA, a file name, or a pattern of them")
    wait.add_argument("--repository", metavar="NAME", help="where (needed where there are several)")
    wait.add_argument(
        "--timeout", metavar="SECONDS", type=_seconds, default=60.0, help="how long (default 60)"
    )
    add_where(wait)
    wait.set_defaults(run=_wait)


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds <= 1e6:
        raise ValueError
    return seconds


def _add_who(add: _Add) -> None:
    who = add(
        "who",
        help="who changed a package, as the audit knows",
        description="Tell who uploaded, moved or removed PACKAGE, from where and when, oldest first: a line "
        "of time, user, address, method, location, NEVRA and revision for each change. Exit code 1 when the "
        "audit knows nothing of it.",
    )
    who.add_argument("package", metavar="PACKAGE", help="a NEVRA, a name, or a location")
    source = who.add_mutually_exclusive_group()
    source.add_argument(
        "--config", metavar="FILE", default=_INSTALLED, help="where `audit:` stands (default %(default)s)"
    )
    source.add_argument("--audit", metavar="FILE", help="the audit itself")
    who.add_argument("--json", action="store_true", help="print the changes as they were recorded")
    who.set_defaults(run=_who)


# Each loads what it needs itself: to load everything takes longer than most of them take to run.


def _serve(options: argparse.Namespace) -> int:
    from repowatch.serving import serve  # noqa: PLC0415 - see above

    return serve(options)


def _index(options: argparse.Namespace) -> int:
    from repowatch.once import index  # noqa: PLC0415 - likewise

    return index(options)


def _verify(options: argparse.Namespace) -> int:
    from repowatch.once import verify  # noqa: PLC0415 - likewise

    return verify(options)


def _check_config(options: argparse.Namespace) -> int:
    from repowatch.serving import check_config  # noqa: PLC0415 - likewise

    return check_config(options)


def _passwd(options: argparse.Namespace) -> int:
    from repowatch.web.rights.users import remove_user, set_password  # noqa: PLC0415 - likewise

    if not options.delete:
        done = "added" if set_password(options.file, options.user, _password()) else "changed"
    elif remove_user(options.file, options.user):
        done = "removed"
    else:
        raise RepowatchError(
            f"{options.file}: there is no user {printable(options.user)}; nothing is changed"
        )
    print(f"{options.file}: {options.user} {done}")
    return 0


def _password() -> bytes:
    """The password from a prompt, typed twice, or the first line of what is piped in. Raises UsageError."""
    if not sys.stdin.isatty():
        return sys.stdin.buffer.readline().removesuffix(b"\n").removesuffix(b"\r")
    try:
        first, again = getpass("Password: "), getpass("Once more: ")
    except EOFError:
        raise UsageError("no password was given; nothing is changed") from None
    if first != again:
        raise UsageError("the passwords are not the same; nothing is changed")
    return first.encode("utf-8", "surrogateescape")


def _status(options: argparse.Namespace) -> int:
    from repowatch.asking import ask  # noqa: PLC0415 - likewise

    text = ask(doors(options))
    status = json.loads(text)
    if options.json:
        print(text, end="")
    else:
        print(f"repowatch {status['version']}")
        for repository in status["repositories"]:
            _print_repository(repository)
        for row in status.get("not_served", []):
            print(f"not served: {printable(row['path'])}: {printable(row['reason'])}")
    return 1 if any(repository["trouble"] for repository in status["repositories"]) else 0


def _wait(options: argparse.Namespace) -> int:
    from repowatch.asking import ask, await_listed  # noqa: PLC0415 - likewise

    where = doors(options)
    names = [each["name"] for each in json.loads(ask(where))["repositories"]]
    name: str = options.repository or (names[0] if len(names) == 1 else "")
    if name not in names:
        wrong = f"there is no repository {printable(name)}" if name else "which repository is meant?"
        raise UsageError(f"{wrong}; name one of these with --repository: {printable(', '.join(names))}")
    found = await_listed(where, name, options.package, timeout=options.timeout)
    for package in found.packages:
        location = f"{name}/{package['location']}"
        print(f"{printable(package['nevra'])}  {printable(location)}  revision {found.revision}")
    for rejected in [] if found.packages else found.rejected:
        print(f"not listed: {printable(rejected)}", file=sys.stderr)
    if not found.packages:
        what = f"{printable(options.package)} is not listed in {printable(name)}"
        print(f"repowatch: {what} after {options.timeout:g} s", file=sys.stderr)
    return 0 if found.packages else 1


def _print_repository(repository: dict[str, Any]) -> None:
    published = repository["published_at"]
    when = (
        datetime.fromtimestamp(published, UTC).strftime("%Y-%m-%d %H:%M:%S UTC") if published else "not yet"
    )
    print(f"{repository['name']}  {repository['url']}  {repository['path']}")
    print(f"  {repository['packages']} packages, revision {repository['revision']}, published {when}")
    print(
        f"  watcher: {repository['watcher']}, waiting: {repository['waiting']}, "
        f"uploads: {repository['uploads']}, {_sizes(repository)}"
    )
    if repository["reading"]["total"]:
        print("  reading {done} of {total} files".format(**repository["reading"]))
    if repository["unchecked"]:
        print(f"  {repository['unchecked']} listed as the metadata said, to be checked")
    if repository["trouble"]:
        print(f"  TROUBLE: {repository['trouble']}")
    if pruning := pruning_told(repository["pruning"]):
        print(f"  pruning: {pruning}")
    if snapshots := snapshots_told(repository["snapshots"]):
        print(f"  snapshots: {snapshots}")
    for batch in repository.get("batches", ()):
        of = printable(f"{batch['batch']} of {batch['who'] or 'anyone'}")
        print(f"  open batch: {of}, changes: {batch['files']}, {in_units(batch['bytes'])}")
    for event in repository["history"][:3]:
        by = {"file": "by file", "prune": "by a rule"}.get(event["how"], f"by {event['who'] or 'anyone'}")
        what = printable(f"{event['nevra']} {by}")
        print(f"  {event['change']}: {what}, revision {event['revision']}")
    for file in repository["companions"]:
        if file["unlisted"]:
            unlisted = printable(f"{file['location']} names {', '.join(file['unlisted'])}")
            print(f"  an advisory of what is not listed: {unlisted}")
    for row in repository["rejected"]:
        print(f"  not listed: {printable(row['location'])}: {printable(row['reason'])}")


def _sizes(repository: dict[str, Any]) -> str:
    free = repository["disk_free"]
    left = "unknown" if free is None else in_units(free)
    return f"size: {in_units(repository['size'])}, disk left: {left}"


def _who(options: argparse.Namespace) -> int:
    from repowatch.config import load  # noqa: PLC0415 - likewise
    from repowatch.system.audit import answers  # noqa: PLC0415 - likewise

    audit = options.audit or load(options.config).audit
    if audit is None:
        raise UsageError(f"{options.config}: no `audit:` is configured; name the file with --audit")
    found = False
    for change in answers(audit, options.package):
        found = True
        print(json.dumps(change) if options.json else _told(change))
    if not found:
        print(f"{audit}: nothing is known of {printable(options.package)}", file=sys.stderr)
    return 0 if found else 1


def _told(change: dict[str, Any]) -> str:
    """One change in a line; a dash for what is not known."""
    location = f"{change.get('repository')}/{change.get('location')}"
    if change.get("destination"):
        location += f" -> {change['destination']}"
    if change.get("batch"):
        location += f" (waits in the batch {change['batch']})"
    parts = [change.get(key) for key in ("at", "who", "address", "method")]
    parts += [location, change.get("nevra"), change.get("revision")]
    line = "  ".join(printable("-" if part is None else str(part)) for part in parts)
    status = change.get("status")
    return f"{line}  refused: {status}" if isinstance(status, int) and status >= 400 else line
