"""The processes that read packages, and what becomes of a package when one dies."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import pytest

from repowatch.errors import BadPackage, ChangedWhileRead, RepowatchError
from repowatch.model.digests import inspect
from repowatch.model.package import Package, Rejected, Stamp
from repowatch.model.recipe import Recipe
from repowatch.repository import readers as module
from repowatch.repository.readers import Batch, Gone, Outcome, Readers, ToRead
from tests.kit.daemon import wait_until
from tests.kit.machine import readers_of
from tests.kit.rpms import Sig, layout, make_rpm, truncate

PLAIN = Recipe()
BOOT = module._BOOT

# Write-only: reading it is refused even to root, as that of a package with mode 0 is to others.
UNREADABLE = Path("/sys/bus/cpu/uevent")


def to_read(path: Path) -> ToRead:
    stamp = Stamp.of(os.lstat(path)) if path.exists() else None
    return ToRead(str(path), path.name, stamp)


def outcomes_of(batches: Iterable[Batch]) -> Iterator[Outcome]:
    for batch in batches:
        yield from batch.unlisted
        if batch.run:
            yield from batch.run.packages()


def read(readers: Readers, *paths: Path) -> list[Outcome]:
    """What came of files that were asked for together."""
    return list(outcomes_of(readers.read([list(map(to_read, paths))], PLAIN)))


def reason(readers: Readers, path: Path) -> str:
    (outcome,) = read(readers, path)
    assert isinstance(outcome, Rejected)
    assert outcome.location_href == path.name
    return outcome.reason


def children() -> set[int]:
    """The processes that this one started and that still run."""
    return {pid for pid in readers_of(os.getpid()) if not _is_zombie(pid)}


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def has_open(pid: int, path: Path) -> bool:
    try:
        return any(link.readlink() == path for link in Path(f"/proc/{pid}/fd").iterdir())
    except FileNotFoundError:
        return False


def make_endless(directory: Path, name: str) -> Path:
    """A package whose payload takes minutes to read and next to no disk."""
    path = make_rpm(directory, name, omit=[Sig.SIZE, Sig.LONGSIZE])
    os.truncate(path, layout(path).payload + (1 << 40))
    return path


def in_background(function: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=function)
    thread.start()
    return thread


def test_a_package_is_read_with_its_stamp_and_elements(readers: Readers, tmp_path: Path) -> None:
    path = make_rpm(tmp_path, "foo", "1.2", "3", epoch=4)
    (package,) = read(readers, path)
    assert isinstance(package, Package)
    assert str(package.entry.nevra) == "foo-4:1.2-3.noarch"
    assert package.entry.stamp == Stamp.of(path.stat())
    assert b'<location href="foo-1.2-3.noarch.rpm"/>' in package.primary


def test_what_is_no_package_is_rejected_with_its_reason_and_stamp(readers: Readers, tmp_path: Path) -> None:
    path = make_rpm(tmp_path)
    truncate(path, size=path.stat().st_size - 1)
    (outcome,) = read(readers, path)
    assert isinstance(outcome, Rejected)
    assert outcome.stamp == Stamp.of(path.stat())
    assert "\n" not in outcome.reason


def test_a_file_that_is_missing_is_gone(readers: Readers, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert read(readers, tmp_path / "a.rpm") == [Gone("a.rpm")]
    assert read(readers, tmp_path / "file" / "a.rpm") == [Gone("a.rpm")]


def test_a_file_that_may_not_be_read_is_rejected_until_it_changes(readers: Readers) -> None:
    (outcome,) = read(readers, UNREADABLE)
    assert outcome == Rejected("uevent", Stamp.of(UNREADABLE.stat()), "not readable: permission denied")


def test_a_passing_trouble_is_rejected_until_the_next_look(readers: Readers, tmp_path: Path) -> None:
    (tmp_path / "a.rpm").symlink_to(make_rpm(tmp_path))
    (outcome,) = read(readers, tmp_path / "a.rpm")
    assert outcome == Rejected("a.rpm", None, "not readable: too many levels of symbolic links")


def test_a_fifo_does_not_hold_the_reader(readers: Readers, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.rpm")
    assert reason(readers, tmp_path / "a.rpm") == "not a regular file"


def test_a_name_that_no_client_could_ask_for_is_rejected(readers: Readers, tmp_path: Path) -> None:
    path = make_rpm(tmp_path, filename=os.fsdecode(b"caf\xe9.rpm"))
    assert "not UTF-8" in reason(readers, path)


@pytest.mark.parametrize("together", [True, False])
def test_a_package_that_ends_its_process_again_is_rejected_and_the_next_is_read(
    tmp_path: Path, together: bool
) -> None:
    """One of several that were asked for together is asked for alone before it is to blame."""
    endless, good = make_endless(tmp_path, "endless"), make_rpm(tmp_path, "good")
    before = children()
    readers = Readers(processes=1)
    readers.start()
    outcomes: list[Outcome] = []
    try:
        batches = [[endless, good]] if together else [[endless], [good]]
        asked = readers.read([[to_read(path) for path in batch] for batch in batches], PLAIN)
        asker = in_background(lambda: outcomes.extend(outcomes_of(asked)))
        killed: set[int] = set()
        for _ in range(3 if together else 2):
            wait_until(lambda: any(has_open(pid, endless) for pid in children() - before - killed))
            (pid,) = children() - before - killed
            os.kill(pid, signal.SIGKILL)
            killed.add(pid)
        asker.join()
    finally:
        readers.close()
    rejected, package = sorted(outcomes, key=lambda each: isinstance(each, Package))
    assert isinstance(rejected, Rejected)
    assert rejected.location_href == endless.name
    assert "SIGKILL" in rejected.reason
    assert isinstance(package, Package)


def test_a_process_that_died_while_idle_costs_nothing(tmp_path: Path) -> None:
    before = children()
    readers = Readers(processes=1)
    readers.start()
    try:
        (pid,) = children() - before
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: pid not in children())
        (outcome,) = read(readers, make_rpm(tmp_path))
        assert isinstance(outcome, Package)
    finally:
        readers.close()


def test_processes_that_nobody_asks_leave_but_for_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        module, "_BOOT", f"import {module.__name__} as m; m.GIVE_BACK = m.RETIRE = 0; " + BOOT
    )
    before = children()
    readers = Readers(processes=3)
    readers.start()
    try:
        wait_until(lambda: len(children() - before) == 1)
        paths = [make_rpm(tmp_path, f"p{number}") for number in range(12)]
        asked = readers.read(([to_read(path)] for path in paths), PLAIN)
        assert sum(isinstance(each, Package) for each in outcomes_of(asked)) == 12
        wait_until(lambda: len(children() - before) == 1)
        assert not caplog.records
    finally:
        readers.close()


def test_a_package_whose_bytes_were_seen_is_described_without_its_file(
    readers: Readers, tmp_path: Path
) -> None:
    path = make_rpm(tmp_path)
    stamp = Stamp.of(path.stat())
    (wanted,) = read(readers, path)
    with open(path, "rb", buffering=0) as stream:
        inspection = inspect(stream, size=stamp.size)
    path.unlink()
    known: dict[str, Any] = {"stamp": stamp, "recipe": PLAIN, "path": str(path)}
    assert readers.describe(inspection, location_href=path.name, **known) == wanted
    with pytest.raises(BadPackage, match="not UTF-8"):
        readers.describe(inspection, location_href="caf\udce9.rpm", **known)


def test_many_askers_take_turns(readers: Readers, tmp_path: Path) -> None:
    paths = [make_rpm(tmp_path, f"p{number}") for number in range(40)]
    order: list[str] = []
    half = threading.Event()

    def told(who: str, files: Iterable[Path]) -> None:
        for outcome in outcomes_of(readers.read(([to_read(file)] for file in files), PLAIN)):
            assert isinstance(outcome, Package)
            order.append(who)
            if len(order) == 5:
                half.set()

    long = in_background(lambda: told("long", paths))
    assert half.wait(10)
    told("short", paths[:2])
    long.join()
    assert sorted(order) == ["long"] * 40 + ["short"] * 2
    assert order[-1] == "long"


def test_an_asker_that_stops_listening_leaves_no_work_behind(readers: Readers, tmp_path: Path) -> None:
    asked: list[Path] = []

    def files() -> Iterator[list[ToRead]]:
        for number in range(1000):
            asked.append(make_rpm(tmp_path, f"p{number}"))
            yield [to_read(asked[-1])]

    outcomes = readers.read(files(), PLAIN)
    next(outcomes)
    outcomes.close()  # type: ignore[attr-defined]
    assert len(asked) < 10


def test_closing_ends_every_process_also_one_that_reads(tmp_path: Path) -> None:
    endless = make_endless(tmp_path, "endless")
    before = children()
    readers = Readers(processes=2)
    readers.start()
    mine = children() - before
    assert len(mine) == 2
    outcomes: list[Outcome] = []
    asker = in_background(lambda: outcomes.extend(read(readers, endless)))
    wait_until(lambda: any(has_open(pid, endless) for pid in mine))
    readers.close()
    asker.join()
    assert not children() & mine
    assert not any(isinstance(outcome, Package | Rejected) for outcome in outcomes)


def test_a_machine_without_createrepo_c_is_told_so_in_plain_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "createrepo_c.py").write_text("raise ImportError('libglib-2.0.so.0: no such file')")
    monkeypatch.syspath_prepend(tmp_path)
    readers = Readers(processes=1)
    try:
        with pytest.raises(RepowatchError, match=r"libglib-2\.0\.so\.0.*it needs the system's glib2"):
            readers.start()
    finally:
        readers.close()


def test_closing_while_they_start_ends_well() -> None:
    before = children()
    for _ in range(5):
        readers = Readers(processes=2)

        def start(readers: Readers = readers) -> None:
            with contextlib.suppress(ChangedWhileRead, CancelledError, RuntimeError):
                readers.start()

        starter = in_background(start)
        readers.close()
        starter.join(30)
        assert not starter.is_alive()
    wait_until(lambda: not children() - before)
