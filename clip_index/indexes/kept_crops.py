"""An index keeps the number of crops that it was created with, unless an operator asks for another one."""

from __future__ import annotations

from dataclasses import replace

from clip_index.encoder.picture_crops import max_crops_of
from clip_index.encoder.settings import EncoderSettings
from clip_index.errors import ClipIndexError
from clip_index.indexes.index_directory import IndexDirectory
from clip_index.storage.index_roots import IndexRoot
from clip_index.storage.shard_store import StoreUnreachable


def with_crops_of_index(settings: EncoderSettings, root: IndexRoot, index_id: str | None) -> EncoderSettings:
    """Take the most crops of a picture from the index that is there; without one, leave them to the encoder.

    Otherwise a later release with another default could not go on with an index, because pictures
    before and after would be found by different parts of them. An index that cannot be read is refused
    by whoever opens it. Raises `StoreUnreachable` if its store does not answer, because then it may be there.
    """
    if settings.max_crops is not None:
        return settings
    try:
        built_by = IndexDirectory.open(root, index_id).description.fingerprint
    except StoreUnreachable:
        raise
    except (ClipIndexError, OSError):
        return settings
    return replace(settings, max_crops=max_crops_of(built_by.windowing))
