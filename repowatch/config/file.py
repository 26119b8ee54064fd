"""The configuration file: which keys there are, what stands behind each, and what must agree."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
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
    line_of,
    nearest,
    scalar,
    several,
)
from repowatch.config.overlaps import conflicts, real, refuse_inside
from repowatch.config.patterns import base_of, check, is_pattern, pattern_of
from repowatch.config.places import directory, parse_address, shown
from repowatch.config.settings import (
    AccountConfig,
    Address,
    Config,
    LimitsConfig,
    PruneConfig,
    RepositoryConfig,
    SignConfig,
    TcpAddress,
    TlsConfig,
)
from repowatch.errors import UsageError

_NOT_SIGNED = SignConfig(keys=(), keyring="")
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
    return Config(**_sorted(_signed(values)))


def _sorted(values: Values) -> Values:
    """The values, with the patterns apart from the repositories."""
    found: dict[bool, list[RepositoryConfig]] = {False: [], True: []}
    for each in values["repositories"]:
        found[is_pattern(each)].append(each)
    return values | {"repositories": tuple(found[False]), "patterns": tuple(found[True])}


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
    address: Address = scalar(parse_address)(node, report)
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


def _sign(node: yaml.Node, report: Report) -> SignConfig | None:
    report.named["sign"].append("")
    values, lines = report.section(node, SIGN_KEYS)
    missing = [f"`{key}`" for key in ("keys", "keyring") if key not in lines]
    if missing:
        raise ValueError(
            f"no {' and no '.join(missing)}; name the fingerprints, and the GNUPGHOME they are in"
        )
    return SignConfig(**values) if values.keys() == lines.keys() else None


def _repository_sign(node: yaml.Node, report: Report) -> SignConfig | None:
    """What a repository says for itself; _NOT_SIGNED for `no`, and "" for the keyring of all."""
    if isinstance(node, yaml.ScalarNode):
        if value.boolean(node.value):
            report.at_end(node, partial(_is_signed, report))
            return None
        return _NOT_SIGNED
    values, lines = report.section(node, SIGN_KEYS)
    if "keys" not in lines:
        raise ValueError("no `keys`; name the fingerprints, or write `sign: no`")
    if "keyring" not in lines:
        report.at_end(node, partial(_is_signed, report))
    given: Values = {"keyring": ""} | values
    return SignConfig(**given) if values.keys() == lines.keys() else None


def _is_signed(report: Report) -> None:
    if not report.named["sign"]:
        raise ValueError("there is no `sign` for all repositories; give this one `keys` and `keyring`")


def _fingerprints(node: yaml.Node, report: Report) -> tuple[str, ...]:
    found: tuple[str, ...] = several("keys", scalar(value.fingerprint), example="0123...CDEF")(node, report)
    if not found:
        raise ValueError("names no key; write its fingerprint, or remove `sign`")
    known = [each for each in found if each]
    if twice := [each for each in dict.fromkeys(known) if known.count(each) > 1]:
        raise ValueError(f"{', '.join(map(shown, twice))} is there twice; remove one of the two")
    return found


def _signed(values: Values) -> Values:
    """The values, where each repository knows who signs it."""
    common: SignConfig | None = values.pop("sign", None)

    def resolved(own: SignConfig | None) -> SignConfig | None:
        if own is None or own is _NOT_SIGNED:
            return common if own is None else None
        return own if own.keyring or common is None else replace(own, keyring=common.keyring)

    repositories = tuple(replace(each, sign=resolved(each.sign)) for each in values["repositories"])
    return values | {"repositories": repositories}


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


def _metadata(node: yaml.Node, report: Report) -> tuple[tuple[str, str], ...]:
    found = _named("type", value.metadata_type, scalar(value.path_in_tree), node, report)
    paths = [path for _, path in found if path]
    if twice := [path for path in dict.fromkeys(paths) if paths.count(path) > 1]:
        raise ValueError(f"{', '.join(map(shown, twice))} has two types; remove one of the two")
    return tuple(found)


def _subject(node: yaml.Node, report: Report) -> str:
    text: str = scalar(value.subject)(node, report)
    if text.startswith("@"):
        report.at_end(node, partial(_existing, "group", text, report))
    return text


def _repository_of_account(node: yaml.Node, report: Report) -> str:
    text: str = scalar(str)(node, report)
    report.at_end(node, partial(_existing_repository, text, report))
    return text


def _existing_repository(name: str, report: Report) -> None:
    """Raise ValueError where there is none, and no pattern would call one so."""
    if pattern_of(report.patterns, name) is None:
        _existing("repository", name, report)


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
    report.patterns += filter(is_pattern, found)
    report.named["tree"] += [
        real(base_of(each.path) if is_pattern(each) else each.path) for each in found if each.path
    ]
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
        known: Values = {"path": "", "url": ""}
        check(RepositoryConfig(name=name, **(known | values)))
        if "url" not in given:
            values["url"] = value.url_or_template(f"/{name}/")
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


def _prune(node: yaml.Node, report: Report) -> PruneConfig | None:
    if not isinstance(node, yaml.MappingNode):
        raise ValueError('a rule has keys; write it like {match: "*SNAPSHOT*.rpm", older_than: 1d}')
    values, lines = report.section(node, PRUNE_KEYS)
    if values.keys() != lines.keys():
        return None
    keep = values.get("keep", 0)
    if not {"older_than", "keep"} & lines.keys():
        raise ValueError("says when nothing goes; add `older_than: 30d`, `keep: 3`, or `keep: all`")
    if "older_than" in values and keep is None:
        raise ValueError("keeps all, so `older_than` means nothing; remove one of the two")
    if "older_than" not in values and keep == 0:
        raise ValueError("keeps nothing, whatever its age; write how many versions stay, or `older_than`")
    # Who writes 0 means it: also the newest version may go.
    return PruneConfig(**values, spares_newest="keep" not in lines or keep != 0)


def _prune_rules(node: yaml.Node, report: Report) -> tuple[PruneConfig, ...]:
    nodes = node.value if isinstance(node, yaml.SequenceNode) else [node]
    rules: list[PruneConfig] = []
    for each in nodes:
        rule: PruneConfig | None = report.read("prune", each, _prune)
        if rules and rules[-1].match in ("*", "*.rpm"):
            report.add(line_of(each), f"`prune`: a rule before it is for {rules[-1].match}; nothing is left")
        rules += [rule] if rule else []
    return tuple(rules)


def _packages(node: yaml.Node, report: Report) -> Any:
    if isinstance(node, yaml.ScalarNode):
        return scalar(value.one_of({"any": "any", "signed": "signed"}))(node, report)
    values, lines = report.section(node, PACKAGES_KEYS)
    if "signed_by" in values and not values["signed_by"]:
        report.add(lines["signed_by"], "`signed_by` names no key; name a file, or write `packages: signed`")
    elif not node.value:
        raise ValueError("says nothing; write `any`, `signed`, or {signed_by: [FILE]}")
    return values.get("signed_by")


_ADDRESSES = several("listen", _address, example="127.0.0.1:8080")
SERVER_KEYS: Mapping[str, Reader] = {
    "listen": _listen,
    "control": _outside(value.file, why="it is no package"),
    "public_url": scalar(value.public_url),
    "tls": _tls,
    "sign": _sign,
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
SIGN_KEYS: Mapping[str, Reader] = {
    "keys": _fingerprints,
    "keyring": _outside(value.existing_directory, why="clients could reach the secret keys"),
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
PRUNE_KEYS: Mapping[str, Reader] = {
    "match": scalar(value.pattern),
    "older_than": scalar(value.age),
    "keep": scalar(value.count_or_all),
}
PACKAGES_KEYS: Mapping[str, Reader] = {
    "signed_by": several("signed_by", scalar(value.key_file), example="/etc/pki/rpm-gpg/RPM-GPG-KEY-example"),
}
REPOSITORY_KEYS: Mapping[str, Reader] = {
    "path": scalar(value.directory_or_pattern),
    "url": scalar(value.url_or_template),
    "profile": scalar(value.one_of({"compatible": "compatible", "modern": "modern"})),
    "checksum": scalar(value.one_of({"sha256": "sha256", "sha512": "sha512"})),
    "changelogs": scalar(value.count_or_all),
    "settle": scalar(value.duration),
    "deadline": scalar(value.duration),
    "batch": scalar(value.duration),
    "exclude": several("exclude", scalar(str), example="*.drpm"),
    "metadata": _metadata,
    "follow": several("follow", scalar(directory), example="/srv/pool"),
    "replace": scalar(value.one_of({"allow": "allow", "deny": "deny"})),
    "prune": _prune_rules,
    "grace": scalar(value.duration_or_nothing),
    "packages": _packages,
    "same_nevra": scalar(value.one_of({"keep": "keep", "newest_build": "newest_build"})),
    "sign": _repository_sign,
    "keep_space": scalar(value.size),
    "read": several("read", _subject, example="anyone"),
    "write": several("write", _subject, example="@admins"),
    "allow": several("allow", scalar(value.network), example="10.0.0.0/8"),
    "deny": several("deny", scalar(value.network), example="10.0.0.0/8"),
    "baseurl": scalar(value.baseurl),
}
