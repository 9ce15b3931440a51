"""One run of fine-tuning: epochs with early stopping, checkpoints, and the mixed model at the end."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from clip_index.encoder.open_clip.models import Model, weights_digest
from cliptide.finetuning.checkpoint import (
    Checkpoint,
    Progress,
    optimizer_tensors,
    read_checkpoint,
    restore_optimizer,
    write_checkpoint,
)
from cliptide.finetuning.errors import FinetuneFailed, FinetuneRefused
from cliptide.finetuning.pair_objective import HeldOutMeasure, PairObjective
from cliptide.finetuning.pair_set import PairSet
from cliptide.finetuning.settings import FinetuneSettings
from cliptide.finetuning.trainer import Schedule, Trainer
from cliptide.finetuning.weights import Weights, choose_trained, copy_weights, mixed, set_weights
from cliptide.pairs.gallery import Gallery, unknown_key
from cliptide.pairs.quality import TwoWayQuality

CHECKPOINT_FILE = "checkpoint.safetensors"
_FEWEST = 2  # pairs on each side: with one, every ranking is right


class Observer(Protocol):
    """Is told how a run goes."""

    def resumed(self, step: int) -> None: ...

    def stepped(self, step: int, loss: float, learning_rate: float) -> None: ...

    def evaluated(self, step: int, quality: TwoWayQuality) -> None: ...


@dataclass(frozen=True, slots=True)
class Place:
    """Where a run keeps its checkpoint and computes, and how often it saves."""

    directory: Path
    device: str = "cpu"
    checkpoint_every_seconds: float = 60.0


@dataclass(frozen=True, slots=True)
class TuningResult:
    """What a run found. The model holds the mixed weights."""

    start: TwoWayQuality
    tuned: TwoWayQuality
    mixed: TwoWayQuality
    progress: Progress
    num_training: int
    num_trained_weights: int


class FinetuneRun:
    """Trains a model on the pairs that are not held out. Raises `FinetuneRefused` or `FinetuneFailed`."""

    def __init__(
        self, model: Model, pairs: PairSet, settings: FinetuneSettings, place: Place, observer: Observer
    ) -> None:
        self._model, self._settings, self._place, self._observer = model, settings, place, observer
        self._pairs = pairs
        self._training, held_out = pairs.split(settings.held_out)
        gallery = pairs.gallery(held_out, settings.group_by)
        _check_enough(pairs, len(self._training), len(held_out))
        _check_telling(pairs, self._training, gallery.gallery, settings.group_by)
        self._key = {**settings.as_json(), "pairs": pairs.digest, "weights": weights_digest(model.module)}
        self._names = choose_trained(model.module, settings.train, settings.blocks)
        self._start = copy_weights(model.module, self._names)
        model.module.to(place.device)
        objective = PairObjective(model, place.device)
        self._trainer = Trainer(model.module, objective, self._schedule(), part_size=settings.part_size)
        self._held_out = HeldOutMeasure(objective, pairs, gallery, settings.part_size)
        self._progress = Progress()
        self._best: Weights = self._start
        self._saved_at = time.monotonic()

    @property
    def num_steps(self) -> int:
        return self._settings.epochs * self._num_steps_of_epoch

    def run(self) -> TuningResult:
        """Train, and leave the mixed weights in the model."""
        self._restore()
        start = self._measure_with(self._start, keep=True)
        self._observer.evaluated(0, start)
        while not self._is_done():
            self._train_epoch()
            self._evaluate()
        return self._finish(start)

    def _finish(self, start: TwoWayQuality) -> TuningResult:
        if self._progress.best <= (start.mean_recall, start.mean_rank):
            found = f"recall@1 {start.mean_recall:.3f} before, at best {self._progress.best[0]:.3f} after"
            raise FinetuneFailed(
                f"tuning has not improved the held-out pairs ({found}), so nothing is written: try another "
                "--learning-rate, --train all, or more pairs"
            )
        tuned = self._measure_with(self._best)
        return TuningResult(
            start=start,
            tuned=tuned,
            mixed=self._measure_with(mixed(self._start, self._best, self._settings.mix)),
            progress=self._progress,
            num_training=len(self._training),
            num_trained_weights=sum(tensor.numel() for tensor in self._start.values()),
        )

    def _is_done(self) -> bool:
        is_out_of_patience = self._progress.num_since_best >= self._settings.patience
        return self._progress.step >= self.num_steps or is_out_of_patience

    def _train_epoch(self) -> None:
        """Train to the end of the epoch that the next step belongs to."""
        epoch, first = divmod(self._progress.step, self._num_steps_of_epoch)
        losses = []
        for positions in self._batches(epoch)[first:]:
            loss = self._trainer.step(self._pairs.batch(positions))
            if not math.isfinite(loss):
                where = f"the loss of step {self._progress.step + 1}"
                raise FinetuneFailed(f"{where} is not a number: set a smaller --learning-rate")
            losses.append(loss)
            self._progress.step += 1
            rate = self._trainer.optimizer.param_groups[0]["lr"]
            self._observer.stepped(self._progress.step, loss, rate)
            self._save_if_due()
        self._progress.losses.append(sum(losses) / max(1, len(losses)))

    def _batches(self, epoch: int) -> Sequence[NDArray[np.int64]]:
        """Return the batches of an epoch. They depend on the seed alone, so a resumed run sees the same."""
        shuffled = np.random.default_rng([self._settings.seed, epoch]).permutation(self._training)
        size = self._batch_size
        return [shuffled[i * size : (i + 1) * size] for i in range(self._num_steps_of_epoch)]

    def _evaluate(self) -> None:
        quality = self._held_out.measure()
        found, progress = (quality.mean_recall, quality.mean_rank), self._progress
        progress.recalls.append(round(found[0], 4))
        progress.num_since_best += 1
        if found > progress.best:
            progress.best, progress.num_since_best = found, 0
            progress.best_epoch = len(progress.recalls)
            self._best = copy_weights(self._model.module, self._names)
        self._observer.evaluated(progress.step, quality)
        self._save()

    def _measure_with(self, weights: Weights, *, keep: bool = False) -> TwoWayQuality:
        """Measure the model with these weights; `keep` puts its own back afterwards."""
        own = copy_weights(self._model.module, self._names) if keep else None
        set_weights(self._model.module, weights)
        quality = self._held_out.measure()
        if own is not None:
            set_weights(self._model.module, own)
        return quality

    def _save_if_due(self) -> None:
        is_at_the_end_of_an_epoch = self._progress.step % self._num_steps_of_epoch == 0
        is_due = time.monotonic() - self._saved_at >= self._place.checkpoint_every_seconds
        if is_due and not is_at_the_end_of_an_epoch:
            self._save()

    def _save(self) -> None:
        now = copy_weights(self._model.module, self._names)
        state = optimizer_tensors(self._trainer.optimizer)
        checkpoint = Checkpoint(self._progress, now, self._best, state)
        write_checkpoint(self._place.directory / CHECKPOINT_FILE, self._key, checkpoint)
        self._saved_at = time.monotonic()

    def _restore(self) -> None:
        found = read_checkpoint(self._place.directory / CHECKPOINT_FILE, self._key)
        if found is None:
            return
        set_weights(self._model.module, found.now)
        restore_optimizer(self._trainer.optimizer, found.optimizer)
        self._progress, self._best = found.progress, found.best
        self._trainer.num_steps_done = found.progress.step
        self._observer.resumed(found.progress.step)

    @property
    def _batch_size(self) -> int:
        return min(self._settings.batch_size, len(self._training))

    @property
    def _num_steps_of_epoch(self) -> int:
        return max(1, len(self._training) // self._batch_size)

    def _schedule(self) -> Schedule:
        settings = self._settings
        warmup = max(1, round(settings.warmup * self.num_steps))
        return Schedule(settings.learning_rate, self.num_steps, warmup, settings.weight_decay)


def _check_enough(pairs: PairSet, num_training: int, num_held_out: int) -> None:
    if num_training < _FEWEST or num_held_out < _FEWEST:
        raise FinetuneRefused(
            f"{num_training} pairs to train on and {num_held_out} held out are too few: "
            f"give more pairs, or another --held-out (at least {_FEWEST} are needed on each side; all pairs "
            f"of a picture are on one side, and the number of pictures is {len(pairs.pixels)})"
        )


def _check_telling(pairs: PairSet, training: NDArray[np.int64], held_out: Gallery, key: str | None) -> None:
    """Refuse pairs from which nothing can be learnt, or that cannot tell whether something was."""
    known = {name for pair in pairs.pairs for name in pair.metadata}
    if key is not None and (complaint := unknown_key([key], known)) is not None:
        raise FinetuneRefused(complaint)
    if len(set(pairs.captions[training].tolist())) == 1:
        raise FinetuneRefused("all pairs to train on have one caption, so there is nothing to tell apart")
    if held_out.is_trivial:
        raise FinetuneRefused(
            "every caption is right for every held-out picture, so tuning cannot improve them: give pairs "
            "with several captions, or another --group-by or --held-out"
        )


def choose_device(wanted: str) -> str:
    """Return `cpu` or `cuda`. Raises `FinetuneRefused` if a GPU is asked for that is not there."""
    if wanted == "cpu" or (wanted == "auto" and not torch.cuda.is_available()):
        return "cpu"
    if not torch.cuda.is_available():
        raise FinetuneRefused("there is no GPU that torch can use: set --device cpu")
    return "cuda"


def as_refusal(error: torch.cuda.OutOfMemoryError, settings: Mapping[str, Any]) -> FinetuneFailed:
    """Say what to do about a GPU without room."""
    return FinetuneFailed(
        f"the GPU has no room for {settings['part_size']} pairs at once: set a smaller --part-size "
        f"(the batch and the result stay the same), or train less (--train). torch says: {str(error)[:200]}"
    )
