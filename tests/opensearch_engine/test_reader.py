"""The reader: what the engine in OpenSearch answers is what the index in a directory answers."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clip_index.content import LONG_FACTS, Delta, EncodedContent, MetadataValue, Modality, RemovedContent
from clip_index.errors import ClipIndexError, EncoderMismatch, GenerationGone, IndexMissing
from clip_index.generations.manifest import GenerationKey
from clip_index.reading.index_reader import IndexReader
from clip_index.row_filter import AllOf, AnyOf, Condition, Exists, InRange, RowFilter
from clip_index.searching.browsing import TimePosition
from clip_index.searching.searcher import Searcher
from fakes.shards import DIMENSION, content, create_index, description, fingerprint, take_over, unit_vectors
from opensearch_engine.connection import Connection
from opensearch_engine.index import OpenSearchIndex, remove_index
from opensearch_engine.index import create_index as create_index_in_opensearch
from opensearch_engine.reader import OpenSearchReader
from opensearch_engine.shards import OpenSearchShards
from opensearch_engine.snapshot import OpenSearchSnapshot

FIELDS = ["modality", "source", "owner_id", "content_id", "occurred_at", "metadata.a", "metadata.b"]
NUMBERS = [-1.0, -0.0, 0.0, 1.0, 2.5, 1e300, -1e300]
TEXTS = ["", "x", "y", "text", "1", "a=tx", "ü"]
MODALITIES: list[Modality] = ["text", "image"]


def write(index: OpenSearchIndex, changes: list[Any], partition: int = 0) -> None:
    writer = OpenSearchShards(index, "writer").become_owner(partition, first_offset=0, own_epoch=None)
    writer.add(Delta(0, len(changes), changes))
    writer.commit()


def snapshot_of(index: OpenSearchIndex) -> OpenSearchSnapshot:
    reader = OpenSearchReader(index.connection, index.index_id)
    reader.reload()
    assert reader.searcher is not None
    return reader.searcher


def directory_of(root: Path, changes: list[Any]) -> Searcher:
    writer = take_over(create_index(root, num_partitions=2))
    writer.add(Delta(0, len(changes), changes))
    writer.commit()
    writer.close()
    reader = IndexReader(root)
    reader.reload()
    assert reader.searcher is not None
    return reader.searcher


def random_content(chosen: random.Random, offset: int) -> EncodedContent:
    def value() -> MetadataValue:
        kinds: list[MetadataValue] = [chosen.choice(TEXTS), chosen.choice(NUMBERS), chosen.random() < 0.5]
        return chosen.choice([*kinds, tuple(chosen.choices(TEXTS, k=chosen.randint(0, 3)))])

    return content(
        f"c{offset % 90}",
        offset,
        modality=chosen.choice(MODALITIES),
        num_rows=chosen.randint(1, 3),
        source=chosen.choice(["x", "y"]),
        owner_id=chosen.choice([None, "", "x", "y"]),
        occurred_at_ms=chosen.randint(-1, 3),
        metadata={key: value() for key in chosen.sample(["a", "b", "c", "1:a=", "a.b", "."], 3)},
        title=chosen.choice([None, "A title"]),
        version=chosen.choice([None, offset]),
    )


def random_condition(chosen: random.Random) -> Condition:
    values = [*TEXTS, *NUMBERS, True, False, "image", "c3", 0.5, float("inf"), "\ud800"]
    bounds = [None, None, *NUMBERS, 0.5, float("inf"), float("-inf")]
    field = chosen.choice(FIELDS)
    return chosen.choice(
        [
            AnyOf(field, tuple(chosen.choices(values[:-1], k=chosen.randint(0, 3)))),
            AllOf(field, tuple(chosen.choices(values[:-1], k=chosen.randint(1, 2)))),
            InRange(field, *(chosen.choice(bounds) for _ in range(4))),
            Exists(field, chosen.random() < 0.5),
        ]
    )


def random_filter(chosen: random.Random) -> RowFilter:
    def several() -> tuple[Condition, ...]:
        return tuple(random_condition(chosen) for _ in range(chosen.choice([0, 0, 1, 1, 2])))

    return RowFilter(several(), several(), several())


@pytest.fixture
def both(index: OpenSearchIndex, tmp_path: Path) -> tuple[OpenSearchSnapshot, Searcher]:
    chosen = random.Random(7)
    changes: list[Any] = [random_content(chosen, offset) for offset in range(120)]
    changes += [RemovedContent(f"c{number}", 120 + number) for number in range(10)]
    write(index, changes)
    return snapshot_of(index), directory_of(tmp_path / "directory", changes)


def test_it_answers_what_the_index_in_a_directory_answers(
    both: tuple[OpenSearchSnapshot, Searcher],
) -> None:
    found, expected = both
    chosen = random.Random(8)
    queries = unit_vectors(5, 4)
    for _ in range(150):
        row_filter, modality = random_filter(chosen), chosen.choice(MODALITIES)
        ours, theirs = (
            [one.position for one in snapshot.newest(k=200, modality=modality, row_filter=row_filter)]
            for snapshot in (found, expected)
        )
        assert ours == theirs, row_filter
        for field in ("modality", "source", "owner_id"):
            counted = [one.count_values(field, row_filter, max_values=2) for one in both]
            assert counted[0] == counted[1], row_filter
    for _ in range(40):
        row_filter, modality = random_filter(chosen), chosen.choice(MODALITIES)
        k = chosen.choice([1, 5, 200])
        for own, other in zip(
            found.search(queries, k=k, modality=modality, row_filter=row_filter),
            expected.search(queries, k=k, modality=modality, row_filter=row_filter),
            strict=True,
        ):
            assert [hit.content_id for hit in own] == [hit.content_id for hit in other], row_filter
            np.testing.assert_allclose([h.score for h in own], [h.score for h in other], atol=2e-3)


def test_every_fact_of_a_content_is_read_back(both: tuple[OpenSearchSnapshot, Searcher]) -> None:
    found, expected = both
    for number in range(10, 90):
        ours, theirs = found.find(f"c{number}"), expected.find(f"c{number}")
        assert ours is not None
        assert theirs is not None
        assert found.read_many([ours], LONG_FACTS) == expected.read_many([theirs], LONG_FACTS)
        assert found.read_many([ours], ()) == expected.read_many([theirs], ())
        np.testing.assert_allclose(found.embeddings(ours), expected.embeddings(theirs), atol=1e-3)
    assert found.find("c0") is None
    assert found.find("\ud800") is None
    assert found.shards["content-uploads-0"].num_contents == expected.shards["content-uploads-0"].num_contents


def test_owners_floors_and_samples(both: tuple[OpenSearchSnapshot, Searcher]) -> None:
    found, expected = both

    def owned(snapshot: Any, owner: str) -> set[str]:
        locations = snapshot.find_owner(owner)
        return {stored.content_id for stored in snapshot.read_many(locations, ())}

    for owner in ("", "x", "y", "nobody"):
        assert owned(found, owner) == owned(expected, owner)
    for number in range(95):
        assert found.floor(f"c{number}") == expected.floor(f"c{number}")
    sampled = found.read_many(found.sample("image", 10), ())
    assert sampled == found.read_many(found.sample("image", 10), ())
    assert len({stored.content_id for stored in sampled}) == 10
    assert {stored.modality for stored in sampled} == {"image"}
    assert len(found.sample("text", 10_000)) == found.shards["content-uploads-0"].num_contents["text"]


def test_pages_by_time_neither_repeat_nor_skip(both: tuple[OpenSearchSnapshot, Searcher]) -> None:
    found, expected = both
    after: TimePosition | None = None
    positions: list[TimePosition] = []
    while page := found.newest(k=7, modality="image", after=after):
        positions += [one.position for one in page]
        after = positions[-1]
    assert positions == [one.position for one in expected.newest(k=1000, modality="image")]


def test_with_a_depth_the_answer_to_a_smaller_k_begins_the_answer_to_a_greater_one(
    both: tuple[OpenSearchSnapshot, Searcher],
) -> None:
    found, _ = both
    [query] = unit_vectors(5)
    answers = [found.search(query[None], k=k, modality="image", depth=50)[0] for k in (3, 10, 50)]
    names = [[hit.content_id for hit in hits] for hits in answers]
    assert names[0] == names[1][:3] == names[2][:3]
    assert names[1] == names[2][:10]


def test_the_pages_of_a_ranking_are_asked_of_the_same_copies(
    index: OpenSearchIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each copy of a shard has a graph of its own, so hits could be repeated or skipped between them."""
    ask_lines, asked = Connection.ask_lines, []

    def note(connection: Connection, path: str, lines: Iterable[Any]) -> Any:
        noted = list(lines)
        asked.append(noted[0]["preference"])
        return ask_lines(connection, path, noted)

    monkeypatch.setattr(Connection, "ask_lines", note)
    snapshot = snapshot_of(index)
    for seed, k in ((1, 5), (1, 20), (2, 5)):
        snapshot.search(unit_vectors(seed), k=k, modality="image", depth=100)
    first, second, other = asked
    assert first == second != other
    assert not first.startswith("_"), "OpenSearch gives those another meaning"


