"""The door to createrepo_c: one package file in, the elements that describe it out.

The bytes of a file are seen once, by its digests' check, which hands over everything before the
payload; createrepo_c parses just that, from memory. So what is listed is what was checked, even when
the file is replaced meanwhile, and a package is read once, not three times.

This module is meant to run in a process of its own (see `readers`): createrepo_c holds the GIL, and
an odd package may end the process that reads it.
"""

from __future__ import annotations

import os
import stat

import createrepo_c

from repowatch.errors import BadPackage, ChangedWhileRead
from repowatch.model.digests import Inspection, inspect
from repowatch.model.package import Entry, Nevra, Package, Stamp

# createrepo_c's own default; `changelogs kept` is part of what a pure function of the tree says.
CHANGELOGS = 10


def read(path: str, location_href: str) -> Package:
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
        inspection = inspect(stream, size=stamp.size)
        if Stamp.of(os.fstat(descriptor)) != stamp:
            raise ChangedWhileRead(f"{path} changed while it was read")
    return describe(inspection, location_href=location_href, stamp=stamp)


def describe(inspection: Inspection, *, location_href: str, stamp: Stamp) -> Package:
    """What is published of an inspected package.

    Raises BadPackage when createrepo_c can not parse the header or XML can not carry what it says.
    """
    try:
        location_href.encode()
    except UnicodeEncodeError:
        # createrepo_c takes such bytes for ISO-8859-1 and lists a name that no request can reach.
        raise BadPackage("its name is not UTF-8, so no client could ask for it; rename it") from None
    try:
        parsed = _parse(inspection.head, location_href)
        parsed.pkgId = inspection.pkgid
        parsed.size_package = inspection.size
        parsed.time_file = stamp.mtime_ns // 1_000_000_000
        primary, filelists, other = createrepo_c.xml_dump(parsed)
    except (createrepo_c.CreaterepoCError, OSError, UnicodeError) as error:
        raise BadPackage(f"createrepo_c can not describe it: {_one_line(error)}") from None
    nevra = Nevra(
        parsed.name, parsed.epoch or "0", parsed.version or "", parsed.release or "", parsed.arch or ""
    )
    entry = Entry(location_href, inspection.pkgid, nevra, stamp)
    return Package(entry, primary.encode(), filelists.encode(), other.encode())


def _parse(head: bytes, location_href: str) -> createrepo_c.Package:
    descriptor = os.memfd_create("rpm-head", os.MFD_CLOEXEC)
    try:
        os.truncate(descriptor, len(head))
        view = memoryview(head)
        while view:
            view = view[os.write(descriptor, view) :]
        return createrepo_c.package_from_rpm(
            f"/proc/self/fd/{descriptor}", createrepo_c.SHA256, location_href, None, CHANGELOGS
        )
    finally:
        os.close(descriptor)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
