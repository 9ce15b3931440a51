"""Which weights are trained, how tuned weights are mixed with those before, and how a model is written."""

from __future__ import annotations

import copy
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
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
UNFINISHED_FOLDER = ".unfinished-model"
_PROJECTION = re.compile(r"(visual\.(proj|head\..*|attnpool\..*)|(text\.)?text_projection.*|text\.proj\..*)$")
_BLOCK = re.compile(r"(?P<tower>.*)\.(resblocks|blocks|layers|stages)\.(?P<number>\d+)\.")
_LAST_NORM = re.compile(r"(.*\.)?(ln_post|ln_final)\..*$")


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


def write_model(directory: Path, model: Model, other_texts: Mapping[str, str] | None = None) -> None:
    """Write the model so that open_clip loads it from the directory, and load it once to prove that.

    `other_texts` are further files, by name. A model that is there already stays until everything is written
    beside it; then all files are moved into place, the config last. Without a config the directory holds no
    model that can be loaded, so nobody loads one whose parts do not belong together.
    """
    texts = {**(other_texts or {}), CONFIG_FILE: json.dumps(_config(model), indent=2) + "\n"}
    with _unfinished_folder(directory) as unfinished:
        for name, text in texts.items():
            (unfinished / name).write_text(text, encoding="utf-8")
        state = {key: tensor.cpu().contiguous().clone() for key, tensor in model.module.state_dict().items()}
        save_file(state, unfinished / WEIGHTS_FILE, metadata={"format": "pt"})
        # safetensors lets the owner alone read a file, and services have users of their own
        shutil.copymode(unfinished / CONFIG_FILE, unfinished / WEIGHTS_FILE)
        _check_same(model, load_model(EncoderSettings(model=str(unfinished), pretrained=None)))
        (directory / CONFIG_FILE).unlink(missing_ok=True)
        for name in (WEIGHTS_FILE, *texts):
            os.replace(unfinished / name, directory / name)


@contextmanager
def _unfinished_folder(directory: Path) -> Iterator[Path]:
    """Give a folder beside the files that are to be replaced. One that a killed process has left goes."""
    folder = directory / UNFINISHED_FOLDER
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


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
