"""One batch in the encoder's thread. Blocking."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from clip_index.content import Embeddings
from clip_index.encoder.protocol import Encoder, Prepared

Finish: TypeAlias = Callable[[Embeddings], Embeddings]


@dataclass(frozen=True, slots=True)
class ContentToEncode:
    """One content; `finish` turns the embeddings of its windows into the answer."""

    prepare: Callable[[], Prepared]
    finish: Finish


def all_windows(embeddings: Embeddings) -> Embeddings:
    """Answer the embeddings of all windows as they are; a `finish`."""
    return embeddings


def encode_each(encoder: Encoder, contents: Sequence[ContentToEncode]) -> list[Embeddings | Exception]:
    """Encode the contents together. A content that cannot be prepared fails alone.

    `finish` runs here too, because numpy releases the GIL in it. On the event loop each query would
    then wait behind the workers to get the GIL back.
    """
    prepared = [_prepared_or_error(one.prepare) for one in contents]
    good = [item for item in prepared if not isinstance(item, Exception)]
    encoded = iter(encoder.encode(good) if good else ())
    return [
        item if isinstance(item, Exception) else one.finish(next(encoded))
        for one, item in zip(contents, prepared, strict=True)
    ]


def _prepared_or_error(prepare: Callable[[], Prepared]) -> Prepared | Exception:
    try:
        return prepare()
    except Exception as error:  # noqa: BLE001 (any error is raised again in the request that asked)
        return error
