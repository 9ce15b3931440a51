"""Texts and pictures that every encoder can encode: for warming up, for readiness, and against drift.

An encoder can drift without an error: another version of a library resizes pictures otherwise,
another processor or driver computes otherwise. Its fingerprint stays the same, and its embeddings no
longer fit those in the index. So an index keeps the embeddings of some canaries, and whoever works
with it encodes the canaries now and then and compares.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from clip_index.content import MODALITIES, Embeddings, Modality
from clip_index.encoder.protocol import Encoder, Prepared
from clip_index.errors import BadContent

CANARY_TEXT = "a canary"
# a PNG of 16 by 16 pixels, yellow
CANARY_PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAABAAAAAQCAIAAACQkWg2AAAAGklEQVR42mP8dUmEgRTAxEAiGNUwqmHoaAAA74ECAEDITyIAAAAASUVORK5CYII="
)


# a JPEG of 64 by 48 pixels: a circle, a square and a line before colours that run into each other
_JPEG = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAA0JCgsKCA0LCgsODg0PEyAVExISEyccHhcgLikxMC4pLSwzOko+MzZGNywtQFdBRkxO"
    "UlNSMj5aYVpQYEpRUk//2wBDAQ4ODhMREyYVFSZPNS01T09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09P"
    "T09PT09PT0//wAARCAAwAEADASIAAhEBAxEB/8QAGwAAAwEAAwEAAAAAAAAAAAAAAwQFBgABAgf/xAAzEAACAQMCBAMFBwUAAAAA"
    "AAABAgMABAURIRIxQVEGYbEUIkNjcRMVUpKy0dJygaHB8P/EABgBAAMBAQAAAAAAAAAAAAAAAAMFBgQC/8QAKREAAgEDAgQFBQAA"
    "AAAAAAAAAQIDAAQRBRIxQVHRBhUhYcEycZGx8P/aAAwDAQACEQMRAD8AxSxURYqaWLyoyRDmasLu9WFC7UGyV53CJxpRYqKsVNAa"
    "cq7AGu4pD5yHbDLgVRCxdBkHJoCxUVYqYKqicbHRR1qnjMbHcQLfXsy2uOBIMznQuRzVAdydjyHQ8yNK7kmJGRXCXKJ9RpHHYy4y"
    "N2ttbJxO25J5KO5PQVX+0scRAIrFYby9ZWWa4dSyICNCqA7H66bjuDoA3WftvZFsccWtbRdeIb8cxO2rkDqOnL/GituY514om4gD"
    "pypfM7gZYECtkFwk7YLDHQH99qQWKvFUVi8qQkQxyMh5ii6pIXC9KnfDUis0gPHA/HP4rzXaI0jqkaszsQFVRqSewprG427ydwIb"
    "SJm3AZ9PdTzY9ORqm99Z4RGgw7LcXoc8d88YIUdowde5BPXfnqNFIHM1UPLg7V9T/caLFY22Hx8d5nIjLIRxx2QG5/CXJ5DXp67i"
    "s5kspd5ORGuXXgiHDFEihUjXsoH9h32Han7mOT7mmmmZmeVg5LHUnVhuT171Dp5p+Gj3VJ3zZmPrXKv4FOKzc/MPoKgVqPDKcWPk"
    "PzT6Ch6s222J9xXemNtnBoixUymBS8RLu7m9ntlYKz6alx2Ud/P10qtHZwWCiS9USzhvdtww0Hm37f8AANxLNdymSdy2+w6L9BWK"
    "aYEYNTNpcPZuHBw3Tv24/aoeUu7mSFsdYWD2tgrlhGgLNJy3dtTr9Om3PQUvZYiWRle5HBHz4ep/b1rRLFRVi8qXSTAU/XXpWj2K"
    "AvvzqNnI+HDzn+n9QrIV9BylhJe42W3hKh300LHQbEH/AFWeHhDIn41r+Zv40y0y/gjiIkcA5+BWYNurP1sPCCcWLlPzj+laRHg7"
    "JH41r+Zv41pPDuJnxli8Fw0bO0pcFCSNNAOoHaga1qVtJalY3BORWy0BWTdX/9k="
)
# a PNG of 320 by 240 pixels with a palette: bars and the outline of a triangle
_PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAUAAAADwBAMAAACDA6BYAAAAHlBMVEXw69wA/1oe4WQ8w25apXh4h4KWaYy0S5bSLaAAAADJRAy5"
    "AAAFZ0lEQVR42u2dO3IrRRSGD79kUx2yBVbgKjbggAU4IXeE0s4gJISsUxEpJ9ECbqANUKUV3GIJZI31AIIrXes504/z6II+UXss"
    "j/75v7+nT0+pLKJevXr16tWrV69evXr1+g9VYD4fmM/nXOMC2QvshEPrDrqmBbrmEdOMmTG4I8jtIreDkTyvhWCPYOS94un78Kvj"
    "4J8/D4Ovj0f+/uMw+OZ4ZL8+DL49HtmtiAJ5InLffTqyXR5+9f3xNZvFYfDD8cjb0e6fj0f++kkScSSiFT23ivjT9Ni1PEn8ZW7a"
    "EnjIEytjsEeQmTHYI0hEq2mrDvrj4LlJgZ9XkB3jNAEn4c+LyKpRxP59+NygwJMegZExp4MnbcKqQcQXbeBzgw56CcZ8Al/Oflo1"
    "mMGzTnXHxZhN4MNAK9yEwJfTCDK2NJAhzNfSQIowF2M+B5cXPzMxBlsEL2vX2CTZjq4tpgJvRJBWLI8YIBVBLsaQiiARrVwzAh9u"
    "RZBYnqhDjDBR5JgmkCNMF4ufqYPb8W2ApcCHu8uza8XBpRhjCEaQhTFEI8jAGIIRZGEMFsLL+11saAHxNn27bCHwYXivHBpwcJm8"
    "UzER+DL8a2fv4FaSMWQjWM8YshGsZwzpCNYyRj3hrShjiBMm70wFviS85snUwe3YCyJNDAWm4PO2GVzKMq4VmHILqWIM8QgS0doO"
    "ceod5MlKYEiK4L6Cce1z2rR1Yj3u4I8iDqYS3pczrp0kqfe4iY3A5D5lXWwhNCJItLeZxTltysTGQS/OGCoRrGCMKsJRnjF0CJcz"
    "hg7hcsZVDmbth9YTbYHZe6EndQd9HuOJssDc/fhaPYNRgzH0IljGGBWEvQbjqSLhE8a/yDtY8MBlX/JHFZMk/4HBWjODgUosDIoO"
    "Rp1gQC+CRLTOtxCKESxyvVTgq5bzhQIfCx895z9RhybhEsbQJZzPuNTBWGx80BD4qHf3LHVwUZxdpyGwPILZi2Shg5sKxk5e4GON"
    "gV4B8Wt5BLMZTzUI/1rBGNqEcxmXTZJFncQgLPC1Tl4eYyhEsIox1COY+YEuGEQwq6WBegQzWxoUEN7UM5ZFXE04hzEMCGcxLnBw"
    "Uy8wCiJ+JJZygg4uVBnDIoI5jGERwZytCWwimN7SIJvwgolxooVTfsK/pTGWcZCPcCrj7EmyYJKXyhi5EWQrLzNJNtqM8wRy/r+l"
    "RMYwimAyYwhMPNatCfIIc0YwLTEwI5zY0sCMcGJLA/5T8jIGc2TYGUPgzsAKBHYRTIMCywimMIZhBJOuGDmEPbvC8a3JtPZ6P9S2"
    "NJ7LQQHCKS0NsiLNX54vg4FkKrA5GE0YwzSCCYxhG8FxxrCO4BhjJBOONoxhTnhkawJjwqPzD+kXSmKMQ71AJ2hg5MmgN2IM+wgO"
    "M4Z5BEfODfMIjpwfiRC8FeNpHoXf1RknOfilMOGhrQlSIQhXqBIoLm+gpUH9jUC2pUELERxijLqEyDNGCxEceg+kEH4zZIwmCA8w"
    "RhuE779LioMqhO9tTZAQQaVyxQ4GJcahTKBXMjAWZ/DNlDGaieAdxiiMhhrjwY76IxFR/EiWjFE09xUZtzOL7zAeExhI00JX4GDU"
    "VHjDD7QTwdstzei+2M2JolYOb3yg64v34fU3XRHNT69PXqYLV28y4uDsRKabi8u8wXjEwdPScNOFWblADZnXjLM/4CgL/ZpxtoPC"
    "bl4xrhIoIXN+cQqGb5hghu7YHeR183KaTHlnYb2bkYgEBXLIdPcQy1Q29AvG4gLzZc4tBObInNPMSmCazHPGBgJHZc6bEDgg82y5"
    "MxZ4U+YZ4yYEXsuctSjwVOaMGq9AvXr16tWrV69evXr1+l/Uv+S/Rv9UZMT3AAAAAElFTkSuQmCC"
)
_SENTENCE = "A red dress with white stripes lies on a wooden chair, beside size 38 shoes and a café's menu; "

LEAST_COSINE = 0.999
"""Of a canary with itself, in one number format. Libraries and processors add numbers in another order.

