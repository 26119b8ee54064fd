"""Our order of versions is rpm's own."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.unit.model.test_versions import EQUAL, OLDER_AND_NEWER, compare, compare_evr

pytestmark = pytest.mark.skipif(
    shutil.which("rpm") is None and "CI" not in os.environ, reason="rpm is not installed"
)

# Each line of the input holds two texts as hexadecimal, so that no byte means anything to rpm's macros.
SCRIPT = """
local function text(hex)
  return (hex:gsub("..", function (digits) return string.char(tonumber(digits, 16)) end))
end
for line in io.lines("INPUT") do
  local a, b = line:match("^(.-) (.-)$")
  print(COMPARE, "\\n")
end
"""
COMPARE_VERSIONS = "rpm.vercmp(text(a), text(b))"
COMPARE_EVR = "rpm.ver(text(a)) < rpm.ver(text(b)) and -1 or rpm.ver(text(a)) > rpm.ver(text(b)) and 1 or 0"

Pair = tuple[str, str]


def ask_rpm(expression: str, pairs: list[Pair], folder: Path) -> list[int]:
    lines = (" ".join(text.encode("utf-8", "surrogateescape").hex() for text in pair) for pair in pairs)
    (folder / "input").write_text("".join(f"{line}\n" for line in lines))
    script = SCRIPT.replace("INPUT", str(folder / "input")).replace("COMPARE", expression)
    (folder / "script.lua").write_text(script)
    command = ["rpm", "--eval", f'%{{lua: dofile("{folder}/script.lua")}}']
    answer = subprocess.run(command, check=True, capture_output=True, text=True)
    return [int(line) for line in answer.stdout.split()]


def versions(chance: random.Random, count: int) -> list[str]:
    pieces = ["0", "1", "9", "10", "007", "a", "B", "rc", "z", ".", "_", "+", "~", "^", "é", "\udcff"]
    return ["".join(chance.choices(pieces, k=chance.randint(0, 6))) for _ in range(count)]


def near_pairs(chance: random.Random, count: int) -> list[Pair]:
    """Pairs with a common beginning, where the rare rules decide."""
    beginnings, ends, others = (versions(chance, count) for _ in range(3))
    return [(start + one, start + other) for start, one, other in zip(beginnings, ends, others, strict=True)]


def test_versions_compare_as_rpm_compares_them(tmp_path: Path) -> None:
    chance = random.Random(20240229)
    short = [".", "1", "1~", "1^", "1.", "1a", "1.1", "~", "^", "~^", "^~"]
    every_two = [(a, b) for a in short for b in short]
    pairs = [*OLDER_AND_NEWER, *EQUAL, *every_two, *near_pairs(chance, 1600)]
    # rpm.vercmp() refuses an empty version and splits at a hyphen; rpmvercmp() itself does neither.
    pairs = [pair for pair in pairs if all(pair) and "-" not in "".join(pair)]
    assert len(pairs) > 1500
    assert [compare(a, b) for a, b in pairs] == ask_rpm(COMPARE_VERSIONS, pairs, tmp_path)


def test_epoch_version_and_release_compare_as_rpm_compares_them(tmp_path: Path) -> None:
    chance = random.Random(20240229)
    values = list(itertools.product(["0", "1", "10"], ["1", "1.0", "1~rc1", "1^git", "2"], ["1", "2.el9"]))
    pairs = [(chance.choice(values), chance.choice(values)) for _ in range(500)]
    texts = [(f"{a[0]}:{a[1]}-{a[2]}", f"{b[0]}:{b[1]}-{b[2]}") for a, b in pairs]
    assert [compare_evr(a, b) for a, b in pairs] == ask_rpm(COMPARE_EVR, texts, tmp_path)


def test_a_package_without_an_epoch_compares_as_rpm_compares_it(tmp_path: Path) -> None:
    assert ask_rpm(COMPARE_EVR, [("1-1", "0:1-1"), ("9-1", "1:1-1")], tmp_path) == [
        compare_evr(("", "1", "1"), ("0", "1", "1")),
        compare_evr(("", "9", "1"), ("1", "1", "1")),
    ]
