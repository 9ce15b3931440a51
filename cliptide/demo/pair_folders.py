"""Draws pairs of pictures and captions into a folder, as `cliptide finetune` and `evaluate` read them."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from cliptide.demo.garments.captions import write_full_caption
from cliptide.demo.garments.combinations import Combination
from cliptide.demo.garments.drawing import DEFAULT_SIZE, PictureDrawer, build_silhouettes
from cliptide.demo.garments.unseen import build_unseen_silhouettes, write_unseen_caption

TABLE = "pairs.jsonl"
_FIRST_SEED = 2**63  # training and the catalogue use smaller seeds

WriteCaption = Callable[[Combination, random.Random], str]


@dataclass(frozen=True, slots=True)
class Drawing:
    """How many pictures of each combination are drawn, how large, and by which seed."""

    num_each: int
    size: int = DEFAULT_SIZE
    seed: int = 0


def known_caption(combination: Combination, rng: random.Random) -> str:
    return write_full_caption(combination, rng).text


def draw_pair_folder(folder: Path, combinations: Sequence[Combination], drawing: Drawing) -> Path:
    """Draw the pictures, each with a caption that names garment, colour and pattern; return the folder.

    Equal arguments give equal bytes. The metadata tells garment, colour, pattern and combination.
    """
    folder.mkdir(parents=True, exist_ok=True)
    unseen = build_unseen_silhouettes().keys()
    with ProcessPoolExecutor() as pool:
        files = pool.map(_draw, combinations, [drawing] * len(combinations), chunksize=8)
        with (folder / TABLE).open("w", encoding="utf-8") as table:
            for combination, pictures in zip(combinations, files, strict=True):
                write = write_unseen_caption if combination.garment in unseen else known_caption
                for line in _save(folder, combination, pictures, write):
                    table.write(json.dumps(line) + "\n")
    return folder


def _draw(combination: Combination, drawing: Drawing) -> list[bytes]:
    drawer = PictureDrawer({**build_silhouettes(), **build_unseen_silhouettes()})
    seeds = random.Random(f"{drawing.seed} {combination}")
    return [
        drawer.jpeg_bytes(combination, seed=_FIRST_SEED + seeds.getrandbits(32), size=drawing.size)
        for _ in range(drawing.num_each)
    ]


def _save(
    folder: Path, combination: Combination, pictures: Sequence[bytes], write: WriteCaption
) -> list[Mapping[str, object]]:
    rng = random.Random(f"captions {combination}")
    lines: list[Mapping[str, object]] = []
    for number, data in enumerate(pictures):
        name = f"{combination}-{number}.jpg".replace(" ", "-")
        (folder / name).write_bytes(data)
        metadata = {
            "garment": combination.garment,
            "colour": combination.colour,
            "pattern": combination.pattern,
            "combination": str(combination),
        }
        lines.append({"image": name, "caption": write(combination, rng), "metadata": metadata})
    return lines
