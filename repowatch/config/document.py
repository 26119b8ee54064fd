"""YAML: every value is taken as the text that stands there, and every mistake is told with its line.

So `no` stays "no" and 010 stays "010". What a value means is the business of its reader.
"""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import yaml

from repowatch.config.places import printable, shown
from repowatch.config.settings import RepositoryConfig

Reader: TypeAlias = Callable[[yaml.Node, "Report"], Any]
Values: TypeAlias = dict[str, Any]
Lines: TypeAlias = dict[str, int]

_KINDS = ("map", "seq", "str", "int", "float", "bool", "null", "timestamp", "merge", "value")
_PLAIN_TAGS = frozenset(f"tag:yaml.org,2002:{kind}" for kind in _KINDS)


@dataclass(frozen=True, slots=True)
class Mistake:
    line: int  # counted from 1; 0 where the trouble is the file itself
    text: str


class _Composer(yaml.SafeLoader):
    """Keeps an alias as a node of its own (tag `*name`), not what it stands for: nothing can multiply."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if not self.check_event(yaml.AliasEvent):
            return super().compose_node(parent, index)
        event = self.get_event()  # type: ignore[no-untyped-call]
        return yaml.ScalarNode(f"*{event.anchor}", "", event.start_mark, event.end_mark)


def compose(text: str) -> yaml.Node | Mistake:
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


class Report:
    """Reads nodes, and gathers every mistake in them."""

    def __init__(self) -> None:
        self.mistakes: list[Mistake] = []
        self.named: defaultdict[str, list[str]] = defaultdict(list)  # what there is, by kind; see `at_end`
        self.patterns: list[RepositoryConfig] = []  # of paths
        self._at_end: list[tuple[int, Callable[[], object]]] = []

    def add(self, line: int, text: str) -> None:
        self.mistakes.append(Mistake(line, text))

    def at_end(self, node: yaml.Node, check: Callable[[], object]) -> None:
        """Have `check` called when all is read; a ValueError of it is a mistake at the node's line."""
        self._at_end.append((line_of(node), check))

    def end(self) -> None:
        """Check what only the whole document tells."""
        for line, check in self._at_end:
            try:
                check()
            except ValueError as error:
                self.add(line, str(error))

    def read(self, key: str, node: yaml.Node, reader: Reader) -> Any:
        """Return what `reader` makes of the node, or None after noting what is wrong with it."""
        try:
            if node.tag not in _PLAIN_TAGS:
                raise ValueError(f"the alias or tag {shown(node.tag)} is not read here; write the value out")
            return reader(node, self)
        except ValueError as error:
            self.add(line_of(node), f"{shown(key)}: {error}" if key else str(error))
            return None

    def entries(self, node: yaml.Node) -> Iterator[tuple[str, int, yaml.Node]]:
        """Yield key, line and value of a mapping, each key once. ValueError: no mapping."""
        if not isinstance(node, yaml.MappingNode):
            raise ValueError("here must be lines of `key: value`; see the example")
        lines: Lines = {}
        for key_node, value in node.value:
            line = line_of(key_node)
            key = self.read("", key_node, _KEY)
            if key in lines:
                self.add(line, f"{shown(key)} stands on line {lines[key]} already; remove one of the two")
            elif key is not None:
                lines[key] = line
                yield key, line, value

    def section(self, node: yaml.Node, readers: Mapping[str, Reader]) -> tuple[Values, Lines]:
        """Return what was read without a mistake, and where each known key stands. ValueError: no mapping."""
        values: Values = {}
        lines: Lines = {}
        for key, line, value in self.entries(node):
            if key not in readers:
                self.add(line, f"unknown key {shown(key)}; {nearest(key, readers)}")
            else:
                lines[key] = line
                before = len(self.mistakes)
                result = self.read(key, value, readers[key])
                if len(self.mistakes) == before:
                    values[key] = result
        return values, lines


def line_of(node: yaml.Node) -> int:
    return node.start_mark.line + 1


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint for who wrote `word`: the known one that is like it, or all there are."""
    known = list(known)
    if near := difflib.get_close_matches(word, known, n=1):
        return f"did you mean `{near[0]}`?"
    return f"known here are {', '.join(known)}" if known else "there is none"


def scalar(parse_text: Callable[[str], Any]) -> Reader:
    """One value, that `parse_text` makes of its text."""

    def read(node: yaml.Node, _: Report) -> Any:
        if not isinstance(node, yaml.ScalarNode):
            raise ValueError("here must be one plain value, not a list or a mapping; write one")
        if not node.value:
            raise ValueError("has no value; give it one, or remove the line")
        return parse_text(printable(node.value))

    return read


def several(key: str, reader: Reader, *, example: str) -> Reader:
    """A tuple of what is in a list; a plain value stands for a list of one."""

    def read(node: yaml.Node, report: Report) -> tuple[Any, ...]:
        if isinstance(node, yaml.ScalarNode):
            return (reader(node, report),)
        if not isinstance(node, yaml.SequenceNode):
            raise ValueError(f'is not a list; write it like ["{example}"]')
        return tuple(report.read(key, item, reader) for item in node.value)

    return read


_KEY = scalar(str)
