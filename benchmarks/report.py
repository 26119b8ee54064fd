"""What was measured, in Markdown."""

from __future__ import annotations

import os
import platform
import subprocess
import zlib
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path

from benchmarks.contenders import KINDS, Agent, Createrepo, Floor, Http, command
from benchmarks.first_index import Memory
from benchmarks.first_index import Result as FirstIndex
from benchmarks.publish import Result, percentile
from repowatch import __version__
from repowatch.system.mounts import type_of

MIB = 1 << 20


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


def markdown(
    published: Sequence[Result],
    first: Sequence[FirstIndex],
    memory: Sequence[Memory],
    *,
    machine: Iterable[str],
    plot: str,
) -> str:
    """The whole page."""
    return "\n".join(
        [
            _HEAD,
            *(f"- {fact}" for fact in machine),
            "",
            "## One package more",
            "",
            _PUBLISH,
            f"![Cost of one package against the size of the tree]({plot})",
            "",
            *_ratios(published),
            *(
                line
                for size in sorted({each.size for each in published})
                for line in _one_size(published, size)
            ),
            "## From nothing, and after a restart",
            "",
            _FIRST,
            *_first(first),
            "## Memory of the daemon",
            "",
            _MEMORY,
            *_memory(memory),
        ]
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [
        "| " + " | ".join(head) + " |",
        "|---|" + "--:|" * (len(head) - 1),
        *("| " + " | ".join(row) + " |" for row in rows),
        "",
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
    return _table(head, rows)


def _times(one: Result | None, other: Result | None) -> tuple[str, str]:
    """How many times the other one costs: wall time (medians), processor time."""
    if one is None or other is None:
        return "", ""
    wall = percentile(one.all_seconds, 50) / percentile(other.all_seconds, 50)
    return f"{wall:.1f}", f"{one.cpu_seconds / other.cpu_seconds:.1f}"


def _one_size(results: Sequence[Result], size: int) -> list[str]:
    at = [each for each in results if each.size == size]
    head = ["ms", *(f"{kind} {percent}" for kind in KINDS for percent in ("p50", "p99")), "CPU a package"]
    rows = [[each.label, *_percentiles(each.seconds), _ms(each.cpu_seconds)] for each in at]
    return [f"### {size:,} packages, {len(at[0].all_seconds)} changes", "", *_table(head, rows)]


def _percentiles(seconds: Mapping[str, Sequence[float]]) -> list[str]:
    return [_ms(percentile(seconds[kind], percent)) for kind in KINDS for percent in (50, 99)]


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:,.0f}" if seconds >= 0.1 else f"{seconds * 1000:.1f}"


def _first(results: Sequence[FirstIndex]) -> list[str]:
    head = [
        "packages",
        "`repowatch index` s",
        "createrepo_c s",
        "ratio",
        "restart s",
        "and all compressed s",
        "createrepo_c parses s",
        "ratio",
    ]
    rows = [
        [
            f"{each.size:,}",
            f"{each.ours:.2f}",
            f"{each.createrepo:.2f}",
            f"{each.createrepo / each.ours:.1f}",
            f"{each.restart:.3f}",
            f"{each.warm:.3f}",
            f"{each.parsed:.3f}",
            f"{each.parsed / each.restart:.1f}",
        ]
        for each in results
    ]
    return _table(head, rows)


def _memory(results: Sequence[Memory]) -> list[str]:
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
    return _table(head, rows)


_HEAD = """\
# What one more package costs

Written by `python -m benchmarks`. Absolute figures are this machine's; the ratios travel better.
"""

_PUBLISH = """\
One package is added, replaced or removed at a random place, in a tree of packages with metadata as a
distribution has it (about 11 kB of open XML a package), and everyone brings the metadata up to date. The
contenders take turns, each on its own copy of the tree, with gzip and no sqlite, until clients see the
change. p99 of fewer than 100 changes is the slowest one.

- **floor** hashes the bytes of the metadata files, open and compressed, and meanwhile writes and syncs
  the compressed ones, on all cores: what remains when everything else is free.
- **engine alone** is one turn of the index: check and describe the package, publish it. With fsync.
- **PUT and DELETE** is what a client of the daemon waits for. With fsync; the answer comes when the change
  is durable and listed.
- The peers do not sync: what they have written may be gone after a power cut.

Processor time is that of all processes and threads, with what they do in the background after the answer
(ours: the watcher's look at the new file, and the cache, written 10 s after a change). It is the mean over
all changes. Ratios are of medians over all changes; *ours* is PUT and DELETE.
"""

_FIRST = """\
Both start as a command with as many workers as there are cores, and find no metadata. Ours checks every
digest of every package. A restart takes what did not change from the cache, with a stat(2) of every file;
createrepo_c's parser is what its --update begins with.
"""

_MEMORY = """\
Anonymous resident memory of the daemon and its reader processes together; the peak was sampled 100 times
a second.
"""
