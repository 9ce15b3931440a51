"""Everything that the demo knows: garments × colours × patterns, and which of them training never sees."""

import hashlib
import itertools
from dataclasses import dataclass

GARMENTS = (
    "dress",
    "t-shirt",
    "jumper",
    "coat",
    "skirt",
    "trousers",
    "shorts",
    "hat",
    "cap",
    "scarf",
    "sock",
    "boot",
    "sneaker",
    "handbag",
    "backpack",
    "mitten",
    "bow tie",
    "umbrella",
)
COLOURS = (
    "red",
    "orange",
    "yellow",
    "green",
    "teal",
    "blue",
    "purple",
    "pink",
    "brown",
    "black",
    "white",
    "grey",
)
PATTERNS = ("plain", "striped", "dotted", "checked")

HELD_OUT_SHARE = 0.18


@dataclass(frozen=True, slots=True, order=True)
class Combination:
    """What a picture shows and a full caption names."""

    garment: str
    colour: str
    pattern: str

    def __str__(self) -> str:
        return f"{self.pattern} {self.colour} {self.garment}"


def all_combinations() -> tuple[Combination, ...]:
    """Return every combination, in a fixed order."""
    return tuple(itertools.starmap(Combination, itertools.product(GARMENTS, COLOURS, PATTERNS)))


def is_held_out(combination: Combination) -> bool:
    """Whether training must not see this combination. A hash of its name decides."""
    digest = hashlib.sha256(str(combination).encode()).digest()
    return int.from_bytes(digest[:4], "big") < HELD_OUT_SHARE * 2**32


def held_out_combinations() -> tuple[Combination, ...]:
    return tuple(c for c in all_combinations() if is_held_out(c))


def training_combinations() -> tuple[Combination, ...]:
    return tuple(c for c in all_combinations() if not is_held_out(c))
