"""Checks that the encoder gives sound embeddings, seldom enough to cost nothing."""

from __future__ import annotations

import asyncio
import time

import numpy as np

from clip_index.content import Embeddings
from clip_index.encoder.canary import CANARY_PNG, CANARY_TEXT
from clip_index.errors import EncoderBroken
from query_api.encoding.query_encoder import QueryEncoder

TIMEOUT_SECONDS = 10.0


class CanaryProbe:
    """Encodes a text and a picture, at most once in `max_age_seconds`, because anybody may ask for it."""

    def __init__(self, encoder: QueryEncoder, max_age_seconds: float = 1.0) -> None:
        self._encoder = encoder
        self._max_age_seconds = max_age_seconds
        self._lock = asyncio.Lock()
        self._probed_at = -np.inf
        self._complaint: str | None = None

    async def complaint(self) -> str | None:
        """Return what is wrong with the encoder, None if it works. Simultaneous callers share a probe."""
        async with self._lock:
            if time.monotonic() - self._probed_at > self._max_age_seconds:
                self._complaint = await self._probe()
                self._probed_at = time.monotonic()
            return self._complaint

    async def _probe(self) -> str | None:
        try:
            embeddings = await asyncio.wait_for(self._encode(), TIMEOUT_SECONDS)
        except asyncio.TimeoutError:
            return f"the encoder took longer than {TIMEOUT_SECONDS:g} s"
        except EncoderBroken as error:
            return str(error)
        are_sound = all(map(_is_unit, embeddings))
        return None if are_sound else "the encoder gives embeddings that are not unit vectors"

    async def _encode(self) -> tuple[Embeddings, Embeddings]:
        return await asyncio.gather(
            self._encoder.encode_text_afresh(CANARY_TEXT), self._encoder.encode_image(CANARY_PNG)
        )


def _is_unit(embedding: Embeddings) -> bool:
    return bool(abs(float(np.linalg.norm(embedding)) - 1.0) < 1e-2)
