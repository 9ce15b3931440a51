"""A small log of uploads and deletes drawn from a seed, and the fold that defines its index."""

from __future__ import annotations

import random
from collections.abc import Sequence

from clip_index.content import Change, EncodedContent
from clip_index.fold import UNSEEN, IdState, fold
from fakes.shards import content, removal

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
    if dice.random() < 0.3:
        return content(content_id, offset, version=version, modality="text", num_rows=3, text="a red dress")
    thumbnail = b"webp" if dice.random() < 0.3 else None
    digest = dice.choice([None, bytes(range(32)), bytes(32)])
    return content(content_id, offset, version=version, owner_id="ann", thumbnail=thumbnail, digest=digest)


def folded(log: Log) -> dict[str, EncodedContent]:
    """Return the live content of each id after these changes. This defines what an index must hold."""
    states: dict[str, IdState] = {}
    live: dict[str, EncodedContent] = {}
    for change in log:
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
