"""Vectors in requests: a list of numbers, or float32 numbers as bytes, which cost a tenth of the parsing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, TypeAlias

import numpy as np
from pydantic import Field, GetCoreSchemaHandler, GetPydanticSchema
from pydantic_core import CoreSchema, ErrorDetails, PydanticCustomError, core_schema

from query_api.contract.models import BASE64
from query_api.errors import ApiError
from schemas.base64_text import NotBase64, bytes_from_base64

MAX_VECTOR_NUMBERS = 4096
MAX_BASE64_CHARACTERS = 8 * MAX_VECTOR_NUMBERS  # three quarters of which may be digits
BYTES_OF_A_NUMBER = 4
FORMS = _NUMBERS, _BASE64 = "<numbers>", "<base64>"  # they stand behind the field where an error is found
_EITHER_FORM = "must be a list of numbers, or little-endian float32 numbers in base64"


def _from_base64(text: str) -> list[float]:
    try:
        data = bytes_from_base64(text)
    except NotBase64 as error:
        raise PydanticCustomError("bad_base64", "{reason}", {"reason": str(error)}) from None
    if len(data) % BYTES_OF_A_NUMBER:
        raise PydanticCustomError(
            "wrong_dimension",
            "has {size} bytes; each number is a little-endian float32 of 4 bytes",
            {"size": len(data)},
        )
    numbers = np.frombuffer(data, "<f4")
    if not np.isfinite(numbers).all():
        raise PydanticCustomError("finite_number", "must have finite numbers")
    return _as_list(numbers)


def _as_list(numbers: np.ndarray[Any, np.dtype[np.float32]]) -> list[float]:
    found: list[float] = numbers.tolist()
    return found


def _of_either_form(source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
    text = core_schema.no_info_after_validator_function(
        _from_base64,
        core_schema.str_schema(
            min_length=1,
            max_length=MAX_BASE64_CHARACTERS,
            metadata={"pydantic_js_updates": {"contentEncoding": "base64", "pattern": BASE64["pattern"]}},
        ),
    )
    return core_schema.union_schema([(handler(source), _NUMBERS), (text, _BASE64)])


Vector: TypeAlias = Annotated[
    list[float],
    Field(max_length=MAX_VECTOR_NUMBERS, fail_fast=True),
    GetPydanticSchema(_of_either_form),
]


def errors_of_one_form(found: Sequence[ErrorDetails]) -> list[ErrorDetails]:
    """Leave out what is wrong with a vector in the form that it does not have.

    pydantic tries both forms and reports both. Of a value of a third type one error is left.
    """
    no_lists = {error["loc"][:-1] for error in found if _is_of_another_type(error, _NUMBERS, "list_type")}
    kept: list[ErrorDetails] = []
    for error in found:
        if _is_of_another_type(error, _BASE64, "string_type"):
            if error["loc"][:-1] in no_lists:
                kept.append({**error, "type": "no_vector", "loc": error["loc"][:-1], "msg": _EITHER_FORM})
        elif not _is_of_another_type(error, _NUMBERS, "list_type"):
            loc = tuple(part for part in error["loc"] if part not in FORMS)
            kept.append({**error, "loc": loc})
    return kept


def _is_of_another_type(error: ErrorDetails, form: str, type_error: str) -> bool:
    return error["type"] == type_error and error["loc"][-1] == form


def vectors_from_bytes(body: bytes, dimension: int, *, max_vectors: int) -> list[list[float]]:
    """Return the vectors that lie one after another in a body; `ApiError` (422) if they do not."""
    size = BYTES_OF_A_NUMBER * dimension
    if not body or len(body) % size:
        message = f"the body has {len(body)} bytes; each vector has {size}: {dimension} little-endian float32"
        raise ApiError("wrong_dimension", message)
    if len(body) > max_vectors * size:
        message = f"the body has {len(body) // size} vectors; at most {max_vectors} are searched together"
        raise ApiError("out_of_range", message)
    numbers = np.frombuffer(body, "<f4").reshape(-1, dimension)
    is_good = np.isfinite(numbers).all(axis=1)
    if not is_good.all():
        raise ApiError("not_finite", f"vector {int(is_good.argmin())}: must have finite numbers")
    return [_as_list(row) for row in numbers]
