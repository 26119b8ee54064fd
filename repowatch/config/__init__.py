"""The configuration: YAML or directories in; out comes a checked `Config`, or every mistake at once."""

from __future__ import annotations

import os

from repowatch.config.directories import addresses_of, for_directories
from repowatch.config.places import parse_address
from repowatch.config.settings import (
    DEFAULT_LISTEN,
    AccountConfig,
    Address,
    Config,
    LimitsConfig,
    PruneConfig,
    RepositoryConfig,
    TcpAddress,
    TlsConfig,
    UnixAddress,
)

__all__ = [
    "DEFAULT_LISTEN",
    "AccountConfig",
    "Address",
    "Config",
    "LimitsConfig",
    "PruneConfig",
    "RepositoryConfig",
    "TcpAddress",
    "TlsConfig",
    "UnixAddress",
    "addresses_of",
    "for_directories",
    "load",
    "parse_address",
]


def load(path: str | os.PathLike[str]) -> Config:
    """Return what the file at `path` says. Raises UsageError with all its mistakes."""
    from repowatch.config import file  # noqa: PLC0415 - a command that reads none need not load YAML

    return file.load(path)
