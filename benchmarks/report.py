"""What was measured, in Markdown."""

from __future__ import annotations

import os
import platform
import subprocess
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from benchmarks import report_service, report_start
from benchmarks.adoption import Result as Adoption
from benchmarks.burst import Result as Burst
from benchmarks.contenders import KINDS, Agent, Createrepo, Http, command
from benchmarks.first_index import Memory
from benchmarks.first_index import Result as FirstIndex
from benchmarks.floor import Floor
from benchmarks.publish import Result, percentile
from benchmarks.readers import Result as Readers
from benchmarks.tables import ms, table
from repowatch import __version__
from repowatch.system.mounts import type_of


def machine(scratch: Path) -> list[str]:
    """Facts about this machine that figures depend on; none that say which one it is."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    arguments = [command("createrepo_c"), "--version"]
    createrepo = subprocess.run(arguments, capture_output=True, text=True, check=True)  # noqa: S603 - no input
    try:
        agent = metadata.version("createrepo-agent")
    except metadata.PackageNotFoundError:
        agent = "not installed"
    return [
        f"{os.cpu_count()} cores ({_processor()}), {memory:.0f} GiB of memory, "
        f"Linux {platform.release().partition('-')[0]}, {type_of(str(scratch))}",
        f"repowatch {__version__}, Python {platform.python_version()}, zlib {zlib.ZLIB_RUNTIME_VERSION}",
        f"createrepo_c {createrepo.stdout.split()[1]}, createrepo-agent {agent}",
    ]


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(": ")[2]
    return platform.machine()


@dataclass(frozen=True, slots=True)
class Findings:
    """What was measured, each over some sizes of the tree."""

    published: Sequence[Result]
    readers: Sequence[Readers]
    bursts: Sequence[Burst]
    first: Sequence[FirstIndex]
    adopted: Sequence[Adoption]
    memory: Sequence[Memory]


def markdown(found: Findings, *, machine: Iterable[str], plot: str) -> str:
    """The whole page."""
    return "\n".join(
        [
            _HEAD,
            *(f"- {fact}" for fact in machine),
            "",
            *_one_more(found.published, plot=plot),
            *report_service.readers(found.readers),
            *report_service.bursts(found.bursts, found.published),
            *report_start.first(found.first, found.adopted),
            *report_start.restarts(found.first),
            *report_start.memory(found.memory),
        ]
    )


def _one_more(results: Sequence[Result], *, plot: str) -> list[str]:
    sizes = sorted({each.size for each in results})
    return [
        "## One package more",
        "",
        _PUBLISH,
        f"![Cost of one package against the size of the tree]({plot})",
        "",
        *_ratios(results),
        *(line for size in sizes for line in _one_size(results, size)),
    ]


def _ratios(results: Sequence[Result]) -> list[str]:
    rows = []
    for size in sorted({each.size for each in results}):
        at = {each.label: each for each in results if each.size == size}
        ours = at[Http.label]
        rows.append(
            [
                f"{size:,}",
                *_times(ours, at.get(Floor.label)),
                *_times(at.get(Createrepo.label), ours),
                *_times(at.get(Agent.label), ours),
            ]
        )
    head = ("packages", "ours / floor", "CPU", "createrepo_c / ours", "CPU", "agent / ours", "CPU")
    return table(head, rows)


def _times(one: Result | None, other: Result | None) -> tuple[str, str]:
    """How many times the other one costs: wall time (medians), processor time."""
    if one is None or other is None:
        return "", ""
    wall = percentile(one.all_seconds, 50) / percentile(other.all_seconds, 50)
    return f"{wall:.1f}", f"{one.cpu_seconds / other.cpu_seconds:.1f}"


def _one_size(results: Sequence[Result], size: int) -> list[str]:
    at = [each for each in results if each.size == size]
    head = ["ms", *(f"{kind} {percent}" for kind in KINDS for percent in ("p50", "p99")), "CPU a package"]
    rows = [[each.label, *_percentiles(each.seconds), ms(each.cpu_seconds)] for each in at]
    return [f"### {size:,} packages, {len(at[0].all_seconds)} changes", "", *table(head, rows)]


def _percentiles(seconds: Mapping[str, Sequence[float]]) -> list[str]:
    return [ms(percentile(seconds[kind], percent)) for kind in KINDS for percent in (50, 99)]


_HEAD = """\
# What one more package costs

Written by `python -m benchmarks`. Absolute figures are this machine's; the ratios travel better.
Memory was in use throughout, by files that can be dropped, as on a server that runs for long.
"""

_PUBLISH = """\
One package is added, replaced or removed at a random place, in a tree of packages with metadata as a
distribution has it (about 11 kB of open XML a package), and everyone brings the metadata up to date. The
contenders take turns, each on its own copy of the tree, with gzip and no sqlite, until clients see the
change. p99 of fewer than 100 changes is the slowest one.

- **floor** hashes the bytes of the metadata files, open and compressed, on all cores, and meanwhile writes
  and syncs the compressed ones, each from a thread of its own: what remains when everything else is free.
- **engine alone** is one turn of the index: check and describe the package, publish it. With fsync.
- **PUT and DELETE** is what a client of the daemon waits for. With fsync; the answer comes when the change
  is durable and listed.
- The peers do not sync: what they have written may be gone after a power cut.

Processor time is that of all processes and threads, with what they do in the background after the answer
(ours: the watcher's look at the new file, and the cache, written 10 s after a change). It is the mean over
all changes. Ratios are of medians over all changes; *ours* is PUT and DELETE.
"""
