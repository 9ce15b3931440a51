"""What a patch makes of a content's facts."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from clip_index.content import ContentFacts, MetadataValue, PatchedContent

MAX_METADATA_ENTRIES = 64
MAX_METADATA_BYTES = 16 * 1024
"""What the rules of events allow in one upload. Patches together may not get beyond it either."""

_METADATA = "metadata"


def patched_facts(facts: ContentFacts, patch: PatchedContent) -> ContentFacts:
    """Return the facts with the patch: first it removes, then it sets."""
    return replace(
        facts,
        title=patched_text("title", facts.title, patch.title, patch.removed),
        link=patched_text("link", facts.link, patch.link, patch.removed),
        metadata=patched_metadata(facts.metadata, patch.metadata, patch.removed),
        patched_at_ms=patch.occurred_at_ms,
    )


def patched_text(name: str, old: str | None, new: str | None, removed: Collection[str]) -> str | None:
    """Return a title or a link after a patch; an empty one is none."""
    if new is not None:
        return new or None
    return None if name in removed else old


def patched_metadata(
    old: Mapping[str, MetadataValue], new: Mapping[str, MetadataValue], removed: Collection[str]
) -> dict[str, MetadataValue]:
    """Return metadata after a patch, within the limits of one upload."""
    if _METADATA in removed:
        return _bounded(new, new)
    kept = {key: value for key, value in old.items() if f"{_METADATA}.{key}" not in removed}
    return _bounded({**kept, **new}, new)


def _bounded(
    metadata: Mapping[str, MetadataValue], newest: Mapping[str, MetadataValue]
) -> dict[str, MetadataValue]:
    """Keep the patch's own entries, and of the others as many as there is room for, in order of their keys.

    A patch applies to whatever the index holds, so nobody can refuse it for being too much. The order is
    that of the keys, because a segment does not keep the order in which they came.
    """
    size = sum(_num_bytes(key, value) for key, value in metadata.items())
    if len(metadata) <= MAX_METADATA_ENTRIES and size <= MAX_METADATA_BYTES:
        return dict(metadata)
    bounded = dict(newest)
    room = MAX_METADATA_BYTES - sum(_num_bytes(key, value) for key, value in newest.items())
    for key in sorted(metadata.keys() - newest.keys()):
        room -= _num_bytes(key, metadata[key])
        if room < 0 or len(bounded) == MAX_METADATA_ENTRIES:
            break
        bounded[key] = metadata[key]
    return bounded


def _num_bytes(key: str, value: MetadataValue) -> int:
    texts = (value,) if isinstance(value, str) else value if isinstance(value, tuple) else ()
    return len(key.encode()) + sum(len(text.encode()) for text in texts)
