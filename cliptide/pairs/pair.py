"""A picture and a caption that belong together."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Pair:
    """`label` names the pair to a person. `read` returns the bytes of the picture's file."""

    label: str
    content_id: str
    read: Callable[[], bytes]
    caption: str
    metadata: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BadPair:
    """A pair that is skipped. `reason` is one of a few words, which are counted; `detail` explains it."""

    label: str
    reason: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.label}: {self.reason}" + (f" ({self.detail})" if self.detail else "")


def metadata_texts(metadata: Mapping[str, object]) -> dict[str, tuple[str, ...]]:
    """Return each value as texts: one text, or the texts of a list."""
    return {
        name: tuple(map(str, value)) if isinstance(value, (list, tuple)) else (_text(value),)
        for name, value in metadata.items()
    }


def _text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def is_held_out(picture_digest: str, share: float) -> bool:
    """Whether a hash of the picture's digest puts it among the held-out pairs.

    All pairs of one picture are on one side, in every run and whatever else the pairs hold.
    """
    digest = hashlib.sha256(b"held out " + picture_digest.encode()).digest()
    return int.from_bytes(digest[:4], "big") < share * 2**32
