"""The demo's model: a small CLIP, kept compact in the package, expanded to what open_clip loads.

The package holds half-precision weights and only the token embeddings that training saw. Every other token
shares one embedding, that of the *unknown word*, which training taught by strewing it into captions; so a
query with a word from outside this small world is read as if the word said nothing.
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
    """The arguments of `open_clip.model.CLIP`; training uses a smaller vocabulary than the expanded model."""
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
    """Maps the tokenizer's ids to rows of the compact embedding, keeping their order.

    Row 0 is the unknown word. The end token has the greatest id and so the greatest row, which is where
    CLIP's text tower finds the end of a text.
    """

    def __init__(self, token_ids: Iterable[int]) -> None:
        self.token_ids = np.array(sorted(set(token_ids)), dtype=np.int64)
        self._rows = np.full(VOCABULARY_SIZE, UNKNOWN_WORD_ROW, dtype=np.int64)
        self._rows[self.token_ids] = np.arange(1, len(self.token_ids) + 1)

    def __len__(self) -> int:
        return len(self.token_ids) + 1

    def rows(self, tokens: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Token ids of any shape to embedding rows of the same shape."""
        return self._rows[tokens]


def compact_weights(state: Tensors, vocabulary: CompactVocabulary) -> bytes:
    """A trained state with compact embedding rows as a half-precision safetensors file."""
    tensors: dict[str, npt.NDArray[Any]] = {name: tensor.astype(np.float16) for name, tensor in state.items()}
    tensors[TOKEN_IDS_KEY] = vocabulary.token_ids
    return save(tensors)


def expand_weights(compact: bytes) -> bytes:
    """The compact file as a full half-precision state of `open_clip.model.CLIP`, as a safetensors file."""
    tensors = load(compact)
    token_ids, known = tensors.pop(TOKEN_IDS_KEY), tensors[EMBEDDING_KEY]
    full = np.repeat(known[UNKNOWN_WORD_ROW : UNKNOWN_WORD_ROW + 1], VOCABULARY_SIZE, axis=0)
    full[token_ids] = known[1:]
    return save({**tensors, EMBEDDING_KEY: full}, metadata={"format": "pt"})


def packaged_weights() -> bytes:
    """The compact weights that the package ships."""
    return resources.files("cliptide.demo.small_clip").joinpath(WEIGHTS).read_bytes()


def write_model_directory(path: Path, compact: bytes | None = None) -> Path:
    """Write the model as a directory that open_clip loads as `local-dir:<path>`, and return the path.

    The same weights give the same bytes. A file that holds them already is left alone; any other is replaced
    in one step, so processes that write the same directory at once do no harm. Takes the packaged weights by
    default.
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
