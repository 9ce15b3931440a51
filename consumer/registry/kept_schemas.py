"""Schemas that were fetched from a registry, one file each. They never change under their keys."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile

from schemas.framing import SchemaKey
from schemas.registered import RegisteredSchema

FOLDER = "registry-schemas"
_NAME_DIGITS = 16


class KeptSchemas:
    """The folder of one registry below the index root, which all consumers and indexes share. Thread-safe."""

    def __init__(self, root: Path, address: str) -> None:
        """`address` tells registries apart, because each numbers its own schemas."""
        name = hashlib.sha256(address.rstrip("/").encode()).hexdigest()[:_NAME_DIGITS]
        self._folder = root / FOLDER / name
        self._address = address

    def read(self, key: SchemaKey) -> RegisteredSchema | None:
        """Return the schema that was kept. A file that is damaged counts as none, and is written again."""
        try:
            document = json.loads(self._path(key).read_bytes())
            kind, text, references = document["kind"], document["text"], document["references"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        texts = (kind, text, *references)
        if not all(isinstance(one, str) for one in texts) or document.get("sha256") != _digest(texts):
            return None
        return RegisteredSchema(kind, text, tuple(references))

    def keep(self, key: SchemaKey, schema: RegisteredSchema) -> None:
        """Write the file, or replace it. Raises OSError."""
        texts = (schema.kind, schema.text, *schema.references)
        document = {
            "registry": self._address,
            "kind": schema.kind,
            "text": schema.text,
            "references": list(schema.references),
            "sha256": _digest(texts),
        }
        self._folder.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile("w", dir=self._folder, prefix=".partial-", delete=False) as file:
            try:
                json.dump(document, file)
                file.flush()
                os.fsync(file.fileno())
                os.replace(file.name, self._path(key))
            except BaseException:
                with suppress(OSError):
                    os.unlink(file.name)
                raise

    def _path(self, key: SchemaKey) -> Path:
        return self._folder / (f"id-{key}.json" if isinstance(key, int) else f"guid-{key}.json")


def _digest(texts: tuple[str, ...]) -> str:
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()
