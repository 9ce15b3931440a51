"""Filters on columns against the same filters on one content at a time."""

from __future__ import annotations

import tracemalloc
from random import Random

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clip_index.content import FACT_NAMES, EncodedContent, MetadataValue
from clip_index.masks import row_masks
from clip_index.masks.bands import Bands, bands_of
from clip_index.masks.ordered_numbers import order_numbers
from clip_index.masks.pair_masks import PairMasks
from clip_index.masks.row_masks import RowMasks
from clip_index.masks.time_blocks import TimeBlocks
from clip_index.row_filter import AllOf, AnyOf, Condition, Exists, InRange, RowFilter
from clip_index.segments.columns import BufferedContent, contents_batch
from clip_index.vectors.node_rows import NodeRows
from fakes.shards import content

FIELDS = ["modality", "source", "owner_id", "content_id", "occurred_at", "metadata.a", "metadata.b"]
numbers = st.sampled_from([-1.0, 0.0, 1.0, 2.5])
texts = st.sampled_from(["", "x", "y", "text", "1"])
values = texts | st.booleans() | numbers
contents = st.builds(
    content,
    content_id=st.sampled_from(["x", "y", "z"]),
    modality=st.sampled_from(["text", "image"]),
    source=st.sampled_from(["x", "y"]),
    owner_id=st.none() | st.sampled_from(["", "x", "y"]),
    occurred_at_ms=st.integers(-1, 3),
    metadata=st.dictionaries(
        st.sampled_from(["a", "b", "c"]), values | st.lists(texts, max_size=3).map(tuple), max_size=3
    ),
)
fields = st.sampled_from(FIELDS)
bounds = st.none() | numbers
conditions = (
    st.builds(AnyOf, fields, st.lists(values, max_size=3).map(tuple))
    | st.builds(AllOf, fields, st.lists(values, min_size=1, max_size=2).map(tuple))
    | st.builds(InRange, fields, bounds, bounds, bounds, bounds)
    | st.builds(Exists, fields, st.booleans())
)
several = st.lists(conditions, max_size=3).map(tuple)


def holds(row_filter: RowFilter, item: EncodedContent) -> bool:
    return (
        all(is_met(c, item) for c in row_filter.must)
        and (not row_filter.should or any(is_met(c, item) for c in row_filter.should))
        and not any(is_met(c, item) for c in row_filter.must_not)
    )


def is_met(condition: Condition, item: EncodedContent) -> bool:
    value = value_of(condition.field, item)
    if isinstance(condition, Exists):
        return (value is not None) == condition.is_present
    held = value if isinstance(value, tuple) else (value,)
    if isinstance(condition, (AnyOf, AllOf)):
        found = [
            any(one == wanted and kind(one) == kind(wanted) for one in held) for wanted in condition.values
        ]
        return any(found) if isinstance(condition, AnyOf) else all(found)
    if value is None or kind(value) != "number":
        return False
    assert not isinstance(value, (str, tuple))
    return (
        (condition.gt is None or value > condition.gt)
        and (condition.gte is None or value >= condition.gte)
        and (condition.lt is None or value < condition.lt)
        and (condition.lte is None or value <= condition.lte)
    )


def value_of(field: str, item: EncodedContent) -> MetadataValue | None:
    if field == "occurred_at":
        return item.facts.occurred_at_ms
    if field.startswith("metadata."):
        return item.facts.metadata.get(field.removeprefix("metadata."))
    value: str | None = getattr(item.facts if field in FACT_NAMES else item, field)
    return value


def kind(value: MetadataValue | None) -> str:
    return "number" if isinstance(value, (int, float)) and not isinstance(value, bool) else str(type(value))


@settings(max_examples=400)
@given(st.lists(contents, max_size=8), st.builds(RowFilter, several, several, several))
def test_a_mask_is_what_each_content_by_itself_says(
    items: list[EncodedContent], row_filter: RowFilter
) -> None:
    columns = contents_batch([BufferedContent(item, None) for item in items])
    assert RowMasks(columns).find(row_filter).tolist() == [holds(row_filter, item) for item in items]


ordered_fields = st.sampled_from(["occurred_at", "metadata.a", "metadata.b"])
moments = st.integers(-2, 4) | st.sampled_from([-1.5, 0.5, 2.5, 2.0**53, 1e300, float("inf"), float("nan")])
ranges = st.builds(InRange, ordered_fields, *[st.none() | numbers | moments] * 4)
one_of_numbers = st.builds(AnyOf, ordered_fields, st.lists(numbers, max_size=3).map(tuple))
ordered_musts = st.lists(ranges | one_of_numbers | conditions, min_size=1, max_size=3).map(tuple)


