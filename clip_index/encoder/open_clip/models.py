"""Models by name, hub address, directory or file: found, loaded in fp32, and identified."""

from __future__ import annotations

import contextlib
import copy
import difflib
import hashlib
import json
import logging
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import open_clip
import torch
from huggingface_hub.errors import EntryNotFoundError
from open_clip.pretrained import download_pretrained_from_hf, get_pretrained_cfg
from open_clip.tokenizer import SimpleTokenizer
from safetensors import SafetensorError

from clip_index.encoder.open_clip.file_tokens import FileTokenizer, UnfitTokenizer
from clip_index.encoder.open_clip.tokens import TextTokenizer, WordTokenizer
from clip_index.encoder.open_clip.weights_once import own_weights, weights_once
from clip_index.encoder.settings import EncoderSettings
from clip_index.errors import EncoderUnavailable

_HUB, _LOCAL = "hf-hub:", "local-dir:"
_CONFIG_FILE, _WEIGHTS_FILE = "open_clip_config.json", "open_clip_model.safetensors"
_TOKENIZER_FILE = "tokenizer.json"
_PARTS = ("vision_cfg", "text_cfg")

# What open_clip, its downloads and safetensors raise if a model is missing or does not fit its weights.
_LOAD_ERRORS = (
    OSError,
    RuntimeError,
    ValueError,
    LookupError,
    TypeError,
    ImportError,
    AssertionError,
    SafetensorError,
)


@dataclass(frozen=True, slots=True)
class Model:
    """An open_clip model (untyped) for evaluation in fp32, its tokenizer, and the `model_cfg` of both."""

    module: Any
    tokenizer: TextTokenizer
    config: Mapping[str, Any]

    @property
    def preprocessing(self) -> Mapping[str, Any]:
        """open_clip's preprocess_cfg: size, mean, std, interpolation, resize_mode, fill_color."""
        preprocessing: Mapping[str, Any] = self.module.visual.preprocess_cfg
        return preprocessing


@dataclass(frozen=True, slots=True)
class _Source:
    """Where a model comes from, in open_clip's terms; `weights` is the safetensors file of a local one."""

    name: str
    tag: str | None = None
    weights: Path | None = None


class _Refused(Exception):
    """The model is refused before it is loaded; the message is the reason."""


def load_model(settings: EncoderSettings) -> Model:
    """Load the model that the settings name. Raises EncoderUnavailable, with one sentence, if it cannot."""
    model = map_model(settings)
    own_weights(model.module)
    return model


def map_model(settings: EncoderSettings) -> Model:
    """Load a model whose weights may be the mapped pages of its file, for as long as nobody writes into it.

    Raises EncoderUnavailable, with one sentence.
    """
    try:
        with _muted_log:
            return _load(_find(settings), settings)
    except _Refused as refused:
        raise EncoderUnavailable(settings.model, str(refused)) from None
    except _LOAD_ERRORS as error:
        raise EncoderUnavailable(settings.model, _one_line(error)) from error


def architecture_name(config: Mapping[str, Any]) -> str:
    """Return open_clip's name of an architecture, or a digest of its description if it has no name."""
    for name in open_clip.list_models():
        if open_clip.get_model_config(name) == config:
            return str(name)
    return "clip-" + hashlib.sha256(canonical_json(config).encode()).hexdigest()[:12]


