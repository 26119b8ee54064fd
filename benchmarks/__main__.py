"""Run all benchmarks, print what they found, and write docs/benchmarks.md: `python -m benchmarks`."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from benchmarks import adoption, burst, first_index, plot, publish, readers, report
from benchmarks.processes import memory_in_use

DOCS = Path(__file__).resolve().parent.parent / "docs"

SIZES = (100, 1000, 10_000, 50_000)
QUICK_SIZES = (100, 1000)
BURST_SIZE = 10_000  # or the largest size below it

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Extent:
    """How much is measured."""

    sizes: Sequence[int]
    budget: float  # seconds of rounds of changes, for each size
    rounds: int  # of all else
    reading: float  # seconds of each state, and round
    memory_sizes: Sequence[int]


def main() -> None:
    options = _parser().parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # what is installed has its bytecode
    extent = _extent(options)
    machine = report.machine(options.scratch)
    _tell("memory is filled with what can be dropped")
    with memory_in_use(options.scratch) as fill:
        found = _measured(extent, scratch=options.scratch, fill=fill)
    text = report.markdown(found, machine=machine, plot="benchmarks.svg")
    print(text)
    if not options.quick:
        (DOCS / "benchmarks.md").write_text(text)
        (DOCS / "benchmarks.svg").write_text(_plot(found.published))


def _extent(options: argparse.Namespace) -> Extent:
    if options.quick:
        sizes = options.sizes or QUICK_SIZES
        return Extent(sizes, budget=3, rounds=1, reading=3, memory_sizes=sizes[-1:])
    sizes = options.sizes or SIZES
    return Extent(sizes, options.budget, rounds=3, reading=readers.SECONDS, memory_sizes=sizes)


def _measured(extent: Extent, *, scratch: Path, fill: Callable[[], None]) -> report.Findings:
    sizes, rounds = extent.sizes, extent.rounds
    largest = max(sizes)
    burst_size = max((size for size in sizes if size <= BURST_SIZE), default=largest)
    one_more = partial(publish.run, budget=extent.budget, tell=_tell)
    reading = partial(readers.run, rounds=rounds, seconds=extent.reading)
    in_steps = partial(_in_steps, scratch=scratch, before=fill)
    return report.Findings(
        published=[each for results in in_steps("one more", sizes, one_more) for each in results],
        readers=in_steps("readers", [largest], reading),
        bursts=in_steps("uploads at once", [burst_size], partial(burst.run, rounds=rounds)),
        first=in_steps("first index", sizes, partial(first_index.run, rounds=rounds)),
        adopted=in_steps("adoption", sizes, partial(adoption.run, rounds=rounds)),
        memory=in_steps("memory", extent.memory_sizes, first_index.memory),
    )


def _in_steps(
    text: str, sizes: Sequence[int], run: Callable[..., T], *, scratch: Path, before: Callable[[], None]
) -> list[T]:
    """Run for each size in an empty directory, which is gone when the next step begins."""
    results = []
    for size in sizes:
        before()
        _tell(f"{size} packages: {text}")
        with tempfile.TemporaryDirectory(prefix="repowatch-benchmarks-", dir=scratch) as directory:
            results.append(run(size, scratch=Path(directory)))
        os.sync()
    return results


def _plot(results: Sequence[publish.Result]) -> str:
    lines: dict[str, list[tuple[float, float]]] = {}
    for each in results:
        lines.setdefault(each.label, []).append((each.size, 1000 * publish.percentile(each.all_seconds, 50)))
    return plot.svg(lines, across="packages in the tree", up="milliseconds for one change, median")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="about two minutes; docs/ is not written")
    parser.add_argument("--sizes", type=_sizes, metavar="N,...", help="sizes of the trees")
    parser.add_argument(
        "--budget",
        type=float,
        default=240,
        metavar="S",
        help="seconds of rounds for each size (default: 240)",
    )
    parser.add_argument(
        "--scratch",
        type=Path,
        metavar="DIR",
        default=tempfile.gettempdir(),
        help="where trees are made: at 50,000 packages about 20 GB",
    )
    return parser


def _sizes(text: str) -> tuple[int, ...]:
    return tuple(sorted(map(int, text.split(","))))


def _tell(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr)


if __name__ == "__main__":
    main()
