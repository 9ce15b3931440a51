from datetime import datetime, timezone

from cliptide.pairs.log import LogPairs
from cliptide.pairs.pair import BadPair, Pair
from event_log.records import Record
from schemas.codec import EventDecoder, encode_event
from schemas.events import (
    Content,
    ContentReference,
    DeleteEvent,
    Event,
    ImageContent,
    MetadataValue,
    PatchEvent,
    TextContent,
    UploadEvent,
)

NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)


def upload(content_id: str, content: Content, title: str | None = None, **metadata: MetadataValue) -> Event:
    return UploadEvent("e", content_id, "shop", NOW, content, metadata=metadata, title=title)


def read(*events: Event, pair_key: str | None = None) -> list[Pair | BadPair]:
    found = LogPairs(EventDecoder(), pair_key)
    for offset, event in enumerate(events):
        found.add(record(offset, event.content_id, encode_event(event).value))
    return list(found.pairs())


def record(offset: int, key: str, value: bytes) -> Record:
    return Record("uploads", 0, offset, key.encode(), value, (), 0, 1)


def test_live_pictures_with_a_caption_or_a_title_are_pairs():
    pairs = read(
        upload("b", ImageContent(b"old"), caption="an old cap"),
        upload("a", ImageContent(b"a"), title="a scarf"),
        upload("b", ImageContent(b"new"), caption="a new cap"),
        upload("c", ImageContent(b"c"), caption="gone"),
        DeleteEvent("e", "c", "shop", NOW),
        upload("note", TextContent("a note")),
    )

    assert [(p.content_id, p.caption, p.read()) for p in pairs if isinstance(p, Pair)] == [
        ("a", "a scarf", b"a"),
        ("b", "a new cap", b"new"),
    ]
    assert len(pairs) == 2


def test_a_patch_changes_the_caption_of_a_live_picture_alone():
    pairs = read(
        upload("a", ImageContent(b"a"), caption="a cap"),
        PatchEvent("e", "a", "shop", NOW, metadata={"caption": "a red cap"}),
        upload("b", ImageContent(b"b"), title="a scarf", caption="a scarf"),
        PatchEvent("e", "b", "shop", NOW, title="a long scarf", remove=("metadata.caption",)),
        PatchEvent("e", "nobody", "shop", NOW, title="a hat"),
    )
    assert [pair.caption for pair in pairs if isinstance(pair, Pair)] == ["a red cap", "a long scarf"]


def test_pictures_and_texts_that_share_a_key_are_pairs():
    pairs = read(
        upload("picture", ImageContent(b"x"), sku="7"),
        upload("text 1", TextContent("a cap"), sku="7"),
        upload("text 2", TextContent("a blue cap"), sku="7"),
        upload("text 3", TextContent("a boot"), sku="8"),
        pair_key="sku",
    )

    assert [(p.content_id, p.caption) for p in pairs if isinstance(p, Pair)] == [
        ("picture", "a cap"),
        ("picture", "a blue cap"),
    ]


def test_references_and_records_that_cannot_be_read_are_bad_pairs():
    reference = ContentReference("https://x/a.png", None, None, "image")
    found = LogPairs(EventDecoder())
    found.add(record(0, "a", encode_event(upload("a", reference, caption="a cap")).value))
    found.add(record(1, "b", b"nonsense"))

    bad = [one for one in found.pairs() if isinstance(one, BadPair)]

    assert [(one.label, one.reason) for one in bad] == [
        ("uploads-0@1", "unreadable record"),
        ("a", "no picture"),
    ]
