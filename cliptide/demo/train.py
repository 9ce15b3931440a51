"""`python -m cliptide.demo.train` draws the pictures, trains the model and writes its compact weights."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from open_clip.model import CLIP
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from cliptide.demo.garments.combinations import Combination, training_combinations
from cliptide.demo.small_clip import model as small_clip
from cliptide.demo.small_clip.model import CompactVocabulary, compact_weights, model_config
from cliptide.demo.small_clip.trainer import build_trainer
from cliptide.demo.small_clip.training_set import (
    BatchSampler,
    Pixels,
    draw_all_pictures,
    read_captions,
    write_captions,
)

CAPTIONS_EACH = 96
STEPS_BETWEEN_WRITES = 200


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    torch.manual_seed(options.seed)
    combinations = training_combinations()
    with _progress() as progress:
        pictures = _draw(combinations, options.pictures_each, options.seed, progress)
        captions = write_captions(combinations, CAPTIONS_EACH, options.seed)
        vocabulary, rows = read_captions(captions, np.random.default_rng(options.seed))
        sampler = BatchSampler(combinations, pictures, captions, np.random.default_rng(options.seed))
        model = CLIP(**model_config(len(vocabulary)))
        trainer = build_trainer(model, rows, options.steps)
        task = progress.add_task("train", total=options.steps)
        for step in range(options.steps):
            loss = trainer.step(sampler.sample(options.batch_size))
            progress.update(task, completed=step + 1, description=f"train loss {loss:.3f}")
            if (step + 1) % STEPS_BETWEEN_WRITES == 0:
                _write(options.out, model, vocabulary)
    _write(options.out, model, vocabulary)
    print(f"wrote {options.out}: {options.out.stat().st_size:,} bytes, {len(vocabulary)} embedding rows")


def _write(path: Path, model: CLIP, vocabulary: CompactVocabulary) -> None:
    state = {name: tensor.float().numpy() for name, tensor in model.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(compact_weights(state, vocabulary))


def _draw(combinations: Sequence[Combination], num_each: int, seed: int, progress: Progress) -> list[Pixels]:
    drawn = draw_all_pictures(combinations, num_each, seed)
    return list(progress.track(drawn, total=len(combinations), description="draw"))


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m cliptide.demo.train", description=__doc__)
    default_out = Path(small_clip.__file__).with_name(small_clip.WEIGHTS)
    parser.add_argument("--out", type=Path, default=default_out, help="the file for the weights")
    parser.add_argument("--steps", type=int, default=1500, help="steps of the optimizer")
    parser.add_argument("--batch-size", type=int, default=64, help="pictures in a step")
    parser.add_argument("--pictures-each", type=int, default=64, help="pictures drawn of each combination")
    parser.add_argument("--seed", type=int, default=1)
    return parser


if __name__ == "__main__":
    main()
