"""What one turn of a repository is asked for, and how it may end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field

from repowatch.errors import RepowatchError
from repowatch.model.package import Package
from repowatch.model.publication import Listed


@dataclass(frozen=True, slots=True, eq=False)
class Arrival:
    """A package to be published from staging."""

    location_href: str
    staged: str  # path, on the repository's file system
    package: Package | None  # None: an empty file, accepted and not listed
    check: Callable[[], None]  # raises what refuses it at the last moment
    departs: str | None = None  # the location_href that `staged` is the file of (MOVE)
    answer: Future[Listed] = field(default_factory=Future)
    came_at: float | None = None  # seconds since 1970

    @property
    def touches(self) -> set[str]:
        """The names that it changes."""
        return {self.location_href} | ({self.departs} if self.departs else set())


@dataclass(frozen=True, slots=True, eq=False)
class Departure:
    """A package to be unlisted and removed."""

    location_href: str
    check: Callable[[], None]
    answer: Future[Listed] = field(default_factory=Future)
    retire: bool = False  # whether the file is kept for a while, and served under its name

    @property
    def touches(self) -> set[str]:
        return {self.location_href}


@dataclass(frozen=True, slots=True, eq=False)
class Together:
    """Changes that one publication shows, all of them or none; no two touch one name.

    Their own answers are not given: there is one for all.
    """

    arrivals: tuple[Arrival, ...]
    departures: tuple[Departure, ...] = ()
    scratch: str | None = None  # a directory in the private place, to be removed when all is shown
    answer: Future[Listed] = field(default_factory=Future)

    @property
    def members(self) -> tuple[Arrival | Departure, ...]:
        return (*self.arrivals, *self.departures)

    def check(self) -> None:
        """Raise what refuses any of them."""
        for each in self.members:
            each.check()

    @property
    def touches(self) -> set[str]:
        return set().union(*(each.touches for each in self.members))


Change = Arrival | Departure | Together


def arrivals_in(changes: Iterable[Change]) -> Iterator[Arrival]:
    """The arrivals among changes, those that come together with others too."""
    for change in changes:
        if isinstance(change, Together):
            yield from change.arrivals
        elif isinstance(change, Arrival):
            yield change


class PublicationFailed(RepowatchError):
    """The old view stands; `error` says why, `again` which names have to be looked at again."""

    def __init__(self, error: Exception, *, again: set[str]) -> None:
        super().__init__(f"the publication failed: {error}")
        self.error = error
        self.again = again


@dataclass(slots=True)
class Again:
    """Names that have to be looked at again: when they are quiet, or right away."""

    unsettled: set[str] = field(default_factory=set)
    left_over: set[str] = field(default_factory=set)


class Stopped(Exception):
    """The turn was given up because it was asked to stop."""
