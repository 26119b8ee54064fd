"""`repowatch` with a publisher that renames repomd.xml before it writes the files that it names.

The guilty one that the checks of test_death have to convict.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

from repowatch.cli import main
from repowatch.model.repomd import Repomd
from repowatch.repository.publisher import Publisher
from repowatch.repository.segments import MetadataFile
from repowatch.system.files import write_durably

_in_order = Publisher.publish
_kept: dict[str, Sequence[bytes]] = {}


def _keep(self: Publisher, kind: str, parts: Sequence[bytes]) -> None:
    _kept[kind] = parts


def _hastily(self: Publisher, files: Sequence[MetadataFile], **rest: Any) -> Repomd:
    self._good |= {file.name for file in files}
    with_nothing_written = _in_order(self, files, **rest)
    for file in files:
        write_durably(os.path.join(self.directory, file.name), _kept[file.kind])
    return with_nothing_written


if __name__ == "__main__":
    Publisher.write_aside = _keep  # type: ignore[method-assign]
    Publisher.publish = _hastily  # type: ignore[method-assign]
    sys.exit(main())
