"""A checkpoint: everything that a run needs to go on, in one file that is replaced in one step."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from cliptide.finetuning.errors import FinetuneRefused
from cliptide.finetuning.weights import Weights

_NOW, _BEST, _OPTIMIZER = "now/", "best/", "optimizer/"


@dataclass(slots=True)
class Progress:
    """How far a run is. `best` is the mean recall@1 and the mean MRR of the best evaluation."""

    step: int = 0
    best: tuple[float, float] = (-1.0, -1.0)
    best_epoch: int = 0
    num_since_best: int = 0
    losses: list[float] = field(default_factory=list)  # the mean of each epoch
    recalls: list[float] = field(default_factory=list)  # after each epoch


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The progress, the trained weights now and at their best, and the optimizer's state."""

    progress: Progress
    now: Weights
    best: Weights
    optimizer: Weights


def write_checkpoint(path: Path, key: Mapping[str, Any], checkpoint: Checkpoint) -> None:
    """Replace the checkpoint. A process that dies meanwhile leaves the former one. `key` names the run."""
    tensors = {
        prefix + name: tensor.detach().cpu().contiguous().clone()
        for prefix, part in (
            (_NOW, checkpoint.now),
            (_BEST, checkpoint.best),
            (_OPTIMIZER, checkpoint.optimizer),
        )
        for name, tensor in part.items()
    }
    metadata = {"key": json.dumps(key), "progress": json.dumps(asdict(checkpoint.progress))}
    unfinished = path.with_suffix(".unfinished")
    save_file(tensors, unfinished, metadata=metadata)
    os.replace(unfinished, path)


def read_checkpoint(path: Path, key: Mapping[str, Any]) -> Checkpoint | None:
    """Return the run's checkpoint, or None if there is none. Raises `FinetuneRefused` for another run's."""
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        found_key, progress = json.loads(metadata["key"]), json.loads(metadata["progress"])
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise FinetuneRefused(f"{path} is no checkpoint that can be read ({error}): use --restart") from error
    _check_key(path, found_key, json.loads(json.dumps(key)))
    progress["best"] = tuple(progress["best"])
    parts = (_with_prefix(tensors, prefix) for prefix in (_NOW, _BEST, _OPTIMIZER))
    return Checkpoint(Progress(**progress), *parts)


def _check_key(path: Path, found: Any, wanted: Mapping[str, Any]) -> None:
    if found == wanted:
        return
    both = found if isinstance(found, dict) else {}
    names = [name for name in wanted if both.get(name) != wanted[name]]
    shown = ", ".join(f"{name} was {both.get(name)!r} and is {wanted[name]!r}" for name in names[:3])
    raise FinetuneRefused(f"{path} belongs to another run ({shown}): use --restart to begin anew")


def _with_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the optimizer's state by the number of the parameter and the name of its part."""
    state: Mapping[int, Mapping[str, Tensor]] = optimizer.state_dict()["state"]
    return {f"{number}/{name}": tensor for number, parts in state.items() for name, tensor in parts.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Weights) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        number, name = key.split("/")
        state.setdefault(int(number), {})[name] = tensor
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
