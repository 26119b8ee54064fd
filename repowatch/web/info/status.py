"""What the daemon says of its health."""

from __future__ import annotations

from collections.abc import Sequence

from repowatch.web.served import Served


def trouble(repositories: Sequence[Served], *, ready: bool) -> list[str]:
    """Why clients may not see what is in the trees, a line each; empty when all is well.

    Readiness asks for a first publication as well, of what was there at the start.
    """
    lines = []
    for repository in repositories:
        reason = repository.health()
        if reason is None and ready and not repository.came_late and repository.publication() is None:
            reason = "the first index is not finished"
        if reason is not None:
            lines.append(f"{repository.name}: {reason}")
    return lines
