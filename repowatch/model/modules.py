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

_ARTIFACT = re.compile(r"[^/\s]+-[0-9]+:[^-/\s]+-[^-/\s]+\.[^-./\s]+")  # N-E:V-R.A
_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\dZ")
_NUMBER = re.compile(r"\d{1,20}")


def check(content: bytes) -> None:
    """Raise BadMetadata where a client could not use it."""
    count = 0
    for document in documents(content):
        count += 1
        _check(document)
    if not count:
        raise BadMetadata("there is no document in it; remove the file, or write one", line=1)


def _check(document: Node) -> None:
    entries = document.entries("the document")
    _known(entries, ("document", "version", "data"), "the document")
    kind = _needed(entries, "document", document.line, within="the document")
    name = kind.text("`document`")
    if name == "modulemd-packager":
        raise BadMetadata("modulemd-packager is what modules are built from; clients skip it", line=kind.line)
    if name not in _KINDS:
        raise BadMetadata(f"`document` is not one of {', '.join(_KINDS)}", line=kind.line)
    version = _needed(entries, "version", document.line, within="the document")
    number = version.text("`version`")
    if number not in _KINDS[name]:
        raise BadMetadata(f"`version` is not {' or '.join(_KINDS[name])}", line=version.line)
    data = _needed(entries, "data", document.line, within="the document")
    keys, check_data = _KINDS[name][number]
    found = data.entries("`data`")
    _known(found, keys, "`data`")
    check_data(found, data.line)


def _stream(data: Mapping[str, Node], line: int) -> None:
    for key in ("name", "stream"):
        _needed(data, key, line).text(f"`{key}`")
    for key in ("context", "arch"):
        if key in data:
            data[key].text(f"`{key}`")
    for key in ("summary", "description"):
        if key not in data:
            raise BadMetadata(f"`data` has no `{key}`", line=line)
        if not isinstance(data[key].value, str | None):
            raise BadMetadata(f"`{key}` is not a plain value", line=data[key].line)
    if "version" in data:
        _matching(data, "version", line, _NUMBER, "a number")
    terms = _needed(data, "license", line).entries("`license`")
    _known(terms, ("module", "content"), "`license`")
    licenses = _needed(terms, "module", line, within="`license`")
    if not _items(licenses, "`module`"):
        raise BadMetadata("`module` names no license", line=licenses.line)
    for key, keys in _SECTIONS.items():
        section = data[key].entries(f"`{key}`") if key in data else {}
        if keys:
            _known(section, keys, f"`{key}`")
        if key in ("artifacts", "api", "filter", "demodularized"):
            _check_lists(section, ("rpms",))
    _check_lists(terms, ("module", "content"))
    _check_artifacts(data)
    profiles = data["profiles"].entries("`profiles`") if "profiles" in data else {}
    for name, profile in profiles.items():
        found = profile.entries(f"the profile {name}")
        _known(found, ("description", "rpms", "default"), f"the profile {name}")
        _check_lists(found, ("rpms",))


def _check_artifacts(data: Mapping[str, Node]) -> None:
    artifacts = data["artifacts"].entries("`artifacts`") if "artifacts" in data else {}
    for item in _artifacts(artifacts["rpms"]) if "rpms" in artifacts else ():
        if not _ARTIFACT.fullmatch(item.text("an artifact")):
            what = f"{item.value!r} is not NAME-EPOCH:VERSION-RELEASE.ARCH; the epoch may be 0"
            raise BadMetadata(what, line=item.line)


def _artifacts(node: Node) -> Sequence[Node]:
    return (node,) if node.value is None or isinstance(node.value, str) else node.items("`rpms`")


def _check_lists(entries: Mapping[str, Node], keys: Sequence[str]) -> None:
    for key in keys:
        for item in _items(entries[key], f"`{key}`") if key in entries else ():
            item.text(f"what `{key}` lists")


def _items(node: Node, what: str) -> Sequence[Node]:
    """A list; libmodulemd takes one plain value for a list of one, and nothing for an empty one."""
    if node.value is None:
        return ()
    return (node,) if isinstance(node.value, str) else node.items(what)


