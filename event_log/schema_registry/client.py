"""Fetches schemas from a registry, and registers them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from uuid import UUID

from event_log.errors import RegistryMisconfigured, RegistryRefused, RegistryUnavailable
from event_log.schema_registry.settings import RegistrySettings

_NOT_FOUND = 404
_REFUSED = (401, 403)
_MAX_REFERENCES = 100
_CHECK_CREDENTIALS = "check CLIPTIDE_SCHEMA_REGISTRY__USER and __PASSWORD, or __TOKEN"


@dataclass(frozen=True, slots=True)
class FetchedSchema:
    """A schema as the registry has it. `references` are the texts that it needs, the inner ones first."""

    kind: str
    text: str
    references: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RegisteredKeys:
    """What the registry calls a schema. An older registry has no GUIDs."""

    number: int
    guid: UUID | None


class RegistryClient:
    """Asks the registry once each time. Thread-safe.

    Every method raises `RegistryUnavailable` if it may succeed later, and `RegistryRefused` if the registry
    does not accept the credentials.
    """

    def __init__(self, settings: RegistrySettings) -> None:
        """Raises `RegistryMisconfigured` if the settings cannot be used."""
        self.address = settings.address
        from confluent_kafka.schema_registry import SchemaRegistryClient  # here: it takes a second

        try:
            self._client: Any = SchemaRegistryClient.new_client(settings.config())
        except (ValueError, TypeError, OSError) as error:
            raise RegistryMisconfigured(f"schema registry {self.address}: {error}") from error

    def close(self) -> None:
        """Close the connections to the registry."""
        self._client.close()

    def check(self) -> None:
        """Ask for the registry's configuration, which answers if the URL and the credentials are right.

        Raises `RegistryMisconfigured` if something else than a registry answers.
        """
        with self._failures():
            try:
                self._client.get_config()
            except self._error_type as error:
                if error.http_status_code == 403:  # may read schemas, but not this
                    return
                if error.http_status_code == _NOT_FOUND:
                    raise RegistryMisconfigured(
                        f"{self.address} is not the address of a schema registry's Confluent API "
                        "(of Apicurio Registry it ends in /apis/ccompat/v7)"
                    ) from error
                raise

    def fetch(self, key: int | UUID) -> FetchedSchema | None:
        """Return a schema and all that it refers to; None if the registry does not have it.

        A 404 counts only if the registry's own API is where we ask. A wrong URL answers so as well.
        """
        try:
            with self._failures():
                schema = self._get(key)
                references: dict[tuple[str, int], str] = {}
                self._collect_references(schema, references)
                if not isinstance(schema.schema_str, str):
                    raise RegistryUnavailable(f"schema registry {self.address} answers without a schema")
                return FetchedSchema(
                    schema.schema_type or "AVRO", schema.schema_str, tuple(references.values())
                )
        except _NotThere:
            self.check()
            return None

    def register(self, subject: str, text: str) -> RegisteredKeys:
        """Register an Avro schema under the subject, unless it is there, and return its keys."""
        from confluent_kafka.schema_registry import Schema

        with self._failures():
            found = self._client.register_schema_full_response(subject, Schema(text, "AVRO"))
            if found.guid is None:
                found = self._client.lookup_schema(subject, Schema(text, "AVRO"))
            return RegisteredKeys(found.schema_id, UUID(found.guid) if found.guid else None)

    def _get(self, key: int | UUID) -> Any:
        try:
            if isinstance(key, int):
                return self._client.get_schema(key)
            return self._client.get_schema_by_guid(str(key))
        except self._error_type as error:
            if error.http_status_code == _NOT_FOUND:
                raise _NotThere from error
            raise

    def _collect_references(self, schema: Any, found: dict[tuple[str, int], str]) -> None:
        for reference in schema.references or ():
            name = (reference.subject, reference.version)
            if name in found or len(found) >= _MAX_REFERENCES:
                continue
            referenced = self._client.get_version(*name).schema
            self._collect_references(referenced, found)
            found[name] = referenced.schema_str

    @cached_property
    def _error_type(self) -> Any:
        from confluent_kafka.schema_registry import SchemaRegistryError

        return SchemaRegistryError

    @contextmanager
    def _failures(self) -> Iterator[None]:
        """Turn whatever the client raises into our errors, without a credential in their texts."""
        try:
            yield
        except (_NotThere, RegistryMisconfigured, RegistryUnavailable):
            raise
        except self._error_type as error:
            status = getattr(error, "http_status_code", 0)
            detail = f"schema registry {self.address} answers {status} ({error.error_message})"
            if status in _REFUSED:
                raise RegistryRefused(f"{detail}: {_CHECK_CREDENTIALS}") from error
            raise RegistryUnavailable(detail) from error
        except Exception as error:
            detail = f"schema registry {self.address} does not answer ({type(error).__name__}: {error})"
            raise RegistryUnavailable(detail) from error


class _NotThere(Exception):
    """The registry has answered that it does not have the schema."""
