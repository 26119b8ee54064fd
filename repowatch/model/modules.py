"""modules.yaml: module streams, checked for what dnf would leave out.

What has to be there was tried with libmodulemd 2.14 (modulemd_module_index_update_from_string, which dnf
calls): a document that it does not accept it leaves out, and dnf tells it at most in its log.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from repowatch.errors import BadMetadata
from repowatch.model.documents import Node, documents

_Check: TypeAlias = Callable[[Node, str], None]  # raises BadMetadata of a node, with what it is called

_ARTIFACT = re.compile(r"[^/\s]+-[0-9]+:[^-/\s]+-[^-/\s]+\.[^-./\s]+")  # N-E:V-R.A


def check(content: bytes) -> None:
    """Raise BadMetadata where a client could not use it."""
    count = 0
    for document in documents(content):
        count += 1
        _check(document)
    if not count:
        raise BadMetadata("there is no document in it; remove the file, or write one", line=1)


def _check(document: Node) -> None:
    _record({"document": _anything, "version": _anything, "data": _anything}, {})(document, "the document")
    entries = document.entries("the document")
    kind, version = entries["document"], entries["version"]
    name, number = kind.text("`document`"), version.text("`version`")
    if name == "modulemd-packager":
        raise BadMetadata("modulemd-packager is what modules are built from; clients skip it", line=kind.line)
    if name not in _KINDS:
        raise BadMetadata(f"`document` is not one of {', '.join(_KINDS)}", line=kind.line)
    if number not in _KINDS[name]:
        raise BadMetadata(f"`version` is not {' or '.join(_KINDS[name])}", line=version.line)
    _KINDS[name][number](entries["data"], "`data`")


# -- values --------------------------------------------------------------------------------------


def _anything(_node: Node, _what: str) -> None:
    pass


def _text(node: Node, what: str) -> None:
    node.text(what)


def _text_or_nothing(node: Node, what: str) -> None:
    if node.value not in (None, ""):
        node.text(what)


def _like(pattern: str, told: str) -> _Check:
    matches = re.compile(pattern, re.ASCII).fullmatch

    def check_text(node: Node, what: str) -> None:
        if not matches(node.text(what)):
            raise BadMetadata(f"{what} is not {told}", line=node.line)

    return check_text


_number = _like("[0-9]{1,19}", "a number like 202611281800")  # it has to fit into 64 bits
_moment = _like(r"\d{4}-\d\d-\d\dT\d\d:\d\dZ", "a moment like 2026-11-28T18:00Z")
_day = _like(r"\d{4}-\d\d-\d\d", "a day like 2026-11-28")
_order = _like("-?[0-9]{1,9}", "a number")
_flag = _like("true|false", "true or false")


def _list(node: Node, what: str) -> None:
    for item in _items(node, what):
        item.text(f"what {what} lists")


def _items(node: Node, what: str) -> Sequence[Node]:
    """A list; libmodulemd takes one plain value for a list of one, and nothing for an empty one."""
    if node.value is None:
        return ()
    return (node,) if isinstance(node.value, str) else node.items(what)


def _licenses(node: Node, what: str) -> None:
    _list(node, what)
    if not _items(node, what):
        raise BadMetadata(f"{what} names no license", line=node.line)


def _artifacts(node: Node, what: str) -> None:
    for item in (node,) if node.value is None else _items(node, what):  # here nothing is no list
        if not _ARTIFACT.fullmatch(item.text("an artifact")):
            told = f"{item.value!r} is not NAME-EPOCH:VERSION-RELEASE.ARCH; the epoch may be 0"
            raise BadMetadata(told, line=item.line)


def _all(check_item: _Check) -> _Check:
    """A list, of which each has to be so."""

    def check_list(node: Node, what: str) -> None:
        for item in node.items(what):
            check_item(item, f"what {what} lists")

    return check_list


def _each(check_value: _Check) -> _Check:
    """Lines of `key: value` with any keys, of which each value has to be so."""

    def check_values(node: Node, what: str) -> None:
        for key, value in node.entries(what).items():
            check_value(value, f"`{key}`")

    return check_values


def _record(needed: Mapping[str, _Check], more: Mapping[str, _Check]) -> _Check:
    """Lines of `key: value` with these keys alone: dnf 4 leaves out a document that has another."""
    known = {**needed, **more}

    def check_entries(node: Node, what: str) -> None:
        entries = node.entries(what)
        for key, value in entries.items():
            if key not in known:
                hint = f"known are {', '.join(known)}"
                raise BadMetadata(f"{what} has an unknown key `{key}`; {hint}", line=value.line)
        for key in needed:
            if key not in entries:
                raise BadMetadata(f"{what} has no `{key}`", line=node.line)
        for key, value in entries.items():
            known[key](value, f"`{key}`")

    return check_entries


# -- documents -----------------------------------------------------------------------------------

_RPMS = _record({}, {"rpms": _list})
_TEXTS: Mapping[str, _Check] = dict.fromkeys(
    ("name", "rationale", "repository", "cache", "ref"), _text_or_nothing
)
_FLAGS: Mapping[str, _Check] = dict.fromkeys(("buildonly", "buildroot", "srpm-buildroot"), _flag)
_LISTS: Mapping[str, _Check] = dict.fromkeys(("buildafter", "arches", "multilib"), _list)
_COMPONENT = _record({}, {**_TEXTS, **_FLAGS, **_LISTS, "buildorder": _order})
_PARTS: Mapping[str, _Check] = dict.fromkeys(("name", "version", "release", "arch", "nevra"), _text)
_FILE = _record({**_PARTS, "epoch": _number}, {})
_NEEDED: Mapping[str, _Check] = {
    "name": _text,
    "stream": _text,
    "summary": _text_or_nothing,
    "description": _text_or_nothing,
    "license": _record({"module": _licenses}, {"content": _list}),
}
_COMMON: Mapping[str, _Check] = {
    "version": _number,
    "context": _text,
    "arch": _text,
    "servicelevels": _each(_record({}, {"eol": _day})),
    "xmd": _anything,
    "references": _record({}, dict.fromkeys(("community", "documentation", "tracker"), _text_or_nothing)),
    "profiles": _each(_record({}, {"description": _text_or_nothing, "rpms": _list, "default": _flag})),
    "api": _RPMS,
    "filter": _RPMS,
    "buildopts": _record({}, {"rpms": _record({}, {"macros": _text, "whitelist": _list}), "arches": _list}),
    "components": _record({}, {"rpms": _each(_COMPONENT), "modules": _each(_COMPONENT)}),
    "artifacts": _record({}, {"rpms": _artifacts, "rpm-map": _each(_each(_FILE))}),
}


def _stream(needs: _Check, more: Mapping[str, _Check], *, several: bool) -> _Check:
    dependency = _record({}, {"buildrequires": _each(needs), "requires": _each(needs)})
    dependencies = _all(dependency) if several else dependency
    return _record(_NEEDED, {**_COMMON, "dependencies": dependencies, **more})


_PROFILES = _each(_list)
_KINDS: Mapping[str, Mapping[str, _Check]] = {
    "modulemd": {
        "1": _stream(_text, {"eol": _day}, several=False),
        "2": _stream(_list, {"static_context": _flag, "demodularized": _RPMS}, several=True),
    },
    "modulemd-defaults": {
        "1": _record(
            {"module": _text},
            {
                "stream": _text,
                "profiles": _PROFILES,
                "intents": _each(_record({}, {"stream": _text, "profiles": _PROFILES})),
                "modified": _number,
            },
        )
    },
    "modulemd-obsoletes": {
        "1": _record(
            {"module": _text, "stream": _text, "message": _text, "modified": _moment},
            {
                "context": _text,
                "eol_date": _moment,
                "reset": _flag,
                "obsoleted_by": _record({"module": _text, "stream": _text}, {}),
            },
        )
    },
    "modulemd-translations": {
        "1": _record(
            {"module": _text, "stream": _text, "modified": _number},
            {
                "translations": _each(
                    _record(
                        {},
                        {
                            "summary": _text_or_nothing,
                            "description": _text_or_nothing,
                            "profiles": _each(_text_or_nothing),
                        },
                    )
                )
            },
        )
    },
}
