"""What `/v1/embed` takes and answers."""

from __future__ import annotations

from pydantic import ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError
from typing_extensions import Self

from query_api.contents.index_models import EncoderAnswer
from query_api.contract.models import Answer, Base64Bytes, QueryText, Request, Timings
from query_api.contract.schema_rules import exactly_one_of

MAX_CONTENTS = 64


class EmbedContent(Request):
    """Exactly one of `text` and `image`."""

    model_config = ConfigDict(json_schema_extra=exactly_one_of(("text", "image")))

    text: QueryText | None = None
    image: Base64Bytes | None = Field(default=None, description="A JPEG, PNG, WebP or GIF file.")

    @model_validator(mode="after")
    def _has_one(self) -> Self:
        if (self.text is None) == (self.image is None):
            raise PydanticCustomError("one_query_required", "needs exactly one of text and image")
        return self


class EmbedRequest(Request):
    contents: list[EmbedContent] = Field(
        min_length=1, max_length=MAX_CONTENTS, description="Encoded together, and answered in this order."
    )


class EmbedAnswer(Answer):
    embeddings: list[list[list[float]]] = Field(
        description="For each content the unit vectors that an index holds of it: one of a picture, and one "
        "for each window of a text, of which most have one."
    )
    encoder: EncoderAnswer
    timings: Timings
