"""The page's sections on what comes before the first change: indexes, restarts, and memory."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.adoption import Result as Adoption
from benchmarks.first_index import Memory, Result
from benchmarks.tables import table

MIB = 1 << 20


def first(results: Sequence[Result], adopted: Sequence[Adoption]) -> list[str]:
    head = ("packages", "`repowatch index` s", "createrepo_c s", "createrepo_c / ours")
    other = (
        "packages",
        "published s",
        "and checked s",
        "createrepo_c --update s",
        "createrepo_c / published",
    )
    return [
        "## From nothing, and from createrepo_c's metadata",
        "",
        _FIRST,
        *table(head, map(_against_createrepo, results)),
        _ADOPTED,
        *table(other, map(_adopted, adopted)),
    ]


def _adopted(result: Adoption) -> list[str]:
    size, ours, *theirs = _against_createrepo(result)
    return [size, ours, f"{result.checked:.2f}", *theirs]


def _against_createrepo(result: Result | Adoption) -> list[str]:
    return [
        f"{result.size:,}",
        f"{result.ours:.2f}",
        f"{result.createrepo:.2f}",
        f"{result.createrepo / result.ours:.1f}",
    ]


def restarts(results: Sequence[Result]) -> list[str]:
    head = (
        "packages",
        "restart s",
        "and all open s",
        "createrepo_c parses s",
        "parses / restart",
        "parses and writes s",
        "parses and writes / restart",
    )
    return ["## After a restart", "", _RESTART, *table(head, map(_restart, results))]


def _restart(result: Result) -> list[str]:
    return [
        f"{result.size:,}",
        f"{result.restart:.3f}",
        f"{result.warm:.3f}",
        f"{result.parsed:.3f}",
        f"{result.parsed / result.restart:.1f}",
        f"{result.dumped:.3f}",
        f"{result.dumped / result.restart:.1f}",
    ]


def memory(results: Sequence[Memory]) -> list[str]:
    head = (
        "packages",
        "open metadata MiB",
        "first index, peak MiB",
        "idle after it MiB",
        "idle after a restart MiB",
    )
    rows = [
        [
            f"{each.size:,}",
            *(f"{number / MIB:.0f}" for number in (each.open_metadata, each.peak, each.idle, each.restarted)),
        ]
        for each in results
    ]
    return ["## Memory of the daemon", "", _MEMORY, *table(head, rows)]


_FIRST = """\
Both start as a command with as many workers as there are cores, and find no metadata. Ours checks every
digest of every package. Medians of rounds in which the two take turns, here and below.
"""

_ADOPTED = """\
Here both find what createrepo_c wrote, and one package more than that lists. Ours has never been there
before: it finds no cache, publishes what the metadata says, as createrepo_c does, and then reads every
package to check it. (The daemon does that in the background.)
"""

_RESTART = """\
A restart takes what did not change from the cache, with a stat(2) of every file, until its publication
stands again; then it opens the metadata in memory, while nobody waits. createrepo_c's parser is what its
--update begins with; before it can publish again, it has to write the elements of every package anew. Both
are measured in one thread, as Python's binding does it; the command parses in one thread as well, and writes
in all its workers.
"""

_MEMORY = """\
Anonymous resident memory of the daemon and its reader processes together; the peak was sampled 100 times
a second.
"""
