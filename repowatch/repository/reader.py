"""The door to createrepo_c: package files in, the elements that describe them out.

The bytes of a file are seen once, by its digests' check, which hands over everything before the
payload; createrepo_c parses just that, from memory. So what is listed is what was checked, even when
the file is replaced meanwhile, and a package is read once, not three times.

This module is meant to run in a process of its own (see `readers`): createrepo_c holds the GIL, and
an odd package may end the process that reads it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Sequence

import createrepo_c

from repowatch.errors import BadPackage, ChangedWhileRead
from repowatch.model.digests import Inspection, inspect
from repowatch.model.package import Entry, Nevra, Package, Stamp
from repowatch.model.recipe import Recipe
from repowatch.repository.signed import check

_CHECKSUMS = {"sha256": createrepo_c.SHA256, "sha512": createrepo_c.SHA512}
_ALL_CHANGELOGS = -1


class Reader:
    """Reads, one after the other, what it is asked for."""

    def __init__(self) -> None:
        # createrepo_c opens what it parses by its name.
        self._head = os.memfd_create("rpm-head", os.MFD_CLOEXEC)
        self._head_name = f"/proc/self/fd/{self._head}"

    def read(self, path: str, location_href: str, recipe: Recipe) -> Package:
        """Read, check and describe a package file.

        Raises BadPackage, ChangedWhileRead, and OSError when it can not be read.
        """
        # O_NONBLOCK: a FIFO that came into the file's place must not hold the reader.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb", buffering=0) as stream:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise BadPackage("not a regular file")
            stamp = Stamp.of(status)
            inspection = inspect(stream, size=stamp.size, checksum=recipe.checksum)
            package = self.describe(inspection, location_href, stamp, recipe, f"/proc/self/fd/{descriptor}")
            if Stamp.of(os.fstat(descriptor)) != stamp:
                raise ChangedWhileRead(f"{path} changed while it was read")
        return package

    def describe(
        self, inspection: Inspection, location_href: str, stamp: Stamp, recipe: Recipe, path: str
    ) -> Package:
        """What is published of an inspected package, the file at `path`.

        Raises BadPackage when its signatures are not what is asked for, when createrepo_c can not parse the
        header, or XML can not carry what it says.
        """
        try:
            location_href.encode()
        except UnicodeEncodeError:
            # createrepo_c takes such bytes for ISO-8859-1 and lists a name that no request can reach.
            raise BadPackage("its name is not UTF-8, so no client could ask for it; rename it") from None
        hint = check(inspection.head, path=path, stamp=stamp, policy=recipe.policy)
        try:
            parsed = self._parse(inspection, location_href, recipe)
            parsed.pkgId = inspection.pkgid
            parsed.size_package = inspection.size
            parsed.time_file = stamp.mtime_ns // 1_000_000_000
            return _package(parsed, stamp, hint)
        except (createrepo_c.CreaterepoCError, OSError, UnicodeError) as error:
            raise BadPackage(f"createrepo_c can not describe it: {_one_line(error)}") from None

    def _parse(self, inspection: Inspection, location_href: str, recipe: Recipe) -> createrepo_c.Package:
        head = inspection.head
        os.truncate(self._head, len(head))
        at = 0
        while at < len(head):
            at += os.pwrite(self._head, memoryview(head)[at:], at)
        changelogs = _ALL_CHANGELOGS if recipe.changelogs is None else recipe.changelogs
        return createrepo_c.package_from_rpm(
            self._head_name, _CHECKSUMS[inspection.checksum], location_href, None, changelogs
        )

    def adopt(self, texts: Sequence[bytes], recipe: Recipe) -> list[Package]:
        """The packages that another tool described: their elements of the three metadata files, which are
        in the same order, as createrepo_c writes them.

        Their stamps say size and mtime (whole seconds) alone. Left out is what could not be taken over:
        with another checksum, or below another base. Raises BadPackage when createrepo_c can not parse them.
        """
        found: list[createrepo_c.Package] = []
        try:
            primary, filelists, other = (text.decode() for text in texts)
            createrepo_c.xml_parse_primary_snippet(primary, pkgcb=found.append, do_files=False)
            createrepo_c.xml_parse_filelists_snippet(filelists, newpkgcb=_in_order(found))
            createrepo_c.xml_parse_other_snippet(other, newpkgcb=_in_order(found))
            return [
                _package(parsed, Stamp(parsed.size_package, parsed.time_file * 1_000_000_000, 0, 0))
                for parsed in found
                if parsed.checksum_type == recipe.checksum and not parsed.location_base
            ]
        except (createrepo_c.CreaterepoCError, UnicodeError, TypeError) as error:
            raise BadPackage(f"createrepo_c can not read it: {_one_line(error)}") from None


def _in_order(packages: Sequence[createrepo_c.Package]) -> Callable[..., createrepo_c.Package]:
    """What createrepo_c's parser asks for the package that an element belongs to."""
    following = iter(packages)
    return lambda pkgid, name, arch: next(following)


def _package(parsed: createrepo_c.Package, stamp: Stamp, hint: str = "") -> Package:
    primary, filelists, other = createrepo_c.xml_dump(parsed)
    nevra = Nevra(
        parsed.name, parsed.epoch or "0", parsed.version or "", parsed.release or "", parsed.arch or ""
    )
    entry = Entry(parsed.location_href, parsed.pkgId, nevra, stamp, parsed.time_build, hint)
    return Package(entry, primary.encode(), filelists.encode(), other.encode())


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
