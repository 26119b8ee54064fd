"""The configuration: YAML or directories in; out comes a checked `Config`, or every mistake at once."""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import Any, Literal, TypeAlias

import yaml

from repowatch.errors import UsageError


@dataclass(frozen=True, slots=True)
class Mistake:
    line: int  # counted from 1; 0 where the trouble is the file itself
    text: str


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


@dataclass(frozen=True, slots=True)
class TcpAddress:
    host: str  # a name or an address; IPv6 without brackets
    port: int  # 0: any free one

    @property
    def is_loopback(self) -> bool:
        """Whether only this host can reach it: 127.0.0.0/8, ::1 and localhost (RFC 6761)."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host.lower() == "localhost"

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


DEFAULT_LISTEN = TcpAddress("127.0.0.1", 8080)


@dataclass(frozen=True, slots=True, kw_only=True)
class RepositoryConfig:
    name: str
    path: str  # absolute and normalised; it may not exist yet
    url: str  # the path clients ask for, not percent-encoded; begins and ends with "/"
    profile: Literal["compatible", "modern"] = "compatible"
    settle: float = 0.2  # seconds
    deadline: float = 2.0  # seconds
    exclude: tuple[str, ...] = ()  # fnmatch patterns
    follow: tuple[str, ...] = ()  # directories outside that symbolic links may lead to
    replace: Literal["allow", "deny"] = "allow"
    keep_space: int | None = None  # bytes; None: the larger of 2 GiB and 4 generations


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    listen: TcpAddress = DEFAULT_LISTEN
    public_url: str | None = None  # without a slash at its end
    max_upload: int | None = None  # bytes; None: no limit
    allow_anonymous_upload: bool = False
    repositories: tuple[RepositoryConfig, ...]


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

    The disk is only asked where the paths of the repositories lead, to tell whether they overlap.
    """
    report = _Report()
    root = _compose(text)
    if isinstance(root, Mistake):
        raise ConfigurationError(source, [root])
    values = report.read("", root, _server)
    if report.mistakes:
        raise ConfigurationError(source, report.mistakes)
    return Config(**values)


def for_directories(
    directories: Sequence[str], *, listen: str | None = None, allow_anonymous_upload: bool = False
) -> Config:
    """Return a configuration where each directory is a repository at `/<its name>/`.

    The path is the resolved one, and gives the name. Raises UsageError, one line for each mistake.
    """
    mistakes = [] if directories else ["no directory to serve; name one"]
    address = DEFAULT_LISTEN
    try:
        address = address if listen is None else parse_address(listen)
    except ValueError as error:
        mistakes.append(f"--listen: {error}")
    found: list[RepositoryConfig] = []
    for directory in directories:
        try:
            found.append(_for_directory(directory))
        except ValueError as error:
            mistakes.append(f"{_shown(directory)}: {error}")
    for key, (first, second), relation in _conflicts(found):
        what = f"its {key} {_shown(getattr(second, key))} {relation} that of {_shown(first.path)}"
        hint = "serve one of the two, or give each its own in a configuration file"
        mistakes.append(f"{_shown(second.path)}: {what}; {hint}")
    if mistakes:
        raise UsageError("\n".join(mistakes))
    return Config(listen=address, allow_anonymous_upload=allow_anonymous_upload, repositories=tuple(found))


def _for_directory(directory: str) -> RepositoryConfig:
    if not directory:
        raise ValueError("is empty; name a directory")
    path = _path(_printable(os.path.realpath(directory)))
    name = _name(os.path.basename(path))
    return RepositoryConfig(name=name, path=path, url=_url(f"/{name}/"))


def refuse_open_doors(config: Config) -> None:
    """Raise UsageError where strangers could upload and nobody has said that they may.

    Not part of `load`, because the command line may still change the address or give the permission.
    """
    if not (config.listen.is_loopback or config.allow_anonymous_upload):
        raise UsageError(
            f"listen: anyone who can reach {config.listen} could upload, for this version knows no users; "
            "listen on 127.0.0.1, or say `allow_anonymous_upload: true` (--allow-anonymous-upload)"
        )


_Pair: TypeAlias = tuple[RepositoryConfig, RepositoryConfig]

# Values: text in, the value out, or a ValueError that says what is wrong and what to do.

