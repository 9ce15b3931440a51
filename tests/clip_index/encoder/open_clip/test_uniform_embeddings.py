"""One content has one embedding, whatever it is encoded together with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch

from clip_index.encoder.canary import CANARY_PNG
from clip_index.encoder.open_clip import load_encoder, packed_blocks, towers
from clip_index.encoder.open_clip.packed_blocks import PackedLinear, filled_size
from clip_index.encoder.open_clip.towers import PackedTextTower, build_text_tower
from clip_index.encoder.open_clip.uniform_tower import NUM_PROBES, OneRowTower, is_uniform
from clip_index.encoder.protocol import Encoder, Prepared, PreparedImage
from clip_index.encoder.settings import EncoderSettings
from fakes.tiny_clip import tiny_config, write_tiny_clip

pytestmark = pytest.mark.encoder

_PRODUCTION = open_clip.get_model_config("ViT-B-32")

CONFIGS = {
    "plain": tiny_config(),
    "pooled at eos": tiny_config(text={"pool_type": "eos", "eos_id": 49407}),
    "projection with bias": tiny_config(text={"proj_bias": True}),
    "layer scale": tiny_config(vision={"ls_init_value": 0.1}, text={"ls_init_value": 0.1}),
    "attention pool": tiny_config(vision={"attentional_pool": True, "attn_pooler_heads": 2}),
    "not causal": tiny_config(custom_text=True, text={"no_causal_mask": True, "pool_type": "last"}),
    "convolutions": tiny_config(vision={"layers": [1, 1, 1, 1], "width": 8, "patch_size": None}),
    "width of ViT-B-32": _PRODUCTION
    | {
        "vision_cfg": _PRODUCTION["vision_cfg"] | {"layers": 2},
        "text_cfg": _PRODUCTION["text_cfg"] | {"layers": 2},
    },
}


def write_contents(encoder: Encoder, num_each: int) -> list[Prepared]:
    """Noise of the model's size, and texts of one to some eighty words."""
    rng = np.random.default_rng(0)
    shape = encoder.prepare_image(CANARY_PNG).pixels.shape
    images = [PreparedImage(rng.integers(0, 256, shape, dtype=np.uint8)) for _ in range(num_each)]
    texts = [
        " ".join(rng.choice(["red", "dress", "wooden", "Schuhe", "鞋子"], length))
        for length in rng.integers(1, 80, num_each)
    ]
    return [*images, *(encoder.prepare_text(text) for text in texts)]


def load_wide(directory: Path, precision: Any) -> Encoder:
    """Load a model as wide as ViT-B-32, with two layers, for one thread."""
    model = write_tiny_clip(directory / "model", CONFIGS["width of ViT-B-32"])
    return load_encoder(EncoderSettings(str(model), precision=precision, threads=1))


def embeddings_by_content(encoder: Encoder, contents: Sequence[Prepared]) -> list[set[bytes]]:
    """Encode the contents in random batches of every size; return the different embeddings of each."""
    rng = np.random.default_rng(1)
    seen: list[set[bytes]] = [set() for _ in contents]
    for size in [1, 1, 1, 2, 2, 3, 3, 4, 5, 6, 7, 9, 12, 15, 17, 24, len(contents), len(contents)]:
        chosen = rng.permutation(len(contents))[:size]
        for number, rows in zip(chosen, encoder.encode([contents[i] for i in chosen]), strict=True):
            seen[number].add(rows.tobytes())
    return seen


