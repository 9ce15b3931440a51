"""Fields that take values of several types: one error for the field instead of one for each type."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError, ValidatorFunctionWrapHandler, WrapValidator
from pydantic_core import PydanticCustomError, PydanticKnownError


def one_of_types(words: str) -> WrapValidator:
    """Refuse a value of another type in these words; a value of a right type keeps the error of its own."""

    def validate(value: object, check: ValidatorFunctionWrapHandler) -> Any:
        try:
            return check(value)
        except ValidationError as error:
            found = error.errors(include_url=False, include_input=False)
        own = next((one for one in found if not one["type"].endswith(("_type", "_from_float"))), None)
        if own is None:
            raise PydanticCustomError("invalid_value", "must be {words}", {"words": words})
        raise PydanticKnownError(own["type"], own.get("ctx"))  # type: ignore[arg-type] # one of pydantic's own

    return WrapValidator(validate)
