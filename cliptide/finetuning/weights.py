"""Which weights are trained, how tuned weights are mixed with those before, and how a model is written."""

from __future__ import annotations

import copy
import json
import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from open_clip.transformer import QuickGELU
from safetensors.torch import save_file
from torch import Tensor, nn

from clip_index.encoder.open_clip.encoder import Preparation
from clip_index.encoder.open_clip.models import Model, load_model
from clip_index.encoder.settings import EncoderSettings
from cliptide.finetuning.errors import FinetuneRefused

Trained: TypeAlias = Literal["projections", "last-blocks", "all"]
Weights: TypeAlias = Mapping[str, Tensor]

CONFIG_FILE, WEIGHTS_FILE = "open_clip_config.json", "open_clip_model.safetensors"
_PROJECTION = re.compile(r"(visual\.(proj|head\..*|attnpool\..*)|(text\.)?text_projection.*|text\.proj\..*)$")
_BLOCK = re.compile(r"(?P<tower>.*)\.(resblocks|blocks|layers|stages)\.(?P<number>\d+)\.")
_LAST_NORM = re.compile(r"(.*\.)?(ln_post|ln_final)\..*$")


def load_finite(settings: EncoderSettings) -> Model:
    """Load a model that can be trained. Raises `EncoderUnavailable` or `FinetuneRefused`."""
    model = load_model(settings)
    broken = [name for name, tensor in model.module.state_dict().items() if not torch.isfinite(tensor).all()]
    if broken:
        raise FinetuneRefused(
            f"the weights of {settings.model} are damaged: {broken[0]} holds NaN or infinity"
        )
    return model


def choose_trained(module: nn.Module, trained: Trained, num_blocks: int) -> list[str]:
    """Let the chosen parameters require a gradient, and return their names. `logit_scale` is always one.

    Raises `FinetuneRefused` if the architecture has no such parts.
    """
    names = [name for name, _ in module.named_parameters()]
    chosen = set(names) if trained == "all" else {name for name in names if _PROJECTION.match(name)}
    if trained == "last-blocks":
        chosen |= _of_last_blocks(names, num_blocks)
    if not chosen:
        raise FinetuneRefused(f"this architecture has no {trained} that are known: use --train all")
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name in chosen or name == "logit_scale")
    return [name for name in names if name in chosen or name == "logit_scale"]


def _of_last_blocks(names: list[str], num_blocks: int) -> set[str]:
    """Return the parameters of the last blocks of each tower, and of the norms behind them."""
    matches = [(name, match) for name in names if (match := _BLOCK.match(name))]
    last: dict[str, int] = {}
    for _, match in matches:
        last[match["tower"]] = max(last.get(match["tower"], 0), int(match["number"]))
    blocks = {n for n, match in matches if int(match["number"]) > last[match["tower"]] - num_blocks}
    return blocks | ({name for name in names if _LAST_NORM.match(name)} if blocks else set())


def copy_weights(module: nn.Module, names: list[str]) -> dict[str, Tensor]:
    """Copy the named parameters to the processor's memory."""
    parameters = dict(module.named_parameters())
    return {name: parameters[name].detach().cpu().clone() for name in names}


@torch.no_grad()
def set_weights(module: nn.Module, weights: Weights) -> None:
    parameters = dict(module.named_parameters())
    for name, tensor in weights.items():
        parameters[name].copy_(tensor)


def mixed(start: Weights, tuned: Weights, share: float) -> dict[str, Tensor]:
    """Average the weights: `share` is how much of the tuned ones is taken (WiSE-FT, arXiv 2109.01903)."""
    return {name: torch.lerp(start[name], tensor, share) for name, tensor in tuned.items()}


def write_model(directory: Path, model: Model) -> None:
    """Write the model so that open_clip loads it from the directory, and load it once to prove that.

    The config is put in place last. Until then the directory holds no model that can be loaded.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory, prefix=".model-") as name:
        unfinished = Path(name)
        state = {key: tensor.cpu().contiguous().clone() for key, tensor in model.module.state_dict().items()}
        save_file(state, unfinished / WEIGHTS_FILE, metadata={"format": "pt"})
        text = json.dumps(_config(model), indent=2) + "\n"
        (unfinished / CONFIG_FILE).write_text(text, encoding="utf-8")
        _check_same(model, load_model(EncoderSettings(model=str(unfinished), pretrained=None)))
        for file in (WEIGHTS_FILE, CONFIG_FILE):
            os.replace(unfinished / file, directory / file)


def _config(model: Model) -> dict[str, Any]:
    config = copy.deepcopy(dict(model.config))
    # a pretrained tag can ask for another activation than its architecture's config names
    config["quick_gelu"] = any(isinstance(module, QuickGELU) for module in model.module.modules())
    return {"model_cfg": config, "preprocess_cfg": dict(model.preprocessing)}


@torch.inference_mode()
def _check_same(model: Model, loaded: Model) -> None:
    preparation = Preparation.of(model, EncoderSettings())
    tokens = torch.from_numpy(preparation.prepare_text("a canary").tokens)
    device = next(model.module.parameters()).device
    ours, theirs = model.module.encode_text(tokens.to(device)).cpu(), loaded.module.encode_text(tokens)
    if not torch.allclose(ours, theirs, rtol=1e-2, atol=1e-3):
        raise FinetuneRefused("the written model encodes otherwise than the trained one: this is a defect")
