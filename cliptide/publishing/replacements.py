"""Which contents of the index a run will replace, because they have the same content ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

from cliptide.searching.query_client import IndexState, QueryServiceError
from cliptide.terminal.summary import counted
from schemas.validation import MAX_ID_BYTES

LOOK_UP_TIMEOUT_SECONDS = 10.0
_NUM_NAMED = 3


class KnownContents(Protocol):
    """The part of a query client that a look-up of ids needs."""

    def index(self) -> IndexState: ...

    def known_ids(self, content_ids: Sequence[str]) -> set[str]: ...


class NotKnown(Exception):
    """The query service cannot tell which contents the topic's index holds; the message says why."""


def ids_in_index(view: KnownContents, topic: str, content_ids: Sequence[str]) -> set[str]:
    """Return the ids that have a live content in the topic's index, or raise `NotKnown`."""
    try:
        shards = view.index().next_offsets
        if any(shard.rpartition("-")[0] == topic for shard in shards):
            return view.known_ids(list(filter(is_content_id, content_ids)))
    except QueryServiceError as error:
        raise NotKnown(str(error)) from error
    raise NotKnown(f"the query service holds no index of the topic {topic}")


def is_content_id(text: str) -> bool:
    """Whether a content can have this id. The query service refuses a call that names another text."""
    try:
        return 0 < len(text.encode()) <= MAX_ID_BYTES
    except UnicodeEncodeError:  # an argument of the command line that is not UTF-8
        return False


@dataclass(slots=True)
class SameIds:
    """The content ids of a run, and what is wrong with them.

    `repeated` names the ids that several rows of the run have: the last row replaces the others.
    `in_index` names those that the index holds before the run; None if that is not known.
    """

    content_ids: dict[str, None]
    repeated: dict[str, None]
    in_index: set[str] | None = None

    @classmethod
    def none(cls) -> SameIds:
        return cls({}, {})

    def add(self, content_id: str) -> None:
        kept = self.repeated if content_id in self.content_ids else self.content_ids
        kept[content_id] = None

    @property
    def num_replaced(self) -> int | None:
        return None if self.in_index is None else len(self.in_index)

    def in_words(self) -> list[str]:
        """Say which contents are going to be replaced, in one line for each way."""
        lines = []
        if self.in_index:
            named = [content_id for content_id in self.content_ids if content_id in self.in_index]
            which = f"{counted(len(named), 'content id')} of {len(self.content_ids):,}"
            verb = "is" if len(named) == 1 else "are"
            lines.append(f"{which} {verb} in the index already: the uploads replace {_examples(named)}")
        if self.repeated:
            which = counted(len(self.repeated), "content id")
            verb = "names" if len(self.repeated) == 1 else "name"
            lines.append(
                f"{which} {verb} several rows, of which the last one stays: {_examples(self.repeated)}"
            )
        return lines


def _examples(content_ids: Sequence[str] | dict[str, None]) -> str:
    more = ", …" if len(content_ids) > _NUM_NAMED else ""
    return ", ".join(islice(content_ids, _NUM_NAMED)) + more
