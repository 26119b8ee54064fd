"""Commands that work on a directory once, without a daemon: bring it up to date, look whether it is."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import sys
from concurrent.futures import ThreadPoolExecutor

from repowatch.config import RepositoryConfig, for_directories, load
from repowatch.errors import UsageError
from repowatch.opening import open_index
from repowatch.progress import ShownProgress
from repowatch.repository.readers import Readers
from repowatch.repository.signed import Keys
from repowatch.repository.tree import Tree
from repowatch.repository.verify import differences
from repowatch.system.gpg import Keyrings

log = logging.getLogger("repowatch")


def _repository_at(options: argparse.Namespace) -> RepositoryConfig:
    """What is known of the repository in a directory."""
    if options.config is None:
        [found] = for_directories([options.directory]).repositories
        return found
    from repowatch.config.patterns import expand  # noqa: PLC0415 - a directory alone needs none

    path = os.path.realpath(options.directory)
    for repository in expand(load(options.config)).repositories:
        if os.path.realpath(repository.path) == path:
            return repository
    raise UsageError(f"{options.config} configures no repository at {path}")


def index(options: argparse.Namespace) -> int:
    config = _repository_at(options)
    with ThreadPoolExecutor(os.cpu_count()) as pool, contextlib.closing(Keyrings()) as keyrings:
        readers = Readers()
        try:
            opened = open_index(
                config, readers=readers, pool=pool, keyrings=keyrings, progress=ShownProgress()
            )
            try:
                again = opened.turn([], at_once=[""])
                if opened.unchecked:
                    again.unsettled |= opened.check_all().unsettled
                opened.save()
            finally:
                opened.close()
        finally:
            readers.close()
    for location_href in sorted(again.unsettled):
        log.warning("%s: not listed: it is still written to; run this again later", location_href)
    return 1 if again.unsettled else 0


def verify(options: argparse.Namespace) -> int:
    if not os.path.isdir(options.directory):
        raise UsageError(f"{options.directory}: no such directory")
    config = _repository_at(options)
    tree = Tree(
        os.path.realpath(config.path),
        exclude=config.exclude,
        follow=config.follow,
        metadata=dict(config.metadata),
    )
    progress = ShownProgress()
    found = 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        readers = Readers()
        try:
            for difference in differences(
                tree,
                readers=readers,
                pool=pool,
                progress=lambda done, total: progress(tree.root, done, total),
                checksum=config.checksum if options.config else None,
                changelogs=config.changelogs,
                policy=Keys(config.packages).policy,
                newest_build=config.same_nevra == "newest_build",
            ):
                print(difference)
                found += 1
        finally:
            readers.close()
    print(f"{found} differences" if found else "the metadata is what the tree says", file=sys.stderr)
    return 1 if found else 0
