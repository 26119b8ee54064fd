"""Run all benchmarks, print what they found, and write docs/benchmarks.md: `python -m benchmarks`."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import first_index, plot, publish, report

DOCS = Path(__file__).resolve().parent.parent / "docs"

SIZES = (100, 1000, 10_000, 50_000)
QUICK_SIZES = (100, 1000)


def main() -> None:
    options = _parser().parse_args()
    sizes = options.sizes or (QUICK_SIZES if options.quick else SIZES)
    budget = 10.0 if options.quick else options.budget
    rounds = 1 if options.quick else 3
    published: list[publish.Result] = []
    first: list[first_index.Result] = []
    memory: list[first_index.Memory] = []
    with tempfile.TemporaryDirectory(prefix="repowatch-benchmarks-", dir=options.scratch) as directory:
        scratch = Path(directory)
        machine = report.machine(scratch)
        for size in sizes:
            _tell(f"{size} packages: one more")
            published += publish.run(size, scratch=scratch / f"publish-{size}", budget=budget, tell=_tell)
            _tell(f"{size} packages: first index")
            first.append(first_index.run(size, scratch=scratch / f"first-{size}", rounds=rounds))
        for size in sizes[-1:] if options.quick else sizes:
            _tell(f"{size} packages: memory")
            memory.append(first_index.memory(size, scratch=scratch / f"memory-{size}"))
    text = report.markdown(published, first, memory, machine=machine, plot="benchmarks.svg")
    print(text)
    if not options.quick:
        (DOCS / "benchmarks.md").write_text(text)
        (DOCS / "benchmarks.svg").write_text(_plot(published))


def _plot(results: Sequence[publish.Result]) -> str:
    lines: dict[str, list[tuple[float, float]]] = {}
    for each in results:
        lines.setdefault(each.label, []).append((each.size, 1000 * publish.percentile(each.all_seconds, 50)))
    return plot.svg(lines, across="packages in the tree", up="milliseconds for one change, median")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two minutes at most; docs/ is not written")
    parser.add_argument("--sizes", type=_sizes, metavar="N,...", help="sizes of the trees")
    parser.add_argument(
        "--budget",
        type=float,
        default=240,
        metavar="S",
        help="seconds of rounds for each size (default: 240)",
    )
    parser.add_argument(
        "--scratch", type=Path, metavar="DIR", help="where trees are made: at 50,000 packages about 12 GB"
    )
    return parser


def _sizes(text: str) -> tuple[int, ...]:
    return tuple(sorted(map(int, text.split(","))))


def _tell(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr)


if __name__ == "__main__":
    main()
