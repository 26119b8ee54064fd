"""The door to prometheus_client: shows at `/metrics` what the parts count.

Nothing is kept here. The parts count in plain numbers; what they say is put into words when it is asked for.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from repowatch.errors import RepowatchError
from repowatch.model.figures import Figures, Histogram
from repowatch.web.info.counts import Counts

PATIENCE = 5.0  # seconds that a scrape waits for the one before it


class Busy(RepowatchError):
    """The scrape before this one is not through: a file system does not answer."""


class Metrics:
    """What Prometheus reads."""

    def __init__(
        self,
        *,
        version: str,
        figures: Callable[[], Sequence[Figures]],
        counts: Counts,
        connections: Callable[[], int],
        expires_at: Callable[[], float] | None,
        unserved: Callable[[], int] = int,
    ) -> None:
        """`expires_at`: when the server's certificate does, in seconds since 1970; None without one.
        `unserved`: directories that could be repositories, and are none.
        """
        self._unserved = unserved
        self._version = version
        self._figures = figures
        self._counts = counts
        self._connections = connections
        self._expires_at = expires_at
        self._scraping = threading.Lock()
        self._registry = CollectorRegistry()  # ours alone: the library's own one tells of the interpreter
        self._registry.register(_Shown(self._collect))
        ProcessCollector(registry=self._registry)

    def scrape(self, accept: str | None) -> tuple[str, bytes]:
        """The media type and the text: Prometheus 0.0.4, or OpenMetrics where the Accept field asks for it.

        Raises Busy: a disk that hangs holds one thread, not one for each scrape.
        """
        encode, content_type = choose_encoder(accept or "")
        if not self._scraping.acquire(timeout=PATIENCE):
            raise Busy("the scrape before this one is not through yet; is a file system away?")
        try:
            return content_type, encode(self._registry)
        finally:
            self._scraping.release()

    def _collect(self) -> Iterator[Metric]:
        yield InfoMetricFamily("repowatch_build", "The version that runs.", {"version": self._version})
        yield from _of_repositories(self._figures())
        yield from _of_counts(self._counts)
        yield GaugeMetricFamily(
            "repowatch_connections", "Connections that are open.", value=self._connections()
        )
        yield GaugeMetricFamily(
            "repowatch_directories_not_served",
            "Directories that a pattern finds, and that can be no repositories.",
            value=self._unserved(),
        )
        if self._expires_at:
            yield GaugeMetricFamily(
                "repowatch_certificate_expiry_timestamp_seconds",
                "When the server's certificate expires, in seconds since 1970.",
                value=self._expires_at(),
            )


class _Shown(Collector):
    """What a registry asks."""

    def __init__(self, collect: Callable[[], Iterator[Metric]]) -> None:
        self._collect = collect

    def collect(self) -> Iterator[Metric]:
        return self._collect()


def _of_repositories(repositories: Sequence[Figures]) -> Iterator[Metric]:
    yield _counter("publications", "Publications.", repositories, lambda each: each.making.count)
    yield _counter(
        "publication_failures", "Publications that failed.", repositories, lambda each: each.failures
    )
    yield _counter(
        "overflows", "Times that the kernel dropped events.", repositories, lambda each: each.overflows
    )
    yield _histogram(
        "publication_seconds",
        "Seconds that a publication took, from the first look at what changed.",
        repositories,
        lambda each: each.making,
    )
    yield _histogram(
        "arrival_to_listed_seconds",
        "Seconds from the arrival of a package until a publication listed it.",
        repositories,
        lambda each: each.waiting,
    )
    yield _gauge("packages", "Packages that are listed.", repositories, lambda each: each.packages)
    yield _counter(
        "replaced_by_file",
        "Listed packages that were replaced by file, where uploads may not replace.",
        repositories,
        lambda each: each.replacements,
    )
    yield _gauge(
        "duplicates", "Packages that several files hold.", repositories, lambda each: each.duplicates
    )
    yield _gauge("rejected", "Files that are not listed.", repositories, lambda each: each.rejected)
    yield _gauge(
        "unchecked",
        "Listed packages whose files were not read yet.",
        repositories,
        lambda each: each.unchecked,
    )
    yield _gauge(
        "open_batches", "Batches that wait for their commit.", repositories, lambda each: each.batches
    )
    yield _counter("pruned_packages", "Packages that were pruned.", repositories, lambda each: each.pruned)
    yield _gauge(
        "pruning_paused",
        "1 while packages are not pruned by their age, for the clock is not trusted.",
        repositories,
        lambda each: each.pruning_paused,
    )
    yield _gauge(
        "retired_packages",
        "Pruned packages that are still served under their names.",
        repositories,
        lambda each: each.retired[0],
    )
    yield _gauge("retired_bytes", "Bytes of them.", repositories, lambda each: each.retired[1])
    yield _gauge("snapshots", "Snapshots.", repositories, lambda each: each.snapshots[0])
    yield _gauge(
        "damaged_snapshots", "Snapshots that can not be read.", repositories, lambda each: each.snapshots[1]
    )
    yield _gauge(
        "snapshots_extra_bytes",
        "Bytes of packages that are kept for snapshots alone.",
        repositories,
        lambda each: each.snapshots_extra,
    )
    yield _gauge("healthy", "1 where /healthz has nothing to say.", repositories, lambda each: each.is_well)
    yield _gauge(
        "last_success_timestamp_seconds",
        "When the metadata was last known to be as the tree, in seconds since 1970.",
        repositories,
        lambda each: each.succeeded_at,
    )
    yield _gauge(
        "signing_key_expiry_timestamp_seconds",
        "When the first of the keys that sign the metadata expires, in seconds since 1970.",
        repositories,
        lambda each: each.signing_key_expires_at,
    )
    yield _gauge(
        "disk_free_bytes",
        "Bytes of the file system that are free.",
        repositories,
        lambda each: each.disk and each.disk[0],
    )
    yield _gauge(
        "disk_size_bytes", "Bytes of the file system.", repositories, lambda each: each.disk and each.disk[1]
    )
    yield _modes(repositories)


def _modes(repositories: Sequence[Figures]) -> Metric:
    family = GaugeMetricFamily(
        "repowatch_watcher_mode", "1 for the way that the tree is watched.", labels=("repository", "mode")
    )
    for each in repositories:
        for mode, is_on in each.watcher.items():
            family.add_metric((each.name, mode), float(is_on))
    return family


def _of_counts(counts: Counts) -> Iterator[Metric]:
    counted = counts.now()
    requests = CounterMetricFamily(
        "repowatch_requests", "Requests that were answered.", labels=("method", "code")
    )
    for (method, code), count in sorted(counted.requests.items()):
        requests.add_metric((method, str(code)), count)
    yield requests
    uploads = CounterMetricFamily("repowatch_uploads", "Uploads that ended.", labels=("result",))
    for result, count in counted.uploads.items():
        uploads.add_metric((result,), count)
    yield uploads
    content = CounterMetricFamily(
        "repowatch_upload_bytes", "Bytes that came with uploads that ended.", labels=("result",)
    )
    for result, count in counted.upload_bytes.items():
        content.add_metric((result,), count)
    yield content
    yield GaugeMetricFamily(
        "repowatch_uploads_in_hand", "Uploads whose answer is still to come.", value=counted.in_hand
    )


def _counter(name: str, text: str, repositories: Sequence[Figures], of: Callable[[Figures], int]) -> Metric:
    family = CounterMetricFamily(f"repowatch_{name}", text, labels=("repository",))
    for each in repositories:
        family.add_metric((each.name,), of(each))
    return family


def _gauge(
    name: str, text: str, repositories: Sequence[Figures], of: Callable[[Figures], float | None]
) -> Metric:
    """What is not known has no value."""
    family = GaugeMetricFamily(f"repowatch_{name}", text, labels=("repository",))
    for each in repositories:
        if (value := of(each)) is not None:
            family.add_metric((each.name,), float(value))
    return family


def _histogram(
    name: str, text: str, repositories: Sequence[Figures], of: Callable[[Figures], Histogram]
) -> Metric:
    family = HistogramMetricFamily(f"repowatch_{name}", text, labels=("repository",))
    for each in repositories:
        histogram = of(each)
        buckets = [
            ("+Inf" if bound == float("inf") else str(bound), count) for bound, count in histogram.up_to()
        ]
        family.add_metric((each.name,), buckets, sum_value=histogram.total)
    return family
