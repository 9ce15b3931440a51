"""A file of each kind in the index that is wrong, or no file: opening the index costs little."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from clip_index.errors import ClipIndexError
from clip_index.reading.index_reader import IndexReader
from fakes.format_1 import rewrite_as_format_1
from fakes.hash_encoder import HashEncoder
from tests.hostile.limits import assert_bounded
from tests.query_api.small_index import SmallIndex


def be_many_zeros(path: Path) -> None:
    path.write_bytes(bytes(2**22))


def be_brackets(path: Path) -> None:
    path.write_bytes(b"[" * 2**22)


def be_a_folder(path: Path) -> None:
    path.mkdir()


INSTEAD: Mapping[str, Callable[[Path], None]] = {
    "zeros": be_many_zeros,
    "brackets": be_brackets,
    "a folder": be_a_folder,
}


def kind_of(path: Path, root: Path) -> str:
    """The name of a file without its number: one file of each kind is tried."""
    relative = path.relative_to(root)
    if relative.suffix == ".pack":
        return relative.suffix
    return "".join(letter for letter in relative.name if not letter.isdigit())


def files_by_kind(root: Path) -> dict[str, Path]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {kind_of(path, root): path.relative_to(root) for path in reversed(files)}


KINDS = {"current-.json", "index.json", "manifest-.json"}
SEGMENT_KINDS = {2: {".pack"}, 1: {"contents.arrow", "ids.npy"}}


@pytest.mark.parametrize("index_format", SEGMENT_KINDS)
@pytest.mark.parametrize("replace", INSTEAD.values(), ids=INSTEAD)
def test_each_kind_of_file_is_read_within_bounds(
    small_index: SmallIndex, tmp_path: Path, replace: Callable[[Path], None], index_format: int
) -> None:
    if index_format == 1:
        for shard in small_index.root.glob("indexes/main/*-*"):
            rewrite_as_format_1(shard)
    kinds = files_by_kind(small_index.root)
    assert KINDS | SEGMENT_KINDS[index_format] <= kinds.keys()
    for number, relative in enumerate(kinds.values()):
        root = tmp_path / f"copy-{number}"
        shutil.copytree(small_index.root, root)
        (root / relative).unlink()
        replace(root / relative)
        assert_bounded(lambda root=root: look(root), 0)


def look(root: Path) -> None:
    """Open the index; an error must be one that the services handle."""
    try:
        IndexReader(root, fingerprint=HashEncoder().fingerprint).reload()
    except (ClipIndexError, OSError) as error:
        assert len(str(error)) < 2000  # noqa: PT017 (not every kind of file is read by a start)
