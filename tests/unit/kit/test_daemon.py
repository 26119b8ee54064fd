"""The kit's daemon starts, answers, tells why it died, and ends only itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kit.daemon import Daemon, repowatch, wait_until
from tests.kit.metadata import listed
from tests.kit.rpms import make_rpm


def test_it_answers_and_ends_in_order(tmp_path: Path) -> None:
    make_rpm(tmp_path / "rpm")
    with Daemon(tmp_path / "rpm", scratch=tmp_path) as daemon:
        assert daemon.get("/healthz").text == "ok\n"
        assert daemon.repository("rpm")["packages"] == 1
        assert [package.name for package in listed(daemon, "rpm").values()] == ["hello"]
        assert "revision" in daemon.log
        assert daemon.terminate() == 0


def test_it_tells_why_it_did_not_start(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="no such directory"), Daemon(tmp_path / "rpm", scratch=tmp_path):
        pass


def test_it_starts_again_after_it_was_killed(tmp_path: Path) -> None:
    (tmp_path / "rpm").mkdir()
    with Daemon(tmp_path / "rpm", scratch=tmp_path) as daemon:
        first = daemon.pid
        daemon.kill()
        daemon.start()
        assert daemon.pid != first
        assert daemon.get("/readyz").status == 200


def test_a_command_is_run_to_its_end() -> None:
    assert repowatch("--version").stdout.startswith("repowatch ")


def test_waiting_ends_at_its_deadline() -> None:
    def never() -> bool:
        return False

    with pytest.raises(AssertionError, match="never"):
        wait_until(never, deadline=0.0)
