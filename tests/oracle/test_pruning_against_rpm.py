"""The newest versions that a rule keeps are those that rpm calls newest."""

from __future__ import annotations

import os
import random
import shutil
from functools import cmp_to_key
from pathlib import Path

import pytest

from repowatch.model.package import Entry, Nevra, Stamp
from repowatch.model.pruning import Rule, plan
from tests.oracle.test_versions_against_rpm import COMPARE_EVR, ask_rpm

pytestmark = pytest.mark.skipif(
    shutil.which("rpm") is None and "CI" not in os.environ, reason="rpm is not installed"
)

# As they followed each other in distributions and in builds of our own, in no order.
# fmt: off
VERSIONS = [
    "0:6.1.0-18", "0:6.1.0-18.el9", "0:6.1.0~rc2-1", "0:6.1.0~rc10-1", "0:6.1.0^20240101git1a2b-1",
    "0:6.1.0-9", "1:0.9-1", "1:0.9~beta-1", "0:5.14.0-427.13.1.el9_4", "0:5.14.0-427.el9_4",
    "0:5.14.0-70.30.1.el9_0", "0:2.0.SNAPSHOT20240229-1", "0:2.0~SNAPSHOT20240301-1", "0:2.0-1",
    "0:10.0-1", "0:9.99-1", "0:1.0a-1", "0:1.0.a-2", "2:0.0.1-1", "0:20240101-1", "0:1.2.3-1.fc39",
    "0:1.2.3-1.fc40", "0:1.2.3^post1-1.fc40",
]
# fmt: on


def entry(evr: str) -> Entry:
    epoch, _, rest = evr.partition(":")
    version, _, release = rest.partition("-")
    return Entry(f"{evr}.rpm", evr, Nevra("n", epoch, version, release, "x86_64"), Stamp(1, 0, 0, 0))


def in_rpms_order(versions: list[str], folder: Path) -> list[str]:
    pairs = [(a, b) for a in versions for b in versions]
    verdicts = dict(zip(pairs, ask_rpm(COMPARE_EVR, pairs, folder), strict=True))

    def compare(a: str, b: str) -> int:
        return verdicts[a, b]

    return sorted(versions, key=cmp_to_key(compare))


@pytest.mark.parametrize("keep", [1, 3, 10])
def test_real_sequences_of_versions_are_pruned_in_rpms_order(keep: int, tmp_path: Path) -> None:
    shuffled = random.Random(keep).sample(VERSIONS, len(VERSIONS))
    ordered = in_rpms_order(VERSIONS, tmp_path)
    assert ordered != sorted(VERSIONS)  # or any order would do
    found = plan(map(entry, shuffled), [Rule(keep=keep)], born={}, now=0.0)
    assert [each.entry.pkgid for each in found.out] == ordered[:-keep]
