"""Tokenizers that a model brings in `tokenizer.json`: those of SigLIP, CLIPA and the multilingual models.

The small library `tokenizers` reads that file. open_clip itself would read it through `transformers`, which
takes seconds at each start. The ids are those of open_clip's `HFTokenizer`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from open_clip.tokenizer import get_clean_fn

from clip_index.encoder.open_clip.tokens import MAX_CHARACTERS

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_KNOWN_OPTIONS = {"clean", "strip_sep_token"}
_MOST_BEYOND = 1.01  # of the model's vocabulary: some files list a hundred marks that no text becomes


class UnfitTokenizer(Exception):
    """The tokenizer cannot be used with the model; the message is the reason."""


@dataclass(frozen=True, slots=True)
class FileTokenizer:
    """Texts to token ids, without special tokens; thread-safe.

    Special tokens that are spelled out in a text count as text. `identity` is what the fingerprint says.
    """

    tokenizer: Tokenizer
    clean: Callable[[str], str]
    vocabulary: int
    prefix: tuple[int, ...]
    suffix: tuple[int, ...]
    padding: int
    identity: str

    @classmethod
    def read(cls, file: Path, text_config: Mapping[str, Any]) -> FileTokenizer:
        """Read `tokenizer.json`, and `tokenizer_config.json` beside it if it is there.

        Raises `UnfitTokenizer`, or `ImportError` where the library is not installed.
        """
        from tokenizers import Tokenizer  # here: an extra, which only these models need

        data = file.read_bytes()
        try:
            tokenizer = Tokenizer.from_buffer(data)
        except Exception as error:
            raise UnfitTokenizer(f"{file.name} cannot be read: {error}") from error
        tokenizer.no_padding()
        tokenizer.no_truncation()
        tokenizer.encode_special_tokens = True
        options = dict(text_config.get("tokenizer_kwargs") or {})
        if unknown := options.keys() - _KNOWN_OPTIONS:
            raise UnfitTokenizer(f"its option {min(unknown)} is not supported")
        described = _described(file.parent)
        prefix, suffix = _special_tokens(tokenizer, described)
        if options.get("strip_sep_token"):
            suffix = _without_separator(tokenizer, described, suffix)
        padding = _padding(tokenizer, described)
        clean = options.get("clean", "whitespace")
        vocabulary = _checked_vocabulary(tokenizer, text_config)
        if max((*prefix, *suffix, padding)) >= vocabulary:
            raise UnfitTokenizer(f"its special tokens are beyond the model's vocabulary of {vocabulary}")
        digest = hashlib.sha256(data).hexdigest()[:16]
        special = f"{_listed(prefix)}/{_listed(suffix)}/{padding}"
        identity = f"tokenizer=json-{digest} clean={clean} special={special}"
        return cls(tokenizer, get_clean_fn(clean), vocabulary, prefix, suffix, padding, identity)

    def encode(self, text: str, _max_tokens: int) -> list[int]:
        """Return the ids of a text. The windows take as many of them as they hold."""
        cleaned = self.clean(text.strip()[:MAX_CHARACTERS])
        ids: list[int] = self.tokenizer.encode(cleaned, add_special_tokens=False).ids
        return [token for token in ids if token < self.vocabulary]

    @staticmethod
    def is_beyond(text: str, ids: Sequence[int], max_tokens: int) -> bool:
        """Whether these ids of a text, cut at `max_tokens`, leave some of it out."""
        return len(ids) > max_tokens or len(text.strip()) > MAX_CHARACTERS


def _described(directory: Path) -> dict[str, Any]:
    file = directory / "tokenizer_config.json"
    described = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    if not isinstance(described, dict):
        raise UnfitTokenizer(f"{file.name} is not an object")
    return described


def _special_tokens(
    tokenizer: Tokenizer, described: Mapping[str, Any]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return what stands before and behind the ids of each text.

    Where `tokenizer_config.json` says whether to add them, that counts, as in `transformers`.
    """
    if "add_bos_token" in described or "add_eos_token" in described:
        return (
            _ids_if(tokenizer, described, "bos_token", described.get("add_bos_token", True)),
            _ids_if(tokenizer, described, "eos_token", described.get("add_eos_token", False)),
        )
    encoded = tokenizer.encode("a")
    of_text = [at for at, is_special in enumerate(encoded.special_tokens_mask) if not is_special]
    if not of_text:
        raise UnfitTokenizer("it makes no token of the letter a")
    return tuple(encoded.ids[: of_text[0]]), tuple(encoded.ids[of_text[-1] + 1 :])


def _ids_if(
    tokenizer: Tokenizer, described: Mapping[str, Any], name: str, is_added: object
) -> tuple[int, ...]:
    if not is_added:
        return ()
    if (token := _id_of(tokenizer, described, name)) is None:
        raise UnfitTokenizer(f"its {name} is not in its vocabulary")
    return (token,)


def _id_of(tokenizer: Tokenizer, described: Mapping[str, Any], name: str) -> int | None:
    text = described.get(name)
    text = text.get("content") if isinstance(text, dict) else text
    found: int | None = tokenizer.token_to_id(text) if isinstance(text, str) else None
    return found


def _padding(tokenizer: Tokenizer, described: Mapping[str, Any]) -> int:
    for text in (None, "<pad>", "[PAD]"):
        found = _id_of(tokenizer, described, "pad_token") if text is None else tokenizer.token_to_id(text)
        if found is not None:
            return int(found)
    return 0


def _without_separator(
    tokenizer: Tokenizer, described: Mapping[str, Any], suffix: tuple[int, ...]
) -> tuple[int, ...]:
    """Put zeros in the place of the separator, as open_clip does for CLIPA's models."""
    separator = _id_of(tokenizer, described, "sep_token")
    separator = tokenizer.token_to_id("[SEP]") if separator is None else separator
    return tuple(0 if token == separator else token for token in suffix)


def _checked_vocabulary(tokenizer: Tokenizer, text_config: Mapping[str, Any]) -> int:
    size = tokenizer.get_vocab_size(with_added_tokens=True)
    vocabulary = int(text_config.get("vocab_size", size))
    if size > vocabulary * _MOST_BEYOND:
        raise UnfitTokenizer(f"its vocabulary has {vocabulary} tokens, its tokenizer {size}")
    return vocabulary


def _listed(tokens: Sequence[int]) -> str:
    return ",".join(map(str, tokens))
