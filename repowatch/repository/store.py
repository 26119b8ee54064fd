"""What is kept on disk for the next start: the cache, and how far a first reading came.

Deleting it costs time, never packages.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from repowatch.model.publication import Publication
from repowatch.model.recipe import Recipe
from repowatch.model.segment import KINDS, Run, Segment
from repowatch.repository import cache
from repowatch.repository.history import History
from repowatch.repository.home import Home
from repowatch.repository.inventory import Inventory
from repowatch.system.files import remove_if_there

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Start:
    """What a start knows before it has read anything."""

    inventory: Inventory
    segments: Sequence[Segment]  # that were published, in the files of these location_hrefs
    location_hrefs: Sequence[str]
    may_adopt: bool = True  # whether the metadata that is published says what it is to say


class Store:
    """The private files of one repository that the next start reads. Used by `index` alone."""

    def __init__(
        self, home: Home, *, name: str, root: str, recipe: Recipe, newest_build: bool = False
    ) -> None:
        """`newest_build`: whether what was held back for a newer build may still be."""
        self._home = home
        self._name = name
        self._root = root
        self._recipe = recipe
        self._newest_build = newest_build
        self._progress = cache.Progress(home.progress, recipe)
        self._saved: tuple[object, ...] | None = None  # what the cache on disk knows

    def take(self, recipe: Recipe) -> None:
        """All that is listed is made by another recipe now."""
        self._recipe, self._saved = recipe, None
        with contextlib.suppress(OSError):
            self._progress.discard()
        self._progress = cache.Progress(self._home.progress, recipe)

    def restore(self) -> Start:
        """Take over what need not be read again."""
        inventory = Inventory(self._name, self._recipe.form)
        restored, may_adopt = None, True
        try:
            restored = cache.load(self._home.cache, self._root, self._recipe)
        except cache.Outdated as error:
            log.info("%s: %s; all packages are read", self._name, error)
            may_adopt = False
        if restored is not None:
            inventory.catalog = restored.catalog
            inventory.rejected = restored.rejected
            inventory.held = restored.held if self._newest_build else {}
            inventory.find_twins()
            inventory.unchecked = restored.unchecked & restored.catalog.entries.keys()
        segments = inventory.catalog.segments
        if runs := self._progress.load():
            inventory.change(runs, [])
            log.info("%s: %d packages were read before", self._name, sum(len(run.entries) for run in runs))
        location_hrefs = restored.location_hrefs if restored else ()
        return Start(inventory, segments, location_hrefs, may_adopt)

    def save(self, publication: Publication | None, inventory: Inventory, history: History) -> None:
        """Write the cache when it does not know the publication yet."""
        if publication is None or not self._home.is_here():
            return
        if publication.entries is not inventory.catalog.entries:
            return  # what is not published is in no file that the cache could name
        now = (inventory.unchecked, inventory.rejected, inventory.held)
        state = (publication.entries, publication.records, *now)
        if self._saved and all(one is other for one, other in zip(state, self._saved, strict=True)):
            return
        self._saved = state
        files = {record.type: record.location_href for record in publication.records}
        try:
            cache.save(
                self._home.cache,
                inventory.catalog,
                recipe=self._recipe,
                rejected=inventory.rejected.values(),
                unchecked=inventory.unchecked,
                held=inventory.held.values(),
                files=[files[kind] for kind in KINDS],
            )
            self._progress.discard()
            history.save(self._home.history)
        except OSError as error:
            log.warning("%s: the cache can not be written: %s; the next start is slower", self._name, error)

    def keep(self, run: Run) -> bool:
        """Keep what was read and is not published yet; whether that can be done."""
        try:
            self._progress.add(run)
        except OSError as error:
            log.warning("%s: %s; a first reading that is stopped begins anew", self._name, error)
            with contextlib.suppress(OSError):
                self._progress.discard()
            return False
        return True

    def forget(self) -> None:
        """It is of no use."""
        self._saved = None
        with contextlib.suppress(OSError):
            remove_if_there(self._home.cache)
            self._progress.discard()

    def close(self) -> None:
        self._progress.close()
