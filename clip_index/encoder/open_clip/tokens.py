"""CLIP's byte-pair tokenizer, made safe for untrusted texts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from open_clip import SimpleTokenizer

# What is beyond is not looked at. Far more than 64 windows hold (a token of CLIP has four characters on
# average); cleaning takes 0.1 s.
MAX_CHARACTERS = 100_000
_MAX_WORD_CHARACTERS = 128
_MAX_CACHED_WORDS = 2**17


class TextTokenizer(Protocol):
    """Texts to token ids, and the special tokens around them; thread-safe."""

    @property
    def prefix(self) -> tuple[int, ...]: ...

    @property
    def suffix(self) -> tuple[int, ...]: ...

    @property
    def padding(self) -> int: ...

    @property
    def identity(self) -> str:
        """What the fingerprint says of it."""
        ...

    def encode(self, text: str, _max_tokens: int, /) -> list[int]:
        """Return the ids of a text, at least the first `max_tokens`."""
        ...

    def is_beyond(self, text: str, ids: Sequence[int], max_tokens: int) -> bool:
        """Whether these ids of a text, cut at `max_tokens`, leave some of it out."""
        ...


class WordTokenizer:
    """Texts to token ids, without start and end token; thread-safe.

    The ids are those of open_clip's tokenizer, with three differences. A start or end token
    that is spelled out in a text counts as text. A run of more than 128 characters without a
    space is cut, because the tokenizer's time grows with the square of its length. The cache
    of words is bounded.
    """

    padding = 0

    def __init__(self, tokenizer: SimpleTokenizer, clean: str = "lower") -> None:
        self._tokenizer = tokenizer
        self._clean = clean
        tokenizer.cache.clear()  # initially it maps the special tokens to themselves

    @property
    def prefix(self) -> tuple[int, ...]:
        return (int(self._tokenizer.sot_token_id),)

    @property
    def suffix(self) -> tuple[int, ...]:
        return (int(self._tokenizer.eot_token_id),)

    @property
    def identity(self) -> str:
        """What the fingerprint says of it."""
        return f"tokenizer=clip-bpe-{self._tokenizer.vocab_size} clean={self._clean}"

    def encode(self, text: str, max_tokens: int) -> list[int]:
        """Return the ids of a text, up to the word that exceeds `max_tokens` (see `is_beyond`)."""
        ids: list[int] = []
        for word in self._words(self._tokenizer.clean_fn(text.strip()[:MAX_CHARACTERS])):
            ids.extend(self._word_ids(word))
            if len(ids) > max_tokens:
                break
        return ids

    @staticmethod
    def is_beyond(text: str, ids: Sequence[int], max_tokens: int) -> bool:
        """Whether these ids of a text, cut at `max_tokens`, leave some of it out."""
        return len(ids) > max_tokens or len(text.strip()) > MAX_CHARACTERS

    def _words(self, text: str) -> Iterator[str]:
        for match in self._tokenizer.pat.finditer(text):
            word = match.group()
            for start in range(0, len(word), _MAX_WORD_CHARACTERS):
                yield word[start : start + _MAX_WORD_CHARACTERS]

    def _word_ids(self, word: str) -> list[int]:
        tokenizer = self._tokenizer
        if len(tokenizer.cache) > _MAX_CACHED_WORDS:
            tokenizer.cache.clear()
        symbols = "".join(tokenizer.byte_encoder[byte] for byte in word.encode("utf-8", "replace"))
        return [tokenizer.encoder[piece] for piece in tokenizer.bpe(symbols).split(" ")]
