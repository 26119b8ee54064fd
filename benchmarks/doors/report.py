"""What was found, in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.doors.extent import MIB, Extent
from benchmarks.doors.memory import Memory
from benchmarks.doors.run import Row, Run
from benchmarks.doors.servers import APACHE, NGINX, OURS
from benchmarks.doors.strangers import PACE, PATIENCE, Probed
from benchmarks.publish import percentile
from benchmarks.tables import ms, table


@dataclass(frozen=True, slots=True)
class Findings:
    """All that was measured."""

    rows: Sequence[Row]
    memory: Mapping[str, Memory]  # by name of the server
    probed: Sequence[Probed]
    memory_beside_strangers: Memory


def markdown(found: Findings, extent: Extent, *, machine: Iterable[str]) -> str:
    """The whole page."""
    return "\n".join(
        [
            _HEAD,
            *(f"- {fact}" for fact in machine),
            f"- rounds: {extent.rounds}",
            "",
            "## Ratios",
            "",
            _RATIOS,
            *_ratios(found),
            "## Figures",
            "",
            _FIGURES,
            *_figures(found.rows),
            *_failures(found.rows),
            *_memory(found),
            *_strangers(found.probed, extent),
        ]
    )


def _ratios(found: Findings) -> list[str]:
    head = ("", "to Apache", "asked", "to nginx", "asked", "time to the fsyncs alone", "asked")
    return table(head, [*map(_ratios_of, found.rows), _ratios_of_memory(found.memory)])


def _ratios_of(row: Row) -> list[str]:
    asked = row.measure.asked
    ours = _median(row.runs.get(OURS, []))
    cells = [row.measure.title + (": time" if asked.of_times else "")]
    for name, bound in ((APACHE, asked.apache), (NGINX, asked.nginx)):
        theirs = _median(row.runs.get(name, []))
        ratio = None
        if ours and theirs:
            ratio = ours / theirs if asked.of_times else theirs / ours
        cells += [_ratio(ratio, bound, at_most=asked.of_times), _bound(bound, at_most=asked.of_times)]
    to_floor = ours / median(row.floor) if ours and row.floor else None
    return [
        *cells,
        _ratio(to_floor, asked.fsyncs, at_most=True),
        _bound(asked.fsyncs, at_most=True, other="or "),
    ]


def _ratios_of_memory(memory: Mapping[str, Memory]) -> list[str]:
    ours = memory[OURS].resident
    to_apache, to_nginx = (ours / max(1, memory[name].resident) for name in (APACHE, NGINX))
    asked = 1.0
    return [
        "peak memory under all of it",
        _ratio(to_apache, asked, at_most=True),
        _bound(asked, at_most=True),
        _ratio(to_nginx, None),
        "",
        "",
        "",
    ]


def _ratio(value: float | None, bound: float | None, *, at_most: bool = False) -> str:
    """Two digits; bold where it is not what is asked for."""
    if value is None:
        return ""
    missed = bound is not None and (value > bound if at_most else value < bound)
    return f"**{value:.2f}**" if missed else f"{value:.2f}"


def _bound(bound: float | None, *, at_most: bool, other: str = "") -> str:
    return "" if bound is None else f"{other}{'<=' if at_most else '>='} {bound:g}"


def _median(runs: Sequence[Run]) -> float | None:
    return median(run.seconds for run in runs) if runs else None


def _figures(rows: Sequence[Row]) -> list[str]:
    names = (OURS, APACHE, NGINX)
    head = ("", "", *(cell for name in names for cell in (name, "CPU s")), "the fsyncs alone")
    lines = []
    for row in rows:
        cells = [row.measure.title, row.measure.unit]
        for name in names:
            runs = row.runs.get(name, [])
            cells.append(_amounts(row, [run.seconds for run in runs]))
            cells.append(f"{median(run.cpu_seconds for run in runs):.2f}" if runs else "")
        lines.append([*cells, _amounts(row, row.floor)])
    return table(head, lines)


def _failures(rows: Sequence[Row]) -> list[str]:
    failures = [failure for row in rows for failure in row.failures]
    lines = (line for failure in failures for line in ("", *(f"    {line}" for line in failure.splitlines())))
    return ["**Failed:**", *lines, ""] if failures else []


def _amounts(row: Row, seconds: Sequence[float]) -> str:
    """The median, and how far the runs went."""
    if not seconds:
        return ""
    amount = row.measure.amount
    values = sorted(amount / each if amount else each for each in seconds)
    spread = f" ({_figure(values[0])} to {_figure(values[-1])})" if len(values) > 1 else ""
    return f"{_figure(median(values))}{spread}"


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _memory(found: Findings) -> list[str]:
    rows = [
        [name, f"{memory.resident / MIB:.0f}", f"{memory.anonymous / MIB:.0f}"]
        for name, memory in found.memory.items()
    ]
    beside = found.memory_beside_strangers
    if found.probed:
        label = f"{OURS}, beside the strangers below"
        rows.append([label, f"{beside.resident / MIB:.0f}", f"{beside.anonymous / MIB:.0f}"])
    return ["## Memory", "", _MEMORY, *table(("peak, MiB", "all", "anonymous"), rows)]


def _strangers(probed: Sequence[Probed], extent: Extent) -> list[str]:
    if not probed:
        return []
    idle = {each.tls: percentile(each.seconds, 99) for each in probed if each.kind == "idle"}
    head = ("GET, ms", "connections", "answered", "not", "p50", "p99", "slowest", "p99 above idle", "asked")
    rows = [_probed(each, idle[each.tls]) for each in probed]
    title = f"## Beside {extent.strangers:,} strangers"
    return [title, "", _STRANGERS.format(count=f"{extent.strangers:,}"), *table(head, rows)]


def _probed(each: Probed, idle: float) -> list[str]:
    cells = [
        f"{each.kind}, {'TLS' if each.tls else 'plain'}",
        f"{each.strangers:,}",
        f"{len(each.seconds):,}",
        f"**{each.unanswered}**" if each.unanswered else "0",
    ]
    if not each.seconds:
        return [*cells, "", "", "", "**never**", "<= 5"]
    cells += [ms(percentile(each.seconds, percent)) for percent in (50, 99, 100)]
    if each.kind == "idle":
        return [*cells, "", ""]
    above = percentile(each.seconds, 99) - idle
    return [*cells, f"**{ms(above)}**" if above > 0.005 or each.unanswered else ms(above), "<= 5"]


_HEAD = """\
# The doors, beside Apache and nginx

