"""On a GPU every pass has one shape. That is tried on the processor too, and on a GPU where there is one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from clip_index.encoder.open_clip import load_encoder
from clip_index.encoder.open_clip.encoder import fixed_towers
from clip_index.encoder.open_clip.fixed_batches import FixedBatchTower
from clip_index.encoder.open_clip.models import load_model
from clip_index.encoder.open_clip.towers import build_image_tower, build_text_tower
from clip_index.encoder.settings import Device, EncoderSettings
from clip_index.errors import EncoderUnavailable
from fakes.hash_encoder import draw_picture
from fakes.tiny_clip import tiny_config, write_tiny_clip

pytestmark = pytest.mark.encoder
DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_clip(tmp_path_factory.mktemp("tiny") / "model", tiny_config())


def test_every_pass_has_the_same_number_of_rows() -> None:
    sizes: list[int] = []

    def tower(batch: Tensor) -> Tensor:
        sizes.append(len(batch))
        return batch.float() * 2

    fixed = FixedBatchTower(tower, torch.device("cpu"), num_rows=4)
    for num_rows in (1, 3, 4, 5, 9):
        rows = torch.arange(num_rows * 3).view(num_rows, 3)
        torch.testing.assert_close(fixed(rows), rows.float() * 2)
    assert set(sizes) == {4}
    assert len(sizes) == 1 + 1 + 1 + 2 + 3


@pytest.mark.parametrize("device", DEVICES)
@torch.inference_mode()
def test_a_row_has_one_embedding_whatever_it_is_encoded_together_with(directory: Path, device: str) -> None:
    model = load_model(EncoderSettings(model=str(directory)))
    towers = fixed_towers(model.module.to(device), torch.float32, torch.device(device), num_rows=8)
    encoder = load_encoder(EncoderSettings(model=str(directory)))
    pixels = torch.from_numpy(
        np.concatenate([encoder.prepare_image(draw_picture(n)).crops for n in range(11)])
    )
    together = towers.image(pixels)
    for number in range(len(pixels)):
        assert torch.equal(towers.image(pixels[number : number + 1])[0], together[number])


@pytest.mark.parametrize("device", DEVICES)
@torch.inference_mode()
def test_both_halves_compute_what_the_processor_computes(directory: Path, device: str) -> None:
    settings = EncoderSettings(model=str(directory), precision="fp32")
    plain, encoder = load_model(settings), load_encoder(settings)
    pixels = np.concatenate([encoder.prepare_image(draw_picture(n)).crops for n in range(3)])
    tokens = np.concatenate([encoder.prepare_text(text).tokens for text in ("a red dress", "a boot")])
    expected = [
        build_image_tower(plain.module, torch.float32)(torch.from_numpy(pixels)),
        build_text_tower(plain.module, torch.float32)(torch.from_numpy(tokens)),
    ]
    moved = load_model(settings).module.to(device)
    towers = fixed_towers(moved, torch.float32, torch.device(device), num_rows=5)
    found = [towers.image(torch.from_numpy(pixels)), towers.text(torch.from_numpy(tokens))]
    for one, other in zip(found, expected, strict=True):
        assert one.device.type == "cpu"
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_a_gpu_that_is_not_there_is_refused_in_one_sentence(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(EncoderUnavailable, match="CLIPTIDE_ENCODER__DEVICE is cuda, and torch finds no GPU"):
        load_encoder(EncoderSettings(model=str(directory), device="cuda"))


@pytest.mark.parametrize("has_bf16", [True, False])
def test_a_gpu_without_bf16_computes_in_fp16(monkeypatch: pytest.MonkeyPatch, has_bf16: bool) -> None:
    from clip_index.encoder.open_clip.devices import gpu_format

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has_bf16)
    assert gpu_format("auto") is (torch.bfloat16 if has_bf16 else torch.float16)
    assert gpu_format("fp32") is torch.float32
    assert gpu_format("bf16") is torch.bfloat16


@pytest.mark.parametrize("device", DEVICES)
def test_the_embeddings_of_all_devices_are_the_same_but_for_rounding(directory: Path, device: Device) -> None:
    pictures = [draw_picture(number) for number in range(40)]
    embeddings = []
    for settings in (
        EncoderSettings(model=str(directory), precision="fp32"),
        EncoderSettings(model=str(directory), device=device),
    ):
        encoder = load_encoder(settings)
        prepared = [encoder.prepare_image(picture) for picture in pictures]
        embeddings.append(np.concatenate(encoder.encode([*prepared, encoder.prepare_text("a red dress")])))
    assert (embeddings[0] * embeddings[1]).sum(axis=1).min() >= 0.998
