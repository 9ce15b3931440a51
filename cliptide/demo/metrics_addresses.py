"""Where the demo's services export their metrics: on free ports, which their logs name."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cliptide.demo.child_process import LOOPBACK


def metrics_addresses(directory: Path) -> dict[str, str]:
    """Return the address of each service's metrics, by the logs in the demo's folder.

    A consumer that was started again has another port, so the last line of a log counts.
    """
    found: dict[str, str] = {}
    if (listening := _last(directory / "query_api.log", "listening")) is not None:
        found["query service"] = f"{_as_url(str(listening['metrics']))}/metrics"
    if (consuming := _last(directory / "consumer.log", "consuming")) is not None:
        found["consumer"] = f"http://{LOOPBACK}:{consuming['health_port']}/metrics"
    return found


def _as_url(address: str) -> str:
    return address.rstrip("/") if "://" in address else f"http://{address}"


def _last(log: Path, event: str) -> Mapping[str, Any] | None:
    return next((entry for entry in reversed([*_entries(log)]) if entry.get("event") == event), None)


def _entries(log: Path) -> Iterator[Mapping[str, Any]]:
    if not log.exists():
        return
    for line in log.read_text("utf-8", "replace").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:  # the last sentence of a service, or a line that is not complete yet
            continue
        if isinstance(entry, dict):
            yield entry
