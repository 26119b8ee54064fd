"""The pages that people read, README.md and docs/: the blocks they indent, and where their links lead."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

PROJECT = Path(__file__).parents[2]
PAGES = {
    str(path.relative_to(PROJECT)): path
    for path in [PROJECT / "README.md", PROJECT / "CHANGES.md", *sorted(PROJECT.glob("docs/**/*.md"))]
}


def blocks(text: str) -> list[str]:
    """What is indented in a text, as it stands there without that."""
    found = re.findall(r"(?:\A|(?<=\n\n))(?: {4}.*\n(?:\n(?= {4}))?)+", text)
    return [textwrap.dedent(block) for block in found]


def section(text: str, heading: str) -> str:
    """What stands below a heading of the second rank. Raises AssertionError where there is none."""
    _, found, rest = text.partition(f"\n## {heading}\n")
    assert found, heading
    return rest.partition("\n## ")[0].lstrip("\n")


def links(text: str) -> list[str]:
    """Where the links of a text lead; those into the web are left out."""
    found = re.findall(r"\]\(([^)\s]*)\)", text)
    return [target for target in found if not target.startswith(("http://", "https://"))]


def anchors(text: str) -> set[str]:
    """What a link can name behind a #: the headings, as GitHub makes names of them."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^a-z0-9 _-]", "", each.lower()).replace(" ", "-") for each in headings}
