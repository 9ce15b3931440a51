"""How a schema is registered for each of the two framings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias
from uuid import UUID

from event_log.errors import RegistryMisconfigured
from event_log.schema_registry.client import RegistryClient

Framing: TypeAlias = Literal["prefix", "header"]
Register: TypeAlias = Callable[[str, str], "int | UUID"]


def register_for(client: RegistryClient, framing: Framing) -> Register:
    """Return a function that registers a schema under a subject, and returns the key for the framing.

    It raises `RegistryMisconfigured` if the framing needs a GUID and the registry has none.
    """

    def register(subject: str, text: str) -> int | UUID:
        keys = client.register(subject, text)
        if framing == "prefix":
            return keys.number
        if keys.guid is None:
            raise RegistryMisconfigured(
                f"schema registry {client.address} gives its schemas no GUIDs, which the framing in a header "
                "needs: set CLIPTIDE_SCHEMA_REGISTRY__WRITE_FRAMING=prefix"
            )
        return keys.guid

    return register
