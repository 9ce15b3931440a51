"""Contents that are stored beside the log, and published as references."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

from query_api.errors import ApiError
from query_api.uploads.contents_store import ContentsStore, DirectoryContents
from schemas.events import ContentReference, ImageContent, TextContent, UploadEvent


@dataclass(frozen=True, slots=True)
class LargeContents:
    """Contents above `inline_limit_bytes` are stored; without a directory and a store they are refused.

    With `stores_all`, smaller ones are stored, too. The consumer reads them from there, so a directory
    must be among its `reference_file_roots`, and a bucket among its `reference_buckets`. A content's name
    is its SHA-256 digest. Contents are never replaced or removed.
    """

    inline_limit_bytes: int = 10 * 2**20
    directory: Path | None = None
    store: ContentsStore | None = None
    stores_all: bool = False

    def refer(self, event: UploadEvent) -> UploadEvent:
        """Return the event, with a reference in place of a content that is to be stored. Blocking.

        An event without a link gets that of the stored content. Raises `ApiError` (content_too_large) and
        `OSError`.
        """
        content = event.content
        if isinstance(content, ContentReference):
            return event
        data = _bytes_of(content)
        if len(data) <= self.inline_limit_bytes and not self.stores_all:
            return event
        digest = hashlib.sha256(data).hexdigest()
        kept = self._required_store(len(data)).keep(digest, data)
        reference = ContentReference(kept.uri, digest, len(data), content.modality)
        return replace(event, content=reference, link=event.link or kept.link)

    def _required_store(self, num_bytes: int) -> ContentsStore:
        if self.store is not None:
            return self.store
        if self.directory is None:
            message = f"the content has {num_bytes} bytes, the limit is {self.inline_limit_bytes}"
            raise ApiError("content_too_large", message)
        return DirectoryContents(self.directory)


def _bytes_of(content: TextContent | ImageContent) -> bytes:
    return content.text.encode() if isinstance(content, TextContent) else content.data
