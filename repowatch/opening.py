"""Opens a repository that the configuration names."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Executor

from repowatch.config import RepositoryConfig
from repowatch.errors import RepowatchError, UsageError
from repowatch.repository.index import Index
from repowatch.repository.readers import Readers
from repowatch.system.clock import SystemClock

Progress = Callable[[str, int, int], None]  # repository, files read, files to read


def open_index(
    config: RepositoryConfig,
    *,
    readers: Readers,
    pool: Executor,
    progress: Progress,
    may_come_late: bool = False,
) -> Index:
    """A repository with its lock taken; one that may come late is opened when it is there.

    Raises UsageError when the directory is missing or locked, RepowatchError when it can not be written.
    """
    root = os.path.realpath(config.path)
    index = Index(
        root,
        name=config.name,
        readers=readers,
        pool=pool,
        clock=SystemClock(),
        exclude=config.exclude,
        follow=config.follow,
        profile=config.profile,
        keep_space=config.keep_space,
        settle=config.settle,
    )
    index.progress = lambda done, total: progress(config.name, done, total)
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
