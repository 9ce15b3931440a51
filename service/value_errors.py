"""What is wrong with a value, in the words of whoever wrote it; pydantic's address the author of a model."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from pydantic_core import ErrorDetails

_WORDS: Mapping[str, str] = MappingProxyType(
    {
        "missing": "is missing",
        "none_required": "must be left out here",
        "string_type": "must be a text",
        "string_unicode": "must be a text in Unicode",
        "bytes_type": "must be a text",
        "int_type": "must be a whole number",
        "int_from_float": "must be a whole number",
        "int_parsing": "must be a whole number",
        "int_parsing_size": "must be a whole number",
        "float_type": "must be a number",
        "float_parsing": "must be a number",
        "bool_type": "must be true or false",
        "bool_parsing": "must be true or false",
        "list_type": "must be a list",
        "tuple_type": "must be a list",
        "datetime_type": "must be a time such as 2026-05-04T10:11:12Z",
        "datetime_parsing": "must be a time such as 2026-05-04T10:11:12Z",
        "datetime_from_date_parsing": "must be a time such as 2026-05-04T10:11:12Z",
        "timezone_aware": "must have a time zone, such as Z or +02:00",
        "dict_type": "must be an object",
        "model_type": "must be an object",
        "model_attributes_type": "must be an object",
        "invalid_key": "must have texts as names",
        "finite_number": "must be a finite number",
        "greater_than": "must be greater than {gt}",
        "greater_than_equal": "must be at least {ge}",
        "less_than": "must be less than {lt}",
        "less_than_equal": "must be at most {le}",
        "too_short": "needs {min_length} or more entries",
        "too_long": "may have at most {max_length} entries",
        "string_too_short": "must not be empty",
        "bytes_too_short": "must not be empty",
        "string_too_long": "may have at most {max_length} characters",
        "string_pattern_mismatch": "must match {pattern}",
    }
)


def value_error(item: ErrorDetails) -> str:
    """Say what is wrong with a value, in a sentence that continues the name of its field."""
    kind, context = item["type"], item.get("ctx", {})
    if kind == "literal_error":
        return f"must be {str(context.get('expected', '')).replace(chr(39), '')}"
    words = _WORDS.get(kind)
    return item["msg"].removeprefix("Value error, ") if words is None else words.format_map(context)
