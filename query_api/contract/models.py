"""What the bodies of all routes share: their strictness, the types of their fields, coverage and errors.

Requests are strict: a number is no string, an unknown field is an error, NaN is no number.
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


Timings = Annotated[dict[str, float], Field(description="Milliseconds spent in each stage.")]


class StatusAnswer(Answer):
    status: Literal["ok"] = "ok"


class ErrorBody(Answer):
    code: str = Field(description="Stable; clients may switch on it.")
    message: str
    request_id: str
    details: list[dict[str, Any]] | None = None


class ErrorAnswer(Answer):
    error: ErrorBody


FilePart = Annotated[
    bytes,
    Field(min_length=1, description="A JPEG, PNG, WebP or GIF file."),
    WithJsonSchema({"type": "string", "format": "binary", "minLength": 1}),
]


def _split_list(value: object) -> object:
    if not isinstance(value, str):
        return value
    items = value.split(",")
    if any(not item or item != item.strip() for item in items):
        raise PydanticCustomError("invalid_value", "must be names separated by commas alone, without blanks")
    return items


_Separated = Field(min_length=1, max_length=8)
