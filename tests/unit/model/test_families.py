from __future__ import annotations

from collections.abc import Sequence

import pytest

from repowatch.model.families import variables


@pytest.mark.parametrize(
    ("family", "places"),
    [
        ([("8", "x86_64"), ("9", "aarch64")], ("$releasever", "$basearch")),
        ([("x86_64", "41")], ("$basearch", "$releasever")),
        ([("15.6", "x86_64"), ("2023", "i386")], ("$releasever", "$basearch")),
        ([("9", "x86_64"), ("stream", "x86_64")], (None, "$basearch")),
        ([("9", "x86_64"), ("9", "noarch")], ("$releasever", None)),
        ([("9", "3")], (None, None)),
        ([("9.4.1",)], (None,)),
        ([("20260101",)], (None,)),
        ([("stable",)], (None,)),
        ([], ()),
    ],
)
def test_a_variable_stands_where_all_values_of_one_place_look_like_it(
    family: Sequence[Sequence[str]], places: Sequence[str | None]
) -> None:
    assert variables(family) == tuple(places)
