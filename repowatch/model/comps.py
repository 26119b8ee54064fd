"""comps.xml: the groups of a repository, checked for what clients would fail on or leave out in silence.

What they need was read in libcomps 0.1.19 (libcomps/src/comps_elem.c, comps_parse.c) and tried with dnf 4.14:
it ends with a traceback for a group without an id, and for a package without a name or of an unknown type; it
crashes where one of _SAYING has no text, or one of _ATTRIBUTES is not there; it shows no name where there are
only translations of one, and no group at all where the root element is another.
"""

from __future__ import annotations

from collections.abc import Mapping

from repowatch.errors import BadMetadata
from repowatch.model.elements import Path, walk

_NAMED = frozenset({"group", "category", "environment"})
_KNOWN = _NAMED | {"langpacks", "blacklist", "whiteout", "grouphierarchy"}
_SAYING = frozenset({"packagereq", "groupid", "display_order", "uservisible", "biarchonly"})
_ATTRIBUTES = {"match": "name", "package": "name", "ignoredep": "requires"}
_KINDS = ("mandatory", "default", "optional", "conditional")


def check(content: bytes) -> None:
    """Raise BadMetadata where a client could not use it."""
    needed: dict[str, bool] = {}  # of the group at hand: whether it has one
    is_translation = False  # whether the last element that began is one

    def start(path: Path, attributes: Mapping[str, str], line: int) -> None:
        nonlocal is_translation
        is_translation = "xml:lang" in attributes
        if len(path) == 1 and path[0] != "comps":
            raise BadMetadata(f"the root element is <{path[0]}>, not <comps>", line=line)
        if len(path) == 2:
            if path[1] not in _KNOWN:
                raise BadMetadata(f"<{path[1]}> is unknown; clients would leave it out", line=line)
            needed.clear()
            needed.update(dict.fromkeys(("id", "name") if path[1] in _NAMED else (), False))
        if (attribute := _ATTRIBUTES.get(path[-1])) and not attributes.get(attribute):
            raise BadMetadata(f"<{path[-1]}> has no {attribute}", line=line)
        if path[-1] == "packagereq" and (kind := attributes.get("type", _KINDS[0])) not in _KINDS:
            raise BadMetadata(f"the type {kind!r} is not one of {', '.join(_KINDS)}", line=line)

    def end(path: Path, text: str, line: int) -> None:
        if path[-1] in _SAYING and not text:
            raise BadMetadata(f"<{path[-1]}> says nothing", line=line)
        if len(path) == 3 and text and path[2] in needed and not is_translation:
            needed[path[2]] = True
        if len(path) == 2 and (missing := [f"<{name}>" for name, there in needed.items() if not there]):
            raise BadMetadata(f"the {path[1]} that ends here has no {' and no '.join(missing)}", line=line)

    walk(content, start=start, end=end)
