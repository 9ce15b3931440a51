"""Fetches the schemas that records need, in a thread of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from consumer.backoff import Backoff
from consumer.registry.kept_schemas import KeptSchemas
from consumer.telemetry.outages import Outages
from event_log.errors import EventLogError
from event_log.schema_registry.client import FetchedSchema
from schemas.errors import SchemaNotAtHand
from schemas.framing import SchemaKey, describe_schema_key
from schemas.registered import RegisteredSchema

_PLACE = "schema_registry"
_MISSING_SECONDS = 30.0
_MAX_MISSING = 10_000
_log = structlog.get_logger(__name__)


class Registry(Protocol):
    """Answers with a schema or with None; raises `RegistryUnavailable` while it cannot."""

    address: str

    def fetch(self, key: SchemaKey) -> FetchedSchema | None: ...


@dataclass(frozen=True, slots=True)
class RegistryPatience:
    """How long a registry that does not answer is left alone, and how long a missing schema stays missing."""

    backoff: Backoff = field(default_factory=lambda: Backoff(first_seconds=0.5, longest_seconds=10.0))
    missing_seconds: float = _MISSING_SECONDS


class SchemaWait:
    """A record waits for a schema. `done` is set when the registry has answered."""

    def __init__(self, key: SchemaKey, on_failure: Callable[[str], None]) -> None:
        self.key = key
        self.on_failure = on_failure
        self.done: Future[None] = Future()


class RegistrySchemas:
    """Has the schemas of a registry at hand once they are fetched. Thread-safe after `start`.

    One thread asks for one schema after the other. While the registry does not answer, it asks again for
    ever, because no record can be read without its schema.
    """

    def __init__(
        self,
        registry: Registry,
        kept: KeptSchemas,
        *,
        outages: Outages,
        patience: RegistryPatience | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._registry = registry
        self._kept = kept
        self._outages = outages
        self._patience = patience or RegistryPatience()
        self._clock = clock
        self._schemas: dict[SchemaKey, RegisteredSchema] = {}
        self._missing_until: dict[SchemaKey, float] = {}
        self._waits: dict[SchemaKey, list[SchemaWait]] = {}
        self._changed = threading.Condition()
        self._is_stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="schema-registry", daemon=True)

    def find(self, key: SchemaKey) -> RegisteredSchema | None:
        """Return a schema from memory or disk, or None if the registry lacks it; else `SchemaNotAtHand`."""
        schema = self._schemas.get(key)
        if schema is not None:
            return schema
        schema = self._kept.read(key)
        if schema is not None:
            self._schemas[key] = schema
            return schema
        if self._clock() < self._missing_until.get(key, 0.0):
            return None
        raise SchemaNotAtHand(key)

    def fetch(self, key: SchemaKey, on_failure: Callable[[str], None]) -> Future[None]:
        """Ask for the schema. The future is set when `find` knows it, or knows that there is none.

        `on_failure` is told why the registry does not answer, each time that it does not.
        """
        wait = SchemaWait(key, on_failure)
        with self._changed:
            self._waits.setdefault(key, []).append(wait)
            self._changed.notify()
        return wait.done

    def start(self) -> None:
        self._thread.start()

    @property
    def is_running(self) -> bool:
        return self._thread.is_alive()

    def close(self, timeout_seconds: float) -> None:
        """End the thread. What still waits is not answered."""
        self._is_stopping.set()
        with self._changed:
            self._changed.notify()
        if self._thread.ident is not None:
            self._thread.join(timeout_seconds)

    def _run(self) -> None:
        num_failures = 0
        while (key := self._next_key()) is not None:
            try:
                self._fetch_one(key)
                num_failures = 0
                continue
            except EventLogError as error:
                self._tell(key, error)
            num_failures += 1
            self._is_stopping.wait(self._patience.backoff.seconds(num_failures))

    def _next_key(self) -> SchemaKey | None:
        """Wait for a schema that is needed; None when told to stop. A key that failed goes to the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_stopping.is_set() or self._waits)
            if self._is_stopping.is_set():
                return None
            key = next(iter(self._waits))
            self._waits[key] = self._waits.pop(key)
            return key

    def _fetch_one(self, key: SchemaKey) -> None:
        fetched = None if key in self._schemas else self._registry.fetch(key)
        if fetched is None and key not in self._schemas:
            self._remember_missing(key)
        elif fetched is not None:
            schema = RegisteredSchema(fetched.kind, fetched.text, fetched.references)
            self._keep(key, schema)
            self._schemas[key] = schema
            _log.info("schema fetched", schema=describe_schema_key(key), registry=self._registry.address)
        self._outages.ended(_PLACE, part=self._registry.address)
        with self._changed:
            waits = self._waits.pop(key, [])
        for wait in waits:
            wait.done.set_result(None)

    def _remember_missing(self, key: SchemaKey) -> None:
        if len(self._missing_until) >= _MAX_MISSING:
            self._missing_until.clear()
        self._missing_until[key] = self._clock() + self._patience.missing_seconds

    def _keep(self, key: SchemaKey, schema: RegisteredSchema) -> None:
        """Keep the schema for a replay. Records are read without that, so a full disk holds none of them."""
        try:
            self._kept.keep(key, schema)
        except OSError as error:
            _log.warning("a schema is not kept on disk", schema=describe_schema_key(key), error=str(error))

    def _tell(self, key: SchemaKey, error: Exception) -> None:
        self._outages.failed(_PLACE, error, part=self._registry.address)
        with self._changed:
            waits = list(self._waits.get(key, ()))
        for wait in waits:
            wait.on_failure(f"{describe_schema_key(key)}: {error}")
