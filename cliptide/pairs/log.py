"""Reads pairs from the log: the live contents that its upload events leave.

A picture whose metadata or title carries a caption is a pair. With a key, pictures and texts whose metadata
agrees in that key are pairs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from clip_index.fold import UNSEEN, IdState, fold
from clip_index.patching import patched_metadata, patched_text
from cliptide.pairs.pair import BadPair, Pair, metadata_texts
from event_log.records import Record
from schemas.codec import EventDecoder
from schemas.errors import BadEvent, UnknownSchema
from schemas.events import DeleteEvent, Event, ImageContent, PatchEvent, TextContent, UploadEvent


class LogPairs:
    """Folds records, and gives the pairs of the contents that are live at the end. Holds them in memory."""

    def __init__(self, decoder: EventDecoder, pair_key: str | None = None) -> None:
        self._decoder = decoder
        self._pair_key = pair_key
        self._states: dict[str, IdState] = {}
        self._live: dict[str, UploadEvent] = {}
        self._unreadable: list[BadPair] = []

    def add(self, record: Record) -> None:
        """Add one record of a partition, in the order of its offsets."""
        try:
            event = self._decoder.decode(
                key=record.key, value=record.value, headers=record.headers, timestamp_ms=record.timestamp_ms
            )
        except (BadEvent, UnknownSchema) as error:
            place = f"{record.topic}-{record.partition}@{record.offset}"
            self._unreadable.append(BadPair(place, "unreadable record", str(error)))
            return
        if event is not None:
            self._fold(event)

    def _fold(self, event: Event) -> None:
        if isinstance(event, PatchEvent):
            self._patch(event)
            return
        is_delete = isinstance(event, DeleteEvent)
        state = self._states.get(event.content_id, UNSEEN)
        after = fold(state, version=event.version, is_delete=is_delete)
        if after is None:
            return
        self._states[event.content_id] = after
        self._live.pop(event.content_id, None)
        if isinstance(event, UploadEvent):
            self._live[event.content_id] = event

    def _patch(self, event: PatchEvent) -> None:
        upload = self._live.get(event.content_id)
        if upload is None:
            return
        self._live[event.content_id] = replace(
            upload,
            title=patched_text("title", upload.title, event.title, event.remove),
            metadata=patched_metadata(upload.metadata, event.metadata, event.remove),
        )

    def pairs(self) -> Iterator[Pair | BadPair]:
        """Yield the pairs in the order of their content ids. A text without a picture is passed over."""
        yield from self._unreadable
        captions = self._captions_by_value() if self._pair_key else {}
        for content_id in sorted(self._live):
            event = self._live[content_id]
            if event.content.modality == "image":
                yield from self._pairs_of(event, captions)

    def _captions_by_value(self) -> dict[str, list[str]]:
        captions: dict[str, list[str]] = defaultdict(list)
        for content_id in sorted(self._live):
            event = self._live[content_id]
            if isinstance(event.content, TextContent):
                for value in self._values(event):
                    captions[value].append(event.content.text.strip())
        return captions

    def _values(self, event: UploadEvent) -> tuple[str, ...]:
        return metadata_texts(event.metadata).get(self._pair_key or "", ())

    def _pairs_of(self, event: UploadEvent, captions: dict[str, list[str]]) -> Iterator[Pair | BadPair]:
        if not isinstance(event.content, ImageContent):
            yield BadPair(
                event.content_id, "no picture", "the event refers to its picture, which is not fetched"
            )
            return
        found = [caption for value in self._values(event) for caption in captions.get(value, ())]
        own = event.metadata.get("caption") or event.title
        for caption in _each_once(found or [str(own or "").strip()]):
            metadata = metadata_texts(event.metadata)
            yield Pair(event.content_id, event.content_id, _reader(event.content), caption, metadata)


def _reader(content: ImageContent) -> Callable[[], bytes]:
    return lambda: content.data


def _each_once(captions: Iterable[str]) -> Iterable[str]:
    return dict.fromkeys(captions)
