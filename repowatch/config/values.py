"""Values: text in, the value out, or a ValueError that says what is wrong and what to do."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from repowatch.config.places import PCHAR, absolute, directory, shown, url
from repowatch.model.companion import TAKEN, TYPE, Names
from repowatch.model.openpgp import keyring_of
from repowatch.web.rights.rules import ANYONE, mistake_in_user_name

_SECONDS = {"": 1, "ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_BYTES = {"": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
_BYTES |= {"k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
_BYTES |= {"kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}
_BOOLEANS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


def public_url(text: str) -> str:
    match = re.fullmatch(
        rf"https?://(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{{1,5}}))?(?:/[{PCHAR}%/]*)?", text
    )
    if match is None or int(match[1] or 0) > 65535:
        raise ValueError(f"{shown(text)} is not a plain http(s) URL; write it like https://rpm.example.org")
    return text.rstrip("/")


def _quantity(text: str, units: Mapping[str, float], *, what: str, example: str) -> float:
    match = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,9})?) ?([A-Za-z]*)", text)
    if match is None or match[2].lower() not in units:
        raise ValueError(f"{shown(text)} is not a {what}; write it like {example}")
    return float(match[1]) * units[match[2].lower()]


def duration(text: str) -> float:
    seconds = _quantity(text, _SECONDS, what="duration", example="0.2s, 500ms, 2s, 1m, 1h or 2d")
    if not 0 < seconds <= 365 * 86400:  # more than Python can wait for would end the thread that waits
        raise ValueError(f"{shown(text)} is out of range; write more than 0s and no more than 365d")
    return seconds


def duration_or_nothing(text: str) -> float:
    return 0.0 if _quantity(text, _SECONDS, what="duration", example="1d, or 0s") == 0 else duration(text)


def age(text: str) -> float:
    seconds = _quantity(text, _SECONDS, what="duration", example="12h, 1d or 30d")
    if not 0 < seconds <= 36525 * 86400:
        raise ValueError(f"{shown(text)} is out of range; write more than 0s and no more than 36525d")
    return seconds


def pattern(text: str) -> str:
    """An fnmatch pattern of a package's file name, or of its location."""
    if not text:
        raise ValueError("matches nothing; write a pattern like *SNAPSHOT*.rpm, or * for all")
    return text


def size_or_nothing(text: str) -> int:
    return int(_quantity(text, _BYTES, what="size", example="2GiB, 500MB or 1048576"))


def size(text: str) -> int:
    found = size_or_nothing(text)
    if found == 0:
        raise ValueError("must be more than 0; write more, or remove the line")
    return found


def count(text: str) -> int:
    if not re.fullmatch("[0-9]{1,7}", text) or int(text) == 0:
        raise ValueError(f"{shown(text)} is not a number from 1 to 9999999; write one")
    return int(text)


def count_or_all(text: str) -> int | None:
    """A number from 0 on; None for `all`."""
    if text == "all":
        return None
    if not re.fullmatch("[0-9]{1,7}", text, re.ASCII):
        raise ValueError(f"{shown(text)} is neither a number nor `all`; write it like 10")
    return int(text)


def one_of(values: Mapping[str, Any]) -> Callable[[str], Any]:
    def parse_one(text: str) -> Any:
        if text.lower() not in values:
            raise ValueError(f"{shown(text)} is not one of {', '.join(values)}; write one of them")
        return values[text.lower()]

    return parse_one


boolean = one_of(_BOOLEANS)


def moment(text: str) -> float:
    """Seconds since 1970 of a date, when it begins in UTC, or of a time with its zone (RFC 3339)."""
    zoned = r"(?:[Tt ]\d\d:\d\d(?::\d\d)?(?P<zone>[Zz]|[+-]\d\d:\d\d)?)?"
    match = re.fullmatch(rf"\d{{4}}-\d\d-\d\d{zoned}", text, re.ASCII)
    try:
        found = datetime.fromisoformat(text.upper()) if match else None
    except ValueError:
        found = None
    if match is None or found is None:
        raise ValueError(f"{shown(text)} is no date; write it like 2027-01-31 or 2027-01-31T18:00:00Z")
    if len(text) > len("2027-01-31") and match["zone"] is None:
        raise ValueError(f"{shown(text)} has no time zone; add Z for UTC, or an offset like +02:00")
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def network(text: str) -> str:
    """An address or a network in CIDR notation, as it was written."""
    try:
        wide = ipaddress.ip_network(text, strict=False)
    except ValueError:
        forms = "10.0.0.0/8, 192.0.2.7 or 2001:db8::/32"
        raise ValueError(f"{shown(text)} is no address or network; write it like {forms}") from None
    try:
        ipaddress.ip_network(text)
    except ValueError:
        raise ValueError(f"{shown(text)} has bits beyond its prefix; write {wide}") from None
    return text


