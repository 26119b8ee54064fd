"""Path patterns: one repository for each directory that a pattern finds, and why another is none.

A pattern is a `RepositoryConfig` whose path has `*`, each for a part of one name in it, and whose own name
and URL tell by `{1}`, `{2}`... where what it stood for goes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from repowatch.config.overlaps import real
from repowatch.config.places import repository_name, shown, url
from repowatch.config.settings import Config, RepositoryConfig
from repowatch.model.families import variables
from repowatch.web.names import href_of


@dataclass(frozen=True, slots=True)
class Refused:
    """A directory that a pattern finds, and that is not served."""

    path: str
    reason: str
    pattern: str  # its name


@dataclass(frozen=True, slots=True)
class Found:
    """What a configuration means at one moment."""

    repositories: tuple[RepositoryConfig, ...]
    refused: tuple[Refused, ...]


def is_pattern(config: RepositoryConfig) -> bool:
    return "*" in config.path


def base_of(path: str) -> str:
    """The directory above the first name with a `*`."""
    return os.path.dirname(path.partition("*")[0])


def check(config: RepositoryConfig) -> None:
    """Raise ValueError where name, path and URL do not belong together. A path or URL of "" is not known."""
    count = config.path.count("*")
    for key, text in (("name", config.name), ("url", config.url), ("baseurl", config.baseurl or "")):
        _check_places(key, text, count, needs_all=key != "baseurl")
    if not count:
        repository_name(config.name)
        return
    if base_of(config.path) == "/":
        raise ValueError("`path` has its first * right below /; write a directory before it")
    example = _filled(config, ("x",) * count)
    repository_name(example.name)
    if config.url:
        url(example.url)


def _check_places(key: str, text: str, count: int, *, needs_all: bool) -> None:
    used = set(re.findall(r"\{([^{}]*)\}?", text))
    known = {str(n + 1) for n in range(count)}
    if used and not count:
        raise ValueError(f"{shown(text)} has {{ }}, but `path` has no *; write it out")
    if wrong := sorted(used - known):
        raise ValueError(f"`{key}` has `{{{wrong[0]}}}`, but `path` has {count} *; number them from 1")
    if text and needs_all and (missing := sorted(known - used)):
        what = "tells one directory from another"
        raise ValueError(f"`{key}` ({shown(text)}) has no `{{{missing[0]}}}`, which {what}; write it in")


def pattern_of(patterns: Iterable[RepositoryConfig], name: str) -> RepositoryConfig | None:
    """The pattern that a repository of this name belongs to: the first that could call one so."""
    return next((each for each in patterns if _matcher(each.name).fullmatch(name)), None)


def at_url(config: Config, path: str) -> RepositoryConfig | None:
    """The repository that a pattern would have at a URL, with or without its last slash."""
    for pattern in config.patterns:
        if match := _matcher(pattern.url).fullmatch(f"{path.rstrip('/')}/"):
            member = _filled(pattern, _values(pattern, match))
            if _matcher(pattern.path).fullmatch(member.path) and not _is_hidden(member):
                return member
    return None


def expand(config: Config, *, also: Sequence[str] = ()) -> Found:
    """What there is by now: the repositories that are named, and those that the patterns find.

    Depends on the configuration and the disk alone. What is named wins over what is found, and what an
    earlier pattern finds over what a later one does. `also` are directories that are about to be made.
    """
    taken = _Taken(config.repositories)
    refused: list[Refused] = []
    for pattern in config.patterns:
        matcher = _matcher(pattern.path)
        paths = set(_directories(pattern, refused)) | set(filter(matcher.fullmatch, also))
        for path in sorted(paths):
            match = matcher.fullmatch(path)
            member = _filled(pattern, _values(pattern, match)) if match else None
            if member is None or taken.is_named(member):
                continue
            if why := _mistake(member, config) or taken.clash(member):
                refused.append(Refused(path, why, pattern.name))
            else:
                taken.add(member)
    return Found(tuple(taken.repositories), tuple(refused))


def baseurl(member: RepositoryConfig, repositories: Iterable[RepositoryConfig]) -> str | None:
    """The path that clients are told, percent-encoded but for their own variables; None where it is the URL.

    That is what `baseurl` says; of a pattern, else, its URL with the variables that suit all `repositories`
    which it found.
    """
    if member.baseurl:
        return "$".join(map(href_of, member.baseurl.split("$")))
    pattern = member.pattern
    if pattern is None:
        return None
    family = [each.values for each in repositories if each.pattern and each.pattern.name == pattern.name]
    places = variables([*family, member.values])
    if not any(places):
        return None
    told = [place or href_of(known) for known, place in zip(member.values, places, strict=True)]
    pieces = enumerate(_TEMPLATE.split(pattern.url))  # in turns what stands between and what is filled in
    return "".join(told[int(each[1:-1]) - 1] if number % 2 else href_of(each) for number, each in pieces)


class _Taken:
    """Names, directories and URLs that are given away."""

    def __init__(self, named: Sequence[RepositoryConfig]) -> None:
        self.repositories: list[RepositoryConfig] = []
        self._named = {real(each.path) for each in named}
        self._names: set[str] = set()
        self._at: dict[tuple[str, str], str] = {}  # whose a place is
        self._above: dict[tuple[str, str], str] = {}  # whose place lies below
        for each in named:
            self.add(each)

    def add(self, config: RepositoryConfig) -> None:
        self.repositories.append(config)
        self._names.add(config.name)
        for key, place in _places(config):
            self._at[key, place] = config.name
            self._above |= {(key, each): config.name for each in _above(place)}

    def is_named(self, member: RepositoryConfig) -> bool:
        """Whether the configuration names just this directory: then that is how it is meant."""
        return real(member.path) in self._named

    def clash(self, member: RepositoryConfig) -> str | None:
        """Why it can not be a repository beside the others."""
        if member.name in self._names:
            return f"there is a repository {shown(member.name)} already"
        for key, place in _places(member):
            if name := self._at.get((key, place)):
                return f"its {key} {shown(place)} is that of {shown(name)}"
            for each in _above(place):
                if name := self._at.get((key, each)):
                    return f"its {key} {shown(place)} lies inside that of {shown(name)}"
            if name := self._above.get((key, place)):
                return f"its {key} {shown(place)} contains that of {shown(name)}"
        return None


def _places(config: RepositoryConfig) -> tuple[tuple[str, str], tuple[str, str]]:
    return ("path", real(config.path)), ("url", config.url)


def _above(place: str) -> Iterator[str]:
    """The places that a place lies inside, each with its slash at the end."""
    parts = place.split("/")[:-2]
    for count in range(1, len(parts) + 1):
        yield "/".join(parts[:count]) + "/"


def _mistake(member: RepositoryConfig, config: Config) -> str | None:
    if _is_hidden(member):
        return "hidden directories are never served"
    if "lost+found" in _matched(member):
        return "it belongs to the file system"
    try:
        repository_name(member.name)
        url(member.url)
    except ValueError as error:
        return str(error)
    if (other := pattern_of(config.patterns, member.name)) != member.pattern and other:
        return f"its name {shown(member.name)} is one that {shown(other.name)} gives"
    return None


def _is_hidden(member: RepositoryConfig) -> bool:
    return any(each.startswith(".") for each in _matched(member))


def _matched(member: RepositoryConfig) -> list[str]:
    """The names in its path that the pattern left open, and those below them."""
    base = base_of(member.pattern.path) if member.pattern else member.path
    return member.path[len(base) :].strip("/").split("/")


def _directories(pattern: RepositoryConfig, refused: list[Refused]) -> Iterator[str]:
    """What the path of a pattern finds; what could not be looked into is refused."""
    base = base_of(pattern.path)
    found = [base]
    for name in pattern.path[len(base) :].strip("/").split("/"):
        found = [path for directory in found for path in _below(directory, name, pattern, refused)]
    yield from found


def _below(directory: str, name: str, pattern: RepositoryConfig, refused: list[Refused]) -> Iterator[str]:
    if "*" not in name:
        path = os.path.join(directory, name)
        if os.path.isdir(path):
            yield path
        return
    matches = _matcher(name).fullmatch
    try:
        with os.scandir(directory) as entries:
            yield from (each.path for each in entries if matches(each.name) and _is_directory(each))
    except OSError as error:
        reason = f"it can not be looked into: {error.strerror or error}"
        refused.append(Refused(directory, reason, pattern.name))


def _is_directory(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


_TEMPLATE = re.compile(r"(\{[0-9]+\})", re.ASCII)


@lru_cache(maxsize=256)
def _matcher(template: str) -> re.Pattern[str]:
    """What the `*` of a path, or the `{1}` of a name or URL, stand for: the groups p1, p2..."""
    text, count, seen = "", 0, set()
    for part in re.split(r"(\*|\{[0-9]+\})", template):
        if part == "*":
            count += 1
            text += f"(?P<p{count}>[^/]+)"
        elif _TEMPLATE.fullmatch(part):
            number = part[1:-1]
            text += f"(?P=p{number})" if number in seen else f"(?P<p{number}>[^/]+)"
            seen.add(number)
        else:
            text += re.escape(part)
    return re.compile(text, re.DOTALL)


def _values(pattern: RepositoryConfig, match: re.Match[str]) -> tuple[str, ...]:
    return tuple(match[f"p{n + 1}"] for n in range(pattern.path.count("*")))


def _filled(pattern: RepositoryConfig, values: tuple[str, ...]) -> RepositoryConfig:
    """The repository that a pattern finds where its `*` stand for these values."""

    def fill(template: str) -> str:
        return _TEMPLATE.sub(lambda match: values[int(match[0][1:-1]) - 1], template)

    pieces = pattern.path.split("*")
    path = "".join(f"{piece}{known}" for piece, known in zip(pieces, (*values, ""), strict=True))
    return replace(
        pattern,
        name=fill(pattern.name),
        path=path,
        url=fill(pattern.url),
        baseurl=fill(pattern.baseurl) if pattern.baseurl else None,
        pattern=pattern,
        values=values,
    )
