"""What changes several packages of a repository at once, as the doors ask for it: batches and promotion."""

from __future__ import annotations

import itertools
import os
import secrets
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from repowatch.errors import Conflict, Nameless
from repowatch.model.called import matcher, nearest, newest
from repowatch.model.digests import Inspection
from repowatch.model.package import Entry, Stamp
from repowatch.repository.batches import Member, Taken
from repowatch.repository.together import made_of, outcome
from repowatch.repository.updater import Updater
from repowatch.system.files import remove_if_there
from repowatch.system.logs import printable
from repowatch.system.second import give_second_place
from repowatch.web.operations import flag, text, texts
from repowatch.web.served import Asker, Operation
from repowatch.web.uploads import leave_room

MOST_REMEMBERED = 20  # batches that were committed; each may have ten thousand names

# Names in staging: of this run of the daemon, and in it.
_RUN = secrets.token_hex(8)
_numbers = itertools.count()


class Joint:
    """One repository. May be used from any thread."""

    def __init__(
        self,
        updater: Updater,
        *,
        replace: bool,
        reserve: int | None,
        others: Callable[[str], Updater | None],
    ) -> None:
        """`replace`: whether other content may come under an existing name; `reserve`: bytes of the disk that
        copies leave; `others`: repositories by their names."""
        self._updater = updater
        self._index = updater.index
        self._replace = replace
        self._reserve = reserve
        self._others = others
        self._lock = threading.Lock()  # of what follows
        self._committed: Mapping[str, tuple[str | None, dict[str, Any]]] = {}  # by batch, with who did it

    @property
    def operations(self) -> Mapping[str, Operation]:
        """By name, for the doors."""
        return {
            "commit": Operation(self.commit, takes=frozenset({"batch"})),
            "discard": Operation(self.discard, takes=frozenset({"batch"})),
            "promote": Operation(
                self.promote,
                takes=frozenset({"from", "packages", "newest", "copy", "dry_run"}),
                reads="from",
            ),
        }

    # -- batches -----------------------------------------------------------------------------

    def put(
        self,
        batch: str,
        location_href: str,
        *,
        staged: str,
        inspection: Inspection,
        is_conditional: bool,
        who: str | None,
    ) -> str:
        """See `Batched`."""
        path, stamp = self._index.tree.path(location_href), Stamp.of(os.stat(staged))
        before = _seen(path) if is_conditional else None
        self._index.describe(inspection, location_href=location_href, stamp=stamp, path=staged)
        member = Member(location_href, None, inspection.pkgid, inspection.size, before)
        count = self._index.batches.put(batch, member, staged=staged, who=who)
        return _kept(location_href, batch, count)

    def remove(self, batch: str, location_href: str, *, is_conditional: bool, who: str | None) -> str:
        """See `Batched`."""
        before = _seen(self._index.tree.path(location_href)) if is_conditional else None
        member = Member(location_href, None, None, 0, before)
        count = self._index.batches.put(batch, member, staged=None, who=who)
        return _kept(location_href, batch, count)

    def commit(self, arguments: dict[str, Any], asker: Asker) -> dict[str, Any]:
        """Publish a batch: {"batch": NAME}."""
        name = text(arguments, "batch")
        batches = self._index.batches
        try:
            with batches.taken(name, who=asker.name, is_operator=asker.is_operator) as batch:
                for member in batch.members:
                    (asker.may_write if member.file else asker.may_delete)(member.location_href)
                try:
                    published = self._publish(batch, asker)
                except BaseException:
                    if not os.path.isdir(batch.directory):  # it went with the publication all the same
                        batches.forget(name)
                    raise
                batches.forget(name)
        except Nameless:
            return self._committed_before(name, asker)
        told = {
            "batch": name,
            **published,
            "locations": sorted(each.location_href for each in batch.members if each.file),
            "removed": sorted(each.location_href for each in batch.members if not each.file),
        }
        self._remember(name, asker, told)
        return told

    def _committed_before(self, name: str, asker: Asker) -> dict[str, Any]:
        """What was told of a commit whose answer may have been lost. Raises Nameless."""
        who, told = self._committed.get(name, (None, None))
        if told is None or not (asker.is_operator or who == asker.name):
            raise Nameless(f"there is no open batch {name[:64]}")
        return told

    def _remember(self, name: str, asker: Asker, told: dict[str, Any]) -> None:
        """Replaces the whole, for any thread that reads."""
        with self._lock:
            others = {key: each for key, each in self._committed.items() if key != name}
            kept = list(others.items())[-MOST_REMEMBERED + 1 :]
            self._committed = dict([*kept, (name, (asker.name, told))])

    def _publish(self, batch: Taken, asker: Asker) -> dict[str, Any]:
        """What is told of the publication that shows it."""
        members = {each.location_href: each for each in batch.members}
        pkgids = {name: each.pkgid for name, each in members.items() if each.file and each.pkgid}
        files = {
            name: batch.path(members[name]) for name, pkgid in pkgids.items() if not self._has(name, pkgid)
        }
        leaving = [
            name
            for name, each in members.items()
            if not each.file and os.path.lexists(self._index.tree.path(name))
        ]

        def check(name: str) -> None:
            member = members[name]
            if member.before is not None and _seen(self._index.tree.path(name)) != member.before:
                raise Conflict(f"{name} is not as it was when it was uploaded on a condition")
            if member.file:
                self._check(name)

        return self._change(files, leaving, pkgids=pkgids, check=check, scratch=batch.directory, asker=asker)

    def discard(self, arguments: dict[str, Any], asker: Asker) -> dict[str, Any]:
        """Drop a batch: {"batch": NAME}."""
        name = text(arguments, "batch")
        batches = self._index.batches
        with batches.taken(name, who=asker.name, is_operator=asker.is_operator) as batch:
            batches.forget(name)
        return {"batch": name, "discarded": len(batch.members)}

    # -- promotion ---------------------------------------------------------------------------

    def promote(self, arguments: dict[str, Any], asker: Asker) -> dict[str, Any]:
        """Publish packages of another repository here as well, under the same location_hrefs.

        {"from": NAME, "packages": [NAME, NEVRA, file name, or pattern, ...], "newest": false,
        "copy": false, "dry_run": false}. With "copy" no file gets a second name in the place of a copy.
        """
        name = text(arguments, "from")
        source = self._others(name)
        if source is None or source is self._updater:
            raise Nameless(f"there is no other repository {name}")
        chosen = _chosen(source, name, texts(arguments, "packages"), flag(arguments, "newest"))
        wanted = [entry for entry in chosen if not self._has(entry.location_href, entry.pkgid)]
        for entry in wanted:
            asker.may_write(entry.location_href)
            self._check(entry.location_href)
        pkgids = {entry.location_href: entry.pkgid for entry in wanted}
        told: dict[str, Any] = {
            "from": name,
            "locations": sorted(pkgids),
            "already": sorted({entry.location_href for entry in chosen} - pkgids.keys()),
        }
        if flag(arguments, "dry_run"):
            return told | {"dry_run": True}
        may_link = not flag(arguments, "copy")
        with self._staged(source, wanted, may_link=may_link) as (files, how):
            published = self._change(files, (), pkgids=pkgids, check=self._check, scratch=None, asker=asker)
        return told | published | {"how": dict(how)}

    @contextmanager
    def _staged(
        self, source: Updater, entries: Sequence[Entry], *, may_link: bool
    ) -> Iterator[tuple[dict[str, str], Counter[str]]]:
        """The files of the other repository, with a second place in the staging of this one."""
        staging = self._index.home.open_staging()
        if os.stat(staging).st_dev != os.stat(source.index.root).st_dev:
            leave_room(staging, sum(each.stamp.size for each in entries), reserve=self._reserve)
        files: dict[str, str] = {}
        how: Counter[str] = Counter()
        try:
            for entry in entries:
                found = source.index.tree.look(entry.location_href)
                if found is None or found.stamp != entry.stamp:
                    raise Conflict(f"{entry.location_href} is not what is listed there; try again")
                staged = os.path.join(staging, f"promote-{_RUN}-{next(_numbers)}")
                files[entry.location_href] = staged
                how[give_second_place(found.path, staged, may_link=may_link)] += 1
            yield files, how
        finally:
            for staged in files.values():
                remove_if_there(staged)
            if how["linked"]:
                source.take_links(entries)

    # -- both --------------------------------------------------------------------------------

    def _change(
        self,
        files: Mapping[str, str],
        leaving: Sequence[str],
        *,
        pkgids: Mapping[str, str],
        check: Callable[[str], None],
        scratch: str | None,
        asker: Asker,
    ) -> dict[str, Any]:
        """Publish it; the revision, and notes on it. `pkgids` says what the files have to be."""
        if not files and not leaving:
            publication = self._index.publication
            return {"revision": publication.revision if publication else 0, "notes": []}
        together = made_of(self._index, files, leaving, check=check, scratch=scratch)
        for arrival in together.arrivals:
            name, wanted = arrival.location_href, pkgids[arrival.location_href]
            found = arrival.package.entry.pkgid if arrival.package else wanted
            # Checksums of another kind, after another configuration or from another repository, say nothing.
            if len(found) == len(wanted) and found != wanted:
                raise Conflict(f"{name} is not what it was; try again")
        end = self._index.history.claim([*files, *leaving], who=asker.name, how=asker.how)
        try:
            revision = outcome(self._updater.together(together))
            return {"revision": revision, "notes": together.answer.result().note.splitlines()}
        finally:
            end(owed=False)

    def _check(self, location_href: str) -> None:
        """Raise Conflict where a package may not have the name."""
        if not self._index.tree.is_package_name(location_href):
            raise Conflict(f"{location_href} is excluded from this repository")
        if self._replace:
            return
        seen = _seen(self._index.tree.path(location_href))
        if seen and seen[1]:
            raise Conflict(f"{location_href} exists with other content and may not be replaced")

    def _has(self, location_href: str, pkgid: str | None) -> bool:
        """Whether a file is listed with these bytes already."""
        publication = self._index.publication
        entry = publication.entries.get(location_href) if publication else None
        if entry is None or pkgid is None:
            return False
        found = self._index.tree.look(location_href)
        if found is None or found.stamp != entry.stamp:
            return False
        if len(pkgid) != len(entry.pkgid):  # by another algorithm: of another repository, or configuration
            return self._index.snapshots.has_bytes(found.path, pkgid)
        return pkgid == entry.pkgid


def _chosen(source: Updater, name: str, patterns: Sequence[str], only_newest: bool) -> list[Entry]:
    """The packages of a repository that are meant. Raises Nameless when a pattern means none."""
    publication = source.index.publication
    entries = publication.entries if publication else {}
    chosen: dict[str, Entry] = {}
    for pattern in patterns:
        is_meant = matcher(pattern)
        found = {entry.location_href: entry for entry in entries.values() if is_meant(entry)}
        if not found:
            near = nearest(pattern, entries.values())
            hint = f"; there is {', '.join(near)}" if near else ""
            raise Nameless(f"{name} lists no package {pattern[:200]}{hint}")
        chosen |= found
    return newest(chosen.values()) if only_newest else list(chosen.values())


def _seen(path: str) -> list[int]:
    """What has a name now: its inode, size and mtime; [] for nothing."""
    try:
        status = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [status.st_ino, status.st_size, status.st_mtime_ns]


def _kept(location_href: str, batch: str, count: int) -> str:
    return (
        f"{printable(location_href)} waits for the commit of the batch {batch}, its changes by now: {count}"
    )
