"""The demo's model: a small CLIP. The package holds compact weights, which are expanded for open_clip.

The compact weights have half precision and hold only the token embeddings that training saw. All other
tokens share one embedding, that of the *unknown word*. Training inserted it into captions at random, so
the model has learned to ignore words that it does not know.
"""

import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load, save

IMAGE_SIZE = 64
CONTEXT_LENGTH = 77
VOCABULARY_SIZE = 49408
PIXEL_MEAN = (0.5, 0.5, 0.5)
PIXEL_STD = (0.5, 0.5, 0.5)
EMBEDDING_KEY = "token_embedding.weight"
TOKEN_IDS_KEY = "token_ids"
UNKNOWN_WORD_ROW = 0
WEIGHTS = "weights.safetensors"

Tensors = Mapping[str, npt.NDArray[Any]]


def model_config(vocabulary_size: int = VOCABULARY_SIZE) -> dict[str, Any]:
    """Return the arguments of `open_clip.model.CLIP`. Training uses a smaller vocabulary."""
    return {
        "embed_dim": 128,
        "vision_cfg": {
            "image_size": IMAGE_SIZE,
            "patch_size": 8,
            "width": 128,
            "head_width": 32,
            "layers": 4,
        },
        "text_cfg": {
            "context_length": CONTEXT_LENGTH,
            "vocab_size": vocabulary_size,
            "width": 128,
            "heads": 4,
            "layers": 2,
        },
    }


def preprocess_config() -> dict[str, Any]:
    return {
        "size": IMAGE_SIZE,
        "mode": "RGB",
        "mean": list(PIXEL_MEAN),
        "std": list(PIXEL_STD),
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    }


class CompactVocabulary:
    """Maps the tokenizer's ids to rows of the compact embedding, in the order of the ids.

    Row 0 is the unknown word. The end token has the greatest id and so the greatest row. CLIP's text tower
    needs that, because it finds the end of a text by the greatest number.
    """

    def __init__(self, token_ids: Iterable[int]) -> None:
        self.token_ids = np.array(sorted(set(token_ids)), dtype=np.int64)
        self._rows = np.full(VOCABULARY_SIZE, UNKNOWN_WORD_ROW, dtype=np.int64)
        self._rows[self.token_ids] = np.arange(1, len(self.token_ids) + 1)

    def __len__(self) -> int:
        return len(self.token_ids) + 1

    def rows(self, tokens: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Map an array of token ids to an array of rows of the same shape."""
        return self._rows[tokens]


def compact_weights(state: Tensors, vocabulary: CompactVocabulary) -> bytes:
    """Write a trained state, with compact embedding rows, as a half-precision safetensors file."""
    tensors: dict[str, npt.NDArray[Any]] = {name: tensor.astype(np.float16) for name, tensor in state.items()}
    tensors[TOKEN_IDS_KEY] = vocabulary.token_ids
    return save(tensors)


def expand_weights(compact: bytes) -> bytes:
    """Expand the compact file to a full half-precision state of `open_clip.model.CLIP`, as safetensors."""
    tensors = load(compact)
    token_ids, known = tensors.pop(TOKEN_IDS_KEY), tensors[EMBEDDING_KEY]
    full = np.repeat(known[UNKNOWN_WORD_ROW : UNKNOWN_WORD_ROW + 1], VOCABULARY_SIZE, axis=0)
    full[token_ids] = known[1:]
    return save({**tensors, EMBEDDING_KEY: full}, metadata={"format": "pt"})


def packaged_weights() -> bytes:
    """Read the compact weights that the package ships."""
    return resources.files("cliptide.demo.small_clip").joinpath(WEIGHTS).read_bytes()


def write_model_directory(path: Path, compact: bytes | None = None) -> Path:
    """Write the model as a directory that open_clip loads as `local-dir:<path>`, and return the path.

    Without `compact`, the packaged weights are written. The same weights give the same bytes. A file that
    holds these bytes already is left alone; any other file is replaced in one step. So several processes
    may write the same directory at once.
    """
    path.mkdir(parents=True, exist_ok=True)
    config = {"model_cfg": model_config(), "preprocess_cfg": preprocess_config()}
    _replace(path / "open_clip_config.json", (json.dumps(config, indent=2) + "\n").encode())
    _replace(path / "open_clip_model.safetensors", expand_weights(compact or packaged_weights()))
    return path


def _replace(path: Path, content: bytes) -> None:
    if path.is_file() and path.read_bytes() == content:
        return
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        file.write(content)
    os.chmod(file.name, 0o644)
    os.replace(file.name, path)
