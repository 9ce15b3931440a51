"""JSON documents that carry a digest of themselves.

The digest is one of their canonical form: without spaces, keys sorted, and without the digest itself. A
document is written in that form with the digest behind it, so that a reader need not write it again to
compare. Documents of earlier releases have another form, and are written again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import xxhash

from clip_index.errors import DamagedFile

_DIGEST_FIELD = "self_xxh3_128"
_END = re.compile(rb',"self_xxh3_128":"([0-9a-f]{32})"\}\Z')
_END_BYTES = len(',"":""}') + len(_DIGEST_FIELD) + 32


def dump_digested(fields: Mapping[str, Any]) -> bytes:
    """Serialise the fields in their canonical form, and behind them its digest."""
    canonical = _canonical(fields)
    end = f'"{_DIGEST_FIELD}":"{xxhash.xxh3_128_hexdigest(canonical)}"}}'
    return canonical[:-1] + (b"," if fields else b"") + end.encode()


def parse_digested(data: bytes, file: Path | str) -> dict[str, Any]:
    """Parse the document and check its digest.

    Raises `DamagedFile` for anything unexpected. `file` names the file in that error.
    """
    canonical = canonical_of(data)
    try:
        fields = json.loads(data if canonical is None else canonical)
    except (ValueError, RecursionError) as error:
        raise DamagedFile(file, f"not JSON ({error})") from error
    if canonical is not None and isinstance(fields, dict):
        return fields
    if not isinstance(fields, dict) or _DIGEST_FIELD not in fields:
        raise DamagedFile(file, "no self-digest")
    expected = fields.pop(_DIGEST_FIELD)
    if expected != (actual := xxhash.xxh3_128_hexdigest(_canonical(fields))):
        raise DamagedFile(file, f"self-digest {actual}, expected {expected}")
    return fields


def _canonical(fields: Mapping[str, Any]) -> bytes:
    return json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()


def canonical_of(data: bytes) -> bytes | None:
    """Return the document without its digest, if it is as `dump_digested` writes it and has this digest.

    None for any other form, and for damage: `parse_digested` tells them apart.
    """
    end = _END.search(data, max(0, len(data) - _END_BYTES))
    if end is None:
        return None
    canonical = data[: end.start()] + b"}"
    return canonical if xxhash.xxh3_128_hexdigest(canonical) == end[1].decode() else None
