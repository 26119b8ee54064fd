"""Module streams that are let through are read by libmodulemd, which is what dnf reads them with."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

import pytest

from repowatch.errors import BadMetadata
from repowatch.model.modules import check

STREAM = """\
---
document: modulemd
version: 2
data:
  name: foo
  stream: "1.10"
  version: 20261128
  context: 9edba152
  arch: noarch
  summary: Foo
  description: >-
    Foo.
  servicelevels:
    stable:
      eol: 2077-10-23
  license:
    module: [MIT]
    content: [MIT]
  dependencies:
  - requires: {platform: [el9]}
    buildrequires:
      platform: [el9]
  profiles:
    default:
      rpms: [foo]
  api:
    rpms: [foo]
  components:
    rpms:
      foo:
        rationale: The module
        buildorder: 10
        buildroot: true
        arches: [x86_64]
  artifacts:
    rpms:
    - foo-0:1.0-1.noarch
...
"""
DEFAULTS = """\
---
document: modulemd-defaults
version: 1
data:
  module: foo
  modified: 202611281800
  stream: "1.10"
  profiles:
    "1.10": [default]
  intents:
    desktop:
      stream: "1.10"
      profiles:
        "1.10": [default]
...
"""
TRANSLATIONS = """\
---
document: modulemd-translations
version: 1
data:
  module: foo
  stream: "1.10"
  modified: 202611281800
  translations:
    de:
      summary: Dies
      profiles:
        default: Das
...
"""
OBSOLETES = """\
---
document: modulemd-obsoletes
version: 1
data:
  module: foo
  stream: "1.10"
  modified: 2026-11-28T18:00Z
  message: It is gone
  reset: false
  obsoleted_by:
    module: foo
    stream: "2"
...
"""
DOCUMENTS = (STREAM, DEFAULTS, TRANSLATIONS, OBSOLETES)
SPOILT = 240


def spoilt(text: str, chance: random.Random) -> str:
    """The text with one thing wrong in it, or without a line, or with two lines in the wrong order."""
    lines = text.splitlines(keepends=True)
    number = chance.randrange(1, len(lines))
    match chance.randrange(4):
        case 0:
            del lines[number]
        case 1:
            key, colon, _ = lines[number].partition(":")
            lines[number] = f"{key}{colon} {chance.choice(['', '[]', '{}', 'abc', '0', '-1'])}\n"
        case 2:
            lines[number] = lines[number].lstrip(" ")
        case _:
            lines[number - 1 : number + 1] = reversed(lines[number - 1 : number + 1])
    return "".join(lines)


@pytest.mark.client("modulemd-validator")
def test_what_is_let_through_is_read_by_libmodulemd(tmp_path: Path) -> None:
    chance = random.Random(7)
    texts = {*DOCUMENTS} | {spoilt(chance.choice(DOCUMENTS), chance) for _ in range(SPOILT)}
    verdicts = {True: 0, False: 0}
    for text in sorted(texts):
        path = tmp_path / "modules.yaml"
        path.write_text(text)
        told = subprocess.run(["modulemd-validator", str(path)], capture_output=True, text=True, check=False)
        verdicts[told.returncode == 0] += 1
        try:
            check(text.encode())
        except BadMetadata:
            continue
        assert told.returncode == 0, f"{told.stdout}{told.stderr}\n{text}"
    for text in DOCUMENTS:
        check(text.encode())
    assert min(verdicts.values()) > 10  # the oracle tells one from the other
