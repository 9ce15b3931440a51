"""The comparison finds every way in which an index can differ from its log."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from clip_index.content import Change
from clip_index.reading.index_reader import IndexReader
from cliptide.verify.verification import LogFold, ShardDifference, covered_ranges
from event_log.records import Record
from fakes.shards import add, content, create_index, patch, removal, take_over


def record(offset: int, key: str, value: bytes | None, partition: int = 0) -> Record:
    return Record("content-uploads", partition, offset, key.encode(), value, (), 1_700_000_000_000, 1)


def upload(content_id: str) -> bytes:
    return b'{"content_id": "%s", "content": {"text": "a red dress"}}' % content_id.encode()


LOG = [
    record(0, "a", upload("a")),
    record(1, "b", upload("b")),
    record(2, "poison", b"not an event"),
    record(3, "c", upload("c")),
    record(4, "a", upload("a")),
    record(5, "b", None),
    record(6, "set-aside", upload("set-aside")),
]
EQUAL = [
    content("a", 0), content("b", 1), content("c", 3), content("a", 4), removal("b", 5)
]  # fmt: skip


def verify(
    root: Path, changes: Sequence[Change], log: Sequence[Record] = LOG, log_start: int = 0
) -> ShardDifference:
    index = create_index(root)
    writer = take_over(index)
    add(writer, changes)
    for _ in range(len(LOG) - len(changes)):
        add(writer, [removal("nobody")])
    writer.commit()
    reader = IndexReader(root)
    reader.reload()
    assert reader.searcher is not None
    folded = LogFold(covered_ranges(reader.searcher, index.partition_of), {(0, 6)})
    folded.log_starts = {0: log_start}
    for one in log:
        if one.offset >= log_start:
            folded.add(one)
    [difference] = folded.compare(reader.searcher, index.partition_of)
    return difference


def test_an_index_that_equals_its_log_is_found_equal(tmp_path: Path) -> None:
    assert verify(tmp_path, EQUAL) == ShardDifference("content-uploads-0", num_equal=2)


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        pytest.param([EQUAL[0], EQUAL[3]], {"missing": ("c",), "num_equal": 1}, id="a content is missing"),
        pytest.param(EQUAL[:4], {"surplus": ("b",), "num_equal": 2}, id="a delete was lost"),
        pytest.param([EQUAL[0], EQUAL[2]], {"outdated": ("a",), "num_equal": 1}, id="an update was lost"),
    ],
)
def test_every_difference_is_named(
    tmp_path: Path, changes: list[Change], difference: dict[str, object]
) -> None:
    expected = {"shard": "content-uploads-0", "missing": (), "surplus": (), "outdated": (), **difference}
    found = verify(tmp_path, changes)
    assert {name: getattr(found, name) for name in expected} == expected
    assert not found.is_equal


def test_records_beyond_the_snapshot_are_not_expected(tmp_path: Path) -> None:
    later = [*LOG, record(7, "later", upload("later"))]
    assert verify(tmp_path, EQUAL, later).is_equal


def test_records_beyond_the_snapshot_are_counted_so_that_no_index_looks_whole_that_is_behind() -> None:
    folded = LogFold({0: range(2, 4)}, set())
    for partition, offset in ((0, 1), (0, 2), (0, 4), (0, 5), (1, 0)):
        folded.add(record(offset, "a", upload("a"), partition))
    assert (folded.num_records, folded.num_beyond) == (1, 3)


def versioned(content_id: str, version: int) -> bytes:
    return b'{"content_id": "%s", "version": %d, "content": {"text": "a"}}' % (content_id.encode(), version)


@pytest.mark.parametrize(
    ("log_start", "num_equal", "num_unproven"),
    [
        pytest.param(1, 2, 0, id="an event that was replaced"),
        pytest.param(4, 1, 1, id="the only event of a content"),
        pytest.param(5, 0, 2, id="all events of live contents"),
        pytest.param(7, 0, 2, id="everything"),
    ],
)
def test_what_retention_has_left_is_compared_and_the_rest_is_unproven(
    tmp_path: Path, log_start: int, num_equal: int, num_unproven: int
) -> None:
    found = verify(tmp_path, EQUAL, log_start=log_start)
    assert found.is_equal
    assert (found.num_equal, found.num_unproven) == (num_equal, num_unproven)


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        pytest.param([EQUAL[0], EQUAL[1], EQUAL[2]], {"outdated": ("a",), "surplus": ("b",)}, id="stale"),
        pytest.param([EQUAL[1], EQUAL[2]], {"missing": ("a",), "surplus": ("b",)}, id="missing"),
    ],
)
def test_a_difference_in_what_retention_has_left_is_still_named(
    tmp_path: Path, changes: list[Change], difference: dict[str, object]
) -> None:
    found = verify(tmp_path, changes, log_start=4)
    assert {name: getattr(found, name) for name in difference} == difference
    assert not found.is_equal
    assert found.num_unproven == 1


def test_a_version_that_may_be_below_one_that_is_gone_is_unproven(tmp_path: Path) -> None:
    log = [record(0, "a", versioned("a", 9)), record(1, "a", versioned("a", 3)), *LOG[2:3]]
    found = verify(tmp_path, [content("a", 0, version=9)], log, log_start=1)
    assert (found.is_equal, found.num_unproven) == (True, 1)


UNKNOWN = b"\xc3\x01" + b"12345678" + b"an event of a later release"


@pytest.mark.parametrize("log_start", [0, 1], ids=["a whole log", "what retention has left"])
@pytest.mark.parametrize(
    ("changes", "num_unproven"),
    [
        pytest.param(EQUAL, 0, id="set aside, and the letter has expired"),
        pytest.param([*EQUAL, content("new", 6)], 1, id="indexed by a newer consumer"),
    ],
)
def test_a_record_of_an_unknown_schema_proves_nothing_about_its_content(
    tmp_path: Path, changes: list[Change], num_unproven: int, log_start: int
) -> None:
    log = [*LOG[:2], record(2, "new", UNKNOWN), *LOG[3:]]
    found = verify(tmp_path, changes, log, log_start)
    assert (found.is_equal, found.num_equal, found.num_unproven) == (True, 2, num_unproven)


def test_a_later_event_without_a_version_settles_a_content_that_could_not_be_read(tmp_path: Path) -> None:
    log = [record(0, "a", UNKNOWN), *LOG[1:4]]
    assert verify(tmp_path, EQUAL[:3], log).num_unproven == 1
    (tmp_path / "second").mkdir()
    assert verify(tmp_path / "second", EQUAL[:3], [*log, *LOG[4:]]).outdated == ("a",)


PATCH = b'{"content_id": "c", "operation": "patch", "title": "hat"}'
LOG_WITH_PATCH = [*LOG[:5], record(5, "c", PATCH), record(6, "set-aside", upload("set-aside"))]


def test_a_patch_is_folded_too(tmp_path: Path) -> None:
    changes = [content("a", 0), content("b", 1), content("c", 3), content("a", 4), patch("c", 5, title="hat")]
    assert verify(tmp_path / "1", changes, LOG_WITH_PATCH).is_equal
    assert verify(tmp_path / "2", changes[:4], LOG_WITH_PATCH).outdated == ("c",)


def test_a_patch_of_what_the_log_no_longer_holds_is_unproven(tmp_path: Path) -> None:
    changes = [content("a", 0), content("b", 1), content("c", 3), content("a", 4), patch("c", 5, title="hat")]
    difference = verify(tmp_path, changes, LOG_WITH_PATCH, log_start=4)
    assert difference.is_equal
    assert difference.num_unproven == 2
