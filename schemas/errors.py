"""The errors of a record, sorted by what the caller does next.

SchemasError
├── BadEvent          set this one record aside, go on with the rest
├── UnknownSchema     wait with this record's partition: a newer release may know the schema
└── SchemaNotAtHand   fetch the schema from the registry, then decode the record again
"""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args
from uuid import UUID

BadEventReason: TypeAlias = Literal[
    "undecodable",  # the bytes are not an event in any wire format
    "not_unicode",  # a string or the key is not valid Unicode
    "invalid_field",  # a field is missing, of the wrong type or out of its range
    "empty_content",  # an upsert without content, or with an empty one
    "missing_key",  # the record has no key
    "key_mismatch",  # the key is not the content id
    "misplaced_key",  # the record lies in another partition than its key belongs to
    "unknown_schema",  # a schema registry's framing, and no registry is set or it has no such schema
    "incompatible_schema",  # the registry's schema cannot be resolved to the event's
    "mapping_failed",  # a rule of the mapping applies, but a value that it takes is not there
    "content_id_too_long",  # more than 512 bytes of UTF-8
    "metadata_too_large",  # too many entries, a key that is too long, or too many bytes
]
BAD_EVENT_REASONS: frozenset[str] = frozenset(get_args(BadEventReason))


class SchemasError(Exception):
    """The root of the tree."""


class BadEvent(SchemasError):
    """The record can never become an event.

    `reason` is a stable code. `detail` explains it and never quotes the content. It can be written as UTF-8,
    although it may name what a schema or a document names, and JSON allows lone surrogates there.
    """

    def __init__(self, reason: BadEventReason, detail: str) -> None:
        detail = detail.encode(errors="backslashreplace").decode()
        super().__init__(f"{reason}: {detail}")
        self.reason: BadEventReason = reason
        self.detail = detail


class UnknownSchema(SchemasError):
    """This process does not know the record's fingerprint, which `schema` names; a newer release may."""

    def __init__(self, schema: str, detail: str) -> None:
        super().__init__(f"unknown schema, {schema}: {detail}")
        self.schema = schema
        self.detail = detail


class SchemaNotAtHand(SchemasError):
    """The record is framed with the schema `key`, which must be fetched from the registry first."""

    def __init__(self, key: int | UUID) -> None:
        super().__init__(f"the schema {key} is not fetched yet")
        self.key = key
