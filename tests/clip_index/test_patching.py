"""What a patch makes of the facts of a content."""

from __future__ import annotations

from clip_index import patching
from clip_index.content import ContentFacts
from clip_index.patching import patched_facts
from fakes.shards import patch
from schemas import validation

FACTS = ContentFacts(
    source="shop",
    occurred_at_ms=1,
    title="shoe",
    link="https://shop.example/1",
    metadata={"a": "1", "b.c": 2.0},
)


def test_what_is_not_named_stays() -> None:
    patched = patched_facts(FACTS, patch("a", metadata={"d": True}))
    assert (patched.title, patched.link) == ("shoe", "https://shop.example/1")
    assert patched.metadata == {"a": "1", "b.c": 2.0, "d": True}


def test_a_patch_removes_before_it_sets() -> None:
    patched = patched_facts(
        FACTS, patch("a", title="hat", metadata={"d": "4"}, removed={"title", "metadata"})
    )
    assert (patched.title, patched.metadata) == ("hat", {"d": "4"})


def test_one_entry_is_removed_by_its_whole_key() -> None:
    assert patched_facts(FACTS, patch("a", removed={"metadata.b.c", "metadata.b"})).metadata == {"a": "1"}


def test_an_empty_title_is_none() -> None:
    assert patched_facts(FACTS, patch("a", title="")).title is None


def test_patches_together_cannot_pass_the_limits_of_one_upload() -> None:
    assert patching.MAX_METADATA_ENTRIES == validation.MAX_METADATA_ENTRIES
    assert patching.MAX_METADATA_BYTES == validation.MAX_METADATA_BYTES
    full = {f"{number:02}": "x" for number in range(64)}
    facts = patched_facts(FACTS, patch("a", metadata=full, removed={"metadata"}))
    facts = patched_facts(facts, patch("a", metadata={"zz": "new", "00": "y"}))
    assert facts.metadata.keys() == (full.keys() | {"zz"}) - {"63"}
    assert (facts.metadata["zz"], facts.metadata["00"]) == ("new", "y")
    long = patched_facts(facts, patch("a", metadata={"zz": "靴" * 5400}))
    size = sum(len(key.encode()) + len(str(value).encode()) for key, value in long.metadata.items())
    assert long.metadata["zz"] == "靴" * 5400
    assert size <= validation.MAX_METADATA_BYTES < size + 10
