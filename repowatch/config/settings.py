"""What can be configured: plain values with their units, and the default of each."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from typing import Literal, TypeAlias


@dataclass(frozen=True, slots=True)
class TcpAddress:
    host: str  # a name or an address; IPv6 without brackets
    port: int  # 0: any free one
    tls: bool | None = None  # None: when a certificate is configured

    @property
    def is_loopback(self) -> bool:
        """Whether only this host can reach it: 127.0.0.0/8, ::1 and localhost (RFC 6761)."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host.lower() == "localhost"

    def __str__(self) -> str:
        """HOST:PORT, IPv6 in brackets, whatever is spoken there."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class UnixAddress:
    path: str  # absolute

    @property
    def is_loopback(self) -> bool:
        """A socket in the file system is reached from this host only."""
        return True

    def __str__(self) -> str:
        return f"unix:{self.path}"


Address: TypeAlias = TcpAddress | UnixAddress

DEFAULT_LISTEN = TcpAddress("127.0.0.1", 8080)


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsConfig:
    """Files of PEM, absolute."""

    certificate: str  # the server's own first, then who signed it
    key: str
    client_ca: str | None = None  # who signs the certificates by which clients say who they are


@dataclass(frozen=True, slots=True, kw_only=True)
class SignConfig:
    """Who signs repomd.xml."""

    keys: tuple[str, ...]  # fingerprints, in upper case without spaces
    keyring: str  # a GNUPGHOME, absolute


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountConfig:
    """What narrows an account. None narrows nothing."""

    repositories: tuple[str, ...] | None = None
    names: tuple[str, ...] | None = None  # fnmatch patterns
    delete: bool = True
    expires: float | None = None  # seconds since 1970: from then on it may do nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsConfig:
    connections: int = 4096
    uploads: int = 256  # at once
    head_time: float = 20.0  # seconds
    idle: float = 75.0  # seconds
    least_rate: int = 1024  # bytes a second
    stop: float = 30.0  # seconds
    reserve: int | None = None  # bytes; None: the smaller of 256 MiB and 2 % of the file system


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneConfig:
    """A rule of what is pruned, for the packages that no rule before it is for."""

    match: str = "*"  # fnmatch pattern
    older_than: float | None = None  # seconds; None: whatever its age
    keep: int | None = 0  # versions of each name.arch; None: all
    spares_newest: bool = True  # whether the newest version of a name.arch stays whatever its age


@dataclass(frozen=True, slots=True, kw_only=True)
class RepositoryConfig:
    name: str
    path: str  # absolute and normalised; it may not exist yet
    url: str  # the path clients ask for, not percent-encoded; begins and ends with "/"
    profile: Literal["compatible", "modern"] = "compatible"
    checksum: Literal["sha256", "sha512"] = "sha256"
    changelogs: int | None = 10  # entries of each package; None: all
    settle: float = 0.2  # seconds
    deadline: float = 2.0  # seconds
    batch: float = 86400.0  # seconds without a change, of uploads that wait for their commit
    exclude: tuple[str, ...] = ()  # fnmatch patterns
    metadata: tuple[tuple[str, str], ...] = ()  # of more files: type of the record, path in the tree
    follow: tuple[str, ...] = ()  # directories outside that symbolic links may lead to
    replace: Literal["allow", "deny"] = "allow"
    prune: tuple[PruneConfig, ...] = ()
    grace: float = 86400.0  # seconds for which a pruned package is still served under its name
    packages: Literal["any", "signed"] | tuple[str, ...] = "any"  # or files of keys, absolute
    same_nevra: Literal["keep", "newest_build"] = "keep"
    sign: SignConfig | None = None
    keep_space: int | None = None  # bytes; None: the larger of 2 GiB and 4 generations
    read: tuple[str, ...] = ("anyone",)  # "anyone", names of users, "@group"
    write: tuple[str, ...] | None = (
        None  # likewise; None: every named user, or anyone where nobody has a name
    )
    allow: tuple[str, ...] = ()  # networks (CIDR) that are let in; (): all
    deny: tuple[str, ...] = ()  # networks (CIDR) that are not, whatever `allow` says
    baseurl: str | None = None  # what clients are told in the place of the URL; may have $releasever...
    pattern: RepositoryConfig | None = None  # what found it; see `patterns`
    values: tuple[str, ...] = ()  # what each * of its path stood for


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    listen: tuple[Address, ...] = (DEFAULT_LISTEN,)
    control: str | None = (
        None  # a socket for operators, absolute; None: one in the runtime directory of systemd
    )
    public_url: str | None = None  # without a slash at its end
    tls: TlsConfig | None = None
    users: str | None = None  # an htpasswd file, absolute
    groups: dict[str, tuple[str, ...]] = field(default_factory=dict)  # names of users, by group
    accounts: dict[str, AccountConfig] = field(default_factory=dict)  # by name of the user
    auth_over_http: bool = False
    trusted_proxies: tuple[str, ...] = ()  # networks (CIDR), or "unix": who comes by a unix socket
    access_log: str | None = None  # a file, absolute, or "stderr"
    audit: str | None = None  # a file, absolute
    log_format: Literal["text", "json"] = "text"
    limits: LimitsConfig = LimitsConfig()
    max_upload: int | None = None  # bytes; None: no limit
    allow_anonymous_upload: bool = False
    repositories: tuple[RepositoryConfig, ...]
    patterns: tuple[RepositoryConfig, ...] = ()  # whose paths have *; each repository they find is like them

    def speaks_tls(self, address: Address) -> bool:
        """Whether clients have to speak TLS there; on a unix socket they never do."""
        if isinstance(address, UnixAddress):
            return False
        return self.tls is not None if address.tls is None else address.tls

    @property
    def knows_names(self) -> bool:
        """Whether there is any way for a client to say who it is."""
        return self.users is not None or (self.tls is not None and self.tls.client_ca is not None)
