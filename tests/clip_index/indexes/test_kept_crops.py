"""An index goes on with the number of crops that it was created with."""

from __future__ import annotations

from pathlib import Path

import pytest

from clip_index.encoder.protocol import EncoderFingerprint
from clip_index.encoder.settings import EncoderSettings
from clip_index.errors import EncoderMismatch
from clip_index.indexes.index_directory import IndexDescription, IndexDirectory
from clip_index.indexes.kept_crops import with_crops_of_index
from clip_index.reading.index_reader import IndexReader
from fakes.hash_encoder import HashEncoder


def description(fingerprint: EncoderFingerprint) -> IndexDescription:
    return IndexDescription("uploads", None, 1, "cliptide-main", fingerprint)


def create(root: Path, max_crops: int) -> IndexDirectory:
    return IndexDirectory.create(root, "main", description(HashEncoder(max_crops=max_crops).fingerprint))


@pytest.mark.parametrize("max_crops", [1, 3, 5])
@pytest.mark.parametrize("index_id", ["main", None])
def test_an_index_keeps_its_crops(tmp_path: Path, max_crops: int, index_id: str | None) -> None:
    create(tmp_path, max_crops)
    assert with_crops_of_index(EncoderSettings(), tmp_path, index_id).max_crops == max_crops


def test_an_operator_may_ask_for_another_number(tmp_path: Path) -> None:
    create(tmp_path, 1)
    assert with_crops_of_index(EncoderSettings(max_crops=3), tmp_path, "main").max_crops == 3


def test_a_new_index_has_as_many_as_the_encoder_takes(tmp_path: Path) -> None:
    assert with_crops_of_index(EncoderSettings(), tmp_path, "main").max_crops is None


def test_an_index_that_cannot_be_read_is_left_to_whoever_opens_it(tmp_path: Path) -> None:
    (create(tmp_path, 3).path / "index.json").chmod(0o644)
    (tmp_path / "indexes" / "main" / "index.json").write_text("{}")
    assert with_crops_of_index(EncoderSettings(), tmp_path, "main").max_crops is None


def test_a_consumer_with_another_number_is_refused_with_both_numbers(tmp_path: Path) -> None:
    create(tmp_path, 1)
    with pytest.raises(EncoderMismatch, match="up to 3 crops of a picture"):
        create(tmp_path, 3)


def test_queries_of_the_same_model_search_an_index_with_any_number(tmp_path: Path) -> None:
    create(tmp_path, 1)
    IndexReader(tmp_path, "main", HashEncoder(max_crops=3).fingerprint).reload()
    with pytest.raises(EncoderMismatch):
        IndexReader(tmp_path, "main", HashEncoder(seed=1).fingerprint).reload()
