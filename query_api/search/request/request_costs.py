"""What one request may cost: texts, windows, pictures and conditions are counted before any work.

A batch of long texts would take the encoder for a minute, and a batch of large filters every worker.
"""

from __future__ import annotations

import string
from collections.abc import Iterable
from typing import Protocol

from pydantic_core import PydanticCustomError

from query_api.contract.filters import FieldCondition, Filter

MAX_ENCODED = 256  # texts and pictures
MAX_TEXTS_CHARACTERS = 200_000  # of all texts together: some 800 windows of English
MAX_WINDOWS = 1_500  # of all texts together; a Chinese character is about as much as a word
MAX_CONDITIONS = 512  # of all filters together
VALUES_OF_A_CONDITION = 64
_TOKENS_OF_A_WINDOW = 75
_LETTERS = string.ascii_letters.encode()
_LETTERS_AND_BLANKS = (string.ascii_letters + string.whitespace).encode()
_LETTERS_OF_A_TOKEN = 2  # at least, in words that the tokenizer does not know


class Encoded(Protocol):
    """What may hold a text or a picture that must be encoded."""

    @property
    def text(self) -> str | None: ...

    @property
    def image(self) -> bytes | None: ...


class Filtered(Protocol):
    """What may have a filter."""

    @property
    def filter(self) -> Filter | None: ...


def refuse_costly(examples: Iterable[Encoded]) -> None:
    """Raise a validation error if the texts and pictures of one request are too many or too long."""
    encoded = [one for one in examples if one.text is not None or one.image is not None]
    _refuse_more(len(encoded), MAX_ENCODED, "has more than {most} texts and pictures")
    texts = [one.text for one in encoded if one.text is not None]
    num_characters = sum(map(len, texts))
    _refuse_more(num_characters, MAX_TEXTS_CHARACTERS, "has texts of more than {most} characters together")
    num_windows = sum(map(count_windows, texts))
    _refuse_more(num_windows, MAX_WINDOWS, "has texts of more than {most} windows together")


def refuse_many_conditions(queries: Iterable[Filtered]) -> None:
    """Raise a validation error if the filters of one request have too many conditions and values."""
    num_conditions = sum(count_conditions(query.filter) for query in queries)
    _refuse_more(num_conditions, MAX_CONDITIONS, "has filters of more than {most} conditions together")


def count_windows(text: str) -> int:
    """Return at least about how many windows a text has, without the cost of tokenizing it.

    Letters make tokens of several; of digits, signs and other scripts each byte may be a token.
    """
    data = text.encode("utf-8", "surrogatepass")
    num_letters = len(data) - len(data.translate(None, _LETTERS))
    num_others = len(data.translate(None, _LETTERS_AND_BLANKS))
    return -(-(num_letters // _LETTERS_OF_A_TOKEN + num_others) // _TOKENS_OF_A_WINDOW)


def count_conditions(wanted: Filter | None) -> int:
    """Return how many conditions a filter has; many values of one condition count as several.

    Each value of `all_of` is looked for by itself, so it counts like a condition.
    """
    if wanted is None:
        return 0
    return sum(map(_weight, (*wanted.must, *wanted.should, *wanted.must_not)))


def _weight(condition: FieldCondition) -> int:
    num_values = len(condition.any_of or ()) + len(condition.all_of or ()) * VALUES_OF_A_CONDITION
    return 1 + num_values // VALUES_OF_A_CONDITION


def _refuse_more(number: int, most: int, complaint: str) -> None:
    if number > most:
        raise PydanticCustomError("too_costly", complaint + "; send several requests", {"most": most})
