"""The training data: drawn pictures and captions of the combinations that are not held out."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from open_clip.tokenizer import SimpleTokenizer

from cliptide.demo.garments.captions import Caption, write_full_caption, write_partial_caption
from cliptide.demo.garments.combinations import COLOURS, GARMENTS, PATTERNS, Combination
from cliptide.demo.garments.drawing import PictureDrawer
from cliptide.demo.small_clip.model import IMAGE_SIZE, UNKNOWN_WORD_ROW, CompactVocabulary

Pixels = npt.NDArray[np.uint8]  # (pictures, height, width, 3)
Attributes = npt.NDArray[np.int64]  # (n, 3): garment, colour, pattern; OPEN: not named by the caption
TokenRows = npt.NDArray[np.int64]  # (captions, longest): rows of the compact embedding

OPEN = -1
UNKNOWN_WORDS_CHANCE = 0.3


@dataclass(frozen=True, slots=True)
class Batch:
    """The pictures and captions of one step. Their attributes say which caption fits which picture."""

    pixels: Pixels
    picture_attributes: Attributes
    captions: npt.NDArray[np.int64]  # indices into the caption pool
    caption_attributes: Attributes

    def __len__(self) -> int:
        return len(self.pixels)

    def part(self, start: int, stop: int) -> Batch:
        return Batch(
            self.pixels[start:stop],
            self.picture_attributes[start:stop],
            self.captions[start:stop],
            self.caption_attributes[start:stop],
        )


def draw_pictures(combination: Combination, num_pictures: int, seed: int) -> Pixels:
    """Draw pictures (num_pictures, 64, 64, 3) of one combination. Equal arguments give equal pictures."""
    drawer = PictureDrawer()
    seeds = np.random.default_rng([seed, *attribute_row(combination)]).integers(2**62, size=num_pictures)
    return np.stack([np.asarray(drawer.draw(combination, seed=int(s), size=IMAGE_SIZE)) for s in seeds])


def draw_all_pictures(combinations: Sequence[Combination], num_each: int, seed: int) -> Iterator[Pixels]:
    """Yield the pictures of each combination in turn. As many processes draw as there are processors."""
    with ProcessPoolExecutor() as pool:
        yield from pool.map(
            draw_pictures,
            combinations,
            [num_each] * len(combinations),
            [seed] * len(combinations),
            chunksize=4,
        )


def write_captions(combinations: Sequence[Combination], num_each: int, seed: int) -> list[Caption]:
    """Write `num_each` captions of each combination in turn. Three in four name all three attributes."""
    rng = random.Random(seed)
    return [
        write_partial_caption(combination, rng) if i % 4 == 3 else write_full_caption(combination, rng)
        for combination in combinations
        for i in range(num_each)
    ]


def read_captions(
    captions: Sequence[Caption], rng: np.random.Generator
) -> tuple[CompactVocabulary, TokenRows]:
    """Return the vocabulary of the captions, and their embedding rows, padded with zeros.

    Unknown words are inserted into some captions. These captions keep their meaning, so the model learns
    to ignore words that it does not know.
    """
    tokenizer = SimpleTokenizer()
    tokens = tokenizer([caption.text for caption in captions]).numpy()
    lengths = tokens.argmax(axis=1) + 1
    vocabulary = CompactVocabulary(int(t) for row, n in zip(tokens, lengths, strict=True) for t in row[:n])
    rows = [
        _insert_unknown_words(vocabulary.rows(row[:n]), rng) for row, n in zip(tokens, lengths, strict=True)
    ]
    padded = np.zeros((len(rows), max(map(len, rows))), dtype=np.int64)
    for target, row in zip(padded, rows, strict=True):
        target[: len(row)] = row
    return vocabulary, padded


def _insert_unknown_words(row: TokenRows, rng: np.random.Generator) -> TokenRows:
    if rng.uniform() >= UNKNOWN_WORDS_CHANCE:
        return row
    positions = rng.integers(1, len(row), size=rng.integers(1, 5))
    return np.insert(row, positions, UNKNOWN_WORD_ROW)


def attribute_row(described: Combination | Caption) -> list[int]:
    """Return garment, colour and pattern as positions in their lists; OPEN for one that is not named."""
    return [
        OPEN if described.garment is None else GARMENTS.index(described.garment),
        OPEN if described.colour is None else COLOURS.index(described.colour),
        OPEN if described.pattern is None else PATTERNS.index(described.pattern),
    ]


def attribute_rows(described: Sequence[Combination] | Sequence[Caption]) -> Attributes:
    return np.array([attribute_row(one) for one in described], dtype=np.int64)


class BatchSampler:
    """Draws hard batches. Each has few garments and colours, so that many captions nearly fit a picture.

    Each picture comes with one caption of its own combination.
    """

    def __init__(
        self,
        combinations: Sequence[Combination],
        pictures: Sequence[Pixels],
        captions: Sequence[Caption],
        rng: np.random.Generator,
    ) -> None:
        self._attributes = attribute_rows(combinations)
        self._pictures = pictures
        self._caption_attributes = attribute_rows(captions)
        self._captions_each = len(captions) // len(combinations)
        self._rng = rng

    def sample(self, size: int) -> Batch:
        chosen = self._rng.choice(self._candidates(), size=size)
        captions = chosen * self._captions_each + self._rng.integers(self._captions_each, size=size)
        pixels = np.stack([self._pictures[c][self._rng.integers(len(self._pictures[c]))] for c in chosen])
        return Batch(pixels, self._attributes[chosen], captions, self._caption_attributes[captions])

    def _candidates(self) -> npt.NDArray[np.int64]:
        garments = self._rng.choice(len(GARMENTS), size=len(GARMENTS) // 2, replace=False)
        colours = self._rng.choice(len(COLOURS), size=len(COLOURS) * 2 // 3, replace=False)
        fits = np.isin(self._attributes[:, 0], garments) & np.isin(self._attributes[:, 1], colours)
        return np.flatnonzero(fits)
