"""comps.xml: the groups of a repository, checked for what clients would fail on or leave out in silence.

What they need was read in libcomps 0.1.19 (libcomps/src/comps_elem.c, comps_parse.c) and tried with dnf 4.14:
it ends with a traceback for a group without an id, and for a package without a name or of an unknown type; it
shows no name where there is none, and no group at all where the root element is another.
"""

from __future__ import annotations

from collections.abc import Mapping

from repowatch.errors import BadMetadata
from repowatch.model.elements import Path, walk

_NAMED = frozenset({"group", "category", "environment"})
_KNOWN = _NAMED | {"langpacks", "blacklist", "whiteout", "grouphierarchy"}
_LISTS = frozenset({"packagereq", "groupid"})
_KINDS = ("mandatory", "default", "optional", "conditional")


def check(content: bytes) -> None:
    """Raise BadMetadata where a client could not use it."""
    needed: dict[str, bool] = {}  # of the group at hand: whether it has one

    def start(path: Path, attributes: Mapping[str, str], line: int) -> None:
        if len(path) == 1 and path[0] != "comps":
            raise BadMetadata(f"the root element is <{path[0]}>, not <comps>", line=line)
        if len(path) == 2:
            if path[1] not in _KNOWN:
                raise BadMetadata(f"<{path[1]}> is unknown; clients would leave it out", line=line)
            needed.clear()
            needed.update(dict.fromkeys(("id", "name") if path[1] in _NAMED else (), False))
        if path[-1] == "packagereq" and (kind := attributes.get("type", _KINDS[0])) not in _KINDS:
            raise BadMetadata(f"the type {kind!r} is not one of {', '.join(_KINDS)}", line=line)

    def end(path: Path, text: str, line: int) -> None:
        if path[-1] in _LISTS and not text:
            raise BadMetadata(f"<{path[-1]}> names nothing", line=line)
        if len(path) == 3 and text and path[2] in needed:
            needed[path[2]] = True
        if len(path) == 2 and (missing := [f"<{name}>" for name, there in needed.items() if not there]):
            raise BadMetadata(f"the {path[1]} that ends here has no {' and no '.join(missing)}", line=line)

    walk(content, start=start, end=end)
