from __future__ import annotations

import pytest

from clip_index.encoder import jpeg_segments
from tests.clip_index.encoder.pictures import encoded, filled, plain_photograph


@pytest.mark.parametrize(
    ("mode", "subsampling", "expected"), [("L", 0, 1.0), ("RGB", 0, 3.0), ("RGB", 1, 2.0), ("RGB", 2, 1.5)]
)
def test_coefficients_follow_the_sampling_of_colours(mode: str, subsampling: int, expected: float) -> None:
    data = encoded(filled(mode, 9), "JPEG", subsampling=subsampling)
    assert jpeg_segments.num_coefficients_a_pixel(data) == expected


def test_a_progressive_file_has_several_scans_and_a_baseline_file_one() -> None:
    picture = plain_photograph()
    assert jpeg_segments.has_several_scans(encoded(picture, "JPEG", progressive=True))
    assert not jpeg_segments.has_several_scans(encoded(picture, "JPEG"))


def test_a_scan_of_fewer_components_than_the_picture_has_tells_that_others_follow() -> None:
    data = bytearray(encoded(plain_photograph(), "JPEG"))
    data[data.index(b"\xff\xda") + 4] = 1
    assert jpeg_segments.has_several_scans(bytes(data))


@pytest.mark.parametrize(
    "data", [b"", b"\xff\xd8", b"\xff\xd8\xff", b"\xff\xd8\xff\xc0\0", b"\xff\xd8\xff\xda"]
)
def test_a_stump_has_no_scans(data: bytes) -> None:
    assert not jpeg_segments.has_several_scans(data)
    assert jpeg_segments.num_coefficients_a_pixel(data) == 3.0
    assert not jpeg_segments.is_only_sharpened_by_what_is_missing(data)


def test_restarts_count_on_where_the_data_ends() -> None:
    assert jpeg_segments.next_restart(b"\xff\xd6coded") == b"\xff\xd7"
    assert jpeg_segments.next_restart(b"\xff\xd6\xff\xd7coded") == b"\xff\xd0"
    assert jpeg_segments.next_restart(b"coded") == b"\xff\xd0"
