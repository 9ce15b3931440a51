"""The time of a text query through HTTP against that of encoding its text, alone and with 16 clients.

`encoder_speed_up` is what the encoder itself gains by a batch of 16 texts. Requests cannot gain much more,
because each of them needs its text encoded.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path

import numpy as np

from benchmarks.clients.served_queries import Clients, clients_of, serving
from benchmarks.clip_models import write_production_model
from benchmarks.figure import MIN_ROUNDS, Figure, median_ratio, seconds_of
from benchmarks.indexes.searched_index import Layout, open_index, queries_of
from clip_index.content import Embeddings
from clip_index.encoder.open_clip import load_encoder
from clip_index.encoder.protocol import Encoder, Prepared, PreparedImage, PreparedText

NAME = "query_text"
MAX_RATIO, MIN_SPEED_UP, NUM_CLIENTS = 1.3, 5.0, 16


class DrawnQueries:
    """Encodes as another encoder does, and answers embeddings as queries of the index have them.

    The model's weights are random, so its own embeddings lie in no cluster of the index. A search for one
    of them scans 226 of 100,000 rows' lists and takes 2.1 ms, a search for a query 3 lists and 0.2 ms.
    """

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._drawn = cycle(queries_of("text", 1_000)[:, np.newaxis])
        self.fingerprint = encoder.fingerprint

    def prepare_image(self, data: bytes) -> PreparedImage:
        return self._encoder.prepare_image(data)

    def prepare_text(self, text: str) -> PreparedText:
        return self._encoder.prepare_text(text)

    def encode(self, prepared: Sequence[Prepared]) -> list[Embeddings]:
        self._encoder.encode(prepared)
        return [next(self._drawn) for _ in prepared]


def measure(*, quick: bool) -> Figure:
    """Measure with texts that are each asked once, so that no cache answers."""
    rounds, num_texts = (2, 2) if quick else (MIN_ROUNDS, 8)
    reader = open_index(Layout(2_000 if quick else 100_000))
    with tempfile.TemporaryDirectory() as directory:
        encoder = load_encoder(write_production_model(Path(directory)))
    own, batched, through, together = [], [], [], []
    with serving(DrawnQueries(encoder), reader) as port, clients_of(port) as clients:
        for round_number in range(rounds + 1):
            texts = [f"a photo of thing {round_number} {n}" for n in range(num_texts)]
            own.append(statistics.median(_encode(encoder, [text]) for text in texts))
            batched.append(_encode_batches(encoder, texts))
            through.append(statistics.median(_ask_alone(clients, texts)))
            together.append(_ask_together(clients, texts))
    encoder_speed_up = median_ratio(own[1:], batched[1:])
    latency = median_ratio(through[1:], own[1:])
    speed_up = median_ratio(through[1:], together[1:])
    return Figure(
        NAME,
        {
            "latency": round(latency.median, 3),
            "speed_up": round(speed_up.median, 2),
            "encoder_speed_up": round(encoder_speed_up.median, 2),
        },
        f"≤ {MAX_RATIO}; ≥ {MIN_SPEED_UP:g}",
        latency.median <= MAX_RATIO and speed_up.median >= MIN_SPEED_UP,
        {
            "latency": latency.as_dict(),
            "speed_up": speed_up.as_dict(),
            "encoder_speed_up": encoder_speed_up.as_dict(),
            "encoder_ms": round(statistics.median(own[1:]) * 1e3, 2),
            "clients": NUM_CLIENTS,
        },
        [
            ("HTTP ÷ encoder", "16 clients ÷ one", "encoder: batch of 16 ÷ one by one"),
            (str(latency), str(speed_up), str(encoder_speed_up)),
        ],
    )


def _encode(encoder: Encoder, texts: list[str]) -> float:
    return seconds_of(lambda: encoder.encode([encoder.prepare_text(text) for text in texts]))


def _encode_batches(encoder: Encoder, texts: list[str]) -> float:
    """Return the seconds that a text takes in a batch of as many as there are clients."""
    batches = [[f"{text} with {client}" for client in range(NUM_CLIENTS)] for text in texts]
    return statistics.median(_encode(encoder, batch) for batch in batches) / NUM_CLIENTS


def _ask_alone(clients: Clients, texts: list[str]) -> list[float]:
    clients.prepare([[_body(text) for text in texts]])
    [seconds] = clients.ask()
    return seconds


def _ask_together(clients: Clients, texts: list[str]) -> float:
    """Return the seconds that a request takes on average while 16 clients ask at once."""
    clients.prepare([[_body(f"{text} for {client}") for text in texts] for client in range(NUM_CLIENTS)])
    return seconds_of(clients.ask) / (NUM_CLIENTS * len(texts))


def _body(text: str) -> str:
    return json.dumps({"text": text, "modality": "image"})
