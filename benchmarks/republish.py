"""CPU time of the consumer for uploads that it has indexed before, against that of their first upload."""

from __future__ import annotations

import itertools
import statistics
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.clients.photographs import crop_jpegs
from benchmarks.clients.uploads import encode_upload
from benchmarks.clip_models import write_model
from benchmarks.figure import MIN_ROUNDS, Figure, median_ratio
from benchmarks.indexes.commits import CommitWatch
from benchmarks.processes.process_figures import session_cpu_seconds
from benchmarks.processes.services import (
    Program,
    Running,
    encoder_environment,
    open_site,
    running,
    running_broker,
)
from event_log.kafka.publisher import KafkaPublisher
from schemas.events import Content, ImageContent, TextContent

NAME = "republish"
MAX_RATIO = 0.1
_NUM_CONTENTS = 20_000
_SETS_AHEAD = 5
"""A set is uploaded again when this many others were uploaded since.

They are more than the consumer keeps of what it encoded lately, so it has to look into the index.
"""
_NUM_SETS = _SETS_AHEAD + MIN_ROUNDS
_TEXTS_OF_PICTURE = 9  # a machine without bf16 encodes ten times as many texts as pictures in a second
_WORDS = 10
_PATIENCE_SECONDS = 900.0  # CPU time is measured, so a busy machine may take its time


@dataclass(slots=True)
class Costs:
    """CPU seconds of each round."""

    first: list[float] = field(default_factory=list)
    again: list[float] = field(default_factory=list)


def measure(*, quick: bool) -> Figure:
    """Upload texts of ten words and JPEGs of 320 × 240 to ViT-B-32 (random weights), a set at a time.

    In each round a new set is uploaded, and one that was new five sets before.
    """
    num_of_set = 40 if quick else _NUM_CONTENTS // _NUM_SETS
    num_sets = 3 if quick else _NUM_SETS
    num_pictures = num_of_set // (_TEXTS_OF_PICTURE + 1)
    kinds: dict[str, Callable[[int], list[Content]]] = {
        "texts": lambda number: _texts(number, num_of_set - num_pictures),
        "pictures": lambda number: [
            ImageContent(jpeg) for jpeg in crop_jpegs(num_pictures, 320, 240, seed=number)
        ],
    }
    costs = {kind: Costs() for kind in kinds}
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        settings = write_model(directory, quick=quick)
        kafka = stack.enter_context(running_broker(directory))
        site = open_site(kafka, directory, "catalogue")
        program = Program(query_service=None, environment=encoder_environment(settings))
        services = stack.enter_context(running(site, program))
        uploads = Uploads(services, stack.enter_context(closing(KafkaPublisher(kafka))))
        ahead = min(_SETS_AHEAD, num_sets - 1)
        for number in range(num_sets):
            for kind, draw in kinds.items():
                first = uploads.cost_of(f"{kind}-{number}", draw(number))
                if number < ahead:
                    continue
                before = number - ahead
                costs[kind].first.append(first)
                costs[kind].again.append(uploads.cost_of(f"{kind}-{before}", draw(before)))
    return _figure(costs, num_of_set * num_sets)


def _texts(number: int, num_texts: int) -> list[Content]:
    words = np.random.default_rng(number).integers(0, 5_000, (num_texts, _WORDS))
    return [TextContent(" ".join(f"w{word}" for word in row)) for row in words]


class Uploads:
    """Sends uploads through the running consumer."""

    def __init__(self, services: Running, publisher: KafkaPublisher) -> None:
        self._services = services
        self._publisher = publisher

    def cost_of(self, name: str, contents: Sequence[Content]) -> float:
        """Return the CPU seconds of the consumer and its merges until these uploads are committed."""
        watch, pid = CommitWatch(self._services), self._services.consumer.pid
        before, began = watch.look().num_records, session_cpu_seconds(pid)
        for number, content in zip(itertools.count(), contents):
            event = encode_upload(f"{name}-{number}", content)
            self._publisher.publish(self._services.site.topic, key=event.key, value=event.value)
        watch.follow(before + len(contents), _PATIENCE_SECONDS)
        return session_cpu_seconds(pid) - began


def _figure(costs: dict[str, Costs], num_contents: int) -> Figure:
    ratios = {kind: median_ratio(found.again, found.first) for kind, found in costs.items()}
    value = {kind: round(ratio.median, 3) for kind, ratio in ratios.items()}
    return Figure(
        NAME,
        value,
        f"≤ {MAX_RATIO}",
        max(value.values()) <= MAX_RATIO,
        {
            "contents": num_contents,
            "ratio": {kind: ratio.as_dict() for kind, ratio in ratios.items()},
            "cpu_seconds_of_a_set": {
                kind: [round(statistics.median(side), 3) for side in (found.first, found.again)]
                for kind, found in costs.items()
            },
            "encoder": "ViT-B-32, random weights",
        },
        [("contents", "CPU of the second upload ÷ of the first")]
        + [(kind, str(ratio)) for kind, ratio in ratios.items()],
    )
