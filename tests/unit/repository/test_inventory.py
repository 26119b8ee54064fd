"""What is known below a name is found, without a look at all that is known."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from repowatch.model.formats import FORMATS
from repowatch.model.package import Rejected
from repowatch.repository.inventory import Inventory
from tests.unit.model.test_catalog import change, package

_PARTS = st.sampled_from(["a", "b", "a.rpm", "b.rpm", "ab.rpm", "rpm"])
_NAMES = st.lists(_PARTS, min_size=1, max_size=3).map("/".join)
_FILES = st.tuples(st.lists(_PARTS, max_size=2), st.sampled_from(["a.rpm", "b.rpm"])).map(
    lambda each: "/".join((*each[0], each[1]))
)


def inventory_of(listed: set[str], rejected: set[str], held: set[str]) -> Inventory:
    inventory = Inventory("rpm", FORMATS["compatible"])
    change(inventory.catalog, map(package, listed | held))
    inventory.held = {name: inventory.catalog.entries[name] for name in held}
    change(inventory.catalog, [], held)
    inventory.rejected = {name: Rejected(name, None, "odd") for name in rejected}
    return inventory


@given(
    listed=st.sets(_FILES, max_size=12),
    rejected=st.sets(_FILES, max_size=6),
    held=st.sets(_FILES, max_size=6),
    asked=st.sets(_NAMES, max_size=4),
    all_of_it=st.booleans(),
)
def test_what_is_known_below_names_is_found_in_all_places(
    listed: set[str], rejected: set[str], held: set[str], asked: set[str], all_of_it: bool
) -> None:
    inventory = inventory_of(listed, rejected, held - listed)
    directories = {name for name in asked if not name.endswith(".rpm")} | ({""} if all_of_it else set())
    known = listed | rejected | held
    below = {name for name in known if any(name.startswith(f"{each}/") for each in asked)}
    expected = known if all_of_it else below | (known & directories)
    assert set(inventory.below(asked | directories, directories=directories)) == expected


def test_a_package_that_was_heard_of_costs_no_look_at_the_others() -> None:
    """Only the few whose directory has the name of a package may be looked at, name by name."""
    inventory = inventory_of({f"d/p{number}.rpm" for number in range(200)} | {"x.rpm/in.rpm"}, set(), set())
    inventory.catalog.entries = {}  # would be missed by whoever looks there
    assert list(inventory.below({"x.rpm"}, directories=set())) == ["x.rpm/in.rpm"]
    assert [name for segment in inventory.catalog.segments for name in segment.inside] == ["x.rpm/in.rpm"]
