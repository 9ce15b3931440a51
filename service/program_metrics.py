"""What every service tells Prometheus of its program and its process."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector, disable_created_metrics
from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.registry import Collector

DISTRIBUTION = "cliptide"


def describe_program(registry: CollectorRegistry) -> None:
    """Export `cliptide_build_info` and `python_info`.

    From now on the process exports no `_created` families. They double the number of series, and
    Prometheus does not use them.
    """
    disable_created_metrics()  # type: ignore[no-untyped-call]
    PlatformCollector(registry)
    registry.register(_BuildInfo())


def measure_process(registry: CollectorRegistry) -> None:
    """Export memory, processor time and open files of this process (`process_*`)."""
    ProcessCollector(registry=registry)


class _BuildInfo(Collector):
    """Not a `Gauge`, because that would be written into the files that several processes share."""

    def collect(self) -> Iterable[GaugeMetricFamily]:
        family = GaugeMetricFamily(
            "cliptide_build_info", "1; the label is the version that runs.", labels=["version"]
        )
        family.add_metric([_version()], 1.0)
        yield family


def _version() -> str:
    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:  # the code runs from a folder without having been installed
        return "unknown"