def weights_digest(module: Any) -> str:
    """Return SHA-256 over names, shapes and values of all tensors, in order of names, without copying."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().reshape(-1).numpy())
    return digest.hexdigest()


def canonical_json(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def local_weights(settings: EncoderSettings) -> Path | None:
    """Return the file of weights that the settings name by a path; None if they name a model otherwise."""
    name = settings.model
    if name.startswith(_HUB):
        return None
    path = Path(name.removeprefix(_LOCAL))
    if path.suffix == ".safetensors":
        return path
    if name.startswith((_LOCAL, ".")) or path.is_absolute() or path.is_dir():
        return _weights_in(path)
    return None


def _find(settings: EncoderSettings) -> _Source:
    name = settings.model
    if (weights := local_weights(settings)) is not None:
        path = Path(name.removeprefix(_LOCAL))
        return _local_source(weights.parent if path == weights else path, weights)
    if name.startswith(_HUB):
        return _Source(name)
    return _named_source(name.replace("/", "-"), settings.pretrained)


def _local_source(directory: Path, weights: Path) -> _Source:
    for file in (directory / _CONFIG_FILE, weights):
        if not file.is_file():
            raise _Refused(f"there is no file {file}")
    return _Source(f"{_LOCAL}{directory}", weights=weights)


def _weights_in(directory: Path) -> Path:
    found = sorted(directory.glob("*.safetensors"))
    preferred = directory / _WEIGHTS_FILE
    if preferred in found or len(found) != 1:
        return preferred
    return found[0]


def _named_source(name: str, pretrained: str | None) -> _Source:
    if name not in open_clip.list_models():
        raise _Refused(f"open_clip has no model of this name{_nearest(name, open_clip.list_models())}")
    if pretrained is None:
        raise _Refused("weights are missing: name one of open_clip's tags or a safetensors file")
    tags = open_clip.list_pretrained_tags_by_model(name)
    if pretrained in tags:
        return _Source(name, tag=pretrained)
    path = Path(pretrained)
    if not path.is_file():
        raise _Refused(f"{pretrained} is neither a tag of its weights nor a file{_nearest(pretrained, tags)}")
    if path.suffix != ".safetensors":
        raise _Refused(f"{path} is not a safetensors file; other formats can run code when they are loaded")
    return _Source(name, weights=path)


def _nearest(word: str, known: list[str]) -> str:
    near = difflib.get_close_matches(word, known, n=3)
    return f"; similar names: {', '.join(near)}" if near else ""


def _load(source: _Source, settings: EncoderSettings) -> Model:
    cache_dir = None if settings.cache_dir is None else str(settings.cache_dir)
    config = _read_config(source.name, cache_dir)
    tokenizer = _tokenizer(source.name, config, cache_dir)
    with weights_once():
        module = open_clip.create_model(
            source.name,
            source.tag,
            load_weights=source.weights is None,
            require_pretrained=source.weights is None,
            pretrained_text=False,
            cache_dir=cache_dir,
            force_preprocess_cfg=_preprocessing_of_name(source, config),
        )
        if source.weights is not None:
            _load_weights(module, source.weights)
    _refuse_damaged(module)
    return Model(module.eval().requires_grad_(False), tokenizer, config)


def _load_weights(module: Any, file: Path) -> None:
    try:
        open_clip.load_checkpoint(module, str(file))
    except SafetensorError as error:
        raise _Refused(f"{file} is damaged, or is not a safetensors file ({_one_line(error)})") from None


def _refuse_damaged(module: Any) -> None:
    """Refuse weights of which the first content would be the first to tell that they are damaged."""
    for name, tensor in module.state_dict().items():
        if not _is_finite(tensor.detach()):
            raise _Refused(f"its weights are damaged: {name} holds NaN or infinity")


def _is_finite(tensor: torch.Tensor) -> bool:
    """Look through a tensor with numpy where it knows the type: torch takes fifty times as long."""
    if tensor.dtype == torch.bfloat16:
        return bool(torch.isfinite(tensor).all())
    return bool(np.isfinite(tensor.reshape(-1).numpy()).all())


def _read_config(name: str, cache_dir: str | None) -> dict[str, Any]:
    if name.startswith(_HUB):
        address = name.removeprefix(_HUB)
        file = download_pretrained_from_hf(address, filename=_CONFIG_FILE, cache_dir=cache_dir)
    elif name.startswith(_LOCAL):
        file = str(Path(name.removeprefix(_LOCAL)) / _CONFIG_FILE)
    else:
        return dict(open_clip.get_model_config(name))
    try:
        config = json.loads(Path(file).read_text(encoding="utf-8"))
    except ValueError as error:
        raise _Refused(f"{file} is not JSON: {_one_line(error)}") from None
    model = config.get("model_cfg") if isinstance(config, dict) else None
    if not (isinstance(model, dict) and all(isinstance(model.get(part), dict) for part in _PARTS)):
        raise _Refused(f"{file} describes no model: it needs a model_cfg with {' and '.join(_PARTS)}")
    return model


def _tokenizer(name: str, config: Mapping[str, Any], cache_dir: str | None) -> TextTokenizer:
    text_config = config["text_cfg"]
    _refuse_foreign_tower(name, text_config)
    if text_config.get("hf_tokenizer_name"):
        return _file_tokenizer(name, text_config, cache_dir)
    options = text_config.get("tokenizer_kwargs", {})
    tokenizer = _simple_tokenizer(canonical_json(options))
    vocabulary = text_config.get("vocab_size", tokenizer.vocab_size)
    if vocabulary < tokenizer.vocab_size:
        raise _Refused(f"its vocabulary has {vocabulary} tokens, its tokenizer {tokenizer.vocab_size}")
    return WordTokenizer(tokenizer, options.get("clean", "lower"))


@lru_cache(maxsize=4)
def _simple_tokenizer(options: str) -> SimpleTokenizer:
    """Return the tokenizer that open_clip gives a model whose config has these `tokenizer_kwargs`, as JSON.

    Nearly all models have the same one. To build it takes the interpreter 0.2 s, in which queries wait for
    their turn at each of their steps, and 20 MB. open_clip has built one without options already: where it
    is found, its tables are shared, and only the cache of words is an own one.
    """
    built: Any = getattr(open_clip.tokenizer, "_tokenizer", None)
    if options != "{}" or type(built) is not SimpleTokenizer:
        return SimpleTokenizer(**json.loads(options))
    shared = copy.copy(built)
    shared.cache = {}
    return shared


def _refuse_foreign_tower(name: str, text_config: Mapping[str, Any]) -> None:
    """Refuse texts that only `transformers` can read or encode.

    open_clip knows SigLIP's models by their names, but only its own ones: a directory may have any name.
    """
    if tower := text_config.get("hf_model_name"):
        raise _Refused(
            f"its texts are encoded by {tower}, which needs the library transformers and is not supported: "
            "choose a model whose text_cfg names no hf_model_name, such as one of SigLIP2 or worldwide for "
            "other languages"
        )
    if mode := text_config.get("tokenizer_mode"):
        raise _Refused(f"its tokenizer has the mode {mode}, which is not supported")
    is_address = name.startswith((_HUB, _LOCAL))
    if "siglip" in name.lower() and not is_address and not text_config.get("hf_tokenizer_name"):
        raise _Refused("its texts are read by SigLIP's tokenizer, and it does not say where that is")


def _file_tokenizer(name: str, text_config: Mapping[str, Any], cache_dir: str | None) -> FileTokenizer:
    """Read the `tokenizer.json` of a directory, or that of the hub's repository that the model names."""
    named = text_config["hf_tokenizer_name"]
    try:
        return FileTokenizer.read(_tokenizer_file(name, named, cache_dir), text_config)
    except UnfitTokenizer as unfit:
        raise _Refused(f"its texts are read by the tokenizer {named}, but {unfit}") from None
    except ImportError:
        raise _Refused(
            f"its texts are read by the tokenizer {named}, which needs the Python package tokenizers: "
            "install it beside the service (pip install tokenizers)"
        ) from None


