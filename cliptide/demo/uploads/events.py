"""The events that a platform would publish for the contents of the catalogue."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from urllib.parse import quote

from cliptide.demo.garments.catalogue import CatalogueContent
from cliptide.publishing.publish import LabelledEvent, label_event
from schemas.events import Content, ContentReference, ImageContent, TextContent, UploadEvent

SOURCE = "demo"
REFERENCE_EVERY = 10
"""Each tenth picture is published as a reference to a file, because a platform may do so with any."""


@dataclass(frozen=True, slots=True)
class UploadEvents:
    """Builds the events. Pictures that are published as references are written into `folder`.

    A picture's link is its thumbnail in the query service at `service_url`. The thumbnails of the demo are
    as large as its pictures, so the demo needs no other web server and no other port.
    """

    service_url: str
    folder: Path

    def of(self, contents: Sequence[CatalogueContent]) -> Iterator[LabelledEvent]:
        """Draw and encode one event after another."""
        pictures = 0
        for content in contents:
            is_reference = content.modality == "image" and pictures % REFERENCE_EVERY == REFERENCE_EVERY - 1
            pictures += content.modality == "image"
            body = self.reference(content) if is_reference else inline_content(content)
            yield label_event(content.content_id, self.build(content, body, datetime.now(timezone.utc)))

    def build(self, content: CatalogueContent, body: Content, now: datetime) -> UploadEvent:
        return UploadEvent(
            event_id=str(uuid.uuid4()),
            content_id=content.content_id,
            source=SOURCE,
            occurred_at=now.replace(microsecond=now.microsecond // 1000 * 1000),
            content=body,
            owner_id=content.owner_id,
            link=self._link(content) if content.modality == "image" else None,
            metadata=content.metadata,
            title=content.title if content.modality == "image" else None,
        )

    def reference(self, content: CatalogueContent) -> ContentReference:
        """Write the picture into the folder, and return a reference to the file."""
        data, path = content.image_bytes(), self.folder / f"{content.content_id}.jpg"
        path.write_bytes(data)
        return ContentReference(path.as_uri(), hashlib.sha256(data).hexdigest(), len(data), "image")

    def _link(self, content: CatalogueContent) -> str:
        return f"{self.service_url}/v1/contents/{quote(content.content_id, safe='')}/thumbnail"


def inline_content(content: CatalogueContent) -> Content:
    """Return the picture or the text itself."""
    if content.modality == "image":
        return ImageContent(content.image_bytes())
    return TextContent(content.text)
