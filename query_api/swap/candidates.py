"""Which index a service is to serve, and how that index and the encoder of its model are opened: a seam."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from clip_index.encoder.protocol import Encoder, EncoderFingerprint
from query_api.serving.engine import IndexDescription, Reader


@dataclass(frozen=True, slots=True)
class NamedIndex:
    """The index that serves; `number` tells one naming from the next of the same index."""

    index_id: str
    number: int


@dataclass(frozen=True, slots=True)
class OpenedIndex:
    """A reader with a searcher. `encoder` is None if the encoder that runs is of the same model."""

    reader: Reader
    encoder: Encoder | None


class Candidates(Protocol):
    """The indexes that a service may be switched to. Everything here blocks."""

    @property
    def look_every_seconds(self) -> float:
        """How long to wait at least between two looks at what is named: in a bucket each look costs money."""
        ...

    def named(self) -> NamedIndex | None:
        """Return the index that is to serve; None if there is none yet. `ClipIndexError`, `OSError`."""
        ...

    def former_descriptions(self) -> Sequence[IndexDescription]:
        """Return the descriptions of the indexes that have served, as far as they can be read."""
        ...

    def refusal(self, index_id: str, running: EncoderFingerprint) -> str | None:
        """Say why the index could not be served beside the present one; None if nothing is in the way.

        Nothing is loaded, so this is a forecast.
        """
        ...

    def open(self, index_id: str, running: EncoderFingerprint) -> OpenedIndex:
        """Open the index, and load its encoder if `running` does not fit. `ClipIndexError`, `OSError`."""
        ...
