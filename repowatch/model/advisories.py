"""Advisories that people write, one small YAML file each, and what becomes of them in updateinfo.xml.

The text has createrepo_c's elements in its order (src/xml_dump_updateinfo.c); characters beyond ASCII are
written as references, so that it can stand in a file of any encoding.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from repowatch.errors import BadMetadata
from repowatch.model.documents import Node, documents
from repowatch.model.markup import escape, quoteattr
from repowatch.model.package import Nevra

# What dnf calls an advisory (libdnf/sack/advisory.cpp); any other it would not show.
TYPES = ("security", "bugfix", "enhancement", "newpackage")
SEVERITIES = ("Critical", "Important", "Moderate", "Low", "None")

_NEVRA = re.compile(
    r"(?P<name>[^\s/<>]+)-(?:(?P<epoch>\d{1,9}):)?(?P<version>[^-:/\s<>]+)-(?P<release>[^-:/\s<>]+)"
    r"\.(?P<arch>[^-./\s<>]+)"
)
_CVE = re.compile(r"CVE-\d{4}-\d{4,}")
_DATE = re.compile(r"\d{4}-\d\d-\d\d(?:[Tt ]\d\d:\d\d(?::\d\d)?(?:[Zz]|[+-]\d\d:\d\d))?")
# What XML 1.0 can not say, not even by a reference.
_UNSAYABLE = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

_KEYS = (
    *("id", "type", "severity", "title", "issued", "updated", "description", "from", "rights", "release"),
    *("reboot", "references", "packages"),
)
_REFERENCE_KEYS = ("type", "id", "href", "title")


@dataclass(frozen=True, slots=True)
class Advisory:
    """One advisory."""

    id: str
    text: bytes  # its element of updateinfo.xml
    packages: tuple[Nevra, ...]  # an epoch that is not written is 0


def read(content: bytes) -> Advisory:
    """What a file says. Raises BadMetadata."""
    found = list(documents(content))
    if len(found) != 1:
        raise BadMetadata(f"there are {len(found)} documents in it, not one", line=1)
    entries = _known(found[0].entries("the advisory"), _KEYS)
    identifier = _text(entries, "id", needed=True)
    if not identifier.isprintable() or re.search(r"\s", identifier):
        raise BadMetadata("`id` is not one word", line=entries["id"].line)
    packages = [_package(each) for each in _list(entries, "packages")]
    if not packages:
        line = entries["packages"].line if "packages" in entries else found[0].line
        raise BadMetadata("`packages` names no package; list those that have what is told of", line=line)
    lines = [*_head(entries, identifier), *_references(entries), *_pkglist(entries, packages)]
    text = "".join(f"{line}\n" for line in lines)
    return Advisory(identifier, text.encode("ascii", "xmlcharrefreplace"), tuple(packages))


def _head(entries: Mapping[str, Node], identifier: str) -> list[str]:
    kind = _one_of(entries, "type", TYPES)
    sender = quoteattr(_text(entries, "from") or "repowatch")
    issued = _date(entries, "issued", needed=True)
    lines = [
        f'  <update from={sender} status="final" type="{kind}" version="1">',
        f"    <id>{escape(identifier)}</id>",
        f"    <title>{escape(_text(entries, 'title', needed=True))}</title>",
        f'    <issued date="{issued}"/>',
    ]
    if "updated" in entries:
        lines.append(f'    <updated date="{_date(entries, "updated", needed=True)}"/>')
    for key in ("rights", "release"):
        if key in entries:
            lines.append(f"    <{key}>{escape(_text(entries, key))}</{key}>")
    if "severity" in entries:
        lines.append(f"    <severity>{_one_of(entries, 'severity', SEVERITIES)}</severity>")
    lines.append(f"    <description>{escape(_text(entries, 'description'))}</description>")
    return lines


def _references(entries: Mapping[str, Node]) -> list[str]:
    lines = ["    <references>"]
    for node in _list(entries, "references"):
        found = _reference(node)
        attributes = " ".join(f"{key}={quoteattr(found[key])}" for key in ("href", "id", "title", "type"))
        lines.append(f"      <reference {attributes}/>")
    return [*lines, "    </references>"]


def _reference(node: Node) -> dict[str, str]:
    """A CVE, a URL, or all of it; what is missing is made of what is there."""
    if isinstance(node.value, Mapping):
        entries = _known(node.value, _REFERENCE_KEYS)
        found = {key: _text(entries, key) for key in _REFERENCE_KEYS}
    else:
        text = _said(node, "a reference")
        found = {"type": "", "id": text, "href": text if "://" in text else "", "title": ""}
    if not found["id"] and not found["href"]:
        raise BadMetadata("a reference has neither `id` nor `href`", line=node.line)
    if not found["type"]:
        found["type"] = "cve" if _CVE.fullmatch(found["id"]) else "other"
    if found["type"] == "cve" and not found["href"]:
        found["href"] = f"https://www.cve.org/CVERecord?id={found['id']}"
    return found | {"id": found["id"] or found["href"], "title": found["title"] or found["id"]}


def _pkglist(entries: Mapping[str, Node], packages: list[Nevra]) -> list[str]:
    reboot = entries.get("reboot")
    if reboot is not None and reboot.value not in ("true", "false"):
        raise BadMetadata("`reboot` is neither true nor false", line=reboot.line)
    lines = ["    <pkglist>", '      <collection short="">', "        <name></name>"]
    for each in packages:
        words = {"name": each.name, "version": each.version, "release": each.release}
        attributes = " ".join(
            f"{key}={quoteattr(value)}"
            for key, value in (words | {"epoch": each.epoch, "arch": each.arch}).items()
        )
        filename = f"{each.name}-{each.version}-{each.release}.{each.arch}.rpm"
        lines += [f"        <package {attributes}>", f"          <filename>{escape(filename)}</filename>"]
        if reboot is not None and reboot.value == "true":
            lines.append("          <reboot_suggested>True</reboot_suggested>")
        lines.append("        </package>")
    return [*lines, "      </collection>", "    </pkglist>", "  </update>"]


def _package(node: Node) -> Nevra:
    """A NEVRA, or the file name of a package without an epoch."""
    text = _said(node, "a package")
    match = _NEVRA.fullmatch(text.removesuffix(".rpm"))
    if match is None:
        what = f"{text!r} is no NEVRA; write it like hello-1.0-2.x86_64 or hello-1:1.0-2.x86_64"
        raise BadMetadata(what, line=node.line)
    epoch = str(int(match["epoch"] or 0))
    return Nevra(match["name"], epoch, match["version"], match["release"], match["arch"])


def _known(entries: Mapping[str, Node], keys: tuple[str, ...]) -> Mapping[str, Node]:
    for key, node in entries.items():
        if key not in keys:
            raise BadMetadata(f"unknown key `{key}`; known are {', '.join(keys)}", line=node.line)
    return {key: node for key, node in entries.items() if node.value is not None}


def _list(entries: Mapping[str, Node], key: str) -> tuple[Node, ...]:
    return entries[key].items(f"`{key}`") if key in entries else ()


def _text(entries: Mapping[str, Node], key: str, *, needed: bool = False) -> str:
    if key in entries:
        return _said(entries[key], f"`{key}`")
    if needed:
        raise BadMetadata(f"there is no `{key}`", line=1)
    return ""


def _said(node: Node, what: str) -> str:
    """A plain value that XML can say."""
    text = node.text(what).strip()
    if odd := _UNSAYABLE.search(text):
        raise BadMetadata(f"the character U+{ord(odd[0]):04X} in {what} is not allowed", line=node.line)
    return text


def _one_of(entries: Mapping[str, Node], key: str, known: tuple[str, ...]) -> str:
    text = _text(entries, key, needed=True)
    for each in known:
        if each.lower() == text.lower():
            return each
    raise BadMetadata(f"`{key}` is not one of {', '.join(known)}", line=entries[key].line)


def _date(entries: Mapping[str, Node], key: str, *, needed: bool) -> str:
    """In UTC, and as libsolv reads it: with the time, else it takes none at all."""
    text = _text(entries, key, needed=needed)
    try:
        moment = datetime.fromisoformat(text.upper()) if _DATE.fullmatch(text) else None
    except ValueError:
        moment = None
    if moment is None:
        what = "a date like 2026-11-28 or 2026-11-28T18:00:00Z"
        raise BadMetadata(f"`{key}` is not {what}", line=entries[key].line)
    try:
        found = moment.astimezone(UTC) if moment.tzinfo else moment
        return found.replace(tzinfo=None).isoformat(" ", "seconds")
    except OverflowError:
        raise BadMetadata(f"`{key}` is out of range", line=entries[key].line) from None
