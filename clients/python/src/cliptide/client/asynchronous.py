"""The client for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

import httpx
from cliptide.client import flows
from cliptide.client.connection import Connection, reply_of, reply_without_answer
from cliptide.client.flows import NO_ANSWER, Call, Examples, Flow, Pause, Reply
from cliptide.client.values import (
    Acknowledgement,
    Answer,
    DeletedByFilter,
    Json,
    Outcome,
    Picture,
    Query,
    Upload,
)

if TYPE_CHECKING:
    from cliptide.client.values import RecommendOptions, SearchOptions, UploadFields
    from typing_extensions import Self, Unpack

ValueT = TypeVar("ValueT")


class AsyncClient:
    """`Client` for asyncio: the same methods, to be awaited, and `pages` to be iterated by `async for`."""

    def __init__(
        self,
        address: str,
        api_key: str | None = None,
        *,
        timeout_seconds: float = 30.0,
        patience_seconds: float = 30.0,
    ) -> None:
        self._connection = Connection(address, api_key, timeout_seconds, patience_seconds)
        self._http = httpx.AsyncClient(**self._connection.settings())

    async def search(self, query: Query | str, **options: Unpack[SearchOptions]) -> Answer:
        return await self._run(flows.search(query, options, self._connection.patience_seconds))

    async def pages(self, query: Query | str, **options: Unpack[SearchOptions]) -> AsyncIterator[Answer]:
        patience_seconds = self._connection.patience_seconds
        answer = await self._run(flows.search(query, {**options, "paged": True}, patience_seconds))
        yield answer
        while answer.next_cursor is not None:
            answer = await self._run(flows.next_page(answer.next_cursor, patience_seconds))
            yield answer

    async def search_batch(self, queries: Sequence[tuple[Query | str, Mapping[str, Any]]]) -> list[Answer]:
        return await self._run(flows.search_batch(queries, self._connection.patience_seconds))

    async def recommend(
        self,
        positive: Sequence[Query | str] = (),
        negative: Sequence[Query | str] = (),
        *,
        owner_id: str | None = None,
        **options: Unpack[RecommendOptions],
    ) -> Answer:
        examples = Examples(positive, negative, owner_id)
        return await self._run(flows.recommend(examples, options, self._connection.patience_seconds))

    async def upload(
        self,
        content_id: str,
        *,
        text: str | None = None,
        image: Picture | None = None,
        **fields: Unpack[UploadFields],
    ) -> Acknowledgement:
        wanted = Upload(content_id, text, image, fields)
        return await self._run(flows.upload(wanted, self._connection.patience_seconds))

    async def upload_batch(self, uploads: Sequence[Upload]) -> list[Outcome]:
        return await self._run(flows.upload_batch(uploads, self._connection.patience_seconds))

    async def delete(self, content_id: str, *, version: int | None = None) -> Acknowledgement:
        return await self._run(flows.delete(content_id, version, self._connection.patience_seconds))

    async def patch(self, content_id: str, **changes: Any) -> Acknowledgement:
        return await self._run(flows.patch(content_id, changes, self._connection.patience_seconds))

    async def delete_by_filter(
        self, row_filter: Mapping[str, Any], *, dry_run: bool = True, max_contents: int = 1000
    ) -> DeletedByFilter:
        options = {"dry_run": dry_run, "max_contents": max_contents}
        flow = flows.delete_by_filter(row_filter, options, self._connection.patience_seconds)
        return await self._run(flow)

    async def content(self, content_id: str) -> Json | None:
        return await self._run(flows.get_content(content_id, self._connection.patience_seconds))

    async def wait_for(self, acknowledgement: Acknowledgement, timeout_seconds: float = 30.0) -> None:
        await self._run(flows.wait_for(acknowledgement, timeout_seconds))

    async def close(self) -> None:
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _run(self, flow: Flow[ValueT]) -> ValueT:
        try:
            step = next(flow)
            while True:
                step = flow.send(await self._carry_out(step))
        except StopIteration as end:
            value: ValueT = end.value
            return value

    async def _carry_out(self, step: Call | Pause) -> Reply:
        if isinstance(step, Pause):
            await asyncio.sleep(step.seconds)
            return Reply(NO_ANSWER)  # which nobody reads
        try:
            return reply_of(await self._http.request(**self._connection.arguments_of(step)))
        except httpx.HTTPError as error:
            return reply_without_answer(error, self._connection)
