"""JSON documents that carry a digest of themselves."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import xxhash

from clip_index.errors import DamagedFile

_DIGEST_FIELD = "self_xxh3_128"


def dump_digested(fields: Mapping[str, Any]) -> bytes:
    """Serialise the fields, and with them a digest of their canonical form."""
    return json.dumps({**fields, _DIGEST_FIELD: _digest(fields)}, sort_keys=True).encode()


def parse_digested(data: bytes, file: Path | str) -> dict[str, Any]:
    """Parse the document and check its digest.

    Raises `DamagedFile` for anything unexpected. `file` names the file in that error.
    """
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DamagedFile(file, f"not JSON ({error})") from error
    if not isinstance(fields, dict) or _DIGEST_FIELD not in fields:
        raise DamagedFile(file, "no self-digest")
    expected = fields.pop(_DIGEST_FIELD)
    if expected != (actual := _digest(fields)):
        raise DamagedFile(file, f"self-digest {actual}, expected {expected}")
    return fields


def _digest(fields: Mapping[str, Any]) -> str:
    canonical = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    return xxhash.xxh3_128_hexdigest(canonical.encode())
