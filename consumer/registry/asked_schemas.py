"""The schemas of a registry for a command that may wait: what is not kept on disk is fetched at once."""

from __future__ import annotations

from consumer.registry.fetching import Registry
from consumer.registry.kept_schemas import KeptSchemas
from schemas.framing import SchemaKey
from schemas.registered import RegisteredSchema


class AskedSchemas:
    """Reads what consumers have kept, and asks the registry for the rest. Writes nothing."""

    def __init__(self, registry: Registry, kept: KeptSchemas) -> None:
        self._registry = registry
        self._kept = kept
        self._found: dict[SchemaKey, RegisteredSchema | None] = {}

    def find(self, key: SchemaKey) -> RegisteredSchema | None:
        """Return the schema, or None if the registry has none of this key. Raises `RegistryUnavailable`."""
        if key not in self._found:
            self._found[key] = self._kept.read(key) or self._fetch(key)
        return self._found[key]

    def _fetch(self, key: SchemaKey) -> RegisteredSchema | None:
        fetched = self._registry.fetch(key)
        if fetched is None:
            return None
        return RegisteredSchema(fetched.kind, fetched.text, fetched.references)
