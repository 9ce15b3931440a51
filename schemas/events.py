"""The events of a platform, decoded: an upload, a delete or a patch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, TypeAlias

Modality: TypeAlias = Literal["text", "image"]
MetadataValue: TypeAlias = str | float | bool | tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TextContent:
    """A text that the event carries."""

    text: str

    @property
    def modality(self) -> Modality:
        return "text"


@dataclass(frozen=True, slots=True)
class ImageContent:
    """The bytes of an image file that the event carries."""

    data: bytes

    @property
    def modality(self) -> Modality:
        return "image"


@dataclass(frozen=True, slots=True)
class ContentReference:
    """A claim check: the address of the bytes, and what is known of them.

    `sha256` is 64 lowercase hexadecimal digits, `size_bytes` the exact length, `etag` what the store must
    call this version of the bytes. What is None is not checked. Without a digest, a replay of the log may
    fetch other bytes.
    """

    uri: str
    sha256: str | None
    size_bytes: int | None
    modality: Modality
    etag: str | None = None


Content: TypeAlias = TextContent | ImageContent | ContentReference


@dataclass(frozen=True, slots=True)
class UploadEvent:
    """A content was uploaded or replaced. `occurred_at` is aware, in UTC, to the millisecond.

    `event_id` and `source` are empty if the producer left them out.
    """

    event_id: str
    content_id: str
    source: str
    occurred_at: datetime
    content: Content
    version: int | None = None
    owner_id: str | None = None
    link: str | None = None
    metadata: Mapping[str, MetadataValue] = field(default_factory=dict)
    title: str | None = None


@dataclass(frozen=True, slots=True)
class DeleteEvent:
    """A content was removed. A record with a null value is a delete event without a version."""

    event_id: str
    content_id: str
    source: str
    occurred_at: datetime
    version: int | None = None


@dataclass(frozen=True, slots=True)
class PatchEvent:
    """Facts of a content changed, and its bytes did not.

    `remove` names what the content loses first: `title`, `link`, `metadata` or `metadata.KEY`. Then the title
    and the link are set, unless they are None, and the metadata are added.
    """

    event_id: str
    content_id: str
    source: str
    occurred_at: datetime
    link: str | None = None
    metadata: Mapping[str, MetadataValue] = field(default_factory=dict)
    title: str | None = None
    remove: tuple[str, ...] = ()

    @property
    def version(self) -> None:
        """A patch has none: it changes the content that its id holds at its place in the log."""
        return None


Event: TypeAlias = UploadEvent | DeleteEvent | PatchEvent
