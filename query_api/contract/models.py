"""What the models of all routes share: strictness, types of fields, and the error answer.

Requests are strict: a number is not taken for a string, an unknown field is an error, and
numbers must be finite.
"""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, WithJsonSchema
from pydantic_core import PydanticCustomError

from query_api.contract.schema_rules import NOT_BLANK, JsonSchema

MAX_K = 1000
MAX_CONTENT_ID_BYTES = 512
MAX_TEXT_CHARACTERS = 20_000
MAX_WAIT_MS = 60_000

Include = Literal["text", "metadata", "vector", "thumbnail", "thumbnail_url"]


class Request(BaseModel):
    """What a client sends."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, frozen=True)


class Answer(BaseModel):
    """What the service answers."""

    model_config = ConfigDict(frozen=True)


def _decode_base64(value: object) -> object:
    if not isinstance(value, str):  # the bytes of a form's part are not in base64
        return value
    try:
        if len(value) % 4 == 0:  # Python accepts surplus padding
            return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        pass
    raise PydanticCustomError("bad_base64", "must be base64 (standard alphabet, padded)")


def split_list(value: object) -> object:
    """Split a list that is written as names separated by commas; any other value is returned as it is."""
    if not isinstance(value, str):
        return value
    items = value.split(",")
    if any(not item or item != item.strip() for item in items):
        raise PydanticCustomError("invalid_value", "must be names separated by commas, without blanks")
    return items


SEPARATED = Field(min_length=1, max_length=8)  # of a list that `split_list` has split
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
FilePart = Annotated[
    bytes,
    Field(min_length=1, description="A JPEG, PNG, WebP, GIF, AVIF, TIFF, BMP, ICO or JPEG 2000 file."),
    WithJsonSchema({"type": "string", "format": "binary", "minLength": 1}),
]
Timings = Annotated[dict[str, float], Field(description="Milliseconds spent in each stage.")]


class StatusAnswer(Answer):
    status: Literal["ok"] = "ok"


class ErrorBody(Answer):
    code: str = Field(description="A stable name of the error; clients may switch on it.")
    message: str
    request_id: str
    details: list[dict[str, Any]] | None = None


class ErrorAnswer(Answer):
    error: ErrorBody
