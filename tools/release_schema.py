"""`python -m tools.release_schema`: record the current event schema as released.

Copies `upload_event.avsc` into `schemas/history/` and writes golden records of it for the tests.
Run it after every change of the schema. It only creates files: those of earlier releases stay as they are.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from fakes.sample_events import NOON_MS, SAMPLE_EVENTS, describe_event
from schemas.avro.format import current_schema
from schemas.codec import EncodedEvent, encode_event, encode_event_json

ROOT = Path(__file__).parents[1]
SCHEMA = ROOT / "schemas" / "upload_event.avsc"
HISTORY = ROOT / "schemas" / "history"
GOLDEN = ROOT / "tests" / "schemas" / "golden"


def release_schema() -> None:
    release = current_schema().fingerprint.hex()
    snapshot = HISTORY / f"{release}.avsc"
    if not snapshot.exists():
        shutil.copyfile(SCHEMA, snapshot)
    for name, event in SAMPLE_EVENTS.items():
        _write_golden(f"{release}-avro-{name}", encode_event(event), describe_event(event))
        _write_golden(f"{release}-json-{name}", encode_event_json(event), describe_event(event))


def _write_golden(name: str, encoded: EncodedEvent, expected: dict[str, Any]) -> None:
    description = {
        "key_hex": encoded.key.hex(),
        "headers": {header: (value or b"").decode() for header, value in encoded.headers},
        "timestamp_ms": NOON_MS,
        "event": expected,
    }
    if not (GOLDEN / f"{name}.bin").exists():
        (GOLDEN / f"{name}.bin").write_bytes(encoded.value)
        (GOLDEN / f"{name}.json").write_text(json.dumps(description, indent=2) + "\n")


if __name__ == "__main__":
    release_schema()
