"""Encodes the index's canaries at the start and now and then, and tells when the encoder has drifted."""

from __future__ import annotations

import time

import structlog

from clip_index.encoder.canary import encode_canaries, number_format_of
from clip_index.encoder.protocol import Encoder
from clip_index.indexes.canaries import KeptCanaries, ensure_canaries, library_versions
from clip_index.storage.shard_store import ShardStore
from consumer.telemetry.metrics import Metrics

_log = structlog.get_logger(__name__)


class CanaryWatch:
    """Belongs to the encoder thread, because an encoder is used by one thread at a time.

    A drifted encoder goes on encoding, so that nothing is held up that an operator might want; but the
    consumer is not ready, and says why.
    """

    def __init__(
        self, kept: KeptCanaries, encoder: Encoder, *, metrics: Metrics, every_seconds: float
    ) -> None:
        self._kept = kept
        self._encoder = encoder
        self._metrics = metrics
        self._every_seconds = every_seconds
        self._due_at = 0.0
        self.complaint: str | None = None

    @classmethod
    def open(
        cls, store: ShardStore, encoder: Encoder, *, metrics: Metrics, every_seconds: float
    ) -> CanaryWatch:
        """Read the canaries of an index, or begin with the encoder's own, and look at once.

        Raises `OSError` and `DamagedIndexFile`.
        """
        watch = cls(ensure_canaries(store, encoder), encoder, metrics=metrics, every_seconds=every_seconds)
        watch.look()
        return watch

    @property
    def is_due(self) -> bool:
        return time.monotonic() >= self._due_at

    def look(self) -> None:
        """Encode the canaries and compare. Raises what the encoder raises."""
        now = encode_canaries(self._encoder, self._kept.embeddings)
        found = self._kept.compare(now, number_format_of(self._encoder))
        for modality, cosine in found.cosines.items():
            self._metrics.canary_cosine.labels(modality).set(cosine)
        self._metrics.encoder_drifted.set(found.has_drifted)
        self._tell(found.complaint)
        self._due_at = time.monotonic() + self._every_seconds

    def _tell(self, complaint: str | None) -> None:
        """Log only a change, because the canaries are encoded again and again."""
        if complaint is not None and self.complaint is None:
            made_with, runs_with = dict(self._kept.made_with), library_versions()
            _log.error("encoder drifted", error=complaint, made_with=made_with, runs_with=runs_with)
        elif complaint is None and self.complaint is not None:
            _log.info("encoder is as before")
        self.complaint = complaint
