"""The models of uploads and deletes.

An upload has the fields of a JSON event (`schemas/README.md`), with two differences. An unknown
field is an error. A content cannot be a reference, because a client must not choose the
addresses that the consumer fetches.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, StringConstraints, WithJsonSchema

from query_api.answers.snapshot import SnapshotAnswer
from query_api.contract.models import BASE64, MAX_WAIT_MS, Answer, ContentId, FilePart, Request, Timings
from query_api.contract.schema_rules import NOT_BLANK, JsonSchema, exactly_one_of, is_given
from query_api.contract.unions import one_of_types
from schemas.validation import (
    MAX_LIST_TEXTS,
    MAX_METADATA_BYTES,
    MAX_METADATA_ENTRIES,
    MAX_METADATA_KEY_BYTES,
    MAX_REMOVED,
)

MAX_FIELD_CHARACTERS = 8192
MAX_TEXT_CHARACTERS = 1_000_000  # far beyond what an encoder takes; the encoder says what is too long
MAX_METADATA_JSON_CHARACTERS = 8 * MAX_METADATA_BYTES  # room for escapes and white space
MAX_METADATA_MEMBERS = 4 * MAX_METADATA_ENTRIES  # nulls do not count as entries
MAX_PATCHED_ENTRIES = MAX_REMOVED - 2  # each may be removed, and so may title and link
INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1

Version = Annotated[int, Field(ge=INT64_MIN, le=INT64_MAX)]
Name = Annotated[str, StringConstraints(max_length=512)]
OwnerId = Annotated[str, StringConstraints(min_length=1, max_length=512)]
TimeText = Annotated[str, StringConstraints(max_length=512)]
MetadataText = Annotated[str, StringConstraints(max_length=MAX_METADATA_JSON_CHARACTERS)]
Link = Annotated[str, StringConstraints(min_length=1, max_length=MAX_FIELD_CHARACTERS)]
EncodedImage = Annotated[
    str,
    StringConstraints(min_length=1),
    WithJsonSchema(BASE64),
]
ObjectText = Annotated[
    str,
    Field(
        max_length=MAX_METADATA_JSON_CHARACTERS,
        description="A JSON object whose values are texts, numbers, booleans and lists of texts.",
        json_schema_extra={"pattern": r"^[ \t\n\r]*\{[\s\S]*\}[ \t\n\r]*$"},
    ),
]
MetadataList = Annotated[list[MetadataText], Field(max_length=MAX_LIST_TEXTS, fail_fast=True)]
MetadataValue = Annotated[
    MetadataText | int | float | bool | MetadataList | None,
    one_of_types("a text, a number, true, false, null or a list of texts"),
]
UploadText = Annotated[str, Field(max_length=MAX_TEXT_CHARACTERS, json_schema_extra=NOT_BLANK)]


MetadataKey = Annotated[str, StringConstraints(min_length=1, max_length=MAX_METADATA_KEY_BYTES)]
PatchedMetadata = Annotated[
    dict[MetadataKey, MetadataValue], Field(min_length=1, max_length=MAX_PATCHED_ENTRIES, fail_fast=True)
]


class WriteParameters(Request):
    """The query string of every route that publishes an event."""

    wait: Literal["searchable"] | None = Field(
        default=None,
        description="Wait until searches find the event. By default the answer comes once it is in the log.",
    )
    timeout_ms: int = Field(
        default=10_000,
        ge=0,
        le=MAX_WAIT_MS,
        description="How long to wait with `wait=searchable`, in milliseconds.",
    )


class UploadContent(Request):
    """Exactly one of `text` and `image`."""

    model_config = ConfigDict(json_schema_extra=exactly_one_of(("text", "image")))

    text: UploadText | None = None
    image: EncodedImage | None = Field(
        default=None, description="A JPEG, PNG, WebP, GIF, AVIF, TIFF, BMP, ICO or JPEG 2000 file in base64."
    )


class _UploadFields(Request):
    content_id: ContentId
    version: Version | None = Field(
        default=None, description="A number that grows with each change of the content."
    )
    event_id: Name = ""
    source: Name = Field(
        default="", description="The platform that the content is from. Searches can filter by it."
    )
    owner_id: OwnerId | None = None
    link: Link | None = Field(default=None, description="A web address where people can see the content.")
    title: Name | None = Field(
        default=None, description="What people call the content. An empty title is none."
    )


def _say_when_it_has_content(schema: JsonSchema) -> None:
    is_delete = {"required": ["operation"], "properties": {"operation": {"const": "delete"}}}
    schema["anyOf"] = [is_given("content"), is_delete]


class UploadRequest(_UploadFields):
    """An upload or a delete event."""

    model_config = ConfigDict(json_schema_extra=_say_when_it_has_content)

    operation: Literal["upsert", "delete"] = "upsert"
    occurred_at: Annotated[TimeText | int, one_of_types("a time as a text or a whole number")] | None = Field(
        default=None,
        description="An RFC 3339 time with a time zone, or milliseconds since 1970. The default is now.",
    )
    content: UploadContent | None = None
    metadata: dict[MetadataText, MetadataValue] = Field(
        default_factory=dict, max_length=MAX_METADATA_MEMBERS, fail_fast=True
    )


class PatchParameters(WriteParameters):
    """The query string of a patch."""

    source: Name = ""
    event_id: Name = ""


class PatchRequest(Request):
    """What changes, as JSON Merge Patch says it (RFC 7396): null removes, what is left out stays."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1})

    title: Name | None = Field(default=None, description="The new title; null or an empty one removes it.")
    link: Link | None = Field(default=None, description="The new link; null removes it.")
    metadata: PatchedMetadata | None = Field(
        default=None,
        description="Entries to add or replace. A null value removes its entry, and null in place of the "
        "object removes all of them.",
    )


class UploadForm(_UploadFields):
    """The plain fields of a multipart upload. The file is the part `image`."""

    text: UploadText | None = None
    occurred_at: TimeText | None = None
    metadata: ObjectText | None = None


class RawUploadParameters(_UploadFields, WriteParameters):
    """The query string of an upload whose body is the content itself."""

    occurred_at: TimeText | None = None
    metadata: ObjectText | None = None


class DeleteParameters(WriteParameters):
    """The query string of a delete."""

    version: Version | None = None
    source: Name = ""
    event_id: Name = ""


class PublishedAnswer(Answer):
    """The event's position in the log. A search with `min_offsets: {shard: next_offset}` finds it."""

    content_id: str
    topic: str
    partition: int
    offset: int
    next_offset: int
    shard: str
    timings: Timings
    snapshot: SnapshotAnswer | None = Field(
        default=None, description="With `wait=searchable`: the snapshot in which searches find the event."
    )


class UploadMultipart(UploadForm):
    """An upload as a form: the image, and either plain fields or a JSON part named `event`."""

    image: FilePart | None = None
