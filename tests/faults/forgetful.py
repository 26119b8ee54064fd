"""`repowatch` with a store that moves pruned packages first and notes their names after that.

The guilty one that the checks of test_pruning have to convict.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from repowatch.cli import main
from repowatch.repository.retired import Leaving, Retired

_announce, _retire = Retired.announce, Retired.retire
_later: list[tuple[Sequence[Leaving], float]] = []


def _put_off(self: Retired, leaving: Sequence[Leaving], *, at: float) -> None:
    self._announced = {each.path: each for each in leaving}
    _later.append((leaving, at))


def _note_at_last(self: Retired, paths: Sequence[str]) -> list[str]:
    others = _retire(self, paths)
    leaving, at = _later.pop()
    _announce(self, leaving, at=at)
    return others


if __name__ == "__main__":
    Retired.announce = _put_off  # type: ignore[method-assign]
    Retired.retire = _note_at_last  # type: ignore[method-assign]
    sys.exit(main())
