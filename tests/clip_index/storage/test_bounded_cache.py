"""What a cache keeps, and what it forgets."""

from __future__ import annotations

from clip_index.storage.bounded_cache import BoundedCache


def test_a_cache_forgets_what_was_used_longest_ago() -> None:
    cache: BoundedCache[str, str] = BoundedCache(2)
    built: list[str] = []

    def find(key: str) -> str:
        return cache.find_or_build(key, lambda: built.append(key) or key)  # type: ignore[func-returns-value]

    for key in ("a", "b", "a", "c", "a", "b"):
        assert find(key) == key
    assert built == ["a", "b", "c", "b"]


def test_what_is_found_counts_as_used() -> None:
    cache: BoundedCache[int, str] = BoundedCache(2)
    cache.keep(1, "one")
    cache.keep(2, "two")
    assert cache.find(1) == "one"
    cache.keep(3, "three")
    assert [cache.find(key) for key in (1, 2, 3)] == ["one", None, "three"]


def test_a_value_that_is_kept_again_replaces_the_former_and_counts_as_used() -> None:
    cache: BoundedCache[str, int] = BoundedCache(2)
    for key, value in (("a", 1), ("b", 2), ("a", 3), ("c", 4)):
        cache.keep(key, value)
    assert [cache.find(key) for key in "abc"] == [3, None, 4]
