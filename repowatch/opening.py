"""Opens a repository that the configuration names."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Executor

from repowatch.config import RepositoryConfig
from repowatch.errors import RepowatchError, UsageError
from repowatch.model.formats import FORMATS
from repowatch.model.recipe import Recipe
from repowatch.repository.index import Index
from repowatch.repository.readers import Readers
from repowatch.repository.signed import Keys
from repowatch.repository.signing import SignBy
from repowatch.system.clock import SystemClock
from repowatch.system.gpg import Keyrings

Progress = Callable[[str, int, int], None]  # repository, files read, files to read


def recipe_of(config: RepositoryConfig, keys: Keys) -> Recipe:
    """What its metadata is made by."""
    return Recipe(FORMATS[config.profile], config.checksum, config.changelogs, keys.policy)


def sign_by(config: RepositoryConfig, keyrings: Keyrings) -> SignBy | None:
    """Who signs its metadata."""
    if config.sign is None:
        return None
    return SignBy(keyrings.open(config.sign.keyring), config.sign.keys)


def open_index(
    config: RepositoryConfig,
    *,
    readers: Readers,
    pool: Executor,
    keyrings: Keyrings,
    progress: Progress,
    may_come_late: bool = False,
) -> Index:
    """A repository with its lock taken; one that may come late is opened when it is there.

    Raises UsageError when the directory is missing or locked, RepowatchError when it can not be written.
    """
    root, keys = os.path.realpath(config.path), Keys(config.packages)
    index = Index(
        root,
        name=config.name,
        readers=readers,
        pool=pool,
        clock=SystemClock(),
        exclude=config.exclude,
        follow=config.follow,
        metadata=dict(config.metadata),
        recipe=recipe_of(config, keys),
        keys=keys,
        may_replace=config.replace == "allow",
        newest_build=config.same_nevra == "newest_build",
        keep_space=config.keep_space,
        settle=config.settle,
        batch=config.batch,
        grace=config.grace,
        sign_by=sign_by(config, keyrings),
    )
    index.hooks.progress = lambda done, total: progress(config.name, done, total)
    if not os.path.isdir(root):
        if may_come_late:
            return index
        raise UsageError(f"{config.path}: no such directory; make it, or correct the path")
    try:
        index.open()
    except OSError as error:
        raise RepowatchError(
            f"{config.path}: the repository can not be written: {error.strerror or error}"
            + (f" ({error.filename})" if error.filename else "")
        ) from error
    return index
