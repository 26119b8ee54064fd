"""Rounds in which the servers take turns at each measure."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.doors.clients import Failed
from benchmarks.doors.measures import Measure
from benchmarks.doors.memory import Watch
from benchmarks.doors.servers import Server
from benchmarks.processes import cpu_seconds


@dataclass(frozen=True, slots=True)
class Run:
    """One measure of one server, once."""

    seconds: float
    cpu_seconds: float  # of the server


@dataclass(frozen=True, slots=True)
class Row:
    """One measure: the runs of each server by its name, and seconds of the floor."""

    measure: Measure
    runs: Mapping[str, list[Run]]
    floor: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


def warm_up(measures: Sequence[Measure], servers: Sequence[Server]) -> None:
    """Each measure once, not counted: what is used for the first time costs more."""
    for measure in measures:
        for server in servers:
            with contextlib.suppress(Failed):  # it will be told when it counts
                measure.run(server)


def take_turns(
    measures: Sequence[Measure],
    servers: Sequence[Server],
    *,
    rounds: int,
    watches: Mapping[str, Watch],
    tell: Callable[[str], None],
) -> list[Row]:
    """All measures; in each round another server begins."""
    rows = [Row(each, {server.name: [] for server in servers}) for each in measures]
    for number in range(rounds):
        for row in rows:
            tell(f"round {number + 1}: {row.measure.title}")
            first = number % len(servers)
            for server in (*servers[first:], *servers[:first]):
                with watches[server.name].over(server.pid):
                    _measure(row, server)
            if row.measure.floor:
                os.sync()
                row.floor.append(row.measure.floor())
    return rows


def _measure(row: Row, server: Server) -> None:
    os.sync()  # or it would wait for what another one left to be written
    before = cpu_seconds(server.pid)
    try:
        seconds = row.measure.run(server)
    except Failed as error:
        row.failures.append(f"{row.measure.title}, {server.name}: {error}")
    else:
        row.runs[server.name].append(Run(seconds, cpu_seconds(server.pid) - before))
