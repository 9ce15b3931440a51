"""The client that blocks."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
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


class Client:
    """A client of the query service at `address`. Close it, or use it as a context manager. Thread-safe.

    Where the service is busy (429, 503) or away, a call waits as the service says, for `patience_seconds`
    altogether. Every method may raise `CliptideError`.
    """

    def __init__(
        self,
        address: str,
        api_key: str | None = None,
        *,
        timeout_seconds: float = 30.0,
        patience_seconds: float = 30.0,
    ) -> None:
        self._connection = Connection(address, api_key, timeout_seconds, patience_seconds)
        self._http = httpx.Client(**self._connection.settings())

    def search(self, query: Query | str, **options: Unpack[SearchOptions]) -> Answer:
        """Find the contents nearest to a text, or to any other query."""
        return self._run(flows.search(query, options, self._connection.patience_seconds))

    def pages(self, query: Query | str, **options: Unpack[SearchOptions]) -> Iterator[Answer]:
        """Yield one page after another, up to the first 10,000 hits. `k` is the size of a page."""
        answer = self._run(flows.search(query, {**options, "paged": True}, self._connection.patience_seconds))
        yield answer
        while answer.next_cursor is not None:
            answer = self._run(flows.next_page(answer.next_cursor, self._connection.patience_seconds))
            yield answer

    def search_batch(self, queries: Sequence[tuple[Query | str, Mapping[str, Any]]]) -> list[Answer]:
        """Answer up to 64 queries, each with its options, which costs less than one by one."""
        return self._run(flows.search_batch(queries, self._connection.patience_seconds))

    def recommend(
        self,
        positive: Sequence[Query | str] = (),
        negative: Sequence[Query | str] = (),
        *,
        owner_id: str | None = None,
        **options: Unpack[RecommendOptions],
    ) -> Answer:
        """Find contents like the positive examples and unlike the negative ones, or for an owner."""
        examples = Examples(positive, negative, owner_id)
        return self._run(flows.recommend(examples, options, self._connection.patience_seconds))

    def upload(
        self,
        content_id: str,
        *,
        text: str | None = None,
        image: Picture | None = None,
        **fields: Unpack[UploadFields],
    ) -> Acknowledgement:
        """Write a content, or a new version of one. When this returns, it is in the log."""
        wanted = Upload(content_id, text, image, fields)
        return self._run(flows.upload(wanted, self._connection.patience_seconds))

    def upload_batch(self, uploads: Sequence[Upload]) -> list[Outcome]:
        """Write up to 64 contents in this order, and say of each what became of it."""
        return self._run(flows.upload_batch(uploads, self._connection.patience_seconds))

    def delete(self, content_id: str, *, version: int | None = None) -> Acknowledgement:
        return self._run(flows.delete(content_id, version, self._connection.patience_seconds))

    def patch(self, content_id: str, **changes: Any) -> Acknowledgement:
        """Change `title`, `link` or `metadata` without a new upload; None removes, in `metadata` too."""
        return self._run(flows.patch(content_id, changes, self._connection.patience_seconds))

    def delete_by_filter(
        self, row_filter: Mapping[str, Any], *, dry_run: bool = True, max_contents: int = 1000
    ) -> DeletedByFilter:
        """Delete every content that passes a filter, through the log; a dry run only counts them.

        If more than `max_contents` pass, nothing is deleted and `Refused` is raised (too_many_contents).
        """
        options = {"dry_run": dry_run, "max_contents": max_contents}
        return self._run(flows.delete_by_filter(row_filter, options, self._connection.patience_seconds))

    def content(self, content_id: str) -> Json | None:
        """Return all that is kept of a content, None if there is none."""
        return self._run(flows.get_content(content_id, self._connection.patience_seconds))

    def wait_for(self, acknowledgement: Acknowledgement, timeout_seconds: float = 30.0) -> None:
        """Wait until searches see what was written. Raises `NotInTime` and `NotIndexed`."""
        self._run(flows.wait_for(acknowledgement, timeout_seconds))

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, flow: Flow[ValueT]) -> ValueT:
        try:
            step = next(flow)
            while True:
                step = flow.send(self._carry_out(step))
        except StopIteration as end:
            value: ValueT = end.value
            return value

    def _carry_out(self, step: Call | Pause) -> Reply:
        if isinstance(step, Pause):
            time.sleep(step.seconds)
            return Reply(NO_ANSWER)  # which nobody reads
        try:
            return reply_of(self._http.request(**self._connection.arguments_of(step)))
        except httpx.HTTPError as error:
            return reply_without_answer(error, self._connection)
