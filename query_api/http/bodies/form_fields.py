"""The plain fields of a form: texts, of known names."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from query_api.contract.utf8 import text_from_bytes
from query_api.errors import ApiError, ErrorDetail

PICTURE = "image"


def read_plain_fields(
    fields: Mapping[str, bytes], known: Collection[str], *, code: str = "not_unicode"
) -> dict[str, str]:
    """Decode a form's plain fields; `ApiError` names a part of another name, or one that is not UTF-8.

    Names come first: a picture in a part of the wrong name is not UTF-8 either, and its name is the mistake.
    """
    if (unknown := next((name for name in fields if name not in known), None)) is not None:
        message = f"unknown field; send a picture as {PICTURE}; other parts are {', '.join(sorted(known))}"
        detail = ErrorDetail(field=unknown, code="unknown_field", message=message)
        raise ApiError("unknown_field", f"{unknown}: {message}", details=[detail])
    return {name: text_from_bytes(value, f"the part {name}", code=code) for name, value in fields.items()}
