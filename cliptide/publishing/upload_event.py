"""Turns a checked row into an upload event: it reads the file, or refers to it."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from urllib.parse import quote

from cliptide.publishing.upload_row import UploadFields, UploadRow
from cliptide.publishing.upload_sources import modality_of_file
from schemas.events import Content, ContentReference, ImageContent, Modality, TextContent, UploadEvent

EVENT_NAMESPACE = uuid.UUID("5f0f2f0e-7a0c-5c0e-9d55-0d2a9d1c7b11")


class BadUpload(Exception):
    """The row cannot become an event; the message says why."""


@dataclass(frozen=True, slots=True)
class InlineLimit:
    """What happens to contents above `num_bytes`: they are refused, or published as references (`refer`).

    The address of a reference is `reference_base` and the file's path below the source's folder. Without
    a base it is the file's own `file://` address.
    """

    num_bytes: int
    refer: bool = False
    reference_base: str | None = None


@dataclass(frozen=True, slots=True)
class EventBuilder:
    """Builds upload events. The same row gives the same content id and event id in every run."""

    source: str
    inline_limit: InlineLimit
    id_prefix: str = ""  # of the ids that are made here
    now: Callable[[], datetime] = lambda: datetime.now(timezone.utc)

    def build(self, row: UploadRow) -> UploadEvent:
        """Build the row's event. Raises `BadUpload` if its file is missing, empty or too large."""
        fields = row.fields
        content_id = self.content_id_of(row)
        source = fields.source or self.source
        content = self._content(row)
        return UploadEvent(
            event_id=_event_id(source, content_id, fields.version, content),
            content_id=content_id,
            source=source,
            occurred_at=_to_milliseconds(fields.occurred_at or self.now()),
            content=content,
            version=fields.version,
            owner_id=fields.owner_id,
            link=fields.link,
            metadata={**fields.metadata, **fields.descriptions},
            title=fields.shown_title,
        )

    def content_id_of(self, row: UploadRow) -> str:
        """Return the row's own id, or one that is made of its path, text or link and the prefix."""
        return row.fields.content_id or self.id_prefix + default_content_id(row.fields)

    def _content(self, row: UploadRow) -> Content:
        if row.fields.text is not None:
            return TextContent(row.fields.text)
        if row.fields.file is not None:
            return self._content_of_file(row, row.fields.file)
        return _reference_from_fields(row.fields)

    def _content_of_file(self, row: UploadRow, name: str) -> Content:
        path = row.folder / name
        try:
            modality = row.fields.modality or _modality_of(path)
            size = path.stat().st_size
            if size == 0:
                raise BadUpload(f"{name} is empty")
            if size > self.inline_limit.num_bytes:
                return self._reference(path, name, modality, size)
            return _inline(path.read_bytes(), name, modality)
        except OSError as error:
            raise BadUpload(f"{name} cannot be read ({error.strerror})") from error
        except ValueError as error:  # the name holds a zero byte
            raise BadUpload(f"{name} cannot be read ({error})") from error

    def _reference(self, path: Path, name: str, modality: Modality, size: int) -> ContentReference:
        limit = self.inline_limit
        if not limit.refer:
            raise BadUpload(f"{name}: {size} bytes, the inline limit is {limit.num_bytes} (see --reference)")
        if limit.reference_base is None:
            uri = path.resolve().as_uri()
        else:
            uri = f"{limit.reference_base.rstrip('/')}/{quote(Path(name).as_posix())}"
        return ContentReference(uri, _sha256_of_file(path), size, modality)


def default_content_id(fields: UploadFields) -> str:
    """Choose an id for a content without one: its path, a digest of its text, or its link.

    These are the same in the next run, so a second run replaces contents instead of adding them again.
    """
    if fields.file is not None:
        return Path(fields.file).as_posix()
    if fields.text is not None:
        return f"text-{_sha256(fields.text)[:32]}"
    return str(fields.link)


def _reference_from_fields(fields: UploadFields) -> ContentReference:
    if not (fields.link and fields.modality):
        raise BadUpload("a link without file or text needs modality")
    return ContentReference(fields.link, fields.sha256, fields.size_bytes, fields.modality)


def _inline(data: bytes, name: str, modality: Modality) -> Content:
    if modality == "image":
        return ImageContent(data)
    try:
        return TextContent(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise BadUpload(f"{name} is not UTF-8 text ({error.reason} at byte {error.start})") from error


def _modality_of(path: Path) -> Modality:
    modality = modality_of_file(path)
    if modality is None:
        raise BadUpload(f"{path.name}: neither its name nor its bytes tell picture from text; give modality")
    return modality


def _event_id(source: str, content_id: str, version: int | None, content: Content) -> str:
    name = "\n".join((source, content_id, str(version), _digest(content)))
    return str(uuid.uuid5(EVENT_NAMESPACE, _sha256(name)))


def _digest(content: Content) -> str:
    if isinstance(content, ContentReference):
        return content.sha256 or _sha256(content.uri)
    if isinstance(content, TextContent):
        return _sha256(content.text)
    return hashlib.sha256(content.data).hexdigest()


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _sha256_of_file(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _to_milliseconds(moment: datetime) -> datetime:
    """Convert to UTC and drop what is finer than a millisecond, as events require."""
    try:
        utc = moment.astimezone(timezone.utc)
    except OverflowError:
        raise BadUpload("occurred_at: in UTC it lies before the year 1 or after the year 9999") from None
    return utc.replace(microsecond=utc.microsecond // 1000 * 1000)
