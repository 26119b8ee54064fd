"""A thread that fails is heard of."""

from __future__ import annotations

import logging
import threading

import pytest

from repowatch.system.threads import Thread


def test_an_unexpected_error_is_logged_and_told(caplog: pytest.LogCaptureFixture) -> None:
    failed: list[str] = []

    def run() -> None:
        raise ZeroDivisionError("odd")

    thread = Thread("worker", run, failed=failed.append)
    thread.start()
    assert thread.join(10)
    assert failed == ["worker"]
    record = caplog.records[-1]
    assert record.levelno == logging.CRITICAL
    assert record.exc_info is not None and record.exc_info[0] is ZeroDivisionError


def test_a_thread_that_ends_in_order_tells_nobody() -> None:
    failed: list[str] = []
    thread = Thread("worker", lambda: None, failed=failed.append)
    thread.start()
    assert thread.join(10)
    assert failed == []


def test_waiting_for_a_thread_has_an_end() -> None:
    told = threading.Event()
    thread = Thread("worker", lambda: void(told.wait(10)), failed=lambda name: None)
    thread.start()
    assert not thread.join(0.01)
    told.set()
    assert thread.join(10)


def void(value: object) -> None:
    """Drop what a function returns."""
