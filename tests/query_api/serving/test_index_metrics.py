"""What the metrics show of contents that become searchable."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from query_api.serving.index_metrics import observe_newcomers
from query_api.telemetry.metrics import Metrics
from schemas.clock_time import ms_from_time, time_from_record_timestamp


def test_an_upload_without_a_time_is_not_observed() -> None:
    now_ms = round(time.time() * 1000)
    absent = [ms_from_time(time_from_record_timestamp(timestamp_ms)) for timestamp_ms in (-1, -(2**63))]
    newcomers = np.array([*absent, now_ms - 1000], np.int64)
    searcher = cast(Any, SimpleNamespace(newcomers_since=lambda former: newcomers))
    registry = CollectorRegistry()
    observe_newcomers(Metrics(registry), searcher, searcher)
    assert registry.get_sample_value("cliptide_searchable_after_event_seconds_count") == 1
    seconds = registry.get_sample_value("cliptide_searchable_after_event_seconds_sum")
    assert seconds == pytest.approx(1.0, abs=30.0)
