"""What is told of the turns of a repository: lines in the log, figures, notices.

Used by `index`, in its thread.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from repowatch.model.figures import Tally
from repowatch.model.publication import Publication
from repowatch.repository.arrivals import Arrivals
from repowatch.repository.changes import Again, Change, arrivals_in
from repowatch.repository.notices import Notices
from repowatch.repository.state import State
from repowatch.repository.tree import Found
from repowatch.system.clock import Clock

log = logging.getLogger(__name__)


class Telling:
    """Keeps account of what each turn did."""

    def __init__(
        self,
        state: State,
        *,
        name: str,
        tally: Tally,
        arrivals: Arrivals,
        notices: Notices,
        clock: Clock,
    ) -> None:
        self._state = state
        self._name = name
        self._tally = tally
        self._arrivals = arrivals
        self._notices = notices
        self._clock = clock

    def turned(
        self,
        before: Publication | None,
        changes: Sequence[Change],
        *,
        names: set[str],
        looked_at: Sequence[tuple[str, Found | None]],
        again: Again,
        began: float,
        published: bool,
    ) -> None:
        """A turn that began at `began` (seconds since 1970) ended well, and looked at `names`."""
        self._log_news(before, published=published)
        if published and before is not None:  # else what was there before us
            self._count_arrivals(changes, names=names)
        if published:
            came = {name for change in changes for name in change.touches}
            self._notices.published(self._state.news.changes, came=came, at=self._clock.now())
        self._count_turn(names, looked_at, again, began=began, published=published)

    def _count_turn(
        self,
        names: set[str],
        looked_at: Sequence[tuple[str, Found | None]],
        again: Again,
        *,
        began: float,
        published: bool,
    ) -> None:
        """A turn ended well: count it, and remember since when what it left waits."""
        if published and self._state.publication:
            self._tally.published(self._state.publication.seconds)
        stamps = {name: found.stamp for name, found in looked_at if found and found.stamp}
        left_over = {name: stamps[name] for name in again.left_over if name in stamps}
        self._arrivals.turned(names, seen=[name for name, _ in looked_at], left_over=left_over, began=began)
        self._tally.succeeded_at = self._clock.now()

    def _count_arrivals(self, changes: Sequence[Change], *, names: set[str]) -> None:
        """Count how long each package waited that was listed just now."""
        now = self._clock.now()
        came = {each.location_href: each.came_at for each in arrivals_in(changes)}
        for old, entry in self._state.news.changes:
            if entry is not None and (old is None or old.pkgid != entry.pkgid):
                at = came.get(entry.location_href)
                if at is None:
                    at = self._arrivals.of(entry.location_href, entry.stamp, names=names)
                self._tally.listed(now - at)

    def _log_news(self, before: Publication | None, *, published: bool) -> None:
        """One line for a publication, and one for what a start took over."""
        now = self._state.publication
        if now is None or (before is not None and not published):
            return
        if not published:
            log.info("%s: revision %d stands, %d packages", self._name, now.revision, len(now.entries))
            return
        news = self._state.news
        log.info(
            "%(repository)s: revision %(revision)d: %(packages)d packages, %(added)d added, "
            "%(replaced)d replaced, %(removed)d removed, %(ms)d ms",
            {
                "repository": self._name,
                "revision": now.revision,
                "packages": len(now.entries),
                "added": news.added,
                "replaced": news.replaced,
                "removed": news.removed,
                "ms": round(now.seconds * 1000),
            },
        )
