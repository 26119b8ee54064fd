"""The recipe: what decides, beside the tree, which bytes are published of it."""

from __future__ import annotations

from dataclasses import dataclass

from repowatch.model.formats import FORMATS, Format
from repowatch.model.signatures import ANY, Policy

# createrepo_c's own default (src/cmd_parser.c, DEFAULT_CHANGELOG_LIMIT).
CHANGELOGS = 10


@dataclass(frozen=True, slots=True)
class Recipe:
    """Equal trees and equal recipes give equal metadata, whatever the history."""

    form: Format = FORMATS["compatible"]
    checksum: str = "sha256"  # hashlib's name; of packages, and of the records of repomd.xml
    changelogs: int | None = CHANGELOGS  # entries that are kept of each package, the newest; None: all
    policy: Policy = ANY  # which packages may be listed

    def row(self) -> list[str | int | None]:
        """All of it, for caches."""
        return [self.form.suffix, self.checksum, self.changelogs, self.policy.row()]


DEFAULT = Recipe()
