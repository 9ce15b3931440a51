"""`python -m tools.import_weights PICKLE DIRECTORY --model NAME`: from pickled CLIP weights to safetensors.

cliptide loads safetensors alone, because a pickle can run code when it is loaded. This reads a pickle as
PyTorch's `weights_only` does, which runs none, and writes a directory for `CLIPTIDE_ENCODER__MODEL`. A pickle
of a whole model needs its code; save its `state_dict()` where that code is, and give that.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from clip_index.encoder.settings import EncoderSettings
from clip_index.errors import EncoderUnavailable

CONFIG_FILE, WEIGHTS_FILE = "open_clip_config.json", "open_clip_model.safetensors"
_INSIDE = ("state_dict", "model_state_dict", "model")
_OF_OPENAI = frozenset({"input_resolution", "context_length", "vocab_size"})
_PREFIX = "module."
_SHOWN = 3


class ImportRefused(Exception):
    """The weights cannot be imported. The message is one sentence that says what to do."""


def import_weights(pickle: Path, directory: Path, model: str) -> str:
    """Write the directory, load it as the services do, and return the fingerprint of its encoder.

    `model` is one of open_clip's names, or the path of an `open_clip_config.json`. Raises `ImportRefused`.
    """
    config = read_config(model)
    tensors = plain_tensors(read_pickle(pickle), model, config)
    check_names(tensors, config)
    if directory.exists() and any(directory.iterdir()):
        raise ImportRefused(f"{directory} is not empty: name another directory")
    _write(directory, tensors, config)
    return _fingerprint(directory)


def read_config(model: str) -> dict[str, Any]:
    """Return the `model_cfg` and `preprocess_cfg` of a model."""
    import open_clip  # here: it takes seconds, and --help needs none of it

    if model.endswith(".json"):
        try:
            found = json.loads(Path(model).read_text(encoding="utf-8"))
            return {"model_cfg": found["model_cfg"], "preprocess_cfg": found.get("preprocess_cfg", {})}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ImportRefused(f"{model} is not an open_clip_config.json: {error}") from error
    described = open_clip.get_model_config(model)
    if described is None:
        raise ImportRefused(f"open_clip has no model {model!r}: `open_clip.list_models()` lists their names")
    return {"model_cfg": described, "preprocess_cfg": {}}


def read_pickle(path: Path) -> Mapping[str, Any]:
    """Read a pickle without running code of it."""
    import torch

    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise ImportRefused(
            f"{path} holds more than tensors, and loading it would run its code: where the earlier system "
            "runs, call torch.save(model.state_dict(), FILE), and import that file"
        ) from error
    except RuntimeError as error:
        if "TorchScript" not in str(error):
            raise ImportRefused(f"{path} cannot be read: {_one_line(error)}") from error
        raise ImportRefused(
            f"{path} is a TorchScript archive: save its state_dict() as a file; OpenAI's own weights need no "
            "import, CLIPTIDE_ENCODER__PRETRAINED=openai names them"
        ) from error
    except (OSError, EOFError, ValueError) as error:
        raise ImportRefused(f"{path} cannot be read: {_one_line(error)}") from error
    if not isinstance(found, Mapping):
        raise ImportRefused(f"{path} holds a {type(found).__name__} instead of named tensors")
    return found


def plain_tensors(found: Mapping[str, Any], model: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tensors in fp32 under open_clip's names, also out of a checkpoint."""
    import torch

    inner = next((found[name] for name in _INSIDE if isinstance(found.get(name), Mapping)), found)
    if inner.keys() >= _OF_OPENAI and not config["model_cfg"].get("quick_gelu"):
        raise ImportRefused(
            "these weights are for the activation QuickGELU, as all of OpenAI's CLIP package are, and "
            f"{model} has another: name the model {model}-quickgelu"
        )
    tensors = {
        str(name).removeprefix(_PREFIX): value for name, value in inner.items() if name not in _OF_OPENAI
    }
    others = [name for name, value in tensors.items() if not isinstance(value, torch.Tensor)]
    if others:
        raise ImportRefused(f"{_some(others)}: no tensors, so this is not the state_dict of a model")
    return {name: value.detach().to(torch.float32).contiguous().clone() for name, value in tensors.items()}


def check_names(tensors: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Refuse weights of another architecture, naming what differs."""
    wanted = _shapes(config)
    missing, unknown = sorted(wanted.keys() - tensors.keys()), sorted(tensors.keys() - wanted.keys())
    if missing or unknown:
        hint = "; these are names of the library transformers" if any("_model." in n for n in unknown) else ""
        raise ImportRefused(
            f"the weights are of another architecture: {len(missing)} missing ({_some(missing)}), "
            f"{len(unknown)} unknown ({_some(unknown)}){hint}"
        )
    other = [name for name, shape in sorted(wanted.items()) if tuple(tensors[name].shape) != shape]
    if other:
        found, right = tuple(tensors[other[0]].shape), wanted[other[0]]
        raise ImportRefused(f"the weights are of another size: {other[0]} is {found} instead of {right}")
    broken = [name for name, tensor in sorted(tensors.items()) if not tensor.isfinite().all()]
    if broken:
        raise ImportRefused(f"the weights are damaged: {_some(broken)} hold values that are not finite")


def _shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    import torch
    from open_clip.model import CLIP

    described = {name: value for name, value in config["model_cfg"].items() if name != "custom_text"}
    try:
        with torch.device("meta"):
            module = CLIP(**described)
    except (TypeError, KeyError, RuntimeError, AssertionError) as error:
        raise ImportRefused(f"the configuration does not describe a CLIP: {_one_line(error)}") from error
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def _write(directory: Path, tensors: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    from safetensors.torch import save_file

    directory.mkdir(parents=True, exist_ok=True)
    save_file(dict(tensors), directory / WEIGHTS_FILE)
    (directory / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _fingerprint(directory: Path) -> str:
    from clip_index.encoder.open_clip import load_encoder

    try:
        return str(load_encoder(EncoderSettings(model=str(directory), precision="fp32")).fingerprint)
    except EncoderUnavailable as error:
        raise ImportRefused(str(error)) from error


def _some(names: Sequence[str]) -> str:
    more = "" if len(names) <= _SHOWN else " …"
    return ", ".join(names[:_SHOWN]) + more if names else "none"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def main(arguments: Sequence[str] | None = None) -> int:
    description = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser("python -m tools.import_weights", description=description)
    parser.add_argument("pickle", type=Path, help="a file that torch.save wrote, with a state_dict")
    parser.add_argument("directory", type=Path, help="the directory to write")
    parser.add_argument(
        "--model", required=True, help="open_clip's name (ViT-B-32-quickgelu), or the path of its config"
    )
    given = parser.parse_args(arguments)
    try:
        fingerprint = import_weights(given.pickle, given.directory, given.model)
    except ImportRefused as refused:
        sys.stderr.write(f"import_weights: {refused}\n")
        return 1
    sys.stdout.write(f"{given.directory}: {fingerprint}\nset CLIPTIDE_ENCODER__MODEL={given.directory}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
