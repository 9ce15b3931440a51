"""A cluster in trouble, and indexes that somebody has made or changed by hand, on a real node."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from clip_index.content import Delta
from clip_index.errors import Fenced
from fakes.shards import content, description, unit_vectors
from opensearch_engine.connection import Connection, Json
from opensearch_engine.errors import EngineMissing, EngineRefused, EngineUnavailable
from opensearch_engine.index import OpenSearchIndex, create_index
from opensearch_engine.layout import contents_index
from opensearch_engine.reader import OpenSearchReader
from opensearch_engine.shards import OpenSearchShards, OpenSearchShardWriter
from opensearch_engine.snapshot import StoredOffset

NAME = "cliptide-main-contents-1"


def own(index: OpenSearchIndex) -> OpenSearchShardWriter:
    return OpenSearchShards(index, "writer").become_owner(0, first_offset=0, own_epoch=None)


def add(writer: OpenSearchShardWriter, *content_ids: str) -> None:
    first = writer.next_offset
    changes = [content(content_id, first + n) for n, content_id in enumerate(content_ids)]
    writer.add(Delta(first, first + len(changes), changes))


def create_by_hand(connection: Connection, change: Callable[[Json], object]) -> None:
    body = contents_index(connection.settings, "main", 16)
    change(body)
    connection.ask("PUT", f"/{NAME}", body)


def as_text(body: Json) -> None:
    """What OpenSearch guesses where no mapping was given."""
    body["mappings"]["properties"]["shard"] = {"type": "text", "fields": {"keyword": {"type": "keyword"}}}


def without_owners(body: Json) -> None:
    del body["mappings"]["properties"]["owner_id"]


def by_distance(body: Json) -> None:
    body["mappings"]["properties"]["vectors"]["properties"]["image"]["method"]["space_type"] = "l2"


def with_guesses(body: Json) -> None:
    body["mappings"]["dynamic"] = True


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        pytest.param(as_text, r"maps shard as text, where cliptide needs keyword", id="a text for a keyword"),
        pytest.param(
            without_owners, r"does not map owner_id, which cliptide needs as keyword", id="no field"
        ),
        pytest.param(
            by_distance, r"compares vectors by l2, where cliptide needs innerproduct", id="distances"
        ),
        pytest.param(with_guesses, r"maps fields by guess: set its dynamic to false", id="dynamic"),
    ],
)
def test_an_index_made_by_hand_with_another_mapping_is_refused(
    connection: Connection, tmp_path: Path, change: Callable[[Json], object], sentence: str
) -> None:
    create_by_hand(connection, change)
    with pytest.raises(EngineRefused, match=rf"{NAME} {sentence}"):
        create_index(connection, tmp_path, "main", description())


def test_an_alias_of_two_indexes_is_refused(index: OpenSearchIndex, tmp_path: Path) -> None:
    connection = index.connection
    body = contents_index(connection.settings, "main", 16)
    connection.ask("PUT", "/cliptide-main-contents-2", body)
    with pytest.raises(EngineRefused, match=r"is an alias of 2 indexes \(cliptide-main-contents-1, cliptide"):
        create_index(connection, tmp_path, "main", index.description)


def test_an_index_in_the_place_of_the_alias_is_refused(index: OpenSearchIndex, tmp_path: Path) -> None:
    connection = index.connection
    connection.ask("DELETE", f"/{NAME}")
    body = contents_index(connection.settings, "main", 16)
    del body["aliases"]
    connection.ask("PUT", f"/{index.contents}", body)
    with pytest.raises(EngineRefused, match=r"cliptide-main-contents is an index, where an alias is needed"):
        create_index(connection, tmp_path, "main", index.description)


@pytest.mark.parametrize("block", ["read_only_allow_delete", "write", "read_only"])
def test_an_index_that_takes_no_writes_is_waited_for(index: OpenSearchIndex, block: str) -> None:
    """A disk that is nearly full (flood stage) sets the first one."""
    writer = own(index)
    add(writer, "a", "b")
    name, ask = f"/{index.contents}/_settings", index.connection.ask
    ask("PUT", name, {f"index.blocks.{block}": True})
    with pytest.raises(EngineUnavailable, match="cluster_block_exception"):
        writer.commit()
    ask("PUT", name, {f"index.blocks.{block}": None})
    assert writer.commit() == 2
    assert ids_of(index) == ["a", "b"]


def test_progress_that_takes_no_writes_is_waited_for(index: OpenSearchIndex) -> None:
    writer = own(index)
    add(writer, "a")
    name, ask = f"/{index.state}/_settings", index.connection.ask
    ask("PUT", name, {"index.blocks.read_only_allow_delete": True})
    with pytest.raises(EngineUnavailable, match="cluster_block_exception"):
        writer.commit()
    ask("PUT", name, {"index.blocks.read_only_allow_delete": None})
    assert writer.commit() == 1


def ids_of(index: OpenSearchIndex) -> list[str]:
    reader = OpenSearchReader(index.connection, "main")
    reader.reload()
    assert reader.searcher is not None
    hits = reader.searcher.search(unit_vectors(1), k=10, modality="image")[0]
    return sorted(hit.content_id for hit in hits)


def close(connection: Connection) -> None:
    connection.ask("POST", f"/{NAME}/_close")


def open_again(connection: Connection) -> None:
    connection.ask("POST", f"/{NAME}/_open", wait_for_active_shards=0)


@pytest.fixture
def served(index: OpenSearchIndex) -> tuple[OpenSearchShardWriter, OpenSearchReader]:
    writer, reader = own(index), OpenSearchReader(index.connection, "main", clock=Ticks().tick)
    add(writer, "a")
    writer.commit()
    reader.reload()
    return writer, reader


class Ticks:
    """A clock by which the contents are counted at each reload."""

    seconds = 0.0

    def tick(self) -> float:
        self.seconds += 10.0
        return self.seconds


def test_an_index_that_is_closed_for_a_while_is_waited_for(
    index: OpenSearchIndex, served: tuple[OpenSearchShardWriter, OpenSearchReader]
) -> None:
    """As during the restore of a snapshot."""
    writer, reader = served
    close(index.connection)
    add_fails = pytest.raises(EngineUnavailable, match=r"index_closed_exception|cluster_block_exception")
    with add_fails:
        add(writer, "b")
    assert reader.searcher is not None
    with pytest.raises(EngineUnavailable, match=r"index_closed_exception|cluster_block_exception"):
        reader.searcher.search(unit_vectors(1), k=10, modality="image")
    open_again(index.connection)
    eventually_active(index.connection)
    add(writer, "b")
    writer.commit()
    assert ids_of(index) == ["a", "b"]


@pytest.mark.parametrize("share", ["all", "half"])
def test_a_shard_that_is_nowhere_is_an_error_and_never_a_smaller_answer(
    index: OpenSearchIndex, served: tuple[OpenSearchShardWriter, OpenSearchReader], share: str
) -> None:
    writer, reader = served
    put_nowhere(index.connection, share)
    assert reader.searcher is not None
    asks = {
        "search": lambda: reader.searcher.search(unit_vectors(1), k=10, modality="image"),
        "newest": lambda: reader.searcher.newest(k=10, modality="image"),
        "count": lambda: reader.searcher.count_values("owner_id", max_values=10),
        "scan": lambda: list(reader.searcher.stored_offsets()),
    }
    if share == "all":  # by its id a content may lie in the half that is there
        asks |= {"add": lambda: add(writer, "b"), "find": lambda: reader.searcher.find("a")}
    for name, ask in asks.items():
        with pytest.raises(EngineUnavailable):
            pytest.fail(f"{name} answers {ask()}")
    before = dict(reader.searcher.shards)
    renew_progress(index)
    with pytest.raises(EngineUnavailable):
        reader.reload()
    assert reader.searcher.shards == before, "no content seems to be gone"


def put_nowhere(connection: Connection, share: str) -> None:
    """Make the index anew: on a node that is not there, or in two shards of which one node takes one."""
    connection.ask("DELETE", f"/{NAME}")
    body = contents_index(connection.settings, "main", 16)
    if share == "all":
        body["settings"]["index"]["routing.allocation.require._name"] = "no-such-node"
    else:
        body["settings"]["index"] |= {"number_of_shards": 2, "routing.allocation.total_shards_per_node": 1}
    connection.ask("PUT", f"/{NAME}", body, wait_for_active_shards=0)
    state = {"wait_for_status": "red", "wait_for_no_initializing_shards": True}
    connection.ask("GET", f"/_cluster/health/{NAME}", **state)


def renew_progress(index: OpenSearchIndex) -> None:
    """Let another owner take over, so that the reader finds a change and counts."""
    own(index)


def eventually_active(connection: Connection) -> None:
    connection.ask("GET", f"/_cluster/health/{NAME}", wait_for_status="green")


class Busy(Connection):
    """Takes the first document of a bulk, and answers for the others as a node without room for requests."""

    is_busy = True

    def ask_lines(self, path: str, lines: Iterable[object], **params: object) -> Json:
        given = list(lines)
        if not self.is_busy or not path.endswith("/_bulk"):
            return super().ask_lines(path, given, **params)
        answer = super().ask_lines(path, given[:2], **params)
        rejection = {"type": "opensearch_rejected_execution_exception", "reason": "rejected: queue capacity"}
        rejected = [{"index": {"status": 429, "error": rejection}}] * (len(given) // 2 - 1)
        return {"errors": True, "items": [*answer["items"], *rejected]}


def test_a_bulk_that_is_taken_in_part_is_sent_again_and_covered_when_all_is_stored(
    index: OpenSearchIndex,
) -> None:
    busy = Busy(index.connection.settings)
    writer = own(replace(index, connection=busy))
    add(writer, "a", "b", "c")
    for _ in range(2):
        with pytest.raises(EngineUnavailable, match=r"not stored \(429\): opensearch_rejected"):
            writer.commit()
    reader = OpenSearchReader(index.connection, "main")
    reader.reload()
    assert reader.searcher is not None
    assert reader.searcher.shards[index.shard_name(0)].next_offset == 0
    busy.is_busy = False
    assert writer.commit() == 3
    assert ids_of(index) == ["a", "b", "c"]
    busy.close()


def test_a_conflict_in_the_middle_of_a_batch_keeps_none_of_the_others_out(index: OpenSearchIndex) -> None:
    """A writer that has lost the partition, and does not know it, is behind its successor at one id."""
    zombie = own(index)
    zombie.add(Delta(0, 3, [content(content_id, n) for n, content_id in enumerate("abc")]))
    successor = own(index)
    successor.add(Delta(0, 5, [content("b", 4)]))
    successor.commit()
    with pytest.raises(Fenced):
        zombie.commit()
    found = {one.content_id: one.offset for one in stored(index)}
    assert found == {"a": 0, "b": 4, "c": 2}


def stored(index: OpenSearchIndex) -> list[StoredOffset]:
    index.connection.ask("POST", f"/{index.contents}/_refresh")
    reader = OpenSearchReader(index.connection, "main")
    reader.reload()
    assert reader.searcher is not None
    return list(reader.searcher.stored_offsets())


def test_an_index_that_an_operator_has_put_behind_the_alias_is_taken(
    connection: Connection, tmp_path: Path
) -> None:
    connection.ask("PUT", "/of-an-operator", contents_index(connection.settings, "main", 16))
    index = create_index(connection, tmp_path, "main", description())
    writer = own(index)
    add(writer, "a")
    writer.commit()
    assert ids_of(index) == ["a"]
    with pytest.raises(EngineMissing):
        connection.ask("GET", f"/{NAME}")