@pytest.fixture
def num_threads() -> Iterator[None]:
    """Loading an encoder changes torch's number of threads in this process; put it back."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("num_threads")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", CONFIGS)
def test_a_content_has_one_embedding_whatever_its_batch(name: str, precision: Any, tmp_path: Path) -> None:
    directory = write_tiny_clip(tmp_path / "model", CONFIGS[name])
    encoder = load_encoder(EncoderSettings(str(directory), precision=precision, threads=1))
    contents = write_contents(encoder, 14)
    assert {len(embeddings) for embeddings in embeddings_by_content(encoder, contents)} == {1}


@pytest.mark.usefixtures("num_threads")
def test_encoders_of_any_number_of_threads_and_batch_size_agree(tmp_path: Path) -> None:
    directory = write_tiny_clip(tmp_path / "model", CONFIGS["width of ViT-B-32"])
    found = []
    for threads, max_batch in ((1, 32), (2, 32), (3, 5)):
        encoder = load_encoder(EncoderSettings(str(directory), threads=threads, max_batch=max_batch))
        found.append([rows.tobytes() for rows in encoder.encode(write_contents(encoder, 20))])
    assert found[0] == found[1] == found[2]


class BatchSensitiveTower(PackedTextTower):
    """A tower on a processor whose kernels add in an order that depends on the size of the batch."""

    def __init__(self, tower: PackedTextTower) -> None:
        self._inner = tower

    def shortened(self) -> BatchSensitiveTower:
        return BatchSensitiveTower(self._inner.shortened())

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        return self._inner(batch) * (1 + len(batch) * 1e-6)


def test_a_tower_that_depends_on_the_batch_is_told_from_one_that_does_not(tmp_path: Path) -> None:
    directory = write_tiny_clip(tmp_path / "model", tiny_config())
    tower = build_text_tower(open_clip.create_model(f"local-dir:{directory}").eval(), torch.float32)
    probes = torch.zeros(NUM_PROBES, 77, dtype=torch.int32)
    probes[:, 1] = torch.arange(NUM_PROBES)
    probes[:, 2] = 49407
    assert isinstance(tower, PackedTextTower)
    assert is_uniform(tower, probes)
    sensitive = BatchSensitiveTower(tower)
    assert not is_uniform(sensitive, probes)
    alone = OneRowTower(sensitive)
    with torch.inference_mode():
        assert torch.equal(alone(probes)[:1], alone(probes[:1]))


@pytest.mark.parametrize("are_packed", [True, False], ids=["packed kernels", "kernels of another processor"])
def test_two_blocks_tell_what_the_whole_tower_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, are_packed: bool
) -> None:
    if not are_packed:
        monkeypatch.setattr(packed_blocks, "_can_pack", lambda: False)
    config = CONFIGS["width of ViT-B-32"]
    config = {**config, "text_cfg": {**config["text_cfg"], "layers": 4}}
    directory = write_tiny_clip(tmp_path / "model", config)
    tower = build_text_tower(open_clip.create_model(f"local-dir:{directory}").eval(), torch.float32)
    assert isinstance(tower, PackedTextTower)
    probes = torch.randint(1, 49406, (NUM_PROBES, 77), generator=torch.manual_seed(0), dtype=torch.int32)
    for number in range(NUM_PROBES):
        probes[number, 3 * number + 1] = 49407
    with torch.inference_mode():
        whole, short = tower(probes), tower.shortened()(probes)
        assert torch.equal(tower(probes[:1]), whole[:1]) == torch.equal(
            tower.shortened()(probes[:1]), short[:1]
        )


@pytest.mark.usefixtures("num_threads")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_computing_the_start_token_once_changes_no_embedding(
    precision: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = load_wide(tmp_path, precision)
    contents = [encoder.prepare_text("red " * number) for number in range(1, 25)]
    monkeypatch.setattr(towers, "filled_size", int)
    rows_with_start = num_rows_of(encoder, contents, monkeypatch)
    once = np.concatenate(encoder.encode(contents))
    monkeypatch.setattr(PackedTextTower, "_start_of", lambda *_: None)
    assert rows_with_start < num_rows_of(encoder, contents, monkeypatch)
    np.testing.assert_array_equal(once, np.concatenate(encoder.encode(contents)))


def num_rows_of(encoder: Encoder, contents: Sequence[Prepared], monkeypatch: pytest.MonkeyPatch) -> int:
    """Return how many rows the layers multiply, once the start token is known."""
    encoder.encode(contents)
    multiply, sizes = PackedLinear.__call__, []

    def counting(layer: PackedLinear, rows: torch.Tensor) -> torch.Tensor:
        sizes.append(len(rows))
        return multiply(layer, rows)

    with monkeypatch.context() as patch:
        patch.setattr(PackedLinear, "__call__", counting)
        encoder.encode(contents)
    return sum(sizes)


@pytest.mark.parametrize("are_packed", [True, False], ids=["packed kernels", "kernels of another processor"])
def test_texts_may_start_with_any_token_and_end_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, are_packed: bool
) -> None:
    if not are_packed:
        monkeypatch.setattr(packed_blocks, "_can_pack", lambda: False)
    directory = write_tiny_clip(tmp_path / "model", CONFIGS["width of ViT-B-32"])
    model = open_clip.create_model(f"local-dir:{directory}").eval()
    tower = build_text_tower(model, torch.float32)
    assert isinstance(tower, PackedTextTower)
    end = 49407
    tokens = torch.zeros(6, 77, dtype=torch.int32)
    for row, ids in enumerate([[end], [7, end], [7, 8, end], [9, 8, end], [9, end], [7, 8, 9, end]]):
        tokens[row, : len(ids)] = torch.tensor(ids)
    with torch.inference_mode():
        expected = model.encode_text(tokens.long())
        for chosen in ([0, 1, 2, 3, 4, 5], [1, 2, 5], [3, 4], [2, 5, 1], [0], [5]):
            torch.testing.assert_close(tower(tokens[chosen]), expected[chosen], atol=1e-5, rtol=1e-5)


def test_2500_numbers_of_tokens_are_filled_up_to_few_sizes_by_an_eighth_at_most() -> None:
    numbers = range(1, 2_500)
    assert len({filled_size(number) for number in numbers}) <= 71
    assert all(number <= filled_size(number) <= max(4, number * 9 / 8) for number in numbers)


@pytest.mark.usefixtures("num_threads")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_filling_up_the_tokens_of_a_batch_changes_no_embedding(
    precision: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = load_wide(tmp_path, precision)
    contents = write_contents(encoder, 9)
    filled = np.concatenate(encoder.encode(contents))
    monkeypatch.setattr(towers, "filled_size", int)
    monkeypatch.setattr(packed_blocks, "filled_indices", lambda indices: indices)
    np.testing.assert_array_equal(filled, np.concatenate(encoder.encode(contents)))


@pytest.mark.usefixtures("num_threads")
def test_kernels_see_few_numbers_of_rows_because_each_is_compiled_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = write_tiny_clip(tmp_path / "model", tiny_config())
    encoder = load_encoder(EncoderSettings(str(directory), threads=1))
    multiply, sizes = PackedLinear.__call__, set()

    def counting(layer: PackedLinear, rows: torch.Tensor) -> torch.Tensor:
        if layer._gelu is not None:
            sizes.add(len(rows))
        return multiply(layer, rows)

    monkeypatch.setattr(PackedLinear, "__call__", counting)
    texts = [encoder.prepare_text("red " * number) for number in range(1, 60)]
    for number in range(1, 60):
        encoder.encode(texts[:number:2])
        encoder.encode(texts[number - 1 : number])
    wanted = {4, 8, 16, 32}
    assert wanted <= sizes
    assert all(size == filled_size(size) for size in sizes)
