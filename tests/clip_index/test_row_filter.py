"""The key of a filter, by which caches know it."""

from __future__ import annotations

from dataclasses import replace

from clip_index.row_filter import AnyOf, Exists, RowFilter


def test_keys_tell_types_apart_and_do_not_mind_order() -> None:
    one, yes = AnyOf("metadata.a", (1.0,)), AnyOf("metadata.a", (True,))
    assert RowFilter(must=(one,)).key != RowFilter(must=(yes,)).key
    assert RowFilter(must=(one, yes)).key == RowFilter(must=(yes, one)).key
    assert RowFilter(must=(one,)).key != RowFilter(should=(one,)).key


def test_the_key_of_a_large_filter_is_as_short_as_any_other() -> None:
    large = RowFilter(must=(AnyOf("source", tuple("x" * 4096 + str(n) for n in range(256))),))
    assert len(large.key) == len(RowFilter().key) == 32
    assert large.key != replace(large, must_not=(Exists("source"),)).key
