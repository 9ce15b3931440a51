"""Tries the store of uploaded contents: the query service writes it, the consumer reads it."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator
from contextlib import aclosing

import consumer.settings
import query_api.settings
from cliptide.doctor.findings import Finding, failed, ok
from cliptide.terminal.waiting import waiting_told
from consumer.references.policy import (
    ReferenceAbsent,
    ReferencePolicy,
    ReferenceRefused,
    ReferenceUnreachable,
)
from consumer.references.signed_objects import open_bucket_session
from consumer.references.stores import BucketStore, FileStore
from consumer.starting.options_from_settings import options_from_settings
from query_api.uploads.contents_store import Kept
from service.environment import BadSettings

_CHECK = "contents"
_STORE = "CLIPTIDE_QUERY_API__CONTENTS_STORE"
_PROBE = b"cliptide doctor\n"
_DIGEST = hashlib.sha256(_PROBE).hexdigest()
_SECONDS = 20.0


def check_contents_store(
    of_query_service: query_api.settings.Settings, of_consumer: consumer.settings.Settings
) -> Iterator[Finding]:
    """Keep a text of 16 bytes, and fetch it as the consumer would. Without a store nothing is said."""
    url = of_query_service.query_api.contents_store
    if url is None:
        return
    from query_api.opened_uploads import open_contents_store  # here: it brings the whole service

    try:
        with waiting_told(f"the store {url}"):
            store = open_contents_store(of_query_service.query_api)
            assert store is not None
            kept = store.keep(_DIGEST, _PROBE)
    except (BadSettings, OSError) as error:
        yield failed(_CHECK, f"{url} takes no contents: {error}", f"correct {_STORE} and its credentials")
        return
    yield ok(_CHECK, f"{url} takes contents (a text of {len(_PROBE)} bytes stays there)")
    yield _fetch(kept, options_from_settings(of_consumer).references)


def _fetch(kept: Kept, policy: ReferencePolicy) -> Finding:
    try:
        found = asyncio.run(_read(kept.uri, policy))
    except ReferenceRefused as error:
        remedy = "allow it: CLIPTIDE_CONSUMER__REFERENCE_BUCKETS, or __REFERENCE_FILE_ROOTS for a directory"
        return failed(_CHECK, f"the consumer would not fetch what is stored: {error}", remedy)
    except (ReferenceAbsent, ReferenceUnreachable, asyncio.TimeoutError) as error:
        remedy = "give the consumer credentials of the store with which it may read"
        return failed(_CHECK, f"the consumer cannot fetch what is stored: {error}", remedy)
    if found != _PROBE:
        remedy = f"see what else writes to {_STORE}"
        return failed(_CHECK, "what the consumer fetches is not what was stored", remedy)
    return ok(_CHECK, "the consumer may fetch what is stored, and can")


async def _read(uri: str, policy: ReferencePolicy) -> bytes:
    kind = policy.admit(uri, len(_PROBE))
    async with open_bucket_session(_SECONDS) as session:
        store = FileStore(policy) if kind == "file" else BucketStore(session, _SECONDS)
        async with aclosing(store.stream(uri, None)) as stream:
            return b"".join([chunk async for chunk in stream])
