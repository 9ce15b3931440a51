"""What listeners are told."""

from __future__ import annotations

from pydantic import Field

from clip_index.content import Modality
from query_api.contract.models import Answer, Snapshot


class LiveState(Answer):
    """The data of each event."""

    num_contents: dict[Modality, int] = Field(description="Live contents.")
    seconds_behind: float | None = Field(
        description="Every record older than this is covered; null until each shard has told once."
    )
    snapshot: Snapshot