def _tokenizer_file(name: str, named: str, cache_dir: str | None) -> Path:
    if name.startswith(_LOCAL):
        file = Path(name.removeprefix(_LOCAL)) / _TOKENIZER_FILE
        if not file.is_file():
            raise _Refused(f"its texts are read by the tokenizer {named}, and there is no file {file}")
        return file
    address = named.removeprefix(_HUB)
    with contextlib.suppress(EntryNotFoundError):  # not every tokenizer has one
        download_pretrained_from_hf(address, filename="tokenizer_config.json", cache_dir=cache_dir)
    return Path(download_pretrained_from_hf(address, filename=_TOKENIZER_FILE, cache_dir=cache_dir))


def _preprocessing_of_name(source: _Source, config: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return how the published weights of a name see pictures, for a file of weights that does not say it.

    Only for models with a tokenizer of their own, such as SigLIP's: of the others, indexes exist that were
    built with open_clip's default.
    """
    is_name = not source.name.startswith((_HUB, _LOCAL))
    tags = open_clip.list_pretrained_tags_by_model(source.name) if is_name else []
    if source.weights is None or not tags or not config["text_cfg"].get("hf_tokenizer_name"):
        return None
    known = get_pretrained_cfg(source.name, tags[0])
    return {key: known[key] for key in ("mean", "std", "interpolation", "resize_mode") if key in known}


def _one_line(error: Exception) -> str:
    return textwrap.shorten(str(error), 300, placeholder=" …") or type(error).__name__


class _MutedLog:
    """Mutes the log of open_clip and of the hub's client: the raised error says the same.

    Python mutes all threads at once. So the last of several that load models at a time ends it.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._num_muting = 0
        self._before = logging.NOTSET

    def __enter__(self) -> None:
        with self._lock:
            if not self._num_muting:
                self._before = logging.root.manager.disable
                logging.disable(logging.ERROR)
            self._num_muting += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._num_muting -= 1
            if not self._num_muting:
                logging.disable(self._before)


_muted_log = _MutedLog()