@settings(max_examples=400)
@given(st.lists(contents, max_size=12), st.builds(RowFilter, ordered_musts, several, several))
def test_rows_that_an_order_leads_to_are_those_of_the_mask(
    items: list[EncodedContent], row_filter: RowFilter
) -> None:
    columns = contents_batch([BufferedContent(item, None) for item in items])
    masks = masks_with_small_blocks(columns)
    expected = np.flatnonzero(masks.find(row_filter)).tolist()
    assert expected == [n for n, item in enumerate(items) if holds(row_filter, item)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(row_masks, "_FEW_PART", 1)  # any number of rows is few
        rows = masks.find_few(row_filter)
    assert rows is None or rows.tolist() == expected


@settings(max_examples=400)
@given(
    st.lists(contents, min_size=1, max_size=12),
    st.builds(RowFilter, *[st.lists(ranges | conditions, max_size=2).map(tuple)] * 3),
    st.randoms(),
)
def test_the_pairs_of_nodes_and_rows_that_pass_are_those_of_the_mask_of_rows(
    items: list[EncodedContent], row_filter: RowFilter, random: Random
) -> None:
    masks = masks_with_small_blocks(contents_batch([BufferedContent(item, None) for item in items]))
    rows = sorted(random.sample(range(len(items)), random.randint(1, len(items))))
    nodes = [random.randrange(3) for _ in rows]
    numbered = {node: number for number, node in enumerate(sorted(set(nodes)))}
    pairs = sorted((numbered[node], row) for node, row in zip(nodes, rows, strict=True))
    node_rows = NodeRows(np.array(pairs, np.uint32).T.copy(), len(numbered))
    by_pairs = PairMasks(masks, node_rows)
    found = by_pairs.find(row_filter)
    if found is None:
        return
    of_rows = masks.find(row_filter)
    assert found.tolist() == node_rows.in_pair_order(of_rows).tolist()
    assert by_pairs.holds_at(row_filter, np.array(rows)).tolist() == of_rows[rows].tolist()
    assert node_rows.nodes_of_pairs(found).tolist() == node_rows.eligible_nodes(of_rows).tolist()


def test_to_look_at_few_rows_the_numbers_of_all_are_not_copied() -> None:
    items = [content(str(n), metadata={"n": float(n)} if n % 2 else {}) for n in range(5000)]
    masks = RowMasks(contents_batch([BufferedContent(item, None) for item in items]))
    rows = np.array([1, 2, 4999])
    masks.numbers_at("n", rows)  # the positions of the key are kept
    tracemalloc.start()
    found = masks.numbers_at("n", rows)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    np.testing.assert_array_equal(found, [1.0, np.nan, 4999.0])
    assert most < 5000


@pytest.mark.parametrize("num_ranks", [0, 1, 254, 255, 256, 1000])
def test_a_range_of_an_order_is_whole_bands_and_the_ends_of_two(num_ranks: int) -> None:
    random = np.random.default_rng(1)
    rows = random.permutation(num_ranks + 3)[:num_ranks].astype(np.uint32)
    bands = Bands(bands_of(rows, num_ranks + 3), num_ranks)
    for first, last in [(0, num_ranks), (0, 0), *random.integers(0, num_ranks + 1, (50, 2)).tolist()]:
        mask, ends = bands.within(first, max(first, last))
        for start, end in ends:
            assert not mask[rows[start:end]].any()
            mask[rows[start:end]] = True
        assert sorted(np.flatnonzero(mask)) == sorted(rows[first : max(first, last)])


def masks_with_small_blocks(columns: pa.RecordBatch) -> RowMasks:
    masks = RowMasks(columns, min_ordered_rows=0)
    masks.time_blocks = TimeBlocks(columns.column("occurred_at_ms").to_numpy(), 3)
    return masks


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        pytest.param(InRange("occurred_at", gte=990), range(990, 1000), id="the latest"),
        pytest.param(InRange("metadata.n", gt=4, lte=9), [20, 30], id="a range of numbers"),
        pytest.param(AnyOf("metadata.n", (4.0, 9.0, 4.0)), [10, 30], id="two numbers"),
        pytest.param(InRange("metadata.none", gte=1), [], id="a key that nobody has"),
        pytest.param(AnyOf("metadata.t", ("é", "zz", "é")), [40, 50, 60], id="two texts of metadata"),
        pytest.param(AnyOf("metadata.t", ("é", 1.0)), [40, 60], id="a text or a number"),
        pytest.param(AnyOf("metadata.t", ("a", "")), [], id="texts that nobody has"),
        pytest.param(AnyOf("owner_id", ("me", "nobody")), [70, 80], id="an owner"),
    ],
)
def test_narrow_conditions_are_answered_by_an_order(condition: Condition, expected: range) -> None:
    metadata = {n: {"n": number} for n, number in {10: 4.0, 20: 6.0, 30: 9.0}.items()}
    metadata |= {n: {"t": text} for n, text in {40: "é", 50: "zz", 60: "é", 65: "z"}.items()}
    owners = {70: "me", 80: "me", 90: "you"}
    items = [
        content(str(n), occurred_at_ms=n, metadata=metadata.get(n, {}), owner_id=owners.get(n))
        for n in range(1000)
    ]
    masks = masks_with_small_blocks(contents_batch([BufferedContent(item, None) for item in items]))
    rows = masks.find_few(RowFilter(must=(condition, Exists("source"))))
    assert rows is not None
    assert rows.tolist() == list(expected)