def proxy(text: str) -> str:
    return text if text == "unix" else network(text)


def user_name(text: str) -> str:
    if mistake := mistake_in_user_name(text):
        raise ValueError(f"{shown(text)} can not be a name here: {mistake}; choose another")
    return text


def group_name(text: str) -> str:
    if text.startswith("@"):
        raise ValueError(f"{shown(text)} is named without its @ here; write {shown(text[1:])}")
    return user_name(text)


def subject(text: str) -> str:
    """Who may do something: `anyone`, the name of a user, or a group with an @ before its name."""
    if text != ANYONE and (mistake := mistake_in_user_name(text.removeprefix("@"))):
        raise ValueError(f"{shown(text)} is nobody: {mistake}; write `anyone`, a user, or @ and a group")
    return text


def directory_or_pattern(text: str) -> str:
    """A directory, or a path where `*` stands for a part of a name, once or more often."""
    if "*" not in text:
        return directory(text)
    if "**" in text:
        raise ValueError(f"{shown(text)} has a **, which finds nothing more than a *; write one")
    return absolute(text)


def fingerprint(text: str) -> str:
    """Of an OpenPGP key, as gpg shows it, without its spaces."""
    found = "".join(text.split()).upper()
    if not re.fullmatch("[0-9A-F]{40}|[0-9A-F]{64}", found):
        raise ValueError(
            f"{shown(text)} is no fingerprint; write the 40 (or 64) digits that gpg --list-keys shows"
        )
    return found


def existing_directory(text: str) -> str:
    path = absolute(text)
    if not os.path.isdir(path):
        raise ValueError(f"there is no directory {shown(text)}; make it, or correct the path")
    return path


def metadata_type(text: str) -> str:
    """The type of a record in repomd.xml that nothing else makes."""
    if not TYPE.fullmatch(text):
        rule = "letters, digits and _ . + -, a letter first"
        raise ValueError(f"{shown(text)} can not be the type of a record; write {rule}")
    if text in TAKEN:
        raise ValueError(f"records of the type {shown(text)} are made by repowatch itself; remove this line")
    return text


def path_in_tree(text: str) -> str:
    """A file below the root of a repository that clients may see, and that is no package."""
    parts = text.split("/")
    if not all(parts) or any(part.startswith(".") for part in parts) or parts[0] == "repodata":
        rule = "relative to the repository, without hidden names, and not in repodata/"
        raise ValueError(f"{shown(text)} is not a file of the tree; write it like appstream.xml.gz, {rule}")
    if text.endswith(".rpm") or Names().kind_of(text):
        raise ValueError(f"{shown(text)} is read without being named here; remove this line")
    return text


def file(text: str) -> str:
    """A file that may come later."""
    path = absolute(text)
    if text.endswith("/") or os.path.isdir(path):
        raise ValueError(f"{shown(text)} is a directory; name a file")
    return path


def file_or_stderr(text: str) -> str:
    return text if text == "stderr" else file(text)


def readable_file(text: str) -> str:
    path = file(text)
    if os.path.exists(path) and not os.path.isfile(path):  # to open a pipe would wait for its other end
        raise ValueError(f"{shown(text)} is not a plain file; name one")
    try:
        with open(path, "rb"):
            return path
    except OSError as error:
        reason = f"can not be read: {error.strerror}"
        raise ValueError(f"{shown(text)} {reason}; check the path and its permissions") from None


def key_file(text: str) -> str:
    """A file of OpenPGP public keys."""
    path = readable_file(text)
    with open(path, "rb") as stream:
        content = stream.read()
    try:
        keyring_of(content)
    except ValueError as error:
        raise ValueError(f"{shown(text)} {error}") from None
    return path


def url_or_template(text: str) -> str:
    """A URL, or one where `{1}`, `{2}`... stand for what the `*` of a path found."""
    url(re.sub(r"\{[0-9]+\}", "x", text))
    return text


def baseurl(text: str) -> str:
    """A URL, or a template of some, that may have clients' own variables: $releasever, $basearch..."""
    url_or_template(re.sub(r"\$\{?[a-z_]+\}?", "x", text))
    return text
