"""Writes captions in many wordings, which name all of a combination or a part of it."""

import random
from dataclasses import dataclass

from cliptide.demo.garments.combinations import Combination

GARMENT_WORDS = {
    "dress": ("dress", "frock", "gown"),
    "t-shirt": ("t-shirt", "tee", "tshirt"),
    "jumper": ("jumper", "sweater", "pullover"),
    "coat": ("coat", "overcoat"),
    "skirt": ("skirt",),
    "trousers": ("trousers", "pants"),
    "shorts": ("shorts",),
    "hat": ("hat", "fedora"),
    "cap": ("cap", "baseball cap"),
    "scarf": ("scarf", "shawl"),
    "sock": ("sock",),
    "boot": ("boot", "rain boot"),
    "sneaker": ("sneaker", "trainer", "running shoe"),
    "handbag": ("handbag", "purse"),
    "backpack": ("backpack", "rucksack"),
    "mitten": ("mitten", "glove"),
    "bow tie": ("bow tie", "bowtie"),
    "umbrella": ("umbrella", "brolly"),
}
COLOUR_WORDS = {
    "red": ("red", "scarlet", "crimson"),
    "orange": ("orange", "tangerine"),
    "yellow": ("yellow", "lemon yellow"),
    "green": ("green", "emerald"),
    "teal": ("teal", "turquoise"),
    "blue": ("blue", "royal blue"),
    "purple": ("purple", "violet"),
    "pink": ("pink", "rose pink"),
    "brown": ("brown", "chocolate brown"),
    "black": ("black", "jet black"),
    "white": ("white", "snow white"),
    "grey": ("grey", "gray"),
}
PATTERN_ADJECTIVES = {
    "plain": ("plain", "solid", "unpatterned"),
    "striped": ("striped", "stripy", "stripey"),
    "dotted": ("dotted", "spotted", "polka dot"),
    "checked": ("checked", "checkered", "gingham", "plaid"),
}
PATTERN_PHRASES = {
    "plain": ("no pattern", "a plain surface"),
    "striped": ("stripes", "a striped pattern"),
    "dotted": ("dots", "polka dots", "spots"),
    "checked": ("checks", "a checked pattern"),
}
PLURALS = frozenset({"trousers", "pants", "shorts"})
FRAMES = (
    "{}",
    "{}",
    "a photo of {}",
    "a picture of {}",
    "{} for sale",
    "new in: {}",
    "look at {}",
    "show me {}",
    "i am looking for {}",
    "{}, never worn",
    "{}, on a table",
    "this is {}",
    "{} for every day",
    "{} as a gift",
)
_FIRST_WORD_CHANCE = 0.6


@dataclass(frozen=True, slots=True)
class Caption:
    """A text and the attributes that it names. None stands for an attribute that it does not name."""

    text: str
    garment: str | None
    colour: str | None
    pattern: str | None

    def fits(self, combination: Combination) -> bool:
        """Whether a picture of the combination shows everything that the caption names."""
        return (
            self.garment in (None, combination.garment)
            and self.colour in (None, combination.colour)
            and self.pattern in (None, combination.pattern)
        )


def plain_query(combination: Combination) -> str:
    """Return the plainest full caption, such as "a striped red dress"."""
    return _with_article(
        f"{combination.pattern} {combination.colour} {combination.garment}", combination.garment
    )


def write_full_caption(combination: Combination, rng: random.Random) -> Caption:
    """Write a caption that names garment, colour and pattern."""
    text = rng.choice(FRAMES).format(_full_phrase(combination, rng))
    return Caption(text, combination.garment, combination.colour, combination.pattern)


def write_partial_caption(combination: Combination, rng: random.Random) -> Caption:
    """Write a caption that names one or two of the three attributes."""
    named = set(rng.sample(("garment", "colour", "pattern"), rng.choice((1, 2, 2))))
    garment = combination.garment if "garment" in named else None
    colour = combination.colour if "colour" in named else None
    pattern = combination.pattern if "pattern" in named else None
    text = rng.choice(FRAMES).format(_partial_phrase(garment, colour, pattern, rng))
    return Caption(text, garment, colour, pattern)


def _full_phrase(combination: Combination, rng: random.Random) -> str:
    garment = _word(GARMENT_WORDS[combination.garment], rng)
    colour = _word(COLOUR_WORDS[combination.colour], rng)
    adjective = _word(PATTERN_ADJECTIVES[combination.pattern], rng)
    phrase = rng.choice(
        (
            f"{adjective} {colour} {garment}",
            f"{colour} {adjective} {garment}",
            f"{adjective} {garment} in {colour}",
            f"{colour} {garment} with {rng.choice(PATTERN_PHRASES[combination.pattern])}",
            f"{garment}, {colour}, {adjective}",
        )
    )
    return _with_article(phrase, garment) if rng.random() < 0.75 else phrase


def _partial_phrase(garment: str | None, colour: str | None, pattern: str | None, rng: random.Random) -> str:
    words = [_word(COLOUR_WORDS[colour], rng)] if colour else []
    words += [_word(PATTERN_ADJECTIVES[pattern], rng)] if pattern else []
    rng.shuffle(words)
    if garment is None:
        return "something " + " and ".join(words)
    noun = _word(GARMENT_WORDS[garment], rng)
    return _with_article(" ".join([*words, noun]), noun)


def _word(words: tuple[str, ...], rng: random.Random) -> str:
    """Choose a word, the first and most usual one more often than the others."""
    return words[0] if rng.random() < _FIRST_WORD_CHANCE else rng.choice(words)


def _with_article(phrase: str, garment: str) -> str:
    if garment in PLURALS:
        return f"a pair of {phrase}"
    return f"an {phrase}" if phrase[0] in "aeio" or phrase.startswith(("um", "un")) else f"a {phrase}"
