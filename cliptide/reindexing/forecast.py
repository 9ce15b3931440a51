"""What building an index with another model will take: contents, time, disk."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from clip_index.content import MODALITIES, Modality
from clip_index.encoder.canary import CANARY_PNG, CANARY_TEXT
from clip_index.encoder.protocol import Encoder, Prepared
from clip_index.errors import BadContent
from clip_index.searching.searcher import Searcher
from event_log.records import LogRange

_NUM_SAMPLED = 64
_BATCH = 16
_PROBE_SECONDS = 3.0  # of each modality
_BYTES_OF_A_NUMBER = 2  # segments hold fp16
_TIMES_WHILE_MERGING = 3


@dataclass(frozen=True, slots=True)
class Forecast:
    """`num_records` are in the log, and each upload among them is encoded, also one that was replaced later.

    `rates` are contents a second by modality, measured on this machine with nothing else to do. A bucket has
    no bound, so no `free_bytes` are told of it.
    """

    num_contents: Mapping[Modality, int]
    num_records: int
    rates: Mapping[Modality, float]
    served_bytes: int
    new_bytes: int
    free_bytes: int | None

    @property
    def may_lack_room(self) -> bool:
        """Whether the index may fill the disk while its segments merge."""
        return self.free_bytes is not None and self.new_bytes * _TIMES_WHILE_MERGING > self.free_bytes

    @property
    def seconds(self) -> float:
        """Return how long the live contents take; the records that they have replaced come on top."""
        return sum(self.num_contents[m] / self.rates[m] for m in MODALITIES if self.num_contents[m])

    @property
    def most_seconds(self) -> float:
        """Return how long it takes if every record of the log is an upload, in the same proportions."""
        num_contents = sum(self.num_contents.values())
        return self.seconds * max(1.0, self.num_records / num_contents) if num_contents else 0.0

    def as_json(self) -> dict[str, object]:
        return {
            "contents": dict(self.num_contents),
            "records": self.num_records,
            "contents_per_second": {m: round(rate, 1) for m, rate in self.rates.items()},
            "seconds": round(self.seconds),
            "most_seconds": round(self.most_seconds),
            "bytes": self.new_bytes,
            "free_bytes": self.free_bytes,
        }

    def lines(self) -> list[str]:
        texts, images = self.num_contents["text"], self.num_contents["image"]
        rates = f"{self.rates['image']:,.0f} pictures or {self.rates['text']:,.0f} texts a second"
        times = f"{in_words(self.seconds)} for the live contents, {in_words(self.most_seconds)} at most"
        sizes = f"{_megabytes(self.new_bytes)} (the served one takes {_megabytes(self.served_bytes)})"
        room = "up to three times as much while segments merge"
        if self.free_bytes is not None:
            room += f"; {_megabytes(self.free_bytes)} are free"
        return [
            f"{images:,} pictures and {texts:,} texts are live; the log holds {self.num_records:,} records",
            f"a machine like this one encodes {rates}: {times}",
            f"the index will take about {sizes}, {room}",
        ]


def build_forecast(
    served: Searcher, encoder: Encoder, log_ranges: Sequence[LogRange], free_bytes: int | None
) -> Forecast:
    shards = served.shards.values()
    num_contents: dict[Modality, int] = {
        m: sum(shard.num_contents.get(m, 0) for shard in shards) for m in MODALITIES
    }
    served_bytes = sum(shard.size_bytes for shard in shards)
    growth = encoder.fingerprint.dimension - served.dimension
    return Forecast(
        num_contents=num_contents,
        num_records=sum(max(0, log.next_offset - log.first_offset) for log in log_ranges),
        rates={m: measure_rate(served, encoder, m) for m in MODALITIES},
        served_bytes=served_bytes,
        new_bytes=max(0, served_bytes + growth * _BYTES_OF_A_NUMBER * sum(num_contents.values())),
        free_bytes=free_bytes,
    )


def measure_rate(
    served: Searcher, encoder: Encoder, modality: Modality, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Encode some contents of the served index, or a canary, for some seconds; return contents a second.

    The first batch is not counted, because it chooses and prepares kernels.
    """
    prepared = _samples(served, encoder, modality)
    encoder.encode(prepared[:_BATCH])
    began, num_encoded = clock(), 0
    while True:
        batch = prepared[num_encoded % len(prepared) :][:_BATCH]
        encoder.encode(batch)
        num_encoded += len(batch)
        spent = clock() - began
        if spent >= _PROBE_SECONDS or (num_encoded >= _NUM_SAMPLED and spent > 0):
            return num_encoded / spent


def _samples(served: Searcher, encoder: Encoder, modality: Modality) -> list[Prepared]:
    """Prepare sampled contents: texts as they are, pictures by their thumbnails."""
    found: list[Prepared] = []
    for location in served.sample(modality, _NUM_SAMPLED):
        data = served.read(location).facts.text if modality == "text" else served.thumbnail(location)
        if not data:
            continue
        try:
            found.append(_prepare(encoder, data))
        except BadContent:
            continue
    return found or [_prepare(encoder, CANARY_TEXT if modality == "text" else CANARY_PNG)] * _BATCH


def _prepare(encoder: Encoder, content: str | bytes) -> Prepared:
    return encoder.prepare_text(content) if isinstance(content, str) else encoder.prepare_image(content)


def in_words(seconds: float) -> str:
    """Write a time in the unit that a person thinks in."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def _megabytes(num_bytes: int) -> str:
    """Write a size, also one of a small index."""
    return f"{num_bytes / 2**20:,.0f} MiB" if num_bytes >= 10 * 2**20 else f"{num_bytes / 2**20:,.1f} MiB"
