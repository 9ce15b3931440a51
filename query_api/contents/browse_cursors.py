"""Where browsing goes on: the last position of each modality, readable by anybody.

It needs no signature and no generation: it gives no access that browsing does not give, and
its positions mean the same in every searcher.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, RootModel, ValidationError

from clip_index.content import Modality
from clip_index.reading.browsing import TimePosition
from query_api.errors import ApiError

Int64 = Annotated[int, Field(ge=-(2**63), lt=2**63)]


class _Position(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    occurred_at_ms: Int64
    shard: str
    offset: Int64


class _Payload(RootModel[Annotated[dict[Modality, _Position], Field(min_length=1)]]):
    pass


def write_browse_cursor(positions: Mapping[Modality, TimePosition]) -> str:
    payload = _Payload.model_validate(
        {modality: asdict(position) for modality, position in positions.items()}
    )
    return base64.urlsafe_b64encode(payload.model_dump_json().encode()).decode()


def read_browse_cursor(cursor: str) -> dict[Modality, TimePosition]:
    """Return the last positions of the modalities that go on, or raise `bad_cursor`."""
    try:
        decoded = base64.b64decode(cursor.encode("ascii"), altchars=b"-_", validate=True)
        payload = _Payload.model_validate_json(decoded)
    except (binascii.Error, UnicodeEncodeError, ValidationError):
        raise ApiError("bad_cursor", "this is no cursor of browsing") from None
    return {modality: TimePosition(**position.model_dump()) for modality, position in payload.root.items()}
