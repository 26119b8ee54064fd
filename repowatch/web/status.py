"""What the daemon says of its health, and `.repo` files."""

from __future__ import annotations

from collections.abc import Sequence

from repowatch.web.names import href_of
from repowatch.web.served import Served


def trouble(repositories: Sequence[Served], *, ready: bool) -> list[str]:
    """Why clients may not see what is in the trees, a line each; empty when all is well.

    Readiness asks for a first publication as well.
    """
    lines = []
    for repository in repositories:
        reason = repository.health()
        if reason is None and ready and repository.publication() is None:
            reason = "the first index is not finished"
        if reason is not None:
            lines.append(f"{repository.name}: {reason}")
    return lines


def repo_file(repository: Served, *, base_url: str) -> str:
    """A file for /etc/yum.repos.d (dnf.conf(5), zypper reads the same)."""
    return (
        f"[{repository.name}]\n"
        f"name={repository.name}\n"
        f"baseurl={base_url}{href_of(repository.url)}\n"
        "enabled=1\n"
        "gpgcheck=0\n"
        "metadata_expire=60\n"
    )
