"""A model is built without random weights, and takes those of its file without a copy."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from clip_index.encoder.open_clip import load_encoder
from clip_index.encoder.open_clip.models import load_model
from clip_index.encoder.open_clip.weights_once import own_weights, weights_once
from clip_index.encoder.settings import EncoderSettings
from fakes.hash_encoder import draw_picture
from fakes.tiny_clip import tiny_config, write_tiny_clip

pytestmark = pytest.mark.encoder
Config: TypeAlias = "dict[str, Any]"
WEIGHTS = "open_clip_model.safetensors"
CAPTIONER = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
KINDS = [
    pytest.param(tiny_config(), id="CLIP"),
    pytest.param(tiny_config(custom_text=True), id="own text tower"),
    pytest.param(
        tiny_config(
            custom_text=True,
            init_logit_bias=-10,
            vision={
                "timm_model_name": "test_vit",
                "timm_pool": "map",
                "timm_proj": "none",
                "image_size": 160,
            },
            text={"no_causal_mask": True, "pool_type": "last", "proj_bias": True},
            embed_dim=64,
        ),
        id="SigLIP with timm",
    ),
    pytest.param(
        tiny_config(vision={"timm_model_name": "test_convnext", "timm_pool": "avg", "timm_proj": "linear"}),
        id="convolutions of timm",
    ),
    pytest.param(
        tiny_config(vision={"layers": [1, 1, 1, 1], "width": 8, "head_width": 16, "patch_size": None}),
        id="ResNet",
    ),
    pytest.param(
        tiny_config(
            custom_text=True,
            multimodal_cfg=CAPTIONER,
            vision={"attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True},
            text={"embed_cls": True, "output_tokens": True},
        ),
        id="CoCa",
    ),
]


def built(directory: Path) -> Any:
    """Build the model that a directory describes, and load its weights."""
    module = open_clip.create_model(f"local-dir:{directory}", load_weights=False)
    open_clip.load_checkpoint(module, str(directory / WEIGHTS))
    return module


def tensors_of(module: nn.Module) -> dict[str, torch.Tensor]:
    """Return weights and buffers, also those that no file holds."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


@pytest.mark.parametrize("config", KINDS)
def test_a_model_is_the_one_that_open_clip_loads_in_every_bit(config: Config, tmp_path: Path) -> None:
    write_tiny_clip(tmp_path, config)
    expected = tensors_of(built(tmp_path))
    with weights_once():
        found = tensors_of(built(tmp_path))
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor), name


def test_halves_of_a_file_become_floats(tmp_path: Path) -> None:
    write_tiny_clip(tmp_path, tiny_config())
    file = tmp_path / WEIGHTS
    save_file({name: tensor.half() for name, tensor in load_file(file).items()}, file)
    with weights_once():
        module = built(tmp_path)
    assert {tensor.dtype for tensor in module.parameters()} == {torch.float32}


def test_other_threads_draw_as_before() -> None:
    """A query must not meet what is meant for a model that is loaded beside it."""
    with weights_once(), ThreadPoolExecutor(1) as other:
        drawn = other.submit(lambda: torch.nn.Parameter(torch.zeros(100)).detach().normal_()).result()
        kept = nn.Parameter(torch.full((3,), 7.0))
        nn.init.normal_(kept)
    assert drawn.std() > 0.1
    assert kept.tolist() == [7, 7, 7]


@pytest.mark.parametrize("rubbish", [1e9, float("nan"), 0.0])
def test_draws_within_bounds_come_to_an_end_whatever_was_in_memory(rubbish: float) -> None:
    """torch draws again whatever lies outside, and so would draw for ever."""
    with weights_once():
        nn.init.trunc_normal_(nn.Parameter(torch.full((1000,), rubbish)), std=0.02)


def test_weights_that_are_owned_are_not_the_tensors_that_were_read(tmp_path: Path) -> None:
    with weights_once():
        module = built(write_tiny_clip(tmp_path, tiny_config()))
    before = {name: tensor.data_ptr() for name, tensor in tensors_of(module).items()}
    own_weights(module)
    assert all(tensor.data_ptr() != before[name] for name, tensor in tensors_of(module).items())


class TestWritingIntoTheFileOfALoadedModel:
    """A model is copied over another one of the same name. What runs must stay what its fingerprint says."""

    @pytest.mark.parametrize("precision", ["fp32", "bf16"])
    @pytest.mark.parametrize(
        "config",
        [
            pytest.param(tiny_config(), id="packed"),
            pytest.param(tiny_config(vision={"ls_init_value": 0.1}), id="one half is packed"),
            pytest.param(tiny_config(custom_text=True, text={"no_causal_mask": True}), id="the other half"),
        ],
    )
    def test_leaves_the_encoder_as_it_is(
        self, config: dict[str, Any], precision: Any, tmp_path: Path
    ) -> None:
        file, copy = write_tiny_clip(tmp_path / "model", config) / WEIGHTS, tmp_path / "copy"
        shutil.copytree(file.parent, copy)
        settings = EncoderSettings(str(file.parent), None, precision=precision)
        encoder = load_encoder(settings)
        contents = [encoder.prepare_text("a red dress"), encoder.prepare_image(draw_picture(1))]
        overwrite(file)
        found = encoder.encode(contents)
        expected = load_encoder(replace(settings, model=str(copy))).encode(contents)
        assert [rows.tolist() for rows in found] == [rows.tolist() for rows in expected]

    def test_leaves_a_model_that_is_trained_as_it_is(self, tmp_path: Path) -> None:
        module = load_model(EncoderSettings(str(write_tiny_clip(tmp_path, tiny_config())), None)).module
        before = {name: tensor.tolist() for name, tensor in module.state_dict().items()}
        overwrite(tmp_path / WEIGHTS)
        assert {name: tensor.tolist() for name, tensor in module.state_dict().items()} == before


def overwrite(file: Path) -> None:
    """Write zeros into a file, which is not replaced: its mapped pages change."""
    with file.open("r+b") as stream:
        stream.write(bytes(file.stat().st_size))
