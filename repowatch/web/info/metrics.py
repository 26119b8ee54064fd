"""The door to prometheus_client: shows at `/metrics` what the parts count.

Nothing is kept here. The parts count in plain numbers; what they say is put into words when it is asked for.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence

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

# Of each repository: by name, what it tells, and where it stands.
_COUNTERS: Mapping[str, tuple[str, Callable[[Figures], int]]] = {
    "publications": ("Publications.", lambda each: each.making.count),
    "publication_failures": ("Publications that failed.", lambda each: each.failures),
    "overflows": ("Times that the kernel dropped events.", lambda each: each.overflows),
    "replaced_by_file": (
        "Listed packages that were replaced by file, where uploads may not replace.",
        lambda each: each.replacements,
    ),
    "pruned_packages": ("Packages that were pruned.", lambda each: each.pruned),
}
_HISTOGRAMS: Mapping[str, tuple[str, Callable[[Figures], Histogram]]] = {
    "publication_seconds": (
        "Seconds that a publication took, from the first look at what changed.",
        lambda each: each.making,
    ),
    "arrival_to_listed_seconds": (
        "Seconds from the arrival of a package until a publication listed it.",
        lambda each: each.waiting,
    ),
}
_GAUGES: Mapping[str, tuple[str, Callable[[Figures], float | None]]] = {
    "packages": ("Packages that are listed.", lambda each: each.packages),
    "duplicates": ("Packages that several files hold.", lambda each: each.duplicates),
    "rejected": ("Files that are not listed.", lambda each: each.rejected),
    "unchecked": ("Listed packages whose files were not read yet.", lambda each: each.unchecked),
    "open_batches": ("Batches that wait for their commit.", lambda each: each.batches),
    "pruning_paused": (
        "1 while packages are not pruned by their age, for the clock is not trusted.",
        lambda each: each.pruning_paused,
    ),
    "retired_packages": (
        "Pruned packages that are still served under their names.",
        lambda each: each.retired[0],
    ),
    "retired_bytes": ("Bytes of them.", lambda each: each.retired[1]),
    "snapshots": ("Snapshots.", lambda each: each.snapshots[0]),
    "damaged_snapshots": ("Snapshots that can not be read.", lambda each: each.snapshots[1]),
    "snapshots_extra_bytes": (
        "Bytes of packages that are kept for snapshots alone.",
        lambda each: each.snapshots_extra,
    ),
    "healthy": ("1 where /healthz has nothing to say.", lambda each: each.is_well),
    "last_success_timestamp_seconds": (
        "When the metadata was last known to be as the tree, in seconds since 1970.",
        lambda each: each.succeeded_at,
    ),
    "signing_key_expiry_timestamp_seconds": (
        "When the first of the keys that sign the metadata expires, in seconds since 1970.",
        lambda each: each.signing_key_expires_at,
    ),
    "disk_free_bytes": ("Bytes of the file system that are free.", lambda each: each.disk and each.disk[0]),
    "disk_size_bytes": ("Bytes of the file system.", lambda each: each.disk and each.disk[1]),
}


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
    for name, (text, count) in _COUNTERS.items():
        yield _counter(name, text, repositories, count)
    for name, (text, histogram) in _HISTOGRAMS.items():
        yield _histogram(name, text, repositories, histogram)
    for name, (text, value) in _GAUGES.items():
        yield _gauge(name, text, repositories, value)
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
