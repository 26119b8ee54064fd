"""YAML in the tree: what anyone may have written, as plain values with their lines.

It is taken event by event, so that neither depth nor an alias makes more of it than there is. libmodulemd
reads no aliases either. Every value is the text that stands there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import yaml

from repowatch.errors import BadMetadata

_DEEPEST = 32  # lists and mappings within one another
_MOST = 2_000_000  # values and ends of values: some 5 s; Fedora's modules.yaml has a tenth of it
_NOTHING = ("", "~", "null", "Null", "NULL")

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's is ten times as fast
_Events: TypeAlias = Iterator[Any]


@dataclass(frozen=True, slots=True)
class Node:
    """A value and the line that it begins on. None where nothing stands."""

    value: str | tuple[Node, ...] | Mapping[str, Node] | None
    line: int

    def entries(self, what: str) -> Mapping[str, Node]:
        """The lines of `key: value`. Raises BadMetadata, with `what` it is, where it is something else."""
        if not isinstance(self.value, Mapping):
            raise BadMetadata(f"{what} is not lines of `key: value`", line=self.line)
        return self.value

    def items(self, what: str) -> tuple[Node, ...]:
        """What is in the list. Raises BadMetadata."""
        if not isinstance(self.value, tuple):
            raise BadMetadata(f"{what} is not a list", line=self.line)
        return self.value

    def text(self, what: str) -> str:
        """The plain value, which is not empty. Raises BadMetadata."""
        if not isinstance(self.value, str) or not self.value.strip():
            raise BadMetadata(f"{what} is not a plain value", line=self.line)
        return self.value


def documents(content: bytes) -> Iterator[Node]:
    """Each document of a file. Raises BadMetadata."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise BadMetadata("not UTF-8; save it as UTF-8", line=line) from None
    try:
        events = _counted(yaml.parse(text, Loader=_Loader))
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                yield _node(next(events), events, depth=0)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, text.find(chr(error.character))) + 1  # libyaml's position is in bytes
        raise BadMetadata(f"the character U+{error.character:04X} is not allowed", line=line) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise BadMetadata(f"not YAML: {error.problem}", line=mark.line + 1 if mark else None) from None
    except (ValueError, OverflowError) as error:  # numbers in escapes, which PyYAML does not check
        raise BadMetadata(f"not YAML: {error}") from None


def _counted(events: _Events) -> _Events:
    for number, event in enumerate(events):
        if number == _MOST:
            raise BadMetadata(f"more than {_MOST} values", line=event.start_mark.line + 1)
        yield event


def _node(event: Any, events: _Events, *, depth: int) -> Node:
    line = event.start_mark.line + 1
    if depth > _DEEPEST:
        raise BadMetadata(f"more than {_DEEPEST} values within one another", line=line)
    if isinstance(event, yaml.AliasEvent):
        raise BadMetadata(f"the alias *{event.anchor} is not read; write the value out", line=line)
    if isinstance(event, yaml.ScalarEvent):
        is_nothing = not event.style and event.value in _NOTHING
        return Node(None if is_nothing else event.value, line)
    if isinstance(event, yaml.SequenceStartEvent):
        return Node(tuple(_items(events, depth=depth)), line)
    return Node(_entries(events, depth=depth), line)


def _items(events: _Events, *, depth: int) -> Iterator[Node]:
    while not isinstance(event := next(events), yaml.SequenceEndEvent):
        yield _node(event, events, depth=depth + 1)


def _entries(events: _Events, *, depth: int) -> dict[str, Node]:
    entries: dict[str, Node] = {}
    while not isinstance(event := next(events), yaml.MappingEndEvent):
        key = _node(event, events, depth=depth + 1)
        name = key.text("a key")
        if name in entries:
            raise BadMetadata(f"`{name}` stands here a second time", line=key.line)
        entries[name] = _node(next(events), events, depth=depth + 1)
    return entries
