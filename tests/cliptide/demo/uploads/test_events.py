import hashlib
from datetime import datetime, timezone
from pathlib import Path
from urllib.parse import quote

from cliptide.demo.garments.catalogue import build_catalogue
from cliptide.demo.uploads.events import REFERENCE_EVERY, UploadEvents, inline_content
from schemas.codec import EventDecoder
from schemas.events import ContentReference, ImageContent, TextContent, UploadEvent

NOW = datetime(2026, 3, 4, 5, 6, 7, 891_234, tzinfo=timezone.utc)
URL = "http://127.0.0.1:8080"


def test_a_content_of_the_catalogue_becomes_the_event_a_platform_would_publish(tmp_path: Path) -> None:
    events = UploadEvents(URL, tmp_path)
    image, text = build_catalogue(1, 1, seed=1)
    event = events.build(image, inline_content(image), NOW)
    assert event.content == ImageContent(image.image_bytes())
    assert event.content_id == image.content_id
    assert event.owner_id == image.owner_id
    assert event.metadata["colour"] == image.combination.colour
    thing = image.combination
    assert event.title == f"{thing.colour} {thing.pattern} {thing.garment}".capitalize()
    assert event.occurred_at == NOW.replace(microsecond=891_000)
    assert event.link == f"{URL}/v1/contents/{quote(image.content_id, safe='')}/thumbnail"
    of_text = events.build(text, inline_content(text), NOW)
    assert (of_text.content, of_text.link, of_text.title) == (TextContent(text.text), None, None)


def test_each_tenth_picture_is_published_as_a_reference_to_a_file(tmp_path: Path) -> None:
    catalogue = build_catalogue(2 * REFERENCE_EVERY, 3, seed=1)
    events = list(UploadEvents(URL, tmp_path).of(catalogue))
    assert [event.label for event in events] == [content.content_id for content in catalogue]
    decoder = EventDecoder()
    uploads = [decoder.decode(key=one.encoded.key, value=one.encoded.value, timestamp_ms=0) for one in events]
    assert all(isinstance(upload, UploadEvent) for upload in uploads)
    references = {u.content_id: u.content for u in uploads if isinstance(u.content, ContentReference)}
    assert sorted(references) == ["image-00009", "image-00019"]
    for content in catalogue:
        if content.content_id in references:
            data = (tmp_path / f"{content.content_id}.jpg").read_bytes()
            assert data == content.image_bytes()
            reference = references[content.content_id]
            assert (reference.sha256, reference.size_bytes) == (hashlib.sha256(data).hexdigest(), len(data))
