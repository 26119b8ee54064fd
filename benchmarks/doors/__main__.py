"""Measure the doors beside Apache and nginx, print it, and write docs/benchmarks-doors.md."""

from __future__ import annotations

import argparse
import contextlib
import fnmatch
import os
import signal
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from benchmarks import report as engine_report
from benchmarks.doors import content, measures, report, servers, strangers
from benchmarks.doors.extent import FULL, QUICK, Extent
from benchmarks.doors.memory import Watch
from benchmarks.doors.run import take_turns, warm_up
from benchmarks.processes import memory_in_use

PAGE = Path(__file__).resolve().parents[2] / "docs" / "benchmarks-doors.md"
PACKAGES = "apache2 nginx libnginx-mod-http-dav-ext wrk nghttp2-client curl openssl media-types"


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers end as well
    options = _parser().parse_args()
    extent = QUICK if options.quick else FULL
    extent = replace(extent, rounds=options.rounds or extent.rounds)
    try:
        machine = _machine(options.scratch)
    except servers.Missing as error:
        print(f"{error}; on Debian: apt-get install --no-install-recommends {PACKAGES}", file=sys.stderr)
        return 2
    with contextlib.ExitStack() as stack:
        if not options.quick:
            _tell("memory is filled with what can be dropped")
            stack.enter_context(memory_in_use(options.scratch))
        scratch = stack.enter_context(
            tempfile.TemporaryDirectory(prefix="repowatch-doors-", dir=options.scratch)
        )
        os.chmod(scratch, 0o711)  # noqa: S103 - Apache's and nginx's user looks in
        found = _measured(Path(scratch), extent, options)
    text = report.markdown(found, extent, machine=machine)
    print(text)
    if not options.quick and not options.only:
        PAGE.write_text(text)
    return 0


def _machine(scratch: Path) -> list[str]:
    """Facts that the figures depend on. Raises Missing when something is not installed."""
    for name in ("curl", "wrk", "h2load", "openssl"):
        servers.program(name)
    # Figures of a machine that does other things at the same time are worth little.
    busy = f"before it began, {os.getloadavg()[0]:.1f} processes wanted to run"
    return [*engine_report.machine(scratch)[:2], *servers.versions(), busy]


def _measured(scratch: Path, extent: Extent, options: argparse.Namespace) -> report.Findings:
    _tell("content is made")
    made = content.make(scratch, extent)
    wanted = [
        each for each in measures.all_of(made, extent, scratch=scratch) if _is_wanted(each.title, options)
    ]
    watches = {name: Watch() for name in (servers.OURS, servers.APACHE, servers.NGINX)}
    beside = Watch()
    with servers.running(scratch, made.tree) as running:
        _tell("everything once, to be warm")
        warm_up(wanted, running)
        rows = take_turns(wanted, running, rounds=extent.rounds, watches=watches, tell=_tell)
        probed: list[strangers.Probed] = []
        if _is_wanted("strangers", options):
            _tell("strangers")
            with beside.over(running[0].pid):
                probed = strangers.probe_all(running[0], count=extent.strangers, seconds=extent.probing)
    return report.Findings(rows, {name: watch.peak for name, watch in watches.items()}, probed, beside.peak)


def _is_wanted(title: str, options: argparse.Namespace) -> bool:
    return options.only is None or fnmatch.fnmatch(title, options.only)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.doors", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="less than two minutes; docs/ is not written")
    parser.add_argument(
        "--only", metavar="PATTERN", help="rows like this, as 'PUT*' or strangers; docs/ is not written"
    )
    parser.add_argument("--rounds", type=int, metavar="N", help="another number of rounds")
    parser.add_argument(
        "--scratch",
        type=Path,
        metavar="DIR",
        default=Path(tempfile.gettempdir()),
        help="where files are made: about 8 GB",
    )
    return parser


def _tell(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
