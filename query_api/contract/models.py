"""What the bodies of all routes share: their strictness, the types of their fields, coverage and errors.

Requests are strict: a number is no string, an unknown field is an error, NaN is no number.
"""

from __future__ import annotations

import base64
import binascii
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, WithJsonSchema
from pydantic_core import PydanticCustomError

from query_api.contract.schema_rules import NOT_BLANK, JsonSchema

MAX_K = 1000
MAX_CONTENT_ID_BYTES = 512
MAX_TEXT_CHARACTERS = 20_000
MAX_WAIT_MS = 60_000
_EPOCH = datetime(1970, 1, 1)  # UTC, without saying so in each text made from it

Include = Literal["text", "metadata", "vector", "thumbnail", "thumbnail_url"]


class Request(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, frozen=True)


class Answer(BaseModel):
    model_config = ConfigDict(frozen=True)


def _decode_base64(value: object) -> object:
    if not isinstance(value, str):  # bytes of a multipart part are what they are
        return value
    try:
        if len(value) % 4 == 0:  # Python takes more padding than there should be
            return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        pass
    raise PydanticCustomError("bad_base64", "must be base64 (standard alphabet, padded)")


BASE64: JsonSchema = {
    "type": "string",
    "minLength": 1,
    "contentEncoding": "base64",
    "pattern": "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$",
}
Base64Bytes = Annotated[
    bytes,
    BeforeValidator(_decode_base64),
    Field(min_length=1),
    WithJsonSchema(BASE64),
]
ContentId = Annotated[str, StringConstraints(min_length=1, max_length=MAX_CONTENT_ID_BYTES)]
NextOffset = Annotated[int, Field(ge=0, lt=2**63)]
QueryText = Annotated[
    str,
    StringConstraints(min_length=1, max_length=MAX_TEXT_CHARACTERS),
    Field(json_schema_extra=NOT_BLANK),
]
FieldText = Annotated[str, StringConstraints(min_length=1, max_length=MAX_TEXT_CHARACTERS)]
RfcTime = Annotated[str, Field(json_schema_extra={"format": "date-time"})]


def rfc_time(milliseconds: int) -> str:
    """Write a time in milliseconds since 1970 as RFC 3339, UTC."""
    text = (_EPOCH + timedelta(0, 0, 0, milliseconds)).isoformat()  # microseconds, unless they are zero
    return text[:23] + "Z"


class ShardCoverage(Answer):
    """What one shard's snapshot covers: every event below `next_offset`, every one up to the watermark."""

    generation: int
    next_offset: int
    watermark: RfcTime | None


Timings = Annotated[dict[str, float], Field(description="Milliseconds spent in each stage.")]
Snapshot = Annotated[dict[str, ShardCoverage], Field(description="Shard → what the answer covers of it.")]


class StatusAnswer(Answer):
    status: Literal["ok"] = "ok"


class ErrorBody(Answer):
    code: str = Field(description="Stable; clients may switch on it.")
    message: str
    request_id: str
    details: list[dict[str, Any]] | None = None


class ErrorAnswer(Answer):
    error: ErrorBody