_PCHAR = r"A-Za-z0-9\-._~!$&'()*+,;=:@"  # RFC 3986, section 3.3, without percent-encoding
_RESERVED = frozenset({"healthz", "readyz", "metrics", "-"})
_SECONDS = {"": 1, "ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_BYTES = {"": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
_BYTES |= {"k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
_BYTES |= {"kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}
_BOOLEANS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


def parse_address(text: str) -> TcpAddress:
    """Return the address that `HOST:PORT` means, IPv6 in brackets. Raises ValueError in plain words."""
    if text.startswith("unix:"):
        raise ValueError("unix sockets are not implemented in this version; write HOST:PORT")
    match = re.fullmatch(
        r"(?:\[([0-9A-Fa-f:.]+(?:%[\w.-]+)?)\]|([A-Za-z0-9._-]+)):([0-9]{1,5})", text, re.ASCII
    )
    if match is None or int(match[3]) > 65535:
        raise ValueError(f"{_shown(text)} is not HOST:PORT; write it like 127.0.0.1:8080 or [::1]:8080")
    host = match[1] or match[2]
    if match[1] or not re.search("[A-Za-z]", host):
        try:
            ipaddress.ip_address(host)
        except ValueError:
            raise ValueError(f"{_shown(host)} is not an IP address; correct it, or write a name") from None
    return TcpAddress(host, int(match[3]))


def _public_url(text: str) -> str:
    match = re.fullmatch(
        rf"https?://(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{{1,5}}))?(?:/[{_PCHAR}%/]*)?", text
    )
    if match is None or int(match[1] or 0) > 65535:
        raise ValueError(f"{_shown(text)} is not a plain http(s) URL; write it like https://rpm.example.org")
    return text.rstrip("/")


def _quantity(text: str, units: Mapping[str, float], *, what: str, example: str) -> float:
    match = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,9})?) ?([A-Za-z]*)", text)
    if match is None or match[2].lower() not in units:
        raise ValueError(f"{_shown(text)} is not a {what}; write it like {example}")
    return float(match[1]) * units[match[2].lower()]


def _duration(text: str) -> float:
    seconds = _quantity(text, _SECONDS, what="duration", example="0.2s, 500ms, 2s, 1m, 1h or 2d")
    if not 0 < seconds <= 365 * 86400:  # more than Python can wait for would end the thread that waits
        raise ValueError(f"{_shown(text)} is out of range; write more than 0s and no more than 365d")
    return seconds


def _size(text: str) -> int:
    size = int(_quantity(text, _BYTES, what="size", example="2GiB, 500MB or 1048576"))
    if size == 0:
        raise ValueError("must be more than 0; write more, or remove the line")
    return size


def _one_of(values: Mapping[str, Any]) -> Callable[[str], Any]:
    def parse_one(text: str) -> Any:
        if text.lower() not in values:
            raise ValueError(f"{_shown(text)} is not one of {', '.join(values)}; write one of them")
        return values[text.lower()]

    return parse_one


def _path(text: str) -> str:
    if not os.path.isabs(text):
        raise ValueError(f"{_shown(text)} is not absolute; begin it with /")
    if "*" in text:
        raise ValueError("patterns with * are not implemented in this version; name one directory")
    if os.path.exists(text) and not os.path.isdir(text):
        raise ValueError(f"{_shown(text)} is not a directory; name the directory of the packages")
    return "/" + os.path.normpath(text).lstrip("/")


def _name(text: str) -> str:
    _no_template(text)
    if not text or text.startswith(".") or "/" in text:
        raise ValueError(f"{_shown(text)} is empty, has a slash or begins with a dot; choose another name")
    return _not_reserved(text)


def _url(text: str) -> str:
    _no_template(text)
    if not re.fullmatch(rf"/(?:[{_PCHAR}]+/)+", text):
        rule = "with letters, digits and - . _ ~ ! $ & ' ( ) * + , ; = : in each part"
        raise ValueError(f"{_shown(text)} is not a path below /; write it like /rpm/, {rule}")
    if "/." in text:
        raise ValueError(f"{_shown(text)} has a part that begins with a dot; such names are never served")
    _not_reserved(text.split("/")[1])
    return text


def _no_template(text: str) -> None:
    if "{" in text or "}" in text:
        raise ValueError("templates with { } are not implemented in this version; write it out")


def _not_reserved(segment: str) -> str:
    if segment in _RESERVED or "@" in segment or segment.endswith(".repo"):
        rule = f"{', '.join(sorted(_RESERVED))}, anything with @ and anything that ends in .repo"
        raise ValueError(f"{_shown(segment)} is reserved, as are {rule}; choose another")
    return segment


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError(f"{_shown(text)} has a character that can not be shown; leave it out")
    return text


def _shown(text: str) -> str:
    shown = "".join(char if char.isprintable() else repr(char)[1:-1] for char in text[:80])
    return f"`{shown}`" if len(text) <= 80 else f"`{shown}...`"


