"""A pack holds its parts unchanged, where libraries can map them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clip_index.errors import DamagedFile
from clip_index.segments.columns import open_columns, write_columns
from clip_index.storage import pack
from clip_index.storage.mapped_array import map_array
from clip_index.storage.mapped_part import map_file
from clip_index.storage.pack import ALIGNMENT, PackPart, PackWriter


@given(parts=st.lists(st.lists(st.binary(max_size=200), max_size=4), min_size=1, max_size=6))
def test_each_part_is_read_as_it_was_written_and_begins_aligned(
    tmp_path_factory: pytest.TempPathFactory, parts: list[list[bytes]]
) -> None:
    path = tmp_path_factory.mktemp("pack") / "pack"
    with PackWriter(path) as writer:
        for number, pieces in enumerate(parts):
            with writer.part(str(number)) as file:
                for piece in pieces:
                    file.write(piece)
                    assert file.tell() <= sum(map(len, pieces))
    assert all(part.offset % ALIGNMENT == 0 for part in writer.parts.values())
    data = path.read_bytes()
    for number, pieces in enumerate(parts):
        part = writer.parts[str(number)]
        assert data[part.offset : part.end] == b"".join(pieces)


def test_arrays_and_columns_lie_aligned_in_memory_behind_a_part_of_any_length(tmp_path: Path) -> None:
    batch = pa.record_batch({"number": pa.array(range(100), pa.int64()), "text": pa.array(["é"] * 100)})
    array = np.arange(30, dtype=np.uint64).reshape(2, 15)
    with PackWriter(tmp_path / "pack") as pack:
        for length in (1, 63, 64, 65):
            with pack.part(f"before {length}") as file:
                file.write(bytes(length))
            with pack.part(f"array {length}") as file:
                np.save(file, array)
            with pack.part(f"columns {length}") as file:
                write_columns(file, batch)
    mapped = map_file(tmp_path / "pack")
    for length in (1, 63, 64, 65):
        found = map_array(mapped.part(pack.parts[f"array {length}"]))
        assert found.tolist() == array.tolist()
        assert found.ctypes.data % ALIGNMENT == 0
        columns = open_columns(mapped.part(pack.parts[f"columns {length}"]))
        assert columns.equals(batch)
        assert columns.column("number").buffers()[1].address % 8 == 0


def test_what_is_mapped_outlives_the_removal_of_its_file(tmp_path: Path) -> None:
    with PackWriter(tmp_path / "pack") as pack, pack.part("array") as file:
        np.save(file, np.arange(1000))
    found = map_array(map_file(tmp_path / "pack").part(pack.parts["array"]))
    (tmp_path / "pack").unlink()
    assert found.sum() == 499_500


@pytest.mark.parametrize(
    "place", [PackPart(0, 11), PackPart(64, 1), PackPart(-1, 5), PackPart(4, -2)], ids=str
)
def test_a_part_that_is_not_in_its_pack_is_damage(tmp_path: Path, place: PackPart) -> None:
    (tmp_path / "pack").write_bytes(bytes(10))
    with pytest.raises(DamagedFile, match="10 bytes"):
        map_file(tmp_path / "pack").part(place)


def test_a_pack_never_replaces_a_file(tmp_path: Path) -> None:
    (tmp_path / "pack").write_bytes(b"somebody's")
    with pytest.raises(FileExistsError):
        PackWriter(tmp_path / "pack")


class ShortWrites(io.FileIO):
    """A file that takes a part of what it is given, as a nearly full disk does."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "x")
        self.given: list[tuple[int, int]] = []

    def write(self, data: Any, /) -> int:
        self.given.append((self.tell(), len(data)))
        return super().write(memoryview(data)[: 1 + len(data) // 2])


def test_a_pack_is_written_in_large_pieces_wherever_its_parts_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pack, "_WRITTEN_AT_ONCE", 1000)
    file = ShortWrites(tmp_path / "p.pack")
    with monkeypatch.context() as opening:
        opening.setattr(Path, "open", lambda *_, **__: file)
        writer = PackWriter(tmp_path / "p.pack")
    contents = [bytes([n]) * size for n, size in enumerate([0, 1, 999, 1000, 1001, 5000, 64, 3])]
    with writer:
        for number, content in enumerate(contents):
            with writer.part(str(number)) as part:
                part.write(content[:700])
                part.write(np.frombuffer(content[700:], np.uint8))
    begun = [given for given in file.given if given[0] % 1000 == 0]
    assert begun == [(1000 * n, 1000) for n in range(8)] + [(8000, writer.parts["7"].end - 8000)]
    mapped = map_file(tmp_path / "p.pack")
    assert mapped.data.size == writer.parts["7"].end
    for number, content in enumerate(contents):
        assert mapped.part(writer.parts[str(number)]).data.to_pybytes() == content
