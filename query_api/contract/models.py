"""What the models of all routes share: strictness, types of fields, and the error answer.

Requests are strict: a number is not taken for a string, an unknown field is an error, and
numbers must be finite. Each text, list and map of a request has a largest length. A list or a map
with `fail_fast` stops at its first wrong item. So an error costs no more than a good request.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from query_api.contract.schema_rules import NOT_BLANK, JsonSchema
from query_api.errors import ErrorDetail
from schemas.base64_text import NotBase64, bytes_from_base64

MAX_K = 1000
MAX_CONTENT_ID_BYTES = 512
MAX_TEXT_CHARACTERS = 20_000
MAX_WAIT_MS = 60_000
MAX_SHARDS = 4096
MAX_SHARD_NAME_CHARACTERS = 512
MAX_CURSOR_CHARACTERS = 768 * 1024  # a cursor carries its filter

Include = Literal["text", "metadata", "vector", "thumbnail", "thumbnail_url"]


class Request(BaseModel):
    """What a client sends."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, frozen=True)


class Answer(BaseModel):
    """What the service answers."""

    model_config = ConfigDict(frozen=True)


def _decode_picture(value: object) -> object:
    """Decode a picture in base64. The part of a form holds the picture itself, or a data URL."""
    if isinstance(value, bytes):
        return picture_of_part(value)
    if not isinstance(value, str):
        return value
    try:
        return bytes_from_base64(value)
    except NotBase64 as error:
        raise PydanticCustomError("bad_base64", "{reason}", {"reason": str(error)}) from None


def picture_of_part(value: bytes) -> bytes:
    """Return the picture in a form's part. A part that is no good data URL is returned as it is."""
    if value[:5].lower() != b"data:":
        return value
    try:
        return bytes_from_base64(value.decode("ascii"))
    except ValueError:
        return value


def split_list(value: object) -> object:
    """Split a list that is written as names separated by commas; any other value is returned as it is."""
    if not isinstance(value, str):
        return value
    items = value.split(",")
    if any(not item or item != item.strip() for item in items):
        raise PydanticCustomError("invalid_value", "must be names separated by commas, without blanks")
    return items


SEPARATED = Field(min_length=1, max_length=8, fail_fast=True)  # of a list that `split_list` has split
_BLANKS, _DIGIT = r"[ \t\r\n]*", r"([A-Za-z0-9+/_-][ \t\r\n]*)"
BASE64: JsonSchema = {
    "type": "string",
    "minLength": 1,
    "contentEncoding": "base64",
    "description": "Base64 of either alphabet, padded or not, in lines or not; or a data URL in base64.",
    "pattern": rf"^{_BLANKS}(data:[^,]*;base64,{_BLANKS})?({_DIGIT}{{4}})*{_DIGIT}{{2,4}}(={_BLANKS})*$",
}
Base64Bytes = Annotated[
    bytes,
    BeforeValidator(_decode_picture),
    Field(min_length=1),
    WithJsonSchema(BASE64),
]
ContentId = Annotated[str, StringConstraints(min_length=1, max_length=MAX_CONTENT_ID_BYTES)]
NextOffset = Annotated[int, Field(ge=0, lt=2**63)]
ShardName = Annotated[str, StringConstraints(max_length=MAX_SHARD_NAME_CHARACTERS)]
Cursor = Annotated[str, StringConstraints(min_length=1, max_length=MAX_CURSOR_CHARACTERS)]
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


class ReadyAnswer(StatusAnswer):
    problems: list[str] = Field(
        default_factory=list,
        description="What is wrong although searches are answered; left out if nothing is.",
    )


class ErrorBody(Answer):
    code: str = Field(description="A stable name of the error; clients may switch on it.")
    message: str
    request_id: str
    details: list[ErrorDetail] | None = None


class ErrorAnswer(Answer):
    error: ErrorBody
