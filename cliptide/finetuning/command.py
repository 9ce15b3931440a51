"""`cliptide finetune`: tune a model on pairs of pictures and captions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.console import Console

from clip_index.encoder.settings import EncoderSettings
from cliptide.finetuning.settings import FinetuneSettings
from cliptide.pairs.checking import TooManyBadPairs
from cliptide.pairs.reading import BadInput, PairRequest, pair_options
from cliptide.terminal.numbers import FiniteRange
from cliptide.terminal.options import option
from cliptide.terminal.paths import PathType
from cliptide.terminal.summary import json_option, print_summary

_DEFAULT = FinetuneSettings()
_SETTINGS = tuple(_DEFAULT.as_json())


@click.command("finetune")
@pair_options
@option(
    "--model",
    default=EncoderSettings().model,
    envvar="CLIPTIDE_ENCODER__MODEL",
    help="The model to start from: a name of open_clip's, hf-hub:owner/name, or a directory.",
)
@option(
    "--pretrained",
    default=EncoderSettings().pretrained,
    envvar="CLIPTIDE_ENCODER__PRETRAINED",
    help="Weights of a model that is given by name: a tag of open_clip's, or a safetensors file.",
)
@option(
    "--output",
    required=True,
    type=PathType(file_okay=False, path_type=Path),
    help="The directory for the tuned model. A run that was killed goes on from its checkpoint there.",
)
@option(
    "--train",
    type=click.Choice(["projections", "last-blocks", "all"]),
    default=_DEFAULT.train,
    help="What is trained: the projections, the last blocks of both towers too, or everything.",
)
@option(
    "--blocks", type=click.IntRange(1), default=_DEFAULT.blocks, help="How many blocks are the last ones."
)
@option("--epochs", type=click.IntRange(1), default=_DEFAULT.epochs, help="The most passes over the pairs.")
@option(
    "--batch-size",
    type=click.IntRange(2),
    default=_DEFAULT.batch_size,
    help="Pairs that are compared with each other in one step.",
)
@option(
    "--part-size",
    type=click.IntRange(1),
    default=_DEFAULT.part_size,
    help="Pairs in memory at once. It does not change the result, only memory and time.",
)
@option(
    "--learning-rate",
    type=FiniteRange(0, min_open=True),
    default=_DEFAULT.learning_rate,
    help="The greatest learning rate. It rises during the warm-up and falls as half a cosine.",
)
@option("--weight-decay", type=FiniteRange(0), default=_DEFAULT.weight_decay, help="Weight decay of AdamW.")
@option(
    "--warmup",
    type=FiniteRange(0, 1),
    default=_DEFAULT.warmup,
    help="The share of steps of the warm-up.",
)
@option(
    "--mix",
    type=FiniteRange(0, 1),
    default=_DEFAULT.mix,
    help="The share of the tuned weights in the written ones. The rest comes from the start, and keeps "
    "what the model knew.",
)
@option(
    "--held-out",
    type=FiniteRange(0, 1, min_open=True, max_open=True),
    default=_DEFAULT.held_out,
    help="The share of pairs that are only measured on. A hash of the picture chooses them.",
)
@option(
    "--patience",
    type=click.IntRange(1),
    default=_DEFAULT.patience,
    help="Stop after this many epochs without a better recall on the held-out pairs.",
)
@option("--seed", type=click.IntRange(0), default=_DEFAULT.seed, help="The seed of the order of pairs.")
@option(
    "--group-by",
    help="A metadata key: pairs with equal values are right answers for each other when recall is measured.",
)
@option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    help="What computes; auto is the GPU if there is one.",
)
@option(
    "--checkpoint-seconds",
    type=FiniteRange(0),
    default=60.0,
    help="Write a checkpoint at least this often, and after each epoch.",
)
@option(
    "--tensorboard",
    type=PathType(file_okay=False, path_type=Path),
    help="Write TensorBoard's event files into this directory (needs the extra: tensorboard).",
)
@option("--restart", is_flag=True, help="Begin anew, even if there is a checkpoint.")
@option("--overwrite", is_flag=True, help="Replace a model that is already in the directory.")
@json_option("finetune")
def finetune_command(pairs: PairRequest, model: str, pretrained: str | None, **flags: Any) -> None:
    """Tune a CLIP model on PAIRS of pictures and captions, and write a model that the services take as it is.

    PAIRS is a folder with a CSV or JSONL that describes its pictures, such a file, or a folder in which a
    text file stands beside each picture (shirt.jpg, shirt.txt). The columns are those of `cliptide publish`:
    file (or image) and caption; a title is used where there is no caption. With --from-topic the pairs are
    the uploads of the log whose metadata or title carries a caption.

    Pairs with a missing or broken picture, without a caption, or that are there twice are counted, listed
    and skipped, up to --max-bad-share. The output directory gets open_clip_config.json,
    open_clip_model.safetensors, and a model card, README.md. The exit code is 2 if nothing was trained
    because of what was given, and 1 if tuning has not improved the held-out pairs.
    """
    if pairs.is_empty:
        raise click.UsageError("give PAIRS or --from-topic")
    from cliptide.finetuning.errors import FinetuneFailed, FinetuneRefused  # here: torch takes seconds
    from cliptide.finetuning.job import FinetuneJob

    as_json = flags.pop("as_json")
    settings = FinetuneSettings(**{name: flags.pop(name) for name in _SETTINGS})
    encoder = EncoderSettings(model=model, pretrained=pretrained)
    job = FinetuneJob(pairs, encoder, settings, Console(stderr=True), **flags)
    try:
        card = job.run()
    except (FinetuneRefused, TooManyBadPairs) as error:
        raise BadInput(str(error)) from error
    except FinetuneFailed as error:
        raise click.ClickException(str(error)) from error
    print_summary(card, f"wrote {flags['output']}: {_in_words(card)}", as_json=as_json)


def _in_words(card: dict[str, Any]) -> str:
    before, after = (_mean_recall(card[name]) for name in ("start", "written"))
    return (
        f"recall@1 {before:.3f} before and {after:.3f} now, on {card['pairs']['held_out']:,} held-out pairs"
    )


def _mean_recall(quality: dict[str, Any]) -> float:
    found = [quality[name]["recall@1"] for name in ("text_to_image", "image_to_text") if quality[name]]
    return float(sum(found) / max(1, len(found)))
