"""The rules for every event, whatever its wire format, and whether it came by Kafka or by HTTP."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import datetime, timezone

from schemas.errors import BadEvent
from schemas.events import (
    Content,
    ContentReference,
    Event,
    ImageContent,
    MetadataValue,
    PatchEvent,
    TextContent,
    UploadEvent,
)

MAX_ID_BYTES = 512
MAX_LINK_BYTES = 8192
MAX_TITLE_CHARACTERS = 512  # not bytes: titles in Thai, Hindi and Chinese take three for each
MAX_ETAG_BYTES = 1024
MAX_METADATA_ENTRIES = 64
MAX_METADATA_KEY_BYTES = 256
MAX_METADATA_BYTES = 16 * 1024
MAX_LIST_TEXTS = 64
MAX_REMOVED = 64
METADATA_PREFIX = "metadata."
_REMOVABLE = ("title", "link", "metadata")
INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1

# The range finds producers that send seconds or microseconds instead of milliseconds: a present time
# would then lie in January 1970, or in the year 50,000.
EARLIEST = datetime(1990, 1, 1, tzinfo=timezone.utc)
END_OF_TIME = datetime(2100, 1, 1, tzinfo=timezone.utc)

_SHA256 = re.compile("[0-9a-f]{64}")


def validate_event(event: Event) -> None:
    """Raise `BadEvent` unless the event obeys every rule. Encoding and decoding both call this."""
    _validate_content_id(event.content_id)
    _validate_size("event_id", event.event_id, 0, MAX_ID_BYTES)
    _validate_size("source", event.source, 0, MAX_ID_BYTES)
    _validate_occurred_at(event.occurred_at)
    if event.version is not None:
        _validate_range("version", event.version, INT64_MIN)
    if isinstance(event, UploadEvent):
        _validate_upload(event)
    elif isinstance(event, PatchEvent):
        _validate_patch(event)


def refuse_beside_patch(*, version: int | None, content: object) -> None:
    """Raise `BadEvent` for what a patch cannot have. Readers call this: a `PatchEvent` has neither."""
    if version is not None:
        raise BadEvent("invalid_field", "version: a patch has none, because it applies in log order")
    if content is not None:
        raise BadEvent("invalid_field", "content: a patch leaves it as it is; publish an upsert instead")


def _validate_patch(event: PatchEvent) -> None:
    _validate_shown(event)
    if len(event.remove) > MAX_REMOVED:
        raise BadEvent("invalid_field", f"remove: {len(event.remove)} names, at most {MAX_REMOVED}")
    for name in event.remove:
        _utf8_size("remove", name)
        if name not in _REMOVABLE and not (name.startswith(METADATA_PREFIX) and name != METADATA_PREFIX):
            raise BadEvent(
                "invalid_field", "remove: only title, link, metadata and metadata.KEY can be removed"
            )
    if event.title is None and event.link is None and not event.metadata and not event.remove:
        raise BadEvent(
            "invalid_field", "the patch changes nothing: it has no title, link, metadata or remove"
        )


def _validate_shown(event: UploadEvent | PatchEvent) -> None:
    if event.link is not None:
        _validate_size("link", event.link, 1, MAX_LINK_BYTES)
    if event.title is not None:
        _validate_title(event.title)
    _validate_metadata(event.metadata)


def _validate_title(title: str) -> None:
    _utf8_size("title", title)
    if len(title) > MAX_TITLE_CHARACTERS:
        raise BadEvent("invalid_field", f"title: {len(title)} characters, at most {MAX_TITLE_CHARACTERS}")


def _validate_upload(event: UploadEvent) -> None:
    if event.owner_id is not None:
        _validate_size("owner_id", event.owner_id, 1, MAX_ID_BYTES)
    _validate_shown(event)
    _validate_content(event.content)


def _validate_content_id(content_id: str) -> None:
    num_bytes = _utf8_size("content_id", content_id)
    if num_bytes == 0:
        raise BadEvent("invalid_field", "content_id: empty")
    if num_bytes > MAX_ID_BYTES:
        raise BadEvent("content_id_too_long", f"{num_bytes} bytes of UTF-8, at most {MAX_ID_BYTES}")


def _validate_occurred_at(occurred_at: datetime) -> None:
    if occurred_at.tzinfo is None:
        raise BadEvent("invalid_field", "occurred_at: without time zone")
    if not EARLIEST <= occurred_at < END_OF_TIME:
        raise BadEvent("invalid_field", "occurred_at: not between 1990 and 2099; is it in milliseconds?")


def _validate_content(content: Content) -> None:
    if isinstance(content, TextContent):
        _utf8_size("content.text", content.text)
        is_empty = not content.text.strip()
    elif isinstance(content, ImageContent):
        is_empty = not content.data
    else:
        _validate_reference(content)
        is_empty = content.size_bytes == 0
    if is_empty:
        raise BadEvent("empty_content", f"the {content.modality} is empty")


def _validate_reference(reference: ContentReference) -> None:
    _validate_size("content.reference.uri", reference.uri, 1, MAX_LINK_BYTES)
    if "://" not in reference.uri:
        raise BadEvent("invalid_field", "content.reference.uri: without scheme")
    if reference.sha256 is not None and not _SHA256.fullmatch(reference.sha256):
        raise BadEvent("invalid_field", "content.reference.sha256: not 64 lowercase hexadecimal digits")
    if reference.size_bytes is not None:
        _validate_range("content.reference.size_bytes", reference.size_bytes, 0)
    if reference.etag is not None:
        _validate_size("content.reference.etag", reference.etag, 1, MAX_ETAG_BYTES)
    if reference.modality not in ("text", "image"):
        raise BadEvent("invalid_field", "content.reference.modality: neither text nor image")


def _validate_metadata(metadata: Mapping[str, MetadataValue]) -> None:
    if len(metadata) > MAX_METADATA_ENTRIES:
        raise too_many_entries(len(metadata))
    num_bytes = 0
    for key, value in metadata.items():
        num_bytes += _metadata_key_size(key) + _metadata_value_size(value)
    if num_bytes > MAX_METADATA_BYTES:
        raise BadEvent(
            "metadata_too_large", f"{num_bytes} bytes of keys and texts, at most {MAX_METADATA_BYTES}"
        )


def _metadata_key_size(key: str) -> int:
    num_bytes = _utf8_size("metadata", key)
    if num_bytes == 0:
        raise BadEvent("invalid_field", "metadata: an empty key")
    if num_bytes > MAX_METADATA_KEY_BYTES:
        raise BadEvent("metadata_too_large", f"a key of {num_bytes} bytes, at most {MAX_METADATA_KEY_BYTES}")
    return num_bytes


def _metadata_value_size(value: MetadataValue) -> int:
    if isinstance(value, str):
        return _utf8_size("metadata", value)
    if isinstance(value, tuple):
        return _metadata_list_size(value)
    if not math.isfinite(value):
        raise BadEvent("invalid_field", "metadata: a number that is not finite")
    return 0


def _metadata_list_size(texts: tuple[str, ...]) -> int:
    if len(texts) > MAX_LIST_TEXTS:
        raise too_long_list(len(texts))
    if not all(isinstance(text, str) for text in texts):
        raise BadEvent("invalid_field", "metadata: a list may hold texts only")
    return sum(_utf8_size("metadata", text) for text in texts)


def too_many_entries(num_entries: int) -> BadEvent:
    return BadEvent("metadata_too_large", f"{num_entries} entries, at most {MAX_METADATA_ENTRIES}")


def too_long_list(num_texts: int) -> BadEvent:
    return BadEvent("invalid_field", f"metadata: a list of {num_texts} texts, at most {MAX_LIST_TEXTS}")


def _validate_size(field: str, text: str, minimum: int, maximum: int) -> None:
    num_bytes = _utf8_size(field, text)
    if num_bytes < minimum:
        raise BadEvent("invalid_field", f"{field}: empty; leave it out instead")
    if num_bytes > maximum:
        raise BadEvent("invalid_field", f"{field}: {num_bytes} bytes of UTF-8, at most {maximum}")


def _validate_range(field: str, number: int, minimum: int) -> None:
    if not minimum <= number <= INT64_MAX:
        raise BadEvent("invalid_field", f"{field}: not between {minimum} and {INT64_MAX}")


def _utf8_size(field: str, text: str) -> int:
    try:
        return len(text.encode())
    except UnicodeEncodeError:
        raise BadEvent("not_unicode", f"{field}: holds a lone surrogate") from None