That turns an embedding by less than a thousandth part (a cosine of 1 − 1e-6) in fp32, and by a hundredth
(1 − 1e-4) in bf16. A cosine of 0.999 is a turn of 2.6°, three times as much as that.
"""
LEAST_COSINE_OF_FORMATS = 0.998
"""Of a canary in bf16 with itself in fp32, where the index was begun in one and goes on in the other.

ViT-B-32 has 0.99993 for texts and 0.99996 for pictures (`encode_texts` and `encode_images`). 1 − cosine
grows with the number of layers, and is several times as much in the largest models. 0.998 is 3.6°.
"""


@dataclass(frozen=True, slots=True)
class Canary:
    """A text, or the bytes of a picture that is neither wide nor tall: it has one crop."""

    content: str | bytes

    @property
    def modality(self) -> Modality:
        return "text" if isinstance(self.content, str) else "image"


CANARIES = (
    Canary(CANARY_TEXT),
    Canary(_SENTENCE.strip()),
    Canary(_SENTENCE * 8),  # several windows
    Canary(CANARY_PNG),
    Canary(_JPEG),
    Canary(_PNG),
)
"""What a new index keeps the embeddings of. A later release may have others: an index keeps its own."""


@dataclass(frozen=True, slots=True)
class Likeness:
    """How near canaries are to what they were: the least cosine of each modality, and the least allowed."""

    cosines: Mapping[Modality, float]
    least: float

    @property
    def has_drifted(self) -> bool:
        return any(not cosine >= self.least for cosine in self.cosines.values())

    @property
    def complaint(self) -> str | None:
        """What is wrong, for an operator; None if nothing is."""
        if not self.has_drifted:
            return None
        names = {"text": "texts", "image": "pictures"}
        found = ", ".join(f"{names[modality]} {cosine:.4f}" for modality, cosine in self.cosines.items())
        return (
            f"the encoder has drifted: its embeddings of the index's canaries have these cosines with those "
            f"that the index keeps: {found}; at least {self.least:g} is expected"
        )


def likeness(
    kept: Mapping[Canary, Embeddings], now: Mapping[Canary, Embeddings], *, is_same_format: bool
) -> Likeness:
    """Compare the canaries that both have."""
    cosines: dict[Modality, float] = {}
    for modality in MODALITIES:
        both = [canary for canary in kept if canary.modality == modality and canary in now]
        if both:
            cosines[modality] = min(_cosine(kept[canary], now[canary]) for canary in both)
    return Likeness(cosines, LEAST_COSINE if is_same_format else LEAST_COSINE_OF_FORMATS)


def _cosine(kept: Embeddings, now: Embeddings) -> float:
    """Return the least cosine of the rows, which are windows of a text; 0 if there are not as many."""
    if kept.shape != now.shape:
        return 0.0
    return float(np.einsum("nd,nd->n", kept, now).min())


def encode_canaries(encoder: Encoder, canaries: Iterable[Canary] = CANARIES) -> dict[Canary, Embeddings]:
    """Encode canaries together, without those that this encoder's limits refuse."""
    prepared = [(canary, one) for canary in canaries if (one := _prepared(encoder, canary)) is not None]
    embeddings = encoder.encode([one for _, one in prepared])
    return {canary: rows for (canary, _), rows in zip(prepared, embeddings, strict=True)}


def _prepared(encoder: Encoder, canary: Canary) -> Prepared | None:
    try:
        if isinstance(canary.content, str):
            return encoder.prepare_text(canary.content)
        return encoder.prepare_image(canary.content)
    except BadContent:
        return None


def number_format_of(encoder: Encoder) -> str | None:
    """Return the number format of an encoder's weights (`fp32`, `bf16`); None if it does not tell."""
    number_format: str | None = getattr(encoder, "number_format", None)
    return number_format


def warm_up(encoder: Encoder, batch_sizes: tuple[int, ...] = (1,)) -> None:
    """Encode canaries, so that a model that cannot encode is noticed before it serves.

    One of each is enough. The first pass of a larger batch takes hardly longer than its second one: 1.58 s
    of CPU time for 32 pictures, then 1.51 s. Batches of 8 and 32 took 2 s of each start, and 40 MB.
    """
    text, image = encoder.prepare_text(CANARY_TEXT), encoder.prepare_image(CANARY_PNG)
    for size in batch_sizes:
        encoder.encode([image] * size)
        encoder.encode([text] * size)
