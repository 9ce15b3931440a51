"""What `cliptide finetune` does: it loads the model, checks the pairs, tunes, and writes the result."""

from __future__ import annotations

import fcntl
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from safetensors import SafetensorError

from clip_index.encoder.open_clip.encoder import Preparation
from clip_index.encoder.open_clip.models import Model, architecture_name, load_model
from clip_index.encoder.open_clip.tokens import WordTokenizer
from clip_index.encoder.settings import EncoderSettings
from clip_index.errors import EncoderUnavailable
from cliptide.finetuning.errors import FinetuneFailed, FinetuneRefused
from cliptide.finetuning.model_card import CardFacts, build_card, card_json, card_json_text
from cliptide.finetuning.observers import BarObserver, Observers, TensorBoardObserver
from cliptide.finetuning.pair_set import PairPreparer, PairSet, PairSetBuilder
from cliptide.finetuning.run import (
    CHECKPOINT_FILE,
    FinetuneRun,
    Observer,
    Place,
    TuningResult,
    as_refusal,
    choose_device,
)
from cliptide.finetuning.settings import FinetuneSettings
from cliptide.finetuning.weights import CONFIG_FILE, UNFINISHED_FOLDER, WEIGHTS_FILE, write_model
from cliptide.pairs.checking import PairTally
from cliptide.pairs.reading import PairRequest, described

WORK_FOLDER = ".finetune"
CARD_FILE, JSON_FILE = "README.md", "finetune.json"


@dataclass(slots=True)
class FinetuneJob:
    """One call of the command. `run` raises `FinetuneError`, `TooManyBadPairs` or `EventLogError`."""

    pairs: PairRequest
    encoder: EncoderSettings
    settings: FinetuneSettings
    console: Console
    output: Path
    device: str = "auto"
    checkpoint_seconds: float = 60.0
    tensorboard: Path | None = None
    restart: bool = False
    overwrite: bool = False

    def run(self) -> dict[str, Any]:
        """Tune and write the model. Returns the model card's values."""
        if (self.output / CONFIG_FILE).exists() and not self.overwrite:
            raise FinetuneRefused(
                f"{self.output} holds a model already: use --overwrite, or another directory"
            )
        self._refuse_obstacles()
        began, device = time.monotonic(), choose_device(self.device)
        model = self._load()
        with self._work_folder() as folder, ExitStack() as stack:
            observers = self._other_observers(stack)
            tally = PairTally()
            pair_set = self._prepare(model, folder, tally)
            result = self._tune(model, pair_set, Place(folder, device, self.checkpoint_seconds), observers)
            facts = self._facts(model, tally, pair_set, device, (time.monotonic() - began) / 60)
            self._write(model, facts, result)
        return card_json(facts, self.settings, result)

    def _refuse_obstacles(self) -> None:
        """Look before the training for what would keep the model from being written after it."""
        names = (WEIGHTS_FILE, CONFIG_FILE, CARD_FILE, JSON_FILE)
        directories = [self.output / name for name in names if (self.output / name).is_dir()]
        unfinished = self.output / UNFINISHED_FOLDER
        if directories:
            raise FinetuneRefused(f"{directories[0]} is a directory: move it away, or use another --output")
        if unfinished.exists() and not unfinished.is_dir():
            raise FinetuneRefused(f"{unfinished} is a file: move it away, or use another --output")

    def _load(self) -> Model:
        try:
            model = load_model(self.encoder)
        except EncoderUnavailable as error:
            raise FinetuneRefused(str(error)) from error
        if not isinstance(model.tokenizer, WordTokenizer):
            raise FinetuneRefused("models with a tokenizer of their own cannot be fine-tuned yet")
        return model

    def _prepare(self, model: Model, folder: Path, tally: PairTally) -> PairSet:
        preparer = PairPreparer(Preparation.of(model, self.encoder))
        pair_set = PairSetBuilder(preparer, folder / "pixels").build(self.pairs.read(), tally)
        tally.check(self.pairs.max_bad_share)
        described(tally.lines())
        return pair_set

    def _tune(self, model: Model, pair_set: PairSet, place: Place, observers: list[Observer]) -> TuningResult:
        try:
            bar = BarObserver(self.console)
            run = FinetuneRun(model, pair_set, self.settings, place, Observers([bar, *observers]))
            with bar.shown(run.num_steps):
                return run.run()
        except torch.cuda.OutOfMemoryError as error:
            raise as_refusal(error, self.settings.as_json()) from error

    def _other_observers(self, stack: ExitStack) -> list[Observer]:
        if self.tensorboard is None:
            return []
        board = TensorBoardObserver(self.tensorboard)
        stack.callback(board.close)
        return [board]

    def _facts(
        self, model: Model, tally: PairTally, pair_set: PairSet, device: str, minutes: float
    ) -> CardFacts:
        named = f"{self.encoder.model} ({self.encoder.pretrained})"
        is_named = self.encoder.pretrained is not None and not Path(self.encoder.model).exists()
        return CardFacts(
            start_model=named if is_named else Path(self.encoder.model).name,
            architecture=architecture_name(model.config),
            source=self.pairs.description,
            tally=tally,
            num_long_captions=pair_set.num_long_captions,
            device="the processor" if device == "cpu" else "a GPU",
            minutes=minutes,
        )

    def _write(self, model: Model, facts: CardFacts, result: TuningResult) -> None:
        texts = {
            CARD_FILE: build_card(facts, self.settings, result, date.today()),
            JSON_FILE: card_json_text(facts, self.settings, result),
        }
        write_model(self.output, model, texts)

    @contextmanager
    def _work_folder(self) -> Iterator[Path]:
        """Hold the folder of the checkpoint. It goes when the run has succeeded, or has no checkpoint."""
        folder = self.output / WORK_FOLDER
        with _writing_failures_named(self.output):
            folder.mkdir(parents=True, exist_ok=True)
            with (folder / "lock").open("w") as lock:
                _take(lock.fileno(), self.output)
                if self.restart:
                    (folder / CHECKPOINT_FILE).unlink(missing_ok=True)
                try:
                    yield folder
                    shutil.rmtree(folder)
                finally:
                    if folder.exists() and not (folder / CHECKPOINT_FILE).exists():
                        shutil.rmtree(folder)
                        _remove_if_empty(self.output)


@contextmanager
def _writing_failures_named(output: Path) -> Iterator[None]:
    """Say in one sentence what keeps a run from writing: a full disk, a file in the way, missing rights."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise FinetuneFailed(
            f"{output} cannot be written ({error}); the same command goes on from the last checkpoint"
        ) from error


def _take(lock: int, output: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise FinetuneRefused(f"another run writes to {output}: choose another directory") from error


def _remove_if_empty(directory: Path) -> None:
    if not any(directory.iterdir()):
        directory.rmdir()
