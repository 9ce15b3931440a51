"""Runs a comparison for the commands: opens both indexes with their encoders, asks, and scores pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from clip_index.encoder.protocol import Encoder
from clip_index.encoder.settings import EncoderSettings
from clip_index.indexes.recorded_model import RecordedModel
from clip_index.reading.index_reader import IndexReader
from clip_index.storage.index_roots import IndexRoot
from cliptide.evaluation.job import build_gallery_of_pairs, scored
from cliptide.evaluation.report import Evaluation
from cliptide.pairs.checking import TooManyBadPairs
from cliptide.pairs.gallery import Gallery
from cliptide.pairs.reading import BadInput, PairRequest
from cliptide.reindexing.compared_query import ComparedQuery
from cliptide.reindexing.comparison import ComparedIndex, Comparison, IndexAnswers, sample_queries
from cliptide.reindexing.live_queries import LiveQueries
from cliptide.terminal.options import option
from cliptide.terminal.waiting import tell
from query_api.root_candidates import RootCandidates

MAX_QUERIES = 10_000


@dataclass(frozen=True, slots=True)
class Models:
    """Loads models for the length of one command; nobody looks whether they fit into memory."""

    def load(self, settings: EncoderSettings) -> Encoder:
        from clip_index.encoder.open_clip import load_encoder  # here: importing torch takes seconds

        tell(f"loading {settings.model} …")
        return load_encoder(settings)

    def weigh(self, settings: EncoderSettings) -> int | None:
        return None


@dataclass(frozen=True, slots=True)
class ComparisonRequest:
    """What is compared: two indexes of a root, by texts, pairs, live queries and sampled contents."""

    root: IndexRoot
    first_id: str
    second_id: str
    model_of: Mapping[str, str]
    k: int = 10
    queries_file: Path | None = None
    pairs: PairRequest | None = None
    live: LiveQueries = field(default_factory=LiveQueries)
    num_sampled: int = 200
    num_samples: int = 1_000


@dataclass(slots=True)
class ComparisonResult:
    """`evaluation` is that of the second index against the first; None without pairs."""

    comparison: Comparison
    evaluation: Evaluation | None = None
    indexes: tuple[ComparedIndex, ...] = field(default=())

    @property
    def recall(self) -> float | None:
        """Return the second index's recall@10 from text to image, None if it was not measured."""
        quality = None if self.evaluation is None else self.evaluation.quality.text_to_image
        return None if quality is None else quality.figures["recall@10"]

    def as_json(self) -> dict[str, Any]:
        found = self.comparison.as_json()
        return found if self.evaluation is None else {**found, "quality": self.evaluation.as_json()}


def compare(request: ComparisonRequest) -> ComparisonResult:
    """Raises `ClipIndexError`, `QueryServiceError`, `OSError` or `BadInput`.

    What may be wrong is read first, because models take long.
    """
    texts = [] if request.queries_file is None else read_queries(request.queries_file)
    live = request.live.read()
    gallery = _gallery_of(request.pairs)
    first, second = (_open(request, one) for one in (request.first_id, request.second_id))
    result = ComparisonResult(Comparison(request.k), indexes=(first, second))
    captions = [] if gallery is None else [item.key for item in gallery.captions][:MAX_QUERIES]
    given = [ComparedQuery.of_text(text) for text in (*texts, *captions)]
    tell(f"asking {first.index_id} and {second.index_id} …")
    for query in (*given, *live, *sample_queries(first, request.num_sampled)):
        result.comparison.add(query, first, second)
    if gallery is not None:
        quality, against = (scored(IndexAnswers(one), gallery)[0] for one in (second, first))
        result.evaluation = Evaluation(
            name=second.index_id,
            quality=quality,
            gallery=gallery,
            against_name=first.index_id,
            against=against,
            num_samples=request.num_samples,
        )
    return result


def _gallery_of(pairs: PairRequest | None) -> Gallery | None:
    if pairs is None or pairs.is_empty:
        return None
    try:
        return build_gallery_of_pairs(pairs)
    except TooManyBadPairs as error:
        raise BadInput(str(error)) from error


def read_queries(file: Path) -> list[str]:
    """Read texts, one a line. Empty lines are left out. Raises `BadInput`."""
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{file} cannot be read: {error}") from error
    texts = [line.strip() for line in lines if line.strip()]
    if not texts:
        raise BadInput(f"{file} holds no text")
    if len(texts) > MAX_QUERIES:
        raise BadInput(f"{file} holds {len(texts):,} texts, more than {MAX_QUERIES:,}")
    return texts


def _open(request: ComparisonRequest, index_id: str) -> ComparedIndex:
    overrides = {
        one: RecordedModel(model, EncoderSettings().pretrained) for one, model in request.model_of.items()
    }
    candidates = RootCandidates(
        request.root,
        EncoderSettings(),
        Models(),
        open_reader=lambda found, fingerprint: IndexReader(request.root, found, fingerprint),
        free_bytes=lambda: None,
        overrides=overrides,
    )
    encoder = candidates.load_for(index_id)
    return ComparedIndex.open(IndexReader(request.root, index_id, encoder.fingerprint), encoder)


def _models_from(_: click.Context, param: click.Parameter, values: Sequence[str]) -> Mapping[str, str]:
    pairs = [value.partition("=") for value in values]
    if any(not (index_id and sign and model) for index_id, sign, model in pairs):
        raise click.BadParameter("write INDEX=MODEL", param=param)
    return {index_id: model for index_id, _, model in pairs}


def model_option(command: Any) -> Any:
    """Add --model-of: where the model of an index is, if it is not where it was begun."""
    return option(
        "--model-of",
        multiple=True,
        metavar="INDEX=MODEL",
        callback=_models_from,
        help="Where the model of an index is, if not where the index was begun. Repeatable.",
    )(command)
