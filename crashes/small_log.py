"""A small log of uploads, patches and deletes drawn from a seed, and the fold that defines its index."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from clip_index.content import Change, EncodedContent, PatchedContent
from clip_index.fold import UNSEEN, IdState, fold, takes_patch
from clip_index.patching import patched_facts
from fakes.shards import content, patch, removal

Log = Sequence[Change]


def build_log(seed: int, length: int) -> Log:
    """Draw a log over few ids, so that updates, deletes, old versions and returns are frequent."""
    dice = random.Random(seed)
    return [_change(dice, offset) for offset in range(length)]


def _change(dice: random.Random, offset: int) -> Change:
    content_id = dice.choice("abcdefgh")
    version = dice.choice([None, None, dice.randint(1, 6)])
    if dice.random() < 0.25:
        return removal(content_id, offset, version)
    if dice.random() < 0.2:
        return _patch(dice, content_id, offset)
    if dice.random() < 0.3:
        return content(content_id, offset, version=version, modality="text", num_rows=3, text="a red dress")
    thumbnail = b"webp" if dice.random() < 0.3 else None
    digest = dice.choice([None, bytes(range(32)), bytes(32)])
    return content(content_id, offset, version=version, owner_id="ann", thumbnail=thumbnail, digest=digest)


def _patch(dice: random.Random, content_id: str, offset: int) -> PatchedContent:
    removed = frozenset(dice.sample(["title", "link", "metadata", "metadata.colour"], k=dice.randint(0, 2)))
    title = dice.choice([None, f"title {offset}"])
    metadata = dice.choice([{}, {"colour": "red"}, {"size": float(offset), "sale": True, "tags": ("a", "b")}])
    return patch(content_id, offset, title=title, metadata=metadata, removed=removed)


def folded(log: Log) -> dict[str, EncodedContent]:
    """Return the live content of each id after these changes. This defines what an index must hold."""
    states: dict[str, IdState] = {}
    live: dict[str, EncodedContent] = {}
    for change in log:
        if isinstance(change, PatchedContent):
            if takes_patch(states.get(change.content_id, UNSEEN)):
                known = live[change.content_id]
                facts = patched_facts(known.facts, change)
                live[change.content_id] = replace(known, offset=change.offset, facts=facts)
            continue
        uploaded = change if isinstance(change, EncodedContent) else None
        before = states.get(change.content_id, UNSEEN)
        after = fold(before, version=change.version, is_delete=uploaded is None)
        if after is None:
            continue
        states[change.content_id] = after
        live.pop(change.content_id, None)
        if uploaded is not None:
            live[change.content_id] = uploaded
    return live
