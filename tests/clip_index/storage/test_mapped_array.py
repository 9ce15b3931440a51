"""Arrays are mapped as NumPy has written them, whether their headers are usual ones or not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from clip_index.errors import DamagedFile
from clip_index.storage.mapped_array import map_array
from clip_index.storage.mapped_part import map_file

ARRAYS = [
    np.arange(6, dtype=np.uint64).reshape(2, 3),
    np.arange(5, dtype=np.uint32),
    np.arange(6, dtype=np.float16).reshape(3, 2),
    np.arange(3, dtype=np.uint8),
    np.array([True, False]),
    np.empty((2, 0), np.uint64),
    np.empty(0, np.float32),
    np.arange(8, dtype=np.int64).reshape(2, 2, 2),
    np.arange(3, dtype=">u4"),
    np.array(7),
]


@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: f"{array.dtype} {array.shape}")
def test_an_array_is_mapped_as_numpy_reads_it(array: np.ndarray, tmp_path: Path) -> None:
    np.save(tmp_path / "array.npy", array)
    mapped = map_array(map_file(tmp_path / "array.npy"))
    assert (mapped.dtype, mapped.shape, mapped.tolist()) == (array.dtype, array.shape, array.tolist())
    assert not mapped.flags.writeable


@pytest.mark.parametrize("array", ARRAYS[:4], ids=lambda array: f"{array.dtype} {array.shape}")
def test_an_array_that_is_cut_short_is_damage(array: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "array.npy"
    np.save(path, array)
    for length in (0, 5, 9, 60, path.stat().st_size - 1):
        cut = tmp_path / f"{length}.npy"
        cut.write_bytes(path.read_bytes()[:length])
        with pytest.raises(DamagedFile):
            map_array(map_file(cut))


@pytest.mark.parametrize("shape", ["9" * 5_000 + ",", "0, " + "9" * 30, f"0, {2**62}", f"{2**63}, 0", "007,"])
def test_a_shape_that_no_array_has_is_damage(shape: str, tmp_path: Path) -> None:
    text = f"{{'descr': '<u4', 'fortran_order': False, 'shape': ({shape}), }}\n".encode()
    path = tmp_path / "array.npy"
    items = bytes(28 if shape == "007," else 0)
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + items)
    with pytest.raises(DamagedFile):
        map_array(map_file(path))


@pytest.mark.parametrize(
    "text", ["[", "'''", "{[]: 1}", "{1: 2, 'a': 3}", "-" * 9_000], ids=lambda text: text[:9]
)
def test_a_header_that_python_cannot_read_is_damage(text: str, tmp_path: Path) -> None:
    path = tmp_path / "array.npy"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode())
    with pytest.raises(DamagedFile):
        map_array(map_file(path))