def test_a_hit_has_the_score_of_its_best_window_and_reaches_the_least_score(index: OpenSearchIndex) -> None:
    texts = [content(f"t{n}", n, modality="text", num_rows=5) for n in range(20)]
    write(index, texts)
    [query] = unit_vectors(1)
    best = {item.content_id: float((item.embeddings @ query).max()) for item in texts}
    [hits] = snapshot_of(index).search(query[None], k=50, modality="text", min_score=0.1)
    assert [hit.content_id for hit in hits] == sorted(
        (name for name, score in best.items() if score >= 0.1), key=lambda name: -best[name]
    )
    np.testing.assert_allclose([hit.score for hit in hits], [best[h.content_id] for h in hits], atol=1e-6)


def test_equal_scores_are_ordered_by_content_id(index: OpenSearchIndex) -> None:
    write(index, [content(name, n, seed=3) for n, name in enumerate("dbca")])
    [hits] = snapshot_of(index).search(unit_vectors(3), k=3, modality="image")
    assert [hit.content_id for hit in hits] == ["a", "b", "c"]


def test_an_id_in_two_partitions_is_one_hit_the_newer_one(index: OpenSearchIndex) -> None:
    write(index, [content("a", 0, version=1)], partition=0)
    write(index, [content("a", 0, version=2)], partition=1)
    snapshot = snapshot_of(index)
    [hits] = snapshot.search(unit_vectors(3), k=5, modality="image")
    assert [hit.location.shard for hit in hits] == ["content-uploads-1"]
    found = snapshot.find("a")
    assert found is not None
    assert found.shard == "content-uploads-1"