def _stream_1(data: Mapping[str, Node], line: int) -> None:
    _stream(data, line)
    if "dependencies" in data:
        data["dependencies"].entries("`dependencies`")


def _stream_2(data: Mapping[str, Node], line: int) -> None:
    _stream(data, line)
    for each in data["dependencies"].items("`dependencies`") if "dependencies" in data else ():
        found = each.entries("a dependency")
        _known(found, ("buildrequires", "requires"), "a dependency")
        for needs in found.values():
            names = needs.entries("what a dependency needs")
            _check_lists(names, tuple(names))


def _defaults(data: Mapping[str, Node], line: int) -> None:
    for key in ("module", "stream"):
        if key == "module" or key in data:
            _needed(data, key, line).text(f"`{key}`")
    profiles = data["profiles"].entries("`profiles`") if "profiles" in data else {}
    _check_lists(profiles, tuple(profiles))


def _obsoletes(data: Mapping[str, Node], line: int) -> None:
    for key in ("module", "stream", "message"):
        _needed(data, key, line).text(f"`{key}`")
    for key in ("modified", "eol_date"):
        if key == "modified" or key in data:
            _matching(data, key, line, _MOMENT, "a moment like 2026-11-28T18:00Z")


def _translations(data: Mapping[str, Node], line: int) -> None:
    for key in ("module", "stream"):
        _needed(data, key, line).text(f"`{key}`")
    _matching(data, "modified", line, _NUMBER, "a number like 202611281800")


def _known(entries: Mapping[str, Node], keys: Sequence[str], what: str) -> None:
    """Raise BadMetadata for another key: dnf 4 reads strictly, and leaves out the document that has one."""
    for key, node in entries.items():
        if key not in keys:
            hint = f"known are {', '.join(keys)}"
            raise BadMetadata(f"{what} has an unknown key `{key}`; {hint}", line=node.line)


def _needed(entries: Mapping[str, Node], key: str, line: int, *, within: str = "`data`") -> Node:
    node = entries.get(key)
    if node is None or node.value is None:
        raise BadMetadata(f"{within} has no `{key}`", line=node.line if node else line)
    return node


def _matching(data: Mapping[str, Node], key: str, line: int, pattern: re.Pattern[str], what: str) -> None:
    node = _needed(data, key, line)
    if not pattern.fullmatch(node.text(f"`{key}`")):
        raise BadMetadata(f"`{key}` is not {what}", line=node.line)


_COMMON = (
    *("name", "stream", "version", "context", "arch", "summary", "description", "servicelevels", "license"),
    *("xmd", "dependencies", "references", "profiles", "api", "filter", "buildopts", "components"),
    "artifacts",
)
# What has to be a mapping, and its keys where they matter to clients.
_SECTIONS: Mapping[str, tuple[str, ...]] = {
    "artifacts": ("rpms", "rpm-map"),
    "api": ("rpms",),
    "filter": ("rpms",),
    "demodularized": ("rpms",),
    "profiles": (),
    "references": ("community", "documentation", "tracker"),
    "buildopts": ("rpms", "arches"),
    "components": ("rpms", "modules"),
}
_Check: TypeAlias = Callable[[Mapping[str, Node], int], None]
_KINDS: Mapping[str, Mapping[str, tuple[tuple[str, ...], _Check]]] = {
    "modulemd": {
        "1": ((*_COMMON, "eol"), _stream_1),
        "2": ((*_COMMON, "static_context", "demodularized"), _stream_2),
    },
    "modulemd-defaults": {"1": (("module", "stream", "profiles", "intents", "modified"), _defaults)},
    "modulemd-obsoletes": {
        "1": (
            ("module", "stream", "context", "eol_date", "modified", "reset", "message", "obsoleted_by"),
            _obsoletes,
        )
    },
    "modulemd-translations": {"1": (("module", "stream", "modified", "translations"), _translations)},
}
