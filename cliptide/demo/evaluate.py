"""`python -m cliptide.demo.evaluate` measures the model on combinations that training never saw.

The gallery holds 10 new pictures of every held-out combination, as JPEG files of the demo's size. They are
read through open_clip's own preprocessing. The queries are 4 full captions of every held-out combination.
Each query ranks the whole gallery by cosine similarity.

- **recall@1**: the share of queries whose top picture shows the combination that the query names.
- **precision@8**: the share of such pictures among the top 8, averaged over the queries.
"""

import argparse
import io
import json
import random
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import open_clip
import torch
from PIL import Image
from rich.console import Console
from rich.progress import track
from torch.nn import functional

from cliptide.demo.garments.captions import write_full_caption
from cliptide.demo.garments.combinations import Combination, held_out_combinations
from cliptide.demo.garments.drawing import PictureDrawer
from cliptide.demo.small_clip.model import write_model_directory

PICTURES_EACH = 10
QUERIES_EACH = 4
TOP = 8
_FIRST_SEED = 2**63  # training and the catalogue use smaller seeds

Embeddings = npt.NDArray[np.float32]  # (n, dimension), rows of length 1
Labels = npt.NDArray[np.int64]  # (n,), positions in the list of combinations


@dataclass(frozen=True, slots=True)
class Figures:
    """The result of an evaluation."""

    recall_at_1: float
    precision_at_8: float
    num_combinations: int

    def as_json(self) -> str:
        return json.dumps(
            {
                "recall@1": round(self.recall_at_1, 4),
                "precision@8": round(self.precision_at_8, 4),
                "num_combinations": self.num_combinations,
            }
        )


class TrainedModel:
    """A model directory as open_clip loads it, with its own preprocessing and tokenizer."""

    def __init__(self, directory: Path) -> None:
        name = f"local-dir:{directory}"
        self._model, _, self._preprocess = open_clip.create_model_and_transforms(name)
        self._model.eval()
        self._tokenizer = open_clip.get_tokenizer(name)

    @torch.inference_mode()
    def encode_images(self, files: Sequence[bytes]) -> Embeddings:
        """Encode image files."""
        pixels = torch.stack([self._preprocess(Image.open(io.BytesIO(file))) for file in files])
        return _unit_rows(self._model.encode_image(pixels))

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str]) -> Embeddings:
        """Encode texts."""
        return _unit_rows(self._model.encode_text(self._tokenizer(list(texts))))


def _unit_rows(embeddings: torch.Tensor) -> Embeddings:
    rows: Embeddings = functional.normalize(embeddings.float(), dim=-1).numpy()
    return rows


def evaluate(model: TrainedModel, combinations: Sequence[Combination]) -> Figures:
    """Draw the gallery, ask the queries and compute the figures."""
    pictures = np.concatenate([model.encode_images(files) for files in _galleries(combinations)])
    rng = random.Random(0)
    texts = [write_full_caption(c, rng).text for c in combinations for _ in range(QUERIES_EACH)]
    numbers = np.arange(len(combinations))
    return figures(
        model.encode_texts(texts), numbers.repeat(QUERIES_EACH), pictures, numbers.repeat(PICTURES_EACH)
    )


def figures(queries: Embeddings, wanted: Labels, gallery: Embeddings, shown: Labels) -> Figures:
    """Compute recall@1 and precision@8. `wanted` and `shown` are the combinations' numbers."""
    ranked = np.argsort(-(queries @ gallery.T), axis=1, kind="stable")[:, :TOP]
    is_right = shown[ranked] == wanted[:, None]
    return Figures(float(is_right[:, 0].mean()), float(is_right.mean()), len(np.unique(wanted)))


def draw_files(combination: Combination) -> list[bytes]:
    """Draw the gallery's pictures of one combination, as JPEG files. Its name alone determines them."""
    drawer = PictureDrawer()
    seeds = random.Random(str(combination))
    return [
        drawer.jpeg_bytes(combination, seed=_FIRST_SEED + seeds.getrandbits(32)) for _ in range(PICTURES_EACH)
    ]


def _galleries(combinations: Sequence[Combination]) -> list[list[bytes]]:
    with ProcessPoolExecutor() as pool:
        drawn = pool.map(draw_files, combinations, chunksize=4)
        console = Console(stderr=True)
        return list(track(drawn, "draw", total=len(combinations), console=console, transient=True))


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    compact = options.weights.read_bytes() if options.weights else None
    with tempfile.TemporaryDirectory() as directory:
        model = TrainedModel(write_model_directory(Path(directory), compact))
    found = evaluate(model, held_out_combinations())
    if options.json:
        print(found.as_json())
    else:
        print(f"recall@1     {found.recall_at_1:.3f}")
        print(f"precision@8  {found.precision_at_8:.3f}")
        print(f"over {found.num_combinations} combinations that training never saw")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m cliptide.demo.evaluate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--weights", type=Path, help="a file of compact weights (default: the packaged one)")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    return parser


if __name__ == "__main__":
    main()
