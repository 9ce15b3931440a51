from pathlib import Path

import pytest

from cliptide.pairs.pair import BadPair, Pair
from cliptide.pairs.sources import read_pairs
from cliptide.publishing.upload_sources import SourceUnreadable


def good(path: Path) -> list[Pair]:
    return [found for found in read_pairs(path) if isinstance(found, Pair)]


def bad(path: Path) -> list[BadPair]:
    return [found for found in read_pairs(path) if isinstance(found, BadPair)]


def test_a_csv_names_pictures_beside_it_and_their_captions(tmp_path: Path):
    (tmp_path / "a.png").write_bytes(b"bytes")
    table = tmp_path / "pairs.csv"
    table.write_text("image,caption,content_id,metadata.shop\na.png,a red cap,cap-1,north\n")

    (pair,) = good(table)

    assert (pair.content_id, pair.caption, pair.metadata) == ("cap-1", "a red cap", {"shop": ("north",)})
    assert pair.read() == b"bytes"


def test_a_folder_with_one_table_is_read_by_it(tmp_path: Path):
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a.png", "title": "a cap", "tags": ["x", "y"]}\n')

    (pair,) = good(tmp_path)

    assert (pair.content_id, pair.caption, pair.metadata) == ("a.png", "a cap", {"tags": ("x", "y")})


def test_a_folder_without_a_table_pairs_each_picture_with_the_text_beside_it(tmp_path: Path):
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"bytes")
    (tmp_path / "a.txt").write_text("a cap\n")

    assert [(pair.content_id, pair.caption) for pair in good(tmp_path)] == [("a.png", "a cap")]
    assert [(one.label, one.reason) for one in bad(tmp_path)] == [("b.png", "no caption")]


def test_rows_without_a_picture_and_rows_that_cannot_be_read_are_bad_pairs(tmp_path: Path):
    table = tmp_path / "pairs.jsonl"
    table.write_text('{"text": "a"}\n{"link": "https://x/a.png", "modality": "image"}\nnonsense\n')

    assert [one.reason for one in bad(table)] == ["no picture", "no picture", "unreadable row"]


@pytest.mark.parametrize("names", [("a.csv", "b.jsonl"), ("a.csv", "b.csv")])
def test_a_folder_with_several_tables_is_refused_by_name(tmp_path: Path, names: tuple[str, str]):
    for name in names:
        (tmp_path / name).write_text("image,caption\n")

    with pytest.raises(SourceUnreadable, match=r"a\.csv, b\."):
        read_pairs(tmp_path)


@pytest.mark.parametrize("name", ["absent.csv", "picture.png"])
def test_what_is_no_source_of_pairs_is_refused(tmp_path: Path, name: str):
    (tmp_path / "picture.png").write_bytes(b"bytes")

    with pytest.raises(SourceUnreadable):
        list(read_pairs(tmp_path / name))
