"""The embeddings of recent query texts."""

from __future__ import annotations

from collections import OrderedDict

from clip_index.content import Embeddings


class TextCache:
    """Keeps the embeddings of the `max_entries` texts that were asked for last."""

    def __init__(self, max_entries: int) -> None:
        self._max_entries = max_entries
        self._embeddings: OrderedDict[str, Embeddings] = OrderedDict()

    def find(self, text: str) -> Embeddings | None:
        embedding = self._embeddings.get(text)
        if embedding is not None:
            self._embeddings.move_to_end(text)
        return embedding

    def keep(self, text: str, embedding: Embeddings) -> None:
        self._embeddings[text] = embedding
        while len(self._embeddings) > self._max_entries:
            self._embeddings.popitem(last=False)