def _conflicts(repositories: Sequence[RepositoryConfig]) -> Iterator[tuple[str, _Pair, str]]:
    """Yield the key, the two repositories, and how the second lies to the first by it. "" lies nowhere."""
    for key, place in (("path", _real), ("url", str)):
        placed = [(place(getattr(each, key)), each) for each in repositories if getattr(each, key)]
        for (outer, first), (inner, second) in combinations(placed, 2):
            if inner == outer:
                yield key, (first, second), "is the same as"
            elif inner.startswith(outer):
                yield key, (first, second), "lies inside"
            elif outer.startswith(inner):
                yield key, (first, second), "contains"


def _real(path: str) -> str:
    """Return where the path leads, with a slash at its end."""
    return os.path.join(os.path.realpath(path), "")


# YAML: every value is taken as the text that stands there, so that `no` stays "no" and 010 stays "010".

_Reader: TypeAlias = Callable[[yaml.Node, "_Report"], Any]
_Values: TypeAlias = dict[str, Any]
_Lines: TypeAlias = dict[str, int]

_KINDS = ("map", "seq", "str", "int", "float", "bool", "null", "timestamp", "merge", "value")
_PLAIN_TAGS = frozenset(f"tag:yaml.org,2002:{kind}" for kind in _KINDS)
_NO_REPOSITORIES = "no repositories; name at least one below `repositories:`, with its `path:`"


