"""What the answers of stores mean, whichever library fetched them."""

from __future__ import annotations

import re

from aiohttp import ClientResponseError
from obstore.exceptions import PermissionDeniedError, UnauthenticatedError

from consumer.references.policy import ReferenceAbsent, ReferenceUnreachable, ReferenceWithheld

CHUNK_BYTES = 256 * 1024
_ANSWERED_BY_BUCKET = re.compile(r"Server returned non-2xx status code: (\d+)|Received redirect without")
"""How obstore tells an answer of the store from a store that does not answer: in its message alone."""


def check_etag(found: str | None, wanted: str | None) -> None:
    """Compare two entity tags as RFC 9110, 8.8.3.2, compares them weakly; quotation marks do not count."""
    if wanted is not None and (found is None or _opaque_tag(found) != _opaque_tag(wanted)):
        raise ReferenceAbsent("etag_mismatch", "the store has another version than the etag names")


def _opaque_tag(etag: str) -> str:
    return etag.strip().removeprefix("W/").strip('"')


def explained(error: Exception, *, is_answered: bool) -> ReferenceUnreachable | ReferenceWithheld:
    """Return what a failed attempt means: the store does not answer, or it does not give the object."""
    if isinstance(error, (PermissionDeniedError, UnauthenticatedError, PermissionError)):
        return ReferenceWithheld(f"not permitted: {type(error).__name__}")
    answer = _ANSWERED_BY_BUCKET.search(str(error))
    detail = f"{type(error).__name__}{f': answered {answer[1]}' if answer and answer[1] else ''}"
    is_answered = is_answered or answer is not None or isinstance(error, ClientResponseError)
    return ReferenceWithheld(detail) if is_answered else ReferenceUnreachable(detail)
