"""How much one request may have encoded: a batch of long texts would take the encoder for a minute."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from pydantic_core import PydanticCustomError

MAX_ENCODED = 256  # texts and pictures
MAX_TEXTS_CHARACTERS = 200_000  # of all texts together: some 800 windows


class Encoded(Protocol):
    """What may hold a text or a picture that must be encoded."""

    @property
    def text(self) -> str | None: ...

    @property
    def image(self) -> bytes | None: ...


def refuse_costly(examples: Iterable[Encoded]) -> None:
    """Raise a validation error if the texts and pictures of one request are too many or too long."""
    encoded = [one for one in examples if one.text is not None or one.image is not None]
    num_characters = sum(len(one.text) for one in encoded if one.text is not None)
    if len(encoded) > MAX_ENCODED:
        raise PydanticCustomError(
            "too_costly",
            "has more than {most} texts and pictures; send several requests",
            {"most": MAX_ENCODED},
        )
    if num_characters > MAX_TEXTS_CHARACTERS:
        raise PydanticCustomError(
            "too_costly",
            "has texts of more than {most} characters together; send several requests",
            {"most": MAX_TEXTS_CHARACTERS},
        )
