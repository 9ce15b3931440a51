"""An index keeps what its canaries were encoded to, and tells when an encoder encodes them otherwise."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from clip_index.content import Embeddings
from clip_index.encoder.canary import CANARIES, Canary, encode_canaries, likeness
from clip_index.encoder.image_headers import ImageLimits
from clip_index.encoder.protocol import Prepared
from clip_index.errors import DamagedIndexFile
from clip_index.indexes.canaries import KeptCanaries, ensure_canaries, read_canaries
from clip_index.indexes.index_directory import IndexDirectory
from clip_index.storage.digested_json import dump_digested, parse_digested
from fakes.drifting_encoder import DriftingEncoder
from fakes.hash_encoder import HashEncoder
from fakes.shards import create_index


@pytest.fixture
def index(tmp_path: Path) -> IndexDirectory:
    return create_index(tmp_path, fingerprint=HashEncoder().fingerprint)


def test_the_canaries_are_texts_and_pictures_that_have_one_crop() -> None:
    found = encode_canaries(HashEncoder(max_crops=9))
    assert list(found) == list(CANARIES)
    assert [len(rows) for canary, rows in found.items() if canary.modality == "image"] == [1, 1, 1]
    texts = [len(rows) for canary, rows in found.items() if canary.modality == "text"]
    assert len(texts) == 3
    assert max(texts) > 1  # one is longer than a window
    assert len({rows.tobytes() for rows in found.values()}) == len(CANARIES)


def test_the_first_to_come_keeps_its_canaries_and_later_ones_compare(index: IndexDirectory) -> None:
    assert index.read_canaries() is None
    first = ensure_canaries(index.store, HashEncoder())
    before = index.store.read("canaries.json")
    second = ensure_canaries(index.store, DriftingEncoder(0.5))
    assert index.store.read("canaries.json") == before
    for canary, rows in first.embeddings.items():
        np.testing.assert_array_equal(second.embeddings[canary], rows)
    assert dict(first.made_with)["numpy"] == np.__version__


def test_two_that_come_at_once_keep_those_of_one(
    index: IndexDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Beaten(HashEncoder):
        """Another process creates the file while this one encodes."""

        def encode(self, prepared: Sequence[Prepared]) -> list[Embeddings]:
            ensure_canaries(index.store, HashEncoder())
            return HashEncoder(seed=1).encode(prepared)

    kept = ensure_canaries(index.store, Beaten())
    expected = encode_canaries(HashEncoder())
    for canary, rows in kept.embeddings.items():
        np.testing.assert_array_equal(rows, expected[canary])


@pytest.mark.parametrize("modality", ["text", "image"])
def test_an_encoder_that_drifts_is_told_with_both_cosines(index: IndexDirectory, modality: str) -> None:
    kept = ensure_canaries(index.store, HashEncoder())
    found = kept.compare(encode_canaries(DriftingEncoder(0.95, modality)), None)
    assert found.has_drifted
    assert found.cosines[modality] == pytest.approx(0.95, abs=1e-5)  # type: ignore[index]
    assert found.complaint is not None
    texts, pictures = (0.95, 1.0) if modality == "text" else (1.0, 0.95)
    assert f"texts {texts:.4f}, pictures {pictures:.4f}; at least 0.999" in found.complaint


@pytest.mark.parametrize(
    ("cosine", "number_format", "has_drifted"),
    [
        pytest.param(0.9991, "fp32", False, id="rounding"),
        pytest.param(0.9985, "fp32", True, id="more than rounding"),
        pytest.param(0.9985, "bf16", False, id="the rounding of another format"),
        pytest.param(0.9975, "bf16", True, id="more than another format explains"),
    ],
)
def test_the_bound_depends_on_the_number_formats(
    cosine: float, number_format: str, has_drifted: bool
) -> None:
    kept = KeptCanaries.of(DriftingEncoder(number_format="fp32"))
    found = kept.compare(encode_canaries(DriftingEncoder(cosine)), number_format)
    assert found.has_drifted == has_drifted


def test_embeddings_that_are_no_numbers_have_drifted() -> None:
    kept = encode_canaries(HashEncoder())
    broken = {canary: np.full_like(rows, np.nan) for canary, rows in kept.items()}
    assert likeness(kept, broken, is_same_format=True).has_drifted


def test_another_number_of_windows_has_drifted() -> None:
    kept = encode_canaries(HashEncoder())
    fewer = {canary: rows[:1] for canary, rows in kept.items()}
    found = likeness(kept, fewer, is_same_format=True)
    assert found.cosines == {"text": 0.0, "image": pytest.approx(1.0)}


def test_canaries_that_the_limits_refuse_are_left_out() -> None:
    kept = KeptCanaries.of(HashEncoder())
    now = encode_canaries(HashEncoder(limits=ImageLimits(max_pixels=1_000)), kept.embeddings)
    assert 0 < sum(canary.modality == "image" for canary in now) < 3
    assert not kept.compare(now, None).has_drifted


def test_an_index_keeps_its_canaries_when_a_release_has_others(
    index: IndexDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = (Canary("a canary of an earlier release"),)
    monkeypatch.setattr("clip_index.indexes.canaries.encode_canaries", lambda e: encode_canaries(e, own))
    ensure_canaries(index.store, HashEncoder())
    monkeypatch.undo()
    kept = ensure_canaries(index.store, HashEncoder())
    assert tuple(kept.embeddings) == own


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda data: data[:-9], id="cut"),
        pytest.param(lambda data: data.replace(b"a canary", b"a banana"), id="changed"),
        pytest.param(lambda _: b"", id="empty"),
        pytest.param(lambda _: dump_digested({"format": 1}), id="of other fields"),
        pytest.param(
            lambda data: dump_digested({**parse_digested(data, "x"), "canaries": [{"text": "a"}]}),
            id="a canary without embeddings",
        ),
    ],
)
def test_a_damaged_file_is_named_with_what_to_do(index: IndexDirectory, damage: object) -> None:
    ensure_canaries(index.store, HashEncoder())
    path = index.path / "canaries.json"
    data = damage(path.read_bytes())  # type: ignore[operator]
    path.unlink()
    path.write_bytes(data)
    for read in (lambda: read_canaries(index.store), lambda: ensure_canaries(index.store, HashEncoder())):
        with pytest.raises(DamagedIndexFile, match=r"canaries\.json.*remove the file, and the next consumer"):
            read()


def test_a_file_of_a_later_format_is_left_alone(index: IndexDirectory) -> None:
    later = dump_digested({"format": 2, "secrets": []})
    index.store.ensure("canaries.json", later)
    assert read_canaries(index.store) is None
    kept = ensure_canaries(index.store, HashEncoder())
    assert not kept.compare(encode_canaries(HashEncoder()), None).has_drifted
    assert index.store.read("canaries.json") == later


def test_fields_that_a_later_release_adds_do_no_harm(index: IndexDirectory) -> None:
    ensure_canaries(index.store, HashEncoder())
    fields = parse_digested(index.store.read("canaries.json"), "x")
    fields["canaries"][0]["added"] = 1
    index.store.remove("canaries.json")
    index.store.ensure("canaries.json", dump_digested({**fields, "added": json.dumps([1])}))
    kept = read_canaries(index.store)
    assert kept is not None
    assert len(kept.embeddings) == len(CANARIES)
    assert replace(kept, number_format="bf16").number_format == "bf16"
