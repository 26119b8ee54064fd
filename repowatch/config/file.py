"""The configuration file: which keys there are, what stands behind each, and what must agree."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import yaml

from repowatch.config import values as value
from repowatch.config.document import (
    Lines,
    Mistake,
    Reader,
    Report,
    Values,
    compose,
    nearest,
    scalar,
    several,
)
from repowatch.config.overlaps import conflicts, real, refuse_inside
from repowatch.config.settings import (
    AccountConfig,
    Address,
    Config,
    LimitsConfig,
    RepositoryConfig,
    TcpAddress,
    TlsConfig,
)
from repowatch.config.values import shown
from repowatch.errors import UsageError

_NO_REPOSITORIES = "no repositories; name at least one below `repositories:`, with its `path:`"


class ConfigurationError(UsageError):
    """A configuration that can not be used. Its text has one line, `FILE:LINE: ...`, for each mistake."""

    def __init__(self, source: str, mistakes: Sequence[Mistake]) -> None:
        self.mistakes = tuple(sorted(mistakes, key=lambda mistake: mistake.line))
        super().__init__(
            "\n".join(
                f"{source}:{mistake.line}: {mistake.text}" if mistake.line else f"{source}: {mistake.text}"
                for mistake in self.mistakes
            )
        )


def load(path: str | os.PathLike[str]) -> Config:
    """Return what the file at `path` says. Raises ConfigurationError with all its mistakes."""
    source = os.fspath(path)
    try:
        with open(path, "rb") as file:
            content = file.read()
    except OSError as error:
        text = f"can not be read: {error.strerror}; check the path and its permissions"
        raise ConfigurationError(source, [Mistake(0, text)]) from None
    try:
        return parse(content.decode("utf-8-sig"), source=source)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigurationError(source, [Mistake(line, "this is not UTF-8; save it as UTF-8")]) from None


def parse(text: str, *, source: str) -> Config:
    """Return what `text` says; `source` is its name in the report. Raises ConfigurationError.

    The disk is only asked where the paths lead, and whether the files of TLS can be read.
    """
    report = Report()
    root = compose(text)
    if isinstance(root, Mistake):
        raise ConfigurationError(source, [root])
    values = report.read("", root, _server)
    report.end()
    if report.mistakes:
        raise ConfigurationError(source, report.mistakes)
    return Config(**values)


def _server(node: yaml.Node, report: Report) -> Values:
    values, lines = report.section(node, SERVER_KEYS)
    if "repositories" not in lines:
        report.add(1, _NO_REPOSITORIES)
    return values


def _listen(node: yaml.Node, report: Report) -> tuple[Address, ...]:
    addresses: tuple[Address, ...] = _ADDRESSES(node, report)
    if not addresses:
        raise ValueError("names no address; write HOST:PORT, or remove the line")
    return addresses


def _address(node: yaml.Node, report: Report) -> Address:
    address: Address = scalar(value.parse_address)(node, report)
    if str(address) in report.named["address"]:
        raise ValueError(f"{shown(str(address))} is there already; remove one of the two")
    if not isinstance(address, TcpAddress) or address.port != 0:
        report.named["address"].append(str(address))
    report.at_end(node, partial(_has_certificate, address, report))
    return address


def _has_certificate(address: Address, report: Report) -> None:
    if isinstance(address, TcpAddress) and address.tls and not report.named["tls"]:
        raise ValueError(f"`https://{address}` needs a certificate; configure `tls:`, or write http://")


def _tls(node: yaml.Node, report: Report) -> TlsConfig | None:
    report.named["tls"].append("")
    values, lines = report.section(node, TLS_KEYS)
    missing = [f"`{key}`" for key in ("certificate", "key") if key not in lines]
    if missing:
        raise ValueError(f"no {' and no '.join(missing)}; name the file, in PEM")
    return TlsConfig(**values) if values.keys() == lines.keys() else None


def _limits(node: yaml.Node, report: Report) -> LimitsConfig:
    values, _ = report.section(node, LIMITS_KEYS)
    return LimitsConfig(**values)


def _groups(node: yaml.Node, report: Report) -> dict[str, tuple[str, ...]]:
    members = several("groups", scalar(value.user_name), example="anna")
    found = _named("group", value.group_name, members, node, report)
    report.named["group"] += [f"@{name}" for name, _ in found]
    return dict(found)


def _accounts(node: yaml.Node, report: Report) -> dict[str, AccountConfig]:
    return dict(_named("account", value.user_name, _account, node, report))


def _account(node: yaml.Node, report: Report) -> AccountConfig:
    values, _ = report.section(node, ACCOUNT_KEYS)
    return AccountConfig(**values)


def _named(
    kind: str, parse_name: Callable[[str], str], reader: Reader, node: yaml.Node, report: Report
) -> list[tuple[str, Any]]:
    """Names, and what `reader` makes of what stands behind each."""
    found = []
    for name, line, body in report.entries(node):
        try:
            parse_name(name)
        except ValueError as error:
            report.add(line, f"{kind} {shown(name)}: {error}")
        found.append((name, report.read(name, body, reader)))
    return found


def _existing(kind: str, word: str, report: Report) -> None:
    if word not in report.named[kind]:
        hint = nearest(word, report.named[kind])
        raise ValueError(f"there is no {kind} {shown(word)}; {hint}")


def _subject(node: yaml.Node, report: Report) -> str:
    text: str = scalar(value.subject)(node, report)
    if text.startswith("@"):
        report.at_end(node, partial(_existing, "group", text, report))
    return text


def _repository_of_account(node: yaml.Node, report: Report) -> str:
    text: str = scalar(str)(node, report)
    report.at_end(node, partial(_existing, "repository", text, report))
    return text


def _outside(parse_file: Callable[[str], str], *, why: str) -> Reader:
    """A file that must not lie where clients find it."""

    def read(node: yaml.Node, report: Report) -> str:
        path: str = scalar(parse_file)(node, report)
        if path != "stderr":
            report.at_end(node, lambda: refuse_inside(path, report.named["tree"], why=why))
        return path

    return read


def _repositories(node: yaml.Node, report: Report) -> tuple[RepositoryConfig, ...]:
    if not node.value:
        raise ValueError(_NO_REPOSITORIES)
    lines: dict[str, Lines] = {}
    found: list[RepositoryConfig] = []
    for name, line, body in report.entries(node):
        report.named["repository"].append(name)
        lines[name] = {"name": line, "url": line}
        repository = report.read(name, body, partial(_repository, name, lines[name]))
        found += [repository] if repository else []
    report.named["tree"] += [real(each.path) for each in found if each.path]
    for key, (first, second), relation in conflicts(found):
        what = f"`{key}` of {shown(second.name)} {relation} that of {shown(first.name)}"
        hint = f"(line {lines[first.name][key]}); give each repository its own"
        report.add(lines[second.name][key], f"{what} {hint}")
    return tuple(found)


def _repository(name: str, lines: Lines, node: yaml.Node, report: Report) -> RepositoryConfig:
    """Return the repository, "" for a path or url that is wrong; `lines` learns where its keys stand."""
    values, given = report.section(node, REPOSITORY_KEYS)
    lines |= given
    try:
        value.repository_name(name)
        if "url" not in given:
            values["url"] = value.url(f"/{name}/")
    except ValueError as error:
        report.add(lines["name"], f"repository {shown(name)}: {error}")
    if "path" not in given:
        report.add(lines["name"], f"repository {shown(name)}: no `path`; name the directory of its packages")
    wrong: Values = {"path": "", "url": ""}
    repository = RepositoryConfig(name=name, **(wrong | values))
    times = {"settle", "deadline"} & given.keys()
    if times <= values.keys() and repository.deadline < repository.settle:
        what = f"`deadline` ({repository.deadline:g}s) is shorter than `settle` ({repository.settle:g}s)"
        report.add(max(lines[key] for key in times), f"{what}; make it at least as long")
    return repository


_ADDRESSES = several("listen", _address, example="127.0.0.1:8080")
SERVER_KEYS: Mapping[str, Reader] = {
    "listen": _listen,
    "control": _outside(value.file, why="it is no package"),
    "public_url": scalar(value.public_url),
    "tls": _tls,
    "users": _outside(value.file, why="anyone could fetch the passwords"),
    "groups": _groups,
    "accounts": _accounts,
    "auth_over_http": scalar(value.boolean),
    "trusted_proxies": several("trusted_proxies", scalar(value.proxy), example="127.0.0.1"),
    "access_log": _outside(value.file_or_stderr, why="it would be served"),
    "audit": _outside(value.file, why="who may write there could change it"),
    "log_format": scalar(value.one_of({"text": "text", "json": "json"})),
    "limits": _limits,
    "max_upload": scalar(value.size),
    "allow_anonymous_upload": scalar(value.boolean),
    "repositories": _repositories,
}
TLS_KEYS: Mapping[str, Reader] = {
    "certificate": scalar(value.readable_file),
    "key": _outside(value.readable_file, why="anyone could fetch it"),
    "client_ca": scalar(value.readable_file),
}
ACCOUNT_KEYS: Mapping[str, Reader] = {
    "repositories": several("repositories", _repository_of_account, example="rpm"),
    "names": several("names", scalar(str), example="foo-*.rpm"),
    "delete": scalar(value.boolean),
    "expires": scalar(value.moment),
}
LIMITS_KEYS: Mapping[str, Reader] = {
    "connections": scalar(value.count),
    "uploads": scalar(value.count),
    "head_time": scalar(value.duration),
    "idle": scalar(value.duration),
    "least_rate": scalar(value.size),
    "stop": scalar(value.duration),
    "reserve": scalar(value.size_or_nothing),
}
REPOSITORY_KEYS: Mapping[str, Reader] = {
    "path": scalar(value.directory),
    "url": scalar(value.url),
    "profile": scalar(value.one_of({"compatible": "compatible", "modern": "modern"})),
    "settle": scalar(value.duration),
    "deadline": scalar(value.duration),
    "exclude": several("exclude", scalar(str), example="*.drpm"),
    "follow": several("follow", scalar(value.directory), example="/srv/pool"),
    "replace": scalar(value.one_of({"allow": "allow", "deny": "deny"})),
    "keep_space": scalar(value.size),
    "read": several("read", _subject, example="anyone"),
    "write": several("write", _subject, example="@admins"),
    "allow": several("allow", scalar(value.network), example="10.0.0.0/8"),
    "deny": several("deny", scalar(value.network), example="10.0.0.0/8"),
}
