"""Events to test with: factories with a default for every field, strategies, and a readable form."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

from hypothesis import strategies as st

from schemas.events import (
    Content,
    ContentReference,
    DeleteEvent,
    Event,
    ImageContent,
    PatchEvent,
    TextContent,
    UploadEvent,
)
from schemas.validation import EARLIEST, END_OF_TIME

NOON = datetime(2026, 3, 1, 12, 30, 15, 250_000, tzinfo=timezone.utc)
NOON_MS = 1_772_368_215_250
SHA256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"


def build_upload(**fields: Any) -> UploadEvent:
    defaults: dict[str, Any] = {
        "event_id": "event-1",
        "content_id": "shoe-1",
        "source": "shop",
        "occurred_at": NOON,
        "content": TextContent("a red shoe"),
    }
    return UploadEvent(**defaults | fields)


def build_delete(**fields: Any) -> DeleteEvent:
    defaults: dict[str, Any] = {
        "event_id": "event-2",
        "content_id": "shoe-1",
        "source": "shop",
        "occurred_at": NOON,
    }
    return DeleteEvent(**defaults | fields)


def build_patch(**fields: Any) -> PatchEvent:
    defaults: dict[str, Any] = {
        "event_id": "event-3",
        "content_id": "shoe-1",
        "source": "shop",
        "occurred_at": NOON,
        "title": "Red shoes",
    }
    return PatchEvent(**defaults | fields)


def build_reference(**fields: Any) -> ContentReference:
    defaults: dict[str, Any] = {
        "uri": "s3://uploads/shoe-1.jpg",
        "sha256": SHA256,
        "size_bytes": 4_194_304,
        "modality": "image",
    }
    return ContentReference(**defaults | fields)


SAMPLE_EVENTS: dict[str, Event] = {
    "text": build_upload(),
    "image": build_upload(
        content=ImageContent(b"\x89PNG\r\n\x1a\n\x00\xff"),
        version=7,
        owner_id="owner-9",
        link="https://shop.example/shoe-1",
        metadata={"colour": "red", "price": 49.5, "in_stock": True, "名": "靴"},
    ),
    "reference": build_upload(content=build_reference(), version=-(2**63)),
    "reference-with-etag": build_upload(content=build_reference(sha256=None, size_bytes=None, etag="0xB7")),
    "reference-alone": build_upload(content=build_reference(sha256=None, size_bytes=None)),
    "title-and-tags": build_upload(
        title="Rote Schuhe · 赤い靴", metadata={"tags": ("summer", "sale", ""), "none": (), "colour": "red"}
    ),
    "delete": build_delete(version=2**63 - 1),
    "delete-without-version": build_delete(),
    "patch": build_patch(
        link="https://shop.example/shoe-1",
        metadata={"price": 39.5, "tags": ("sale", ""), "名": "靴"},
        remove=("metadata.colour", "metadata.a.b"),
    ),
    "patch-that-removes": build_patch(title=None, remove=("title", "link", "metadata")),
    "least": build_upload(event_id="", source="", content_id="靴/1 \x00"),
}


def describe_event(event: Event) -> dict[str, Any]:
    """Describe the event independently of the codec's JSON, so that descriptions can be compared."""
    described: dict[str, Any] = {
        "kind": type(event).__name__,
        "event_id": event.event_id,
        "content_id": event.content_id,
        "source": event.source,
        "occurred_at": event.occurred_at.isoformat(),
        "version": event.version,
    }
    if isinstance(event, UploadEvent):
        described |= {
            "content": _describe_content(event.content),
            "owner_id": event.owner_id,
            "link": event.link,
            "metadata": {k: list(v) if isinstance(v, tuple) else v for k, v in event.metadata.items()},
            "title": event.title,
        }
    if isinstance(event, PatchEvent):
        described |= {
            "link": event.link,
            "metadata": {k: list(v) if isinstance(v, tuple) else v for k, v in event.metadata.items()},
            "title": event.title,
            "remove": list(event.remove),
        }
    return described


def _describe_content(content: Content) -> list[Any]:
    if isinstance(content, TextContent):
        return ["text", content.text]
    if isinstance(content, ImageContent):
        return ["image", content.data.hex()]
    pinned = [] if content.etag is None else [content.etag]
    return ["reference", content.uri, content.sha256, content.size_bytes, content.modality, *pinned]


_ids = st.text(max_size=120)  # at most four bytes a character
_optional_ids = st.none() | st.text(min_size=1, max_size=120)
_int64 = st.integers(-(2**63), 2**63 - 1)
_times = st.integers(0, (END_OF_TIME - EARLIEST) // timedelta(milliseconds=1) - 1).map(
    lambda ms: EARLIEST + timedelta(milliseconds=ms)
)
_metadata = st.dictionaries(
    st.text(min_size=1, max_size=60),
    st.text(max_size=200)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.booleans()
    | st.lists(st.text(max_size=30), max_size=8).map(tuple),
    max_size=8,
)
_contents: st.SearchStrategy[Content] = st.one_of(
    st.text(min_size=1).filter(lambda text: bool(text.strip())).map(TextContent),
    st.binary(min_size=1).map(ImageContent),
    st.builds(
        ContentReference,
        uri=st.text(max_size=50).map("https://host/{}".format),
        sha256=st.none() | st.binary(min_size=32, max_size=32).map(bytes.hex),
        size_bytes=st.none() | st.integers(1, 2**63 - 1),
        etag=st.none() | st.text(min_size=1, max_size=60),
        modality=st.sampled_from(["text", "image"]),
    ),
)
_removed_names = st.sampled_from(["title", "link", "metadata"]) | st.text(min_size=1, max_size=60).map(
    "metadata.{}".format
)
events: st.SearchStrategy[Event] = st.one_of(
    st.builds(
        UploadEvent,
        event_id=_ids,
        content_id=st.text(min_size=1, max_size=120),
        source=_ids,
        occurred_at=_times,
        content=_contents,
        version=st.none() | _int64,
        owner_id=_optional_ids,
        link=_optional_ids,
        metadata=_metadata,
        title=_optional_ids,
    ),
    st.builds(
        PatchEvent,
        event_id=_ids,
        content_id=st.text(min_size=1, max_size=120),
        source=_ids,
        occurred_at=_times,
        link=_optional_ids,
        metadata=_metadata,
        title=_optional_ids,
        remove=st.lists(_removed_names, min_size=1, max_size=8).map(tuple),
    ),
    st.builds(
        DeleteEvent,
        event_id=_ids,
        content_id=st.text(min_size=1, max_size=120),
        source=_ids,
        occurred_at=_times,
        version=st.none() | _int64,
    ),
)
