"""The content of an upload becomes what the encoder takes, unless equal bytes have embeddings already."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from clip_index.content import Derived
from clip_index.encoder.protocol import Encoder, Prepared
from clip_index.errors import BadContent
from consumer.saved_encodings import PreparedContent, SavedEncodings
from consumer.tasks import AlreadyEncoded, Upload
from schemas.errors import BadEvent
from schemas.events import ImageContent, Modality, TextContent, UploadEvent


class TruncatedTextCounter(Protocol):
    """Is told which texts did not fit."""

    def count_truncated_text(self) -> None: ...


@dataclass(frozen=True, slots=True)
class UploadSource:
    """The content of an upload, at hand. `sha256` is there if a reference gave the bytes."""

    partition: int
    event: UploadEvent
    content: TextContent | ImageContent
    sha256: str | None = None

    def sha256_of_bytes(self) -> bytes:
        if self.sha256 is not None:
            return bytes.fromhex(self.sha256)
        content = self.content
        data = content.text.encode() if isinstance(content, TextContent) else content.data
        return hashlib.sha256(data).digest()


class UploadContents:
    """Prepares contents. Thread-safe."""

    def __init__(
        self,
        encoder: Encoder,
        saved: SavedEncodings,
        *,
        truncated_texts: TruncatedTextCounter,
        make_thumbnail: Callable[[bytes], bytes] | None = None,
    ) -> None:
        """`make_thumbnail` gets the bytes of a readable picture; without it no thumbnails are kept."""
        self._encoder = encoder
        self._saved = saved
        self._truncated_texts = truncated_texts
        self._make_thumbnail = make_thumbnail

    def prepare(self, source: UploadSource) -> AlreadyEncoded | tuple[Upload, Prepared]:
        """Return the upload with its embeddings, or with what is to be encoded. Raises `BadContent`."""
        digest = self._saved.digest_of(source.content.modality, source.sha256_of_bytes())
        derived = self._saved.find(source.partition, digest)
        if derived is not None:
            return AlreadyEncoded(self._upload(source, digest, derived), derived.embeddings)
        content = self._saved.prepare(digest, lambda: self._prepared(source.content))
        return self._upload(source, digest, content), content.prepared

    def _prepared(self, content: TextContent | ImageContent) -> PreparedContent:
        if isinstance(content, TextContent):
            return PreparedContent(self._encoder.prepare_text(content.text))
        prepared, make_thumbnail = self._encoder.prepare_image(content.data), self._make_thumbnail
        return PreparedContent(prepared, make_thumbnail(content.data) if make_thumbnail else None)

    def _upload(self, source: UploadSource, digest: bytes, made: Derived | PreparedContent) -> Upload:
        if made.is_truncated:
            self._truncated_texts.count_truncated_text()
        content = source.content
        text = content.text if isinstance(content, TextContent) else None
        return Upload(
            source.event,
            content.modality,
            text,
            digest,
            thumbnail=made.thumbnail,
            sha256=source.sha256,
            is_truncated=made.is_truncated,
        )


def content_from_bytes(data: bytes, modality: Modality) -> TextContent | ImageContent:
    """Return what a reference has given; raise `BadEvent` or `BadContent` if it is no content."""
    if not data.strip():
        raise BadEvent("empty_content", f"the referenced {modality} is empty")
    if modality == "image":
        return ImageContent(data)
    try:
        return TextContent(data.decode())
    except UnicodeDecodeError as error:
        raise BadContent("not_unicode", "the referenced text is not UTF-8") from error
