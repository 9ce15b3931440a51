"""Texts in their order with the rows that have them: who has a text is looked up and not compared."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class OrderedTexts:
    """The distinct texts of some items, ascending, and who has them. Immutable and thread-safe.

    `codes`, (n,), is the number of each item's text; the greatest one that its type has if it has none.
    `rows` are those of the first text, then those of the second, and so on; `starts` says where each begins.
    """

    texts: pa.StringArray
    codes: NDArray[np.unsignedinteger]
    rows: NDArray[np.uint32]
    starts: NDArray[np.int64]

    @property
    def nbytes(self) -> int:
        return int(self.texts.nbytes) + self.codes.nbytes + self.rows.nbytes + self.starts.nbytes

    def mask(self, texts: Sequence[str]) -> NDArray[np.bool_]:
        """Return which items have one of the texts, (n,)."""
        mask = np.zeros(len(self.codes), np.bool_)
        for number in self._find(texts):
            mask |= self.codes == number
        return mask

    def rows_with(self, texts: Sequence[str], most: int) -> NDArray[np.int64] | None:
        """Return the rows that have one of the texts, ascending; None if they are more than `most`."""
        ranges = [(int(self.starts[number]), int(self.starts[number + 1])) for number in self._find(texts)]
        if sum(last - first for first, last in ranges) > most:
            return None
        rows = np.concatenate([np.empty(0, np.uint32), *(self.rows[first:last] for first, last in ranges)])
        rows.sort()
        return rows.astype(np.int64)

    def _find(self, texts: Sequence[str]) -> list[int]:
        """Return the numbers of those texts that are there. UTF-8 and Python order texts alike."""
        numbers = range(len(self.texts))
        places = [(bisect_left(numbers, one, key=self._text), one) for one in set(texts)]
        return [number for number, one in places if number < len(numbers) and self._text(number) == one]

    def _text(self, number: int) -> str:
        text: str = self.texts[number].as_py()
        return text


def order_texts(items: pa.StringArray, rows: NDArray[np.int64] | None) -> OrderedTexts:
    """Order items, (n,), which may be null, with their rows, (n,), or 0 … n − 1."""
    encoded = pc.dictionary_encode(items)
    order = pc.sort_indices(encoded.dictionary)
    type_ = np.min_scalar_type(len(order) + 1)
    none = np.iinfo(type_).max
    rank = np.full(len(order) + 1, none, type_)
    rank[np.asarray(order)] = np.arange(len(order), dtype=type_)
    codes = rank[np.asarray(pc.fill_null(encoded.indices, len(order)))]
    by_code = np.argsort(codes, kind="stable")[: len(codes) - items.null_count]
    starts = np.searchsorted(codes[by_code], np.arange(len(order) + 1, dtype=type_))
    texts = encoded.dictionary.take(order)
    return OrderedTexts(texts, codes, (by_code if rows is None else rows[by_code]).astype(np.uint32), starts)
