"""What Prometheus reads: each number under its name, and nothing that nobody counts."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import prometheus_client
import pytest
from prometheus_client.parser import text_string_to_metric_families

from repowatch.model.figures import Figures, Histogram
from repowatch.web.info import metrics as module
from repowatch.web.info.counts import Counts
from repowatch.web.info.metrics import Busy, Metrics

SECONDS = Histogram.empty((1.0, 10.0)).plus(0.5).plus(30.0)

RPM = Figures(
    name='odd "name"\\',
    packages=3,
    rejected=2,
    duplicates=6,
    replacements=8,
    unchecked=1,
    batches=9,
    making=SECONDS,
    waiting=SECONDS.plus(2.0),
    failures=7,
    succeeded_at=1_700_000_000.25,
    is_well=True,
    watcher={"inotify": True, "polling": False},
    overflows=5,
    signing_key_expires_at=1_900_000_000.0,
    disk=(1_000, 4_000),
    pruned=9,
    pruning_paused=True,
    retired=(10, 11_000),
    snapshots=(12, 1),
    snapshots_extra=13_000,
)


def make(
    *figures: Figures, counts: Counts | None = None, expires_at: Callable[[], float] | None = None
) -> Metrics:
    return Metrics(
        version="1.2",
        figures=lambda: figures,
        counts=counts or Counts(),
        connections=lambda: 4,
        expires_at=expires_at,
    )


def read(metrics: Metrics) -> dict[tuple[str, tuple[str, ...]], float]:
    """Values by name and the values of labels, in the order of the labels' names."""
    _, text = metrics.scrape(None)
    return {
        (sample.name, tuple(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
        if not sample.name.startswith("process_")
    }


def test_each_number_of_a_repository_has_its_name() -> None:
    shown = read(make(RPM))
    rpm = (RPM.name,)
    assert {name: value for (name, labels), value in shown.items() if labels == rpm} == {
        "repowatch_publications_total": 2,
        "repowatch_publication_failures_total": 7,
        "repowatch_overflows_total": 5,
        "repowatch_publication_seconds_count": 2,
        "repowatch_publication_seconds_sum": 30.5,
        "repowatch_arrival_to_listed_seconds_count": 3,
        "repowatch_arrival_to_listed_seconds_sum": 32.5,
        "repowatch_packages": 3,
        "repowatch_rejected": 2,
        "repowatch_duplicates": 6,
        "repowatch_replaced_by_file_total": 8,
        "repowatch_unchecked": 1,
        "repowatch_open_batches": 9,
        "repowatch_pruned_packages_total": 9,
        "repowatch_pruning_paused": 1,
        "repowatch_retired_packages": 10,
        "repowatch_retired_bytes": 11_000,
        "repowatch_snapshots": 12,
        "repowatch_damaged_snapshots": 1,
        "repowatch_snapshots_extra_bytes": 13_000,
        "repowatch_healthy": 1,
        "repowatch_last_success_timestamp_seconds": 1_700_000_000.25,
        "repowatch_signing_key_expiry_timestamp_seconds": 1_900_000_000,
        "repowatch_disk_free_bytes": 1_000,
        "repowatch_disk_size_bytes": 4_000,
    }
    buckets = [
        shown["repowatch_arrival_to_listed_seconds_bucket", (le, *rpm)] for le in ("1.0", "10.0", "+Inf")
    ]
    assert buckets == [1, 2, 3]
    assert shown["repowatch_watcher_mode", ("inotify", *rpm)] == 1
    assert shown["repowatch_watcher_mode", ("polling", *rpm)] == 0


def test_the_page_tells_what_each_number_is() -> None:
    page = (Path(__file__).parents[4] / "docs" / "metrics.md").read_text()
    names = {name for name, _ in read(make(RPM, counts=Counts(), expires_at=lambda: 1.0))}
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in names}
    assert sorted(each for each in families if f"`{each}`" not in page) == []


def test_what_is_not_known_has_no_value() -> None:
    names = {
        name
        for name, _ in read(make(replace(RPM, succeeded_at=None, disk=None, signing_key_expires_at=None)))
    }
    assert "repowatch_packages" in names
    assert names.isdisjoint(
        {
            "repowatch_last_success_timestamp_seconds",
            "repowatch_disk_free_bytes",
            "repowatch_disk_size_bytes",
            "repowatch_signing_key_expiry_timestamp_seconds",
            "repowatch_certificate_expiry_timestamp_seconds",
        }
    )


def test_the_daemon_tells_its_version_connections_and_certificate() -> None:
    shown = read(make(expires_at=lambda: 1_800_000_000.0))
    assert shown["repowatch_build_info", ("1.2",)] == 1
    assert shown["repowatch_connections", ()] == 4
    assert shown["repowatch_certificate_expiry_timestamp_seconds", ()] == 1_800_000_000


def test_requests_and_uploads_are_shown_as_they_were_counted() -> None:
    counts = Counts()
    counts.answered("PUT", 507)
    shown = read(make(counts=counts))
    assert shown["repowatch_requests_total", ("507", "PUT")] == 1
    assert shown["repowatch_uploads_in_hand", ()] == 0


def test_every_result_of_an_upload_is_there_before_the_first() -> None:
    shown = read(make())
    for name in ("repowatch_uploads_total", "repowatch_upload_bytes_total"):
        assert shown[name, ("no_space",)] == 0


def test_each_scrape_asks_anew() -> None:
    now: list[Figures] = [RPM]
    metrics = Metrics(
        version="1", figures=lambda: now, counts=Counts(), connections=lambda: 0, expires_at=None
    )
    before = read(metrics)
    now[0] = replace(RPM, packages=4)
    after = read(metrics)
    assert {key for key in after if after[key] != before[key]} == {("repowatch_packages", (RPM.name,))}


def test_two_daemons_in_one_process_share_nothing() -> None:
    make(RPM)
    assert read(make())
    assert "repowatch" not in prometheus_client.generate_latest().decode()


@pytest.mark.parametrize(
    ("accept", "content_type", "end"),
    [
        (None, "text/plain; version=0.0.4; charset=utf-8", b"\n"),
        ("text/html", "text/plain; version=0.0.4; charset=utf-8", b"\n"),
        (
            "application/openmetrics-text;version=1.0.0,*/*;q=0.1",
            "application/openmetrics-text; version=1.0.0",
            b"# EOF\n",
        ),
    ],
)
def test_the_format_is_the_one_that_is_asked_for(accept: str | None, content_type: str, end: bytes) -> None:
    told, text = make(RPM).scrape(accept)
    assert told.startswith(content_type)
    assert text.endswith(end)
    assert (b"# EOF" in text) == (end == b"# EOF\n")


def test_a_scrape_does_not_wait_forever_for_one_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, answers = threading.Event(), threading.Event()

    def hang() -> Sequence[Figures]:
        asked.set()
        answers.wait(10)
        return [RPM]

    metrics = Metrics(version="1", figures=hang, counts=Counts(), connections=lambda: 0, expires_at=None)
    monkeypatch.setattr(module, "PATIENCE", 0.01)
    first = threading.Thread(target=metrics.scrape, args=(None,))
    first.start()
    assert asked.wait(10)
    with pytest.raises(Busy, match="not through"):
        metrics.scrape(None)
    answers.set()
    first.join(10)
    assert read(metrics)