Written by `python -m benchmarks.doors`. Absolute figures are this machine's; the ratios travel better.
"""

_RATIOS = """\
How many times as fast as theirs ours is, of medians over all rounds; where it says *time*, and for memory,
how many times as much ours takes. Bold is what misses what is asked for.

All three run at once, each on a tree of the same files, and take turns at each row; server and client share
the cores. All write an access log. Ours makes every upload durable before it answers (fsync of file and
directories), and theirs do not: what they wrote may be gone after a power cut. An RPM is checked by ours,
every digest it carries, and listed in the metadata of 1,000 packages before the answer; theirs store it like
any file. Apache has 128 threads in a process: with Debian's 25 it drops clients of the storm.

- **GET** of large files: curl, on one connection. Of 2 KiB: wrk, on connections that stay open.
- **clients**: h2load; each, on one connection, fetches repomd.xml, the files that it names (1,000 packages),
  and 20 packages of 10 KiB to 1 MiB, 4.3 MiB together. Time until the last is done.
- **PUT** of new files: curl, as `curl -T` does; the small ones with `--parallel`. The fsyncs alone are write,
  fsync, rename, and fsync of the directory, for the same files, from as many threads.
- **PROPFIND**: depth 1, all properties, one request.
"""

_FIGURES = """\
Medians, and in parentheses the lowest and the highest round. CPU s is the processor time of the server in one
run of the row (of GET 2 KiB: in a fixed time).
"""

_MEMORY = """\
The peak of all processes of a server while it was measured, seen 20 times a second: anonymous memory, a page
that they share counted once, and with it the mapped files of the process that maps most.
"""

_STRANGERS = f"""\
{{count}} connections to ours, from one process, that send nothing (with TLS: no hello), or the head of a
request and then a byte a second, or ask for the large file and read half a kilobyte a second. One that the
server closes comes again. Beside them {PACE} GETs a second of 2 KiB, each on a connection of its own, with
its handshake. Not answered means: not within {PATIENCE:g} s; after a few of these in a row nobody asks on.
"""
