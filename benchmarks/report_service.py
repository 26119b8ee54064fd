"""The page's sections on a daemon that serves many: readers while it publishes, and uploads at once."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from benchmarks.burst import UPLOADS, lasted, publications
from benchmarks.burst import Result as Burst
from benchmarks.contenders import Createrepo
from benchmarks.pace import CLIENTS, PACE
from benchmarks.publish import Result as Published
from benchmarks.publish import percentile
from benchmarks.readers import Result as Readers
from benchmarks.tables import ms, table


def readers(results: Sequence[Readers]) -> list[str]:
    lines = ["## Readers while it publishes", "", _READERS]
    for each in results:
        lines += [f"### {each.size:,} packages, {each.publications} publications", "", *_states(each)]
    return lines


def _states(result: Readers) -> list[str]:
    states = {
        "the daemon is idle": result.idle,
        "idle, while the floor runs": result.floor,
        "it publishes": result.publishing,
    }
    idle = percentile(result.idle, 99)
    head = ("GET, ms", "GETs", "p50", "p99", "slowest", "p99 above idle")
    rows = [
        [
            label,
            f"{len(seconds):,}",
            *(ms(percentile(seconds, percent)) for percent in (50, 99, 100)),
            ms(percentile(seconds, 99) - idle),
        ]
        for label, seconds in states.items()
    ]
    return table(head, rows)


def bursts(results: Sequence[Burst], published: Sequence[Published]) -> list[str]:
    head = (
        "packages",
        "at once: all s",
        "slowest s",
        "publications",
        "one by one: p50 ms",
        "p99 ms",
        "all s",
        "publications",
        "createrepo_c / ours",
    )
    return [
        f"## {UPLOADS} uploads at once, and one after the other",
        "",
        _BURSTS,
        *table(head, (_burst(each, published) for each in results)),
    ]


def _burst(result: Burst, published: Sequence[Published]) -> list[str]:
    singles = [upload.seconds for uploads in result.one_by_one for upload in uploads]
    return [
        f"{result.size:,}",
        f"{median(map(lasted, result.at_once)):.2f}",
        f"{max(upload.seconds for uploads in result.at_once for upload in uploads):.2f}",
        f"{median(map(publications, result.at_once)):.0f}",
        ms(percentile(singles, 50)),
        ms(percentile(singles, 99)),
        f"{median(map(lasted, result.one_by_one)):.1f}",
        f"{median(map(publications, result.one_by_one)):.0f}",
        _ratio(percentile(singles, 50), result.size, published),
    ]


def _ratio(ours: float, size: int, published: Sequence[Published]) -> str:
    for each in published:
        if each.size == size and each.label == Createrepo.label:
            return f"{percentile(each.seconds['added'], 50) / ours:.1f}"
    return ""


_READERS = f"""\
{CLIENTS} clients, each a process with one connection that stays open, ask for repomd.xml and for a package
of a few kB in turns, {PACE} times a second together. A GET that could not be sent in time, because the one
before it was not answered yet, counts from when it was due. The three states take turns:

- **idle**: nothing else happens.
- **the floor runs**: the daemon is idle, and another process does the work of the floor above without a
  pause: what a machine alone costs that hashes and writes as a publication has to.
- **it publishes**: a new package is uploaded, one follows the other. The GETs that began while one was
  in hand.
"""

_BURSTS = """\
Each upload is a new package on a connection of its own, answered when it is durable and listed. *All* is
from the first request to the last answer; the slowest answer is that of all rounds. What arrives while a
publication is in hand goes together into the next one. *createrepo_c / ours* compares medians: one package
added with createrepo_c --update, in the first section, and one upload of those that came one by one.
"""
