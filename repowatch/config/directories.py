"""A configuration without a file: directories, and what the command line says."""

from __future__ import annotations

import os
from collections.abc import Sequence

from repowatch.config.overlaps import conflicts
from repowatch.config.places import directory, parse_address, printable, repository_name, shown, url
from repowatch.config.settings import DEFAULT_LISTEN, Address, Config, RepositoryConfig
from repowatch.errors import UsageError


def for_directories(
    directories: Sequence[str], *, listen: Sequence[str] = (), allow_anonymous_upload: bool = False
) -> Config:
    """Return a configuration where each directory is a repository at `/<its name>/`.

    The path is the resolved one, and gives the name. Raises UsageError, one line for each mistake.
    """
    mistakes = [] if directories else ["no directory to serve; name one"]
    addresses: tuple[Address, ...] = ()
    try:
        addresses = addresses_of(listen)
    except UsageError as error:
        mistakes.append(str(error))
    found: list[RepositoryConfig] = []
    for each in directories:
        try:
            found.append(_for_directory(each))
        except ValueError as error:
            mistakes.append(f"{shown(each)}: {error}")
    for key, (first, second), relation in conflicts(found):
        what = f"its {key} {shown(getattr(second, key))} {relation} that of {shown(first.path)}"
        hint = "serve one of the two, or give each its own in a configuration file"
        mistakes.append(f"{shown(second.path)}: {what}; {hint}")
    if mistakes:
        raise UsageError("\n".join(mistakes))
    return Config(
        listen=addresses or (DEFAULT_LISTEN,),
        allow_anonymous_upload=allow_anonymous_upload,
        repositories=tuple(found),
    )


def addresses_of(listen: Sequence[str]) -> tuple[Address, ...]:
    """Return the addresses of the command line. Raises UsageError, one line for each mistake."""
    found, mistakes = [], []
    for text in listen:
        try:
            found.append(parse_address(text))
        except ValueError as error:
            mistakes.append(f"--listen: {error}")
    if mistakes:
        raise UsageError("\n".join(mistakes))
    return tuple(found)


def _for_directory(text: str) -> RepositoryConfig:
    if not text:
        raise ValueError("is empty; name a directory")
    path = directory(printable(os.path.realpath(text)))
    name = repository_name(os.path.basename(path))
    return RepositoryConfig(name=name, path=path, url=url(f"/{name}/"))
