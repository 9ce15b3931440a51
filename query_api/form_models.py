"""The forms that routes take, with their file parts, as the document shows them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, WithJsonSchema

from query_api.contract.models import Request
from query_api.search.texts import SearchForm
from query_api.uploads.models import UploadForm

FilePart = Annotated[
    bytes,
    Field(min_length=1, description="A JPEG, PNG, WebP or GIF file."),
    WithJsonSchema({"type": "string", "format": "binary", "minLength": 1}),
]


class SearchMultipart(SearchForm):
    """A search as a form: the picture, and either plain fields or a JSON part named `query`."""

    image: FilePart | None = None


class UploadMultipart(UploadForm):
    """An upload as a form: the picture, and either plain fields or a JSON part named `event`."""

    image: FilePart | None = None


class ImageQueryMultipart(Request):
    """A search by image alone."""

    image_file: FilePart
