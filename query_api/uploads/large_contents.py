"""Contents that are too large for the log. They are stored as files and published as references."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

from clip_index.storage.durable_files import create_exclusively, make_directory
from query_api.errors import ApiError
from schemas.events import ContentReference, ImageContent, TextContent, UploadEvent


@dataclass(frozen=True, slots=True)
class LargeContents:
    """Contents above `inline_limit_bytes` are stored in `directory`; without a directory they are refused.

    The consumer reads them from there, so the directory must be among its
    `reference_file_roots`. A file's name is its SHA-256 digest. Files are never replaced or removed.
    """

    inline_limit_bytes: int = 10 * 2**20
    directory: Path | None = None

    def refer(self, event: UploadEvent) -> UploadEvent:
        """Return the event, with a reference in place of a content that is too large. Blocking.

        Raises `ApiError` (content_too_large) and `OSError`.
        """
        content = event.content
        if isinstance(content, ContentReference):
            return event
        data = _bytes_of(content)
        if len(data) <= self.inline_limit_bytes:
            return event
        if self.directory is None:
            message = f"the content has {len(data)} bytes, the limit is {self.inline_limit_bytes}"
            raise ApiError("content_too_large", message)
        digest = hashlib.sha256(data).hexdigest()
        path = self.directory.resolve() / digest[:2] / digest
        if not path.exists():
            make_directory(path.parent)
            create_exclusively(path, data)
        return replace(event, content=ContentReference(path.as_uri(), digest, len(data), content.modality))


def _bytes_of(content: TextContent | ImageContent) -> bytes:
    return content.text.encode() if isinstance(content, TextContent) else content.data