class _Composer(yaml.SafeLoader):
    """Keeps an alias as a node of its own (tag `*name`), not what it stands for: nothing can multiply."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if not self.check_event(yaml.AliasEvent):
            return super().compose_node(parent, index)
        event = self.get_event()  # type: ignore[no-untyped-call]
        return yaml.ScalarNode(f"*{event.anchor}", "", event.start_mark, event.end_mark)


def _compose(text: str) -> yaml.Node | Mistake:
    """Return the root node, an empty mapping for an empty document, or why it is not YAML."""
    try:
        composer = _Composer(text)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        return Mistake(line, f"the character U+{error.character:04X} is not allowed; remove it")
    try:
        root = composer.get_single_node()
    except yaml.MarkedYAMLError as error:
        context = error.context or "while reading it"
        if error.context_mark:  # where an open bracket or quote stands, while the problem is at the end
            context += f" from line {error.context_mark.line + 1} on"
        what = f"{context}: {error.problem}"
        hint = "indent with spaces, not tabs" if r"'\t'" in what else "correct this line or the one before it"
        line = error.problem_mark.line if error.problem_mark else composer.line
        return Mistake(line + 1, f"this is not YAML ({what}); {hint}")
    except (ValueError, OverflowError, RecursionError) as error:
        # Deep nesting, and numbers in escapes and in %YAML, which PyYAML does not check.
        return Mistake(composer.line + 1, f"this can not be read as YAML ({error}); correct this line")
    if root is None or root.tag == "tag:yaml.org,2002:null":
        return yaml.MappingNode("tag:yaml.org,2002:map", [])
    return root


class _Report:
    """Reads nodes, and gathers every mistake in them."""

    def __init__(self) -> None:
        self.mistakes: list[Mistake] = []

    def add(self, line: int, text: str) -> None:
        self.mistakes.append(Mistake(line, text))

    def read(self, key: str, node: yaml.Node, reader: _Reader) -> Any:
        """Return what `reader` makes of the node, or None after noting what is wrong with it."""
        try:
            if node.tag not in _PLAIN_TAGS:
                raise ValueError(f"the alias or tag {_shown(node.tag)} is not read here; write the value out")
            return reader(node, self)
        except ValueError as error:
            self.add(_line(node), f"{_shown(key)}: {error}" if key else str(error))
            return None

    def entries(self, node: yaml.Node) -> Iterator[tuple[str, int, yaml.Node]]:
        """Yield key, line and value of a mapping, each key once. ValueError: no mapping."""
        if not isinstance(node, yaml.MappingNode):
            raise ValueError("here must be lines of `key: value`; see the example")
        lines: _Lines = {}
        for key_node, value in node.value:
            line = _line(key_node)
            key = self.read("", key_node, _KEY)
            if key in lines:
                self.add(line, f"{_shown(key)} stands on line {lines[key]} already; remove one of the two")
            elif key is not None:
                lines[key] = line
                yield key, line, value

    def section(self, node: yaml.Node, readers: Mapping[str, _Reader]) -> tuple[_Values, _Lines]:
        """Return what was read without a mistake, and where each known key stands. ValueError: no mapping."""
        values: _Values = {}
        lines: _Lines = {}
        for key, line, value in self.entries(node):
            if key in PLANNED:
                self.add(line, f"`{key}` is not implemented in this version; remove it")
            elif key not in readers:
                self.add(line, f"unknown key {_shown(key)}; {_nearest(key, readers)}")
            else:
                lines[key] = line
                before = len(self.mistakes)
                result = self.read(key, value, readers[key])
                if len(self.mistakes) == before:
                    values[key] = result
        return values, lines


def _line(node: yaml.Node) -> int:
    return node.start_mark.line + 1


def _nearest(key: str, known: Iterable[str]) -> str:
    if near := difflib.get_close_matches(key, known, n=1):
        return f"did you mean `{near[0]}`?"
    return f"known here are {', '.join(known)}"


def _scalar(parse_text: Callable[[str], Any]) -> _Reader:
    def read(node: yaml.Node, _: _Report) -> Any:
        if not isinstance(node, yaml.ScalarNode):
            raise ValueError("here must be one plain value, not a list or a mapping; write one")
        if not node.value:
            raise ValueError("has no value; give it one, or remove the line")
        return parse_text(_printable(node.value))

    return read


def _several(key: str, parse_text: Callable[[str], Any], *, example: str) -> _Reader:
    def read(node: yaml.Node, report: _Report) -> tuple[Any, ...]:
        if not isinstance(node, yaml.SequenceNode):
            raise ValueError(f'is not a list; write it like ["{example}"]')
        return tuple(report.read(key, item, _scalar(parse_text)) for item in node.value)

    return read


def _listen(node: yaml.Node, report: _Report) -> Any:
    if isinstance(node, yaml.SequenceNode):
        raise ValueError("a list of addresses is not implemented in this version; write one HOST:PORT")
    return _scalar(parse_address)(node, report)


def _server(node: yaml.Node, report: _Report) -> _Values:
    values, lines = report.section(node, SERVER_KEYS)
    if "repositories" not in lines:
        report.add(1, _NO_REPOSITORIES)
    return values


def _repositories(node: yaml.Node, report: _Report) -> tuple[RepositoryConfig, ...]:
    if not node.value:
        raise ValueError(_NO_REPOSITORIES)
    lines: dict[str, _Lines] = {}
    found: list[RepositoryConfig] = []
    for name, line, body in report.entries(node):
        lines[name] = {"name": line, "url": line}
        repository = report.read(name, body, partial(_repository, name, lines[name]))
        found += [repository] if repository else []
    for key, (first, second), relation in _conflicts(found):
        what = f"`{key}` of {_shown(second.name)} {relation} that of {_shown(first.name)}"
        hint = f"(line {lines[first.name][key]}); give each repository its own"
        report.add(lines[second.name][key], f"{what} {hint}")
    return tuple(found)


def _repository(name: str, lines: _Lines, node: yaml.Node, report: _Report) -> RepositoryConfig:
    """Return the repository, "" for a path or url that is wrong; `lines` learns where its keys stand."""
    values, given = report.section(node, REPOSITORY_KEYS)
    lines |= given
    try:
        _name(name)
        if "url" not in given:
            values["url"] = _url(f"/{name}/")
    except ValueError as error:
        report.add(lines["name"], f"repository {_shown(name)}: {error}")
    if "path" not in given:
        report.add(lines["name"], f"repository {_shown(name)}: no `path`; name the directory of its packages")
    wrong: _Values = {"path": "", "url": ""}
    repository = RepositoryConfig(name=name, **(wrong | values))
    times = {"settle", "deadline"} & given.keys()
    if times <= values.keys() and repository.deadline < repository.settle:
        what = f"`deadline` ({repository.deadline:g}s) is shorter than `settle` ({repository.settle:g}s)"
        report.add(max(lines[key] for key in times), f"{what}; make it at least as long")
    return repository


_KEY = _scalar(str)
SERVER_KEYS: Mapping[str, _Reader] = {
    "listen": _listen,
    "public_url": _scalar(_public_url),
    "max_upload": _scalar(_size),
    "allow_anonymous_upload": _scalar(_one_of(_BOOLEANS)),
    "repositories": _repositories,
}
REPOSITORY_KEYS: Mapping[str, _Reader] = {
    "path": _scalar(_path),
    "url": _scalar(_url),
    "profile": _scalar(_one_of({"compatible": "compatible", "modern": "modern"})),
    "settle": _scalar(_duration),
    "deadline": _scalar(_duration),
    "exclude": _several("exclude", str, example="*.drpm"),
    "follow": _several("follow", _path, example="/srv/pool"),
    "replace": _scalar(_one_of({"allow": "allow", "deny": "deny"})),
    "keep_space": _scalar(_size),
}
# Refused by name, so that nobody believes to be protected by what is not there.
PLANNED = frozenset({"tls", "users", "auth_over_http", "groups", "read", "write"})
