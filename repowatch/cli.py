"""The command line: what was asked for, what came of it, and the exit code."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from repowatch import __version__
from repowatch.config import Config, RepositoryConfig, for_directories, load, parse_address, refuse_open_doors
from repowatch.errors import RepowatchError, UsageError
from repowatch.opening import open_index
from repowatch.repository.readers import Readers
from repowatch.repository.tree import Tree
from repowatch.repository.verify import differences

log = logging.getLogger("repowatch")

_ABOUT = """\
Watch, index and serve trees of RPM packages: what is dropped into a directory, or uploaded,
is seen by dnf, yum and zypper within a moment.

  repowatch serve /srv/rpm                            serve it at http://127.0.0.1:8080/rpm/
  curl -T foo.rpm http://127.0.0.1:8080/rpm/          upload; answered when dnf can install it
  curl http://127.0.0.1:8080/rpm.repo                 a file for /etc/yum.repos.d
"""


_OF_DIR = "the configuration that says what is excluded and followed in DIR"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code: 0 done, 1 different or failed, 2 wrong usage or configuration."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(
        level=logging.DEBUG if options.verbose else logging.INFO, format="%(message)s", stream=sys.stderr
    )
    try:
        code: int = options.run(options)
        return code
    except RepowatchError as error:
        print(f"repowatch: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="repowatch", description=_ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"repowatch {__version__}")
    parser.set_defaults(verbose=False)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    serve = commands.add_parser(
        "serve",
        help="watch, index and serve directories",
        description="Watch, index and serve each DIR as a repository at /<its name>/, or what FILE "
        "configures. Prints `ready http://HOST:PORT/` when it answers; SIGTERM ends it in order.",
    )
    serve.add_argument("directories", nargs="*", metavar="DIR", help="a directory of packages")
    serve.add_argument(
        "--config", metavar="FILE", help="the configuration (YAML) to use in the place of DIRs"
    )
    serve.add_argument(
        "--listen", metavar="HOST:PORT", help="where to listen (default 127.0.0.1:8080); port 0 is any"
    )
    serve.add_argument(
        "--allow-anonymous-upload",
        action="store_true",
        help="let anyone who can reach the address upload, also beyond the loopback",
    )
    serve.add_argument("--verbose", action="store_true", help="log more")
    serve.set_defaults(run=_serve)

    index = commands.add_parser(
        "index",
        help="bring DIR/repodata up to date once",
        description="Bring DIR/repodata up to date and exit: a fast `createrepo_c --update` that lists "
        "whole packages only. Exit code 2 when a daemon writes this repository already.",
    )
    index.add_argument("directory", metavar="DIR")
    index.add_argument("--config", metavar="FILE", help=_OF_DIR)
    index.set_defaults(run=_index)

    verify = commands.add_parser(
        "verify",
        help="compare the published metadata with the tree",
        description="Read every package of DIR and compare the result with the published metadata, byte for "
        "byte; check every file that repomd.xml names. Writes nothing. Exit code 1 on any difference.",
    )
    verify.add_argument("directory", metavar="DIR")
    verify.add_argument("--config", metavar="FILE", help=_OF_DIR)
    verify.set_defaults(run=_verify)

    check = commands.add_parser(
        "check-config",
        help="tell all mistakes in a configuration",
        description="Tell every mistake in FILE, each with its line. Exit code 2 if there is one.",
    )
    check.add_argument("file", metavar="FILE")
    check.set_defaults(run=_check_config)

    status = commands.add_parser(
        "status",
        help="what the running daemon says",
        description="Ask the running daemon for its repositories, revisions, and files that are not listed "
        "and why. Exit code 1 when it can not be asked, or when clients do not see what is in a tree.",
    )
    status.add_argument(
        "--url", metavar="URL", help="where the daemon answers (default http://127.0.0.1:8080)"
    )
    status.add_argument("--config", metavar="FILE", help="take the address from this configuration")
    status.add_argument("--json", action="store_true", help="print what the daemon sent, as it is")
    status.set_defaults(run=_status)
    return parser


def _serve(options: argparse.Namespace) -> int:
    from repowatch.daemon import Daemon  # noqa: PLC0415 - the doors take longer to load than `index` to run

    config = _configuration(options)
    refuse_open_doors(config)
    daemon = Daemon(config, progress=_Progress())
    return daemon.run(
        ready=lambda url: print(f"ready {url}", flush=True), reload=lambda: _reload(options, config)
    )


def _configuration(options: argparse.Namespace) -> Config:
    if options.config is None:
        missing = [each for each in options.directories if not os.path.isdir(each)]
        if missing:
            raise UsageError("\n".join(f"{each}: no such directory; make it first" for each in missing))
        return for_directories(
            options.directories,
            listen=options.listen,
            allow_anonymous_upload=options.allow_anonymous_upload,
        )
    if options.directories:
        raise UsageError("name directories or --config, not both")
    config = load(options.config)
    if options.listen is not None:
        try:
            config = replace(config, listen=parse_address(options.listen))
        except ValueError as error:
            raise UsageError(f"--listen: {error}") from None
    if options.allow_anonymous_upload:
        config = replace(config, allow_anonymous_upload=True)
    return config


def _reload(options: argparse.Namespace, running: Config) -> None:
    """SIGHUP: a bad configuration is refused and told; a good one needs a restart in this version."""
    try:
        wanted = _configuration(options)
        refuse_open_doors(wanted)
    except RepowatchError as error:
        log.error("the configuration is refused, the old one stays:\n%s", error)
        return
    if wanted == running:
        log.info("the configuration did not change")
    else:
        log.warning(
            "the configuration is good, but changes take effect at the next start; restart the daemon"
        )


def _repository_at(options: argparse.Namespace) -> RepositoryConfig:
    """What is known of the repository in a directory."""
    if options.config is None:
        [found] = for_directories([options.directory]).repositories
        return found
    path = os.path.realpath(options.directory)
    for repository in load(options.config).repositories:
        if os.path.realpath(repository.path) == path:
            return repository
    raise UsageError(f"{options.config} configures no repository at {path}")


def _index(options: argparse.Namespace) -> int:
    config = _repository_at(options)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        readers = Readers()
        pool.submit(readers.start)  # what goes wrong is told when the first package is read
        try:
            index = open_index(config, readers=readers, pool=pool, progress=_Progress())
            try:
                again = index.turn([], at_once=[""])
                if index.unchecked:
                    again.unsettled |= index.check_all().unsettled
                index.save()
            finally:
                index.close()
        finally:
            readers.close()
    for location_href in sorted(again.unsettled):
        log.warning("%s: not listed: it is still written to; run this again later", location_href)
    return 1 if again.unsettled else 0


def _verify(options: argparse.Namespace) -> int:
    if not os.path.isdir(options.directory):
        raise UsageError(f"{options.directory}: no such directory")
    config = _repository_at(options)
    tree = Tree(os.path.realpath(config.path), exclude=config.exclude, follow=config.follow)
    progress = _Progress()
    found = 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        readers = Readers()
        try:
            for difference in differences(
                tree,
                readers=readers,
                pool=pool,
                progress=lambda done, total: progress(tree.root, done, total),
            ):
                print(difference)
                found += 1
        finally:
            readers.close()
    print(f"{found} differences" if found else "the metadata is what the tree says", file=sys.stderr)
    return 1 if found else 0


def _check_config(options: argparse.Namespace) -> int:
    config = load(options.file)
    refuse_open_doors(config)
    print(f"{options.file}: good, {len(config.repositories)} repositories")
    return 0


def _status(options: argparse.Namespace) -> int:
    from urllib.request import urlopen  # noqa: PLC0415 - likewise

    url = options.url
    if url is None:
        address = load(options.config).listen if options.config else "127.0.0.1:8080"
        url = f"http://{address}"
    try:
        with urlopen(f"{url.rstrip('/')}/-/api/v1/status", timeout=10) as answer:  # noqa: S310
            text = answer.read().decode()
            status = json.loads(text)
    except (OSError, ValueError) as error:
        raise RepowatchError(f"{url} does not answer as repowatch does: {error}; is it running?") from None
    if options.json:
        print(text, end="")
    else:
        print(f"repowatch {status['version']}")
        for repository in status["repositories"]:
            _print_repository(repository)
    return 1 if any(repository["trouble"] for repository in status["repositories"]) else 0


def _print_repository(repository: dict[str, Any]) -> None:
    published = repository["published_at"]
    when = (
        datetime.fromtimestamp(published, UTC).strftime("%Y-%m-%d %H:%M:%S UTC") if published else "not yet"
    )
    print(f"{repository['name']}  {repository['url']}  {repository['path']}")
    print(f"  {repository['packages']} packages, revision {repository['revision']}, published {when}")
    print(f"  watcher: {repository['watcher']}, waiting: {repository['waiting']}")
    if repository["reading"]["total"]:
        print("  reading {done} of {total} files".format(**repository["reading"]))
    if repository["unchecked"]:
        print(f"  {repository['unchecked']} listed as the metadata said, to be checked")
    if repository["trouble"]:
        print(f"  TROUBLE: {repository['trouble']}")
    for row in repository["rejected"]:
        print(f"  not listed: {_printable(row['location'])}: {_printable(row['reason'])}")


def _printable(text: str) -> str:
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


class _Progress:
    """Tells how a long reading goes: one changing line on a terminal, a log line now and then elsewhere."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._every = 0.2 if self._terminal else 10.0
        self._next: dict[str, float] = {}  # by repository: when to tell again
        self._told: set[str] = set()  # repositories whose line is not ended

    def __call__(self, name: str, done: int, total: int) -> None:
        now = time.monotonic()
        next_at = self._next.setdefault(name, now + self._every)
        ends = done == total and name in self._told
        if done == total:
            del self._next[name]
        if now < next_at and not ends:
            return
        if done < total:
            self._next[name] = now + self._every
        text = f"{name}: {done} of {total} files read"
        if self._terminal:
            print(f"\r{text}", end="\n" if ends else "", file=sys.stderr, flush=True)
        else:
            log.info("%s", text)
        (self._told.discard if ends else self._told.add)(name)
