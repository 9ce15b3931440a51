"""The canaries of an index: contents, and the embeddings that they had when the index was begun.

`canaries.json` lies beside `index.json` and is no part of a generation. The first consumer creates it,
and nobody replaces it. An index of an earlier release gets one from its next consumer.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from clip_index.content import Embeddings
from clip_index.encoder.canary import (
    Canary,
    Likeness,
    encode_canaries,
    likeness,
    number_format_of,
)
from clip_index.encoder.protocol import Encoder
from clip_index.errors import DamagedFile, DamagedIndexFile
from clip_index.storage.digested_json import dump_digested
from clip_index.storage.parsed_files import read_digested
from clip_index.storage.shard_store import ShardStore

FILE = "canaries.json"
_FORMAT = 1
_LIBRARIES = ("torch", "open_clip_torch", "pillow", "numpy")
_WRITE_ANEW = "remove the file, and the next consumer writes it anew, with its own encoder"


@dataclass(frozen=True, slots=True)
class KeptCanaries:
    """Embeddings, (windows, dimension), of each canary. `made_with` names the libraries that made them."""

    embeddings: Mapping[Canary, Embeddings]
    number_format: str | None = None
    made_with: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, encoder: Encoder) -> KeptCanaries:
        """Encode the canaries of this release."""
        return cls(encode_canaries(encoder), number_format_of(encoder), library_versions())

    def compare(self, now: Mapping[Canary, Embeddings], number_format: str | None) -> Likeness:
        """Compare with what an encoder of this number format makes of the canaries now."""
        return likeness(self.embeddings, now, is_same_format=number_format == self.number_format)


def library_versions() -> dict[str, str]:
    """Return the versions of the libraries that decide an embedding, as far as they are installed."""
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def ensure_canaries(store: ShardStore, encoder: Encoder) -> KeptCanaries:
    """Return the canaries of an index, the encoder's own if there are none yet.

    Several processes may do this at once: the canaries of one of them are kept. Raises `DamagedIndexFile`,
    or `OSError` if the store takes no writes.
    """
    kept = read_canaries(store)
    if kept is not None:
        return kept
    own = KeptCanaries.of(encoder)
    store.ensure(FILE, _dump(own))
    return read_canaries(store) or own


def read_canaries(store: ShardStore) -> KeptCanaries | None:
    """Return the canaries of an index; None if it has none. Raises `DamagedIndexFile`."""
    file = store.address_of(FILE)
    try:
        return _parse(read_digested(store, FILE), file)
    except FileNotFoundError:
        return None
    except DamagedFile as damage:
        raise DamagedIndexFile(damage.file, damage.detail, way_on=_WRITE_ANEW) from damage


def _dump(kept: KeptCanaries) -> bytes:
    canaries = [_fields_of(canary, embeddings) for canary, embeddings in kept.embeddings.items()]
    return dump_digested(
        {
            "format": _FORMAT,
            "number_format": kept.number_format,
            "made_with": dict(kept.made_with),
            "canaries": canaries,
        }
    )


def _fields_of(canary: Canary, embeddings: Embeddings) -> dict[str, Any]:
    content = canary.content
    return {
        **({"text": content} if isinstance(content, str) else {"image": base64.b64encode(content).decode()}),
        "num_rows": len(embeddings),
        "embeddings": base64.b64encode(embeddings.astype("<f4").tobytes()).decode(),
    }


def _parse(fields: Mapping[str, Any], file: Any) -> KeptCanaries | None:
    """Parse the file. Of a later format nothing is known, so that nothing is compared."""
    if fields.get("format") != _FORMAT:
        return None
    try:
        embeddings = dict(_read_canary(one) for one in fields["canaries"])
        return KeptCanaries(embeddings, fields["number_format"], fields["made_with"])
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedFile(file, f"unexpected content ({error!r})") from error


def _read_canary(fields: Mapping[str, Any]) -> tuple[Canary, Embeddings]:
    content = fields["text"] if "text" in fields else base64.b64decode(fields["image"], validate=True)
    numbers = np.frombuffer(base64.b64decode(fields["embeddings"], validate=True), "<f4")
    return Canary(content), numbers.reshape(fields["num_rows"], -1).astype(np.float32)
