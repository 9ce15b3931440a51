"""`cliptide evaluate`: measure how well a model or a running service finds what belongs together."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from clip_index.encoder.settings import EncoderSettings
from cliptide.evaluation.job import EvaluationJob
from cliptide.pairs.checking import TooManyBadPairs
from cliptide.pairs.reading import BadInput, PairRequest, pair_options
from cliptide.searching.query_client import QueryClient
from cliptide.terminal.numbers import FiniteRange
from cliptide.terminal.options import option, query_options
from cliptide.terminal.paths import NewFile
from cliptide.terminal.summary import json_option


def _filter_from_json(
    _: click.Context, param: click.Parameter, value: str | None
) -> Mapping[str, Any] | None:
    if value is None:
        return None
    try:
        found = json.loads(value)
    except ValueError as error:
        raise click.BadParameter(f"not JSON ({error})", param=param) from error
    if not isinstance(found, dict):
        raise click.BadParameter("not a JSON object", param=param)
    return found


@click.command("evaluate")
@pair_options
@option(
    "--demo", is_flag=True, help="Use the demo's catalogue as pairs, and its model if --model is not set."
)
@option(
    "--model",
    envvar="CLIPTIDE_ENCODER__MODEL",
    help="The model: a name of open_clip's, hf-hub:owner/name, or a directory. Default: the services'.",
)
@option(
    "--pretrained",
    default=EncoderSettings().pretrained,
    envvar="CLIPTIDE_ENCODER__PRETRAINED",
    help="Weights of a model that is given by name: a tag of open_clip's, or a safetensors file.",
)
@option("--against", help="A second model, which is measured on the same queries; the difference is shown.")
@option(
    "--against-pretrained",
    default=EncoderSettings().pretrained,
    help="Weights of the second model, if it is given by name.",
)
@option("--service", is_flag=True, help="Measure the query service at --query-url instead of a model.")
@option(
    "--filter",
    "filter_",
    envvar="CLIPTIDE_EVALUATE_FILTER",
    callback=_filter_from_json,
    help="With --service: a filter, as a JSON object.",
)
@option(
    "--min-percentile",
    type=FiniteRange(0, 1),
    help="With --service: the least percentile of a hit.",
)
@option(
    "--group-by",
    help="A metadata key: pairs with equal values are right answers for each other. Default: the caption.",
)
@option("--slice", "slices", multiple=True, help="A metadata key: show the figures for each of its values.")
@option(
    "--samples",
    type=click.IntRange(0),
    default=1_000,
    help="Resamples of the queries for the 95 % intervals; 0 leaves them out.",
)
@option(
    "--worst",
    type=NewFile(),
    help="Write the worst queries to this file, as an HTML page with their answers.",
)
@option("--num-worst", type=click.IntRange(1), default=50, help="How many of the worst queries to show.")
@query_options
@json_option("evaluate")
def evaluate_command(pairs: PairRequest, query_url: str, api_key: str | None, **flags: Any) -> None:
    """Measure recall@1, @5, @10, MRR and nDCG@10 on PAIRS, from texts to pictures and from pictures to texts.

    PAIRS are what `cliptide finetune` takes. A query's right answers are those whose pair has the same
    caption, or with --group-by the same value. recall@k is the share of queries with a right answer among
    the first k.

    With --service, the query service answers: a picture is found by its content id, and a caption by the
    text of a hit. Pictures and captions that the index does not hold are left out, and counted on standard
    error and in `num_left_out`.

    The last line of standard output is JSON with --json or in a pipe.
    """
    _check(pairs, flags)
    job = EvaluationJob(
        pairs,
        encoder=None if flags["demo"] and flags["model"] is None else _encoder(flags),
        against=_against(flags),
        service=QueryClient(query_url, api_key) if flags["service"] else None,
        extra=_extra(flags),
        demo=flags["demo"],
        group_by=flags["group_by"],
        slice_keys=flags["slices"],
        num_samples=flags["samples"],
        worst_file=flags["worst"],
        num_worst=flags["num_worst"],
    )
    try:
        evaluation = job.run()
    except TooManyBadPairs as error:
        raise BadInput(str(error)) from error
    console = Console()
    if console.is_terminal and not flags["as_json"]:
        evaluation.print(console)
    else:
        evaluation.print(Console(stderr=True))
        click.echo(json.dumps(evaluation.as_json()))


def _check(pairs: PairRequest, flags: Mapping[str, Any]) -> None:
    _refuse_addresses(pairs.sources)
    if pairs.is_empty != flags["demo"]:
        raise click.UsageError("give one of PAIRS, --from-topic and --demo")
    if not flags["service"] and (flags["filter_"] is not None or flags["min_percentile"] is not None):
        raise click.UsageError("--filter and --min-percentile belong to --service")


def _refuse_addresses(sources: Sequence[Path]) -> None:
    """An address behind --service, which takes none, would be taken for pairs."""
    for source in sources:
        if source.parts[0] in ("http:", "https:"):
            address = f"{source.parts[0]}//{'/'.join(source.parts[1:])}"
            raise click.UsageError(
                f"{address} is no file of pairs; for --service write --service --query-url {address}"
            )


def _encoder(flags: Mapping[str, Any]) -> EncoderSettings:
    model = flags["model"] or EncoderSettings().model
    return EncoderSettings(model=model, pretrained=flags["pretrained"])


def _against(flags: Mapping[str, Any]) -> EncoderSettings | None:
    if flags["against"] is None:
        return None
    return EncoderSettings(model=flags["against"], pretrained=flags["against_pretrained"])


def _extra(flags: Mapping[str, Any]) -> dict[str, Any]:
    extra = {"filter": flags["filter_"], "min_percentile": flags["min_percentile"]}
    return {name: value for name, value in extra.items() if value is not None}
