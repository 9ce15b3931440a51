"""Pairs as training needs them: pixels in a file that is mapped, tokens in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from clip_index.encoder.image_headers import ImageLimits
from clip_index.encoder.images import read_pixels
from clip_index.encoder.open_clip.encoder import Preparation
from cliptide.pairs.checking import CheckedPair, PairTally, checked_pairs
from cliptide.pairs.gallery import Gallery
from cliptide.pairs.pair import BadPair, Pair, is_held_out

MAX_HELD_OUT = 5_000  # more pairs make no figure better, and each evaluation slower

Pixels = NDArray[np.uint8]  # (height, width, 3)
Tokens = NDArray[np.int32]  # (windows, context length)


@dataclass(frozen=True, slots=True)
class PairBatch:
    """Pairs of one step. Equal numbers mean the same picture, or the same caption. Implements Batch."""

    pixels: NDArray[np.uint8]  # (pairs, height, width, 3)
    tokens: NDArray[np.int64]  # (pairs, context length)
    pictures: NDArray[np.int64]
    captions: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.pictures)

    def part(self, start: int, stop: int) -> PairBatch:
        at = slice(start, stop)
        return PairBatch(self.pixels[at], self.tokens[at], self.pictures[at], self.captions[at])


@dataclass(frozen=True, slots=True)
class PairSet:
    """Checked pairs, with numbers for their pictures and captions."""

    pairs: Sequence[Pair]
    digests: Sequence[str]
    pictures: NDArray[np.int64]  # of each pair: its row of `pixels`
    captions: NDArray[np.int64]  # of each pair: its place in `tokens`
    pixels: NDArray[np.uint8]  # (pictures, height, width, 3), mapped
    tokens: Sequence[Tokens]

    def __len__(self) -> int:
        return len(self.pairs)

    @property
    def digest(self) -> str:
        """Identifies the pairs and their order."""
        found = hashlib.sha256()
        for pair, digest in zip(self.pairs, self.digests, strict=True):
            found.update(f"{digest} {pair.caption}\n".encode())
        return found.hexdigest()

    @property
    def num_long_captions(self) -> int:
        """Captions of more than one window. Training sees their first window."""
        return sum(len(windows) > 1 for windows in self.tokens)

    def split(self, share: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the positions of the training pairs and of the held-out pairs."""
        share = min(share, MAX_HELD_OUT / max(1, len(self)))
        held_out = np.array([is_held_out(digest, share) for digest in self.digests], dtype=bool)
        return np.flatnonzero(~held_out), np.flatnonzero(held_out)

    def batch(self, positions: NDArray[np.int64]) -> PairBatch:
        pictures, captions = self.pictures[positions], self.captions[positions]
        first = np.stack([self.tokens[number][0] for number in captions]).astype(np.int64)
        return PairBatch(self.pixels[pictures], first, pictures, captions)

    def gallery(self, positions: NDArray[np.int64], group_by: str | None) -> HeldOut:
        return HeldOut.of(self, positions, group_by)


@dataclass(slots=True)
class HeldOut:
    """The gallery of held-out pairs: the rows of its pictures, and the places of its captions."""

    gallery: Gallery
    picture_rows: list[int] = field(default_factory=list)
    caption_numbers: list[int] = field(default_factory=list)

    @classmethod
    def of(cls, pairs: PairSet, positions: NDArray[np.int64], group_by: str | None) -> HeldOut:
        held_out = cls(Gallery(group_by))
        for position in positions.tolist():
            held_out.gallery.add(pairs.pairs[position], pairs.digests[position])
            held_out.picture_rows.append(int(pairs.pictures[position]))
            held_out.caption_numbers.append(int(pairs.captions[position]))
        held_out.picture_rows = list(dict.fromkeys(held_out.picture_rows))
        held_out.caption_numbers = list(dict.fromkeys(held_out.caption_numbers))
        return held_out


@dataclass(slots=True)
class PairPreparer:
    """Prepares pictures and captions as the model's encoder does."""

    preparation: Preparation

    def prepare(self, pair: Pair, data: bytes) -> tuple[Pixels, Tokens]:
        """Raises `BadContent`."""
        pixels = read_pixels(data, self.preparation.resizing, ImageLimits())
        return pixels, self.tokens(" ".join(pair.caption.split()))

    def tokens(self, caption: str) -> Tokens:
        return self.preparation.prepare_text(caption).tokens


class PairSetBuilder:
    """Writes the pixels of each picture once, one after the other, and keeps the rest in memory."""

    def __init__(self, preparer: PairPreparer, pixels_file: Path) -> None:
        self._preparer, self._file = preparer, pixels_file
        self._rows: dict[str, int] = {}
        self._numbers: dict[str, int] = {}
        self._tokens: list[Tokens] = []
        self._shape: tuple[int, ...] = (0, 0, 3)

    def build(self, pairs: Iterable[Pair | BadPair], tally: PairTally) -> PairSet:
        kept: list[tuple[Pair, str, int, int]] = []
        with self._file.open("wb") as file:
            for checked in self._checked(pairs, tally):
                pixels, tokens = checked.prepared
                row = self._row(checked.digest, pixels, file)
                kept.append((checked.pair, checked.digest, row, self._number(checked.pair, tokens)))
        return self._pair_set(kept)

    def _checked(
        self, pairs: Iterable[Pair | BadPair], tally: PairTally
    ) -> Iterator[CheckedPair[tuple[Pixels, Tokens]]]:
        return checked_pairs(pairs, self._preparer.prepare, tally)

    def _row(self, digest: str, pixels: Pixels, file: IO[bytes]) -> int:
        if digest not in self._rows:
            self._shape = pixels.shape
            file.write(pixels.tobytes())
        return self._rows.setdefault(digest, len(self._rows))

    def _number(self, pair: Pair, tokens: Tokens) -> int:
        caption = " ".join(pair.caption.split())
        if caption not in self._numbers:
            self._tokens.append(tokens)
        return self._numbers.setdefault(caption, len(self._numbers))

    def _pair_set(self, kept: Sequence[tuple[Pair, str, int, int]]) -> PairSet:
        shape = (len(self._rows), *self._shape)
        is_empty = not self._rows
        pixels = np.zeros(shape, np.uint8) if is_empty else np.memmap(self._file, np.uint8, "r", shape=shape)
        return PairSet(
            pairs=[pair for pair, *_ in kept],
            digests=[digest for _, digest, *_ in kept],
            pictures=np.array([row for *_, row, _ in kept], dtype=np.int64),
            captions=np.array([number for *_, number in kept], dtype=np.int64),
            pixels=pixels,
            tokens=self._tokens,
        )
