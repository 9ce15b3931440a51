from __future__ import annotations

import struct

import pytest

from tests.clip_index.encoder.pictures import encoded, filled, read, reason_of


def tiff(entries: list[tuple[int, int, int, int]], *, next_page: int = 0, behind: bytes = b"") -> bytes:
    body = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + body + struct.pack("<I", next_page) + behind


def page(num_strips: int, width: int = 1, height: int = 1) -> list[tuple[int, int, int, int]]:
    facts = {256: width, 257: height, 258: 8, 259: 1, 262: 1, 277: 1, 278: 1}
    return [(tag, 4, 1, value) for tag, value in facts.items()] + [
        (273, 4, num_strips, 8),
        (279, 4, num_strips, 8),
    ]


def test_millions_of_strips_are_refused_before_an_object_is_built_for_each() -> None:
    assert reason_of(tiff(page(2_000_000), behind=b"\0" * 16_000_000)) == "image_too_large"


def test_values_that_together_exceed_the_file_are_refused() -> None:
    entries = [(40_000 + number, 7, 90_000, 8) for number in range(100)]
    assert reason_of(tiff(page(1) + entries, behind=b"\0" * 100_000)) == "damaged_image"


def test_a_later_page_is_checked_too() -> None:
    first = tiff(page(1), next_page=8)
    behind = tiff(page(2_000_000))[8:] + b"\0" * 16_000_000
    assert reason_of(first[:-4] + struct.pack("<I", len(first)) + behind) == "image_too_large"


def test_pages_that_follow_each_other_in_a_circle_end() -> None:
    data = tiff(page(1), next_page=8, behind=b"\0" * 100)
    assert read(data).shape == (64, 64, 3)


@pytest.mark.parametrize("order", ["little", "big"])
@pytest.mark.parametrize("big_tiff", [True, False])
def test_both_orders_of_bytes_and_both_sizes_are_read(order: str, *, big_tiff: bool) -> None:
    data = encoded(filled("L", 90), "TIFF", big_tiff=big_tiff)
    assert (read(data) == 90).all()
    if order == "big" and not big_tiff:
        assert (read(encoded(filled("I;16B", 90 * 256), "TIFF")) == 90).all()