def test_wide_conditions_are_answered_by_a_mask() -> None:
    items = [content(str(n), occurred_at_ms=n, metadata={"n": float(n)}) for n in range(100)]
    masks = masks_with_small_blocks(contents_batch([BufferedContent(item, None) for item in items]))
    for condition in (InRange("occurred_at", lt=60), InRange("metadata.n", lt=60), InRange("metadata.n")):
        assert masks.find_few(RowFilter(must=(condition,))) is None
    assert masks.find_few(RowFilter(must_not=(InRange("metadata.n", lt=3),))) is None


def test_an_order_of_times_does_not_hide_a_field_that_contents_have_not() -> None:
    columns = contents_batch([BufferedContent(content("a", occurred_at_ms=1), None)] * 20)
    masks = masks_with_small_blocks(columns)
    with pytest.raises(ValueError, match="no such field: colour"):
        masks.find_few(RowFilter(must=(InRange("occurred_at", gt=5), Exists("colour"))))


def test_numbers_that_are_not_a_number_keep_no_bound() -> None:
    ordered = order_numbers(np.array([np.nan, 2.0, -np.inf, np.nan, 1.0]), None)
    assert ordered.rows_within(InRange("metadata.n", gt=-np.inf), 5).tolist() == [1, 4]
    assert ordered.rows_within(InRange("metadata.n", gt=np.nan), 5) is None
    assert ordered.rows_with([2.0, np.inf], 5).tolist() == [1]


def test_a_list_of_texts_with_the_value_is_found_beside_a_text() -> None:
    items = [
        content(str(n), metadata={"t": "x" if n == 3 else ("x", "y") if n == 5 else n}) for n in range(40)
    ]
    columns = contents_batch([BufferedContent(item, None) for item in items])
    masks, wanted = masks_with_small_blocks(columns), RowFilter(must=(AnyOf("metadata.t", ("x",)),))
    assert masks.find_few(wanted) is None
    assert np.flatnonzero(masks.find(wanted)).tolist() == [3, 5]


def test_a_small_segment_puts_no_values_in_order() -> None:
    masks = RowMasks(contents_batch([BufferedContent(content("a", metadata={"n": 1.0}), None)] * 20))
    assert masks.find_few(RowFilter(must=(InRange("metadata.n", gt=2),))) is None


@pytest.mark.parametrize("max_known", [0, 10], ids=["many keys", "few keys"])
def test_keys_that_no_content_has_cost_a_look_up_and_no_scan(
    max_known: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_masks, "_MAX_KNOWN_KEYS", max_known)
    scanned: list[str] = []
    find_key = RowMasks._find_key
    monkeypatch.setattr(RowMasks, "_find_key", lambda *a: scanned.append(a[2]) or find_key(*a))
    masks = RowMasks(contents_batch([BufferedContent(content("a", metadata={"n": 1.0, "t": "x"}), None)]))
    for number in range(20):
        assert not masks.find(RowFilter(must=(Exists(f"metadata.none-{number}"),))).any()
    assert masks.find(RowFilter(must=(Exists("metadata.n"),))).all()
    assert set(scanned) >= {"n"}
    assert ("none-0" in scanned) == (max_known == 0)  # where keys are very many, each one is searched for


def test_a_field_that_contents_have_not_is_an_error() -> None:
    columns = contents_batch([BufferedContent(content("a"), None)])
    with pytest.raises(ValueError, match="no such field: colour"):
        RowMasks(columns).find(RowFilter(must=(Exists("colour"),)))
