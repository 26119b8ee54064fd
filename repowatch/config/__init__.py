"""The configuration: YAML or directories in; out comes a checked `Config`, or every mistake at once."""

from repowatch.config.directories import addresses_of, for_directories
from repowatch.config.document import Mistake
from repowatch.config.doors import refuse_open_doors
from repowatch.config.file import ConfigurationError, load, parse
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
from repowatch.config.values import parse_address

__all__ = [
    "DEFAULT_LISTEN",
    "AccountConfig",
    "Address",
    "Config",
    "ConfigurationError",
    "LimitsConfig",
    "Mistake",
    "PruneConfig",
    "RepositoryConfig",
    "TcpAddress",
    "TlsConfig",
    "UnixAddress",
    "addresses_of",
    "for_directories",
    "load",
    "parse",
    "parse_address",
    "refuse_open_doors",
]
