"""What one repository is at the moment: shared by the parts of a turn, changed by its thread alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from repowatch.model.publication import Publication
from repowatch.model.recipe import Recipe
from repowatch.model.segment import Segment
from repowatch.repository.inventory import Inventory, News


@dataclass(slots=True)
class Hooks:
    """What others want to hear or to say of a turn; set before the first one."""

    stopping: Callable[[], bool] = lambda: False
    progress: Callable[[int, int], None] = lambda done, total: None  # files read of files to read
    returned: Callable[[], None] = lambda: None  # the tree has to be watched anew
    published: Callable[[], None] = lambda: None  # there is a newer publication to see
    rests: Callable[[], None] = lambda: None  # much was made that will stay


@dataclass(slots=True)
class State:
    """Other threads see `publication` alone, which is replaced whole."""

    recipe: Recipe
    inventory: Inventory
    publication: Publication | None = None
    written: Sequence[Segment] | None = None  # the segments that are published
    news: News = field(default_factory=lambda: News(0, 0, 0))  # of the last publication
    is_known: bool = False  # whether the inventory is of the whole tree
