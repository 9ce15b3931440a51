"""The catalogue: product pictures and product notes of many sellers, and sample queries."""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from cliptide.demo.garments.captions import plain_query, write_full_caption
from cliptide.demo.garments.combinations import Combination, all_combinations
from cliptide.demo.garments.drawing import DEFAULT_SIZE, PictureDrawer

Modality = Literal["image", "text"]

PICTURES_PER_QUERY = 12
MIN_PICTURES_PER_QUERY = 8
NUM_OWNERS = 25
FEATURED = (
    Combination("dress", "red", "striped"),
    Combination("umbrella", "yellow", "dotted"),
    Combination("jumper", "green", "plain"),
    Combination("sneaker", "pink", "checked"),
    Combination("trousers", "green", "striped"),
    Combination("handbag", "teal", "dotted"),
    Combination("backpack", "blue", "dotted"),
    Combination("boot", "brown", "checked"),
)
NUM_TEXT_QUERIES = 6
_SEED_BITS = 62
_NEXT_SEED = 2**_SEED_BITS  # pictures of the catalogue use smaller seeds


@dataclass(frozen=True, slots=True)
class CatalogueContent:
    """One content of the catalogue: a picture, which is drawn by `image_bytes`, or a note."""

    content_id: str
    modality: Modality
    combination: Combination
    owner_id: str
    price: float
    in_stock: bool
    text: str  # the note itself, or the picture's caption
    seed: int

    @property
    def title(self) -> str:
        """What a shop would call it: "Red striped dress"."""
        thing = self.combination
        return f"{thing.colour} {thing.pattern} {thing.garment}".capitalize()

    @property
    def metadata(self) -> dict[str, str | float | bool]:
        return {
            "garment": self.combination.garment,
            "colour": self.combination.colour,
            "pattern": self.combination.pattern,
            "price": self.price,
            "in_stock": self.in_stock,
        }

    def image_bytes(self, size: int = DEFAULT_SIZE) -> bytes:
        """Draw the picture as a JPEG file of `size` × `size` pixels. Every call gives the same bytes."""
        if self.modality != "image":
            raise ValueError(f"{self.content_id} is a text and has no picture")
        return PictureDrawer().jpeg_bytes(self.combination, seed=self.seed, size=size)


@dataclass(frozen=True, slots=True)
class SampleQuery:
    """A query with known answers: pictures of `combination`. No catalogue holds the query's own picture."""

    modality: Modality
    combination: Combination
    text: str  # for an image query, what its picture shows
    seed: int

    def image_bytes(self, size: int = DEFAULT_SIZE) -> bytes:
        """Draw the query's picture as a JPEG file."""
        if self.modality != "image":
            raise ValueError(f"the query {self.text!r} is a text and has no picture")
        return PictureDrawer().jpeg_bytes(self.combination, seed=self.seed, size=size)


def build_catalogue(num_images: int, num_texts: int, seed: int) -> tuple[CatalogueContent, ...]:
    """Build the pictures, then the texts. The same arguments give the same catalogue. Nothing is drawn yet.

    As many featured combinations as fit get 12 pictures each. All other pictures, and the texts, get
    random combinations.
    """
    rng = random.Random(seed)
    pictures = [_content("image", i, c, rng) for i, c in enumerate(_shown(num_images, rng))]
    notes = [_content("text", i, rng.choice(all_combinations()), rng) for i in range(num_texts)]
    return (*pictures, *notes)


def sample_queries(catalogue: Sequence[CatalogueContent]) -> tuple[SampleQuery, ...]:
    """Return up to six text queries and two image queries, for combinations with at least 8 pictures."""
    num_pictures = Counter(c.combination for c in catalogue if c.modality == "image")
    queries = [
        SampleQuery(
            "text" if i < NUM_TEXT_QUERIES else "image",
            combination,
            plain_query(combination),
            seed=_NEXT_SEED + i,
        )
        for i, combination in enumerate(FEATURED)
    ]
    return tuple(q for q in queries if num_pictures[q.combination] >= MIN_PICTURES_PER_QUERY)


def _shown(num_images: int, rng: random.Random) -> list[Combination]:
    """Choose the combinations that the pictures show, in random order."""
    num_featured = min(len(FEATURED), num_images // PICTURES_PER_QUERY)
    shown = [c for c in FEATURED[:num_featured] for _ in range(PICTURES_PER_QUERY)]
    shown += rng.choices(all_combinations(), k=num_images - len(shown))
    rng.shuffle(shown)
    return shown


def _content(
    modality: Modality, number: int, combination: Combination, rng: random.Random
) -> CatalogueContent:
    return CatalogueContent(
        content_id=f"{modality}-{number:05d}",
        modality=modality,
        combination=combination,
        owner_id=f"seller-{rng.randrange(NUM_OWNERS):02d}",
        price=rng.randrange(500, 12_000, 50) / 100,
        in_stock=rng.random() < 0.8,
        text=write_full_caption(combination, rng).text,
        seed=rng.getrandbits(_SEED_BITS),
    )