def test_thumbnails_are_kept(index: OpenSearchIndex) -> None:
    write(index, [content("a", 0, thumbnail=b"\x00webp\xff"), content("b", 1)])
    snapshot = snapshot_of(index)
    kept = [snapshot.thumbnail(location) for name in "ab" if (location := snapshot.find(name))]
    assert kept == [b"\x00webp\xff", None]


def test_a_content_that_is_deleted_while_it_is_read_loses_its_long_facts_only(
    index: OpenSearchIndex,
) -> None:
    write(index, [content("a", 0, text="long", title="t")])
    snapshot = snapshot_of(index)
    location = snapshot.find("a")
    assert location is not None
    writer = OpenSearchShards(index, "writer").become_owner(0, first_offset=0, own_epoch=None)
    writer.add(Delta(1, 2, [RemovedContent("a", 1)]))
    writer.commit()
    [read] = snapshot.read_many([location], LONG_FACTS)
    assert (read.content_id, read.facts.title, read.facts.text) == ("a", "t", None)
    assert snapshot.thumbnail(location) is None


def test_a_reload_sees_what_was_committed_and_knows_the_newcomers(index: OpenSearchIndex) -> None:
    now = [0.0]
    reader = OpenSearchReader(index.connection, "main", clock=lambda: now[0])
    assert reader.reload()
    assert not reader.reload()
    first = reader.searcher
    write(index, [content("a", 0, occurred_at_ms=77)])
    assert reader.reload()
    second = reader.searcher
    assert first is not None
    assert second is not None
    assert second.newcomers_since(first).tolist() == [77]
    assert second.newcomers_since(second).tolist() == []
    assert second.shards["content-uploads-0"].next_offset == 1
    now[0] = 10.0
    reader.reload()
    assert reader.searcher is not None
    assert reader.searcher.shards["content-uploads-0"].num_contents == {"text": 0, "image": 1}


def test_a_page_goes_on_in_what_is_there_now(index: OpenSearchIndex) -> None:
    reader = OpenSearchReader(index.connection, "main")
    reader.reload()
    assert reader.searcher is not None
    former = {name: shard.key for name, shard in reader.searcher.shards.items()}
    write(index, [content("a", 0)])
    reader.reload()
    assert reader.open_former(former) is reader.searcher
    with pytest.raises(GenerationGone):
        reader.open_former({"content-uploads-7": GenerationKey(1, "")})


def test_the_current_index_is_served_where_none_is_named(connection: Connection, tmp_path: Path) -> None:
    reader = OpenSearchReader(connection)
    with pytest.raises(IndexMissing, match="no index in OpenSearch"):
        reader.reload()
    create_index_in_opensearch(connection, tmp_path, "first", description())
    create_index_in_opensearch(connection, tmp_path, "second", description())
    reader.reload()
    assert reader.index is not None
    assert reader.index.index_id == "first"
    with pytest.raises(IndexMissing):
        OpenSearchReader(connection, "third").reload()


def test_an_index_of_another_encoder_is_refused(index: OpenSearchIndex) -> None:
    with pytest.raises(EncoderMismatch):
        OpenSearchReader(index.connection, "main", fingerprint(weights_digest="11")).reload()


def test_an_index_that_was_built_again_is_followed_if_its_encoder_fits(
    index: OpenSearchIndex, tmp_path: Path
) -> None:
    reader = OpenSearchReader(index.connection, "main", fingerprint())
    write(index, [content("a", 0)])
    reader.reload()
    remove_index(index.connection, "main")
    with pytest.raises(ClipIndexError):
        reader.reload()
    again = create_index_in_opensearch(index.connection, tmp_path, "main", index.description)
    assert reader.reload()
    write(again, [content("b", 0)])
    reader.reload()
    assert reader.searcher is not None
    assert reader.searcher.find("b") is not None
    remove_index(index.connection, "main")
    other = replace(index.description, fingerprint=fingerprint(weights_digest="11"))
    create_index_in_opensearch(index.connection, tmp_path, "main", other)
    with pytest.raises(EncoderMismatch):
        reader.reload()


def test_an_empty_index_answers_with_nothing(index: OpenSearchIndex) -> None:
    snapshot = snapshot_of(index)
    assert snapshot.dimension == DIMENSION
    assert snapshot.search(unit_vectors(1, 2), k=3, modality="text") == [[], []]
    assert snapshot.search(unit_vectors(1, 2), k=0, modality="text") == [[], []]
    assert snapshot.sample("text", 5) == []
    assert snapshot.count_values("source", max_values=3).values == ()
