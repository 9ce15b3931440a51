"""Records a second of CPU time through preparation, with a trace context in each record and without one."""

from __future__ import annotations

import tempfile
import time
from concurrent.futures import Future
from pathlib import Path

from opentelemetry.sdk.trace import TracerProvider

from benchmarks.clients.uploads import encode_upload
from benchmarks.figure import MIN_ROUNDS, Figure, Ratio, median_ratio
from benchmarks.processes.generated_encoder import GeneratedEncoder
from consumer.backlog.backlog import Backlog, BacklogLimits
from consumer.intake.dispatcher import Dispatcher
from consumer.preparation.placement import Placement
from consumer.preparation.record_reader import RecordReader
from consumer.preparation.steps import Fetchers, Preparation, PreparationOptions
from consumer.preparation.upload_contents import UploadContents
from consumer.quarantine.inflight import InFlight, InFlightFile
from consumer.quarantine.risk_gate import RiskGate
from consumer.saved_encodings import ContentDigests, NothingStored, SavedEncodings
from consumer.telemetry.metrics import Metrics
from consumer.tracing import RecordTracing
from event_log.records import Headers, Record
from schemas.codec import EventDecoder
from schemas.events import ContentReference, TextContent

NAME = "trace_cost"
_TARGETS = {"unsampled": 0.95, "no_header": 0.95}
_CONTEXT = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-%s"
_PATIENCE_SECONDS = 60.0


class _NoReferences:
    """Implements `Fetcher`: no record of this figure has a reference."""

    def fetch(self, reference: ContentReference, record: str) -> Future[bytes]:
        raise AssertionError(f"{record} has no reference: {reference}")


class _Side:
    """One consumer's backlog and preparation, and the records that pass through them."""

    def __init__(self, folder: Path, *, num_records: int, flags: bytes | None, is_traced: bool) -> None:
        headers: Headers = () if flags is None else (("traceparent", _CONTEXT % flags),)
        event = encode_upload("upload", TextContent("a red shoe, hardly worn"))
        self._records = [
            Record("uploads", 0, offset, event.key, event.value, headers, 1_700_000_000_000, 1)
            for offset in range(num_records)
        ]
        self._folder = folder
        self._encoder = GeneratedEncoder()
        self._tracing = (
            RecordTracing(TracerProvider().get_tracer("benchmark"), "group") if is_traced else None
        )

    def run(self) -> None:
        """Pass all records through, each in the order in which a consumer does it."""
        backlog = Backlog(BacklogLimits(), self._tracing)
        metrics, encoder, gate = Metrics(), self._encoder, RiskGate()
        preparation = Preparation(
            reader=RecordReader(EventDecoder(), Placement(1, metrics.misplaced_records), metrics.other_keys),
            contents=UploadContents(
                encoder,
                SavedEncodings(
                    ContentDigests(encoder.fingerprint, ""), NothingStored(), metrics.encodings_saved
                ),
                truncated_texts=metrics,
            ),
            fetchers=Fetchers(_NoReferences()),
            meter=metrics,
            options=PreparationOptions(num_threads=1),
            settled=backlog,
        )
        dispatcher = Dispatcher(backlog, preparation, gate=gate, encoder=encoder, metrics=metrics)
        backlog.open(0, 1, 0, InFlightFile(self._folder / "inflight.json", InFlight()))
        backlog.receive(self._records)
        num_left = len(self._records)
        while num_left:
            dispatcher.dispatch()
            num_left -= len(backlog.take(512, _PATIENCE_SECONDS))
        preparation.close()


def measure(*, quick: bool) -> Figure:
    """Compare with a consumer that traces nothing. Every record is a text of some words."""
    num_records, rounds = (500, 2) if quick else (4_000, 2 * MIN_ROUNDS + 1)
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        sides = {
            "untraced": _Side(folder, num_records=num_records, flags=None, is_traced=False),
            "no_header": _Side(folder, num_records=num_records, flags=None, is_traced=True),
            "unsampled": _Side(folder, num_records=num_records, flags=b"00", is_traced=True),
            "sampled": _Side(folder, num_records=num_records, flags=b"01", is_traced=True),
        }
        seconds = [list[float]() for _ in sides]
        for _ in range(rounds):
            for times, side in zip(seconds, sides.values(), strict=True):
                times.append(_cpu_seconds_of(side))
    untraced, *others = seconds
    ratios = {
        name: median_ratio(untraced, times) for name, times in zip(list(sides)[1:], others, strict=True)
    }
    return _figure(ratios, num_records / min(untraced))


def _cpu_seconds_of(side: _Side) -> float:
    """Take the time of the processor, because other work on the machine would count as well."""
    began = time.process_time()
    side.run()
    return time.process_time() - began


def _figure(ratios: dict[str, Ratio], records_per_second: float) -> Figure:
    return Figure(
        NAME,
        {name: round(ratio.median, 3) for name, ratio in ratios.items()},
        "≥ 0.95 for records that are not sampled",
        all(ratios[name].median >= target for name, target in _TARGETS.items()),
        {
            "ratios": {name: ratio.as_dict() for name, ratio in ratios.items()},
            "untraced_records_per_cpu_second": round(records_per_second),
        },
        [("records", "records a second of CPU time ÷ those of a consumer that traces nothing")]
        + [(name, str(ratio)) for name, ratio in ratios.items()],
    )
