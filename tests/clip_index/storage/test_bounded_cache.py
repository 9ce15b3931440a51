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


def test_values_are_forgotten_when_their_bytes_are_too_many() -> None:
    cache: BoundedCache[str, bytes] = BoundedCache(100, max_bytes=10, size_of=len)
    for key, value in (("a", b"1234"), ("b", b"1234"), ("c", b"123")):
        cache.keep(key, value)
    assert [cache.find(key) for key in "abc"] == [None, b"1234", b"123"]
    cache.keep("b", b"1234567")
    assert [cache.find(key) for key in "bc"] == [b"1234567", b"123"]


def test_the_value_that_was_kept_last_stays_even_if_it_is_too_large() -> None:
    cache: BoundedCache[str, bytes] = BoundedCache(100, max_bytes=10, size_of=len)
    cache.keep("a", b"1234")
    cache.keep("b", bytes(50))
    assert (cache.find("a"), cache.find("b")) == (None, bytes(50))
    cache.keep("c", b"1")
    assert (cache.find("b"), cache.find("c")) == (None, b"1")


def test_a_value_that_is_kept_again_replaces_the_former_and_counts_as_used() -> None:
    cache: BoundedCache[str, int] = BoundedCache(2)
    for key, value in (("a", 1), ("b", 2), ("a", 3), ("c", 4)):
        cache.keep(key, value)
    assert [cache.find(key) for key in "abc"] == [3, None, 4]


def test_what_is_old_can_be_dropped_and_its_bytes_count_no_more() -> None:
    cache: BoundedCache[str, bytes] = BoundedCache(100, max_bytes=10, size_of=len)
    cache.keep("old", b"12345678")
    cache.keep("new", b"1")
    cache.drop_if(lambda value: len(value) > 1)
    cache.keep("newer", b"12345678")
    assert (cache.find("old"), cache.find("new"), cache.find("newer")) == (None, b"1", b"12345678")


def test_the_size_of_a_value_is_that_of_the_time_when_it_was_kept() -> None:
    cache: BoundedCache[str, bytearray] = BoundedCache(100, max_bytes=10, size_of=len)
    growing = bytearray(4)
    cache.keep("growing", growing)
    growing += bytes(100)
    cache.keep("other", bytearray(6))
    assert cache.find("growing") is growing
    cache.drop("growing")
    cache.keep("last", bytearray(4))
    assert (cache.find("other"), cache.find("last")) == (bytearray(6), bytearray(4))
