"""What `cliptide evaluate` does: it builds the gallery, lets a model or a service answer, and scores that."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clip_index.encoder.protocol import Encoder
from clip_index.encoder.settings import EncoderSettings
from cliptide.evaluation.answers import (
    Answers,
    ModelAnswers,
    ServiceAnswers,
    embed_items,
    embed_pictures,
    embed_texts,
)
from cliptide.evaluation.demo_gallery import (
    build_demo_gallery,
    write_demo_model,
)
from cliptide.evaluation.report import Evaluation
from cliptide.evaluation.served import held_pictures, leave_out, served_demo
from cliptide.evaluation.worst import worst_sections
from cliptide.pairs.checking import PairTally, checked_pairs, decode_small
from cliptide.pairs.gallery import Gallery, RightAnswers, unknown_key
from cliptide.pairs.quality import Quality, Ranking, TwoWayQuality, score_rankings
from cliptide.pairs.ranking import Embedded
from cliptide.pairs.reading import BadInput, PairRequest, described
from cliptide.searching.gallery import build_gallery
from cliptide.searching.query_client import QueryClient

_TRIVIAL = (
    "every caption is right for every picture, so every model would be perfect: give several pictures with "
    "several captions, or another --group-by"
)


def load_encoder(settings: EncoderSettings) -> Encoder:
    from clip_index.encoder.open_clip import load_encoder as load  # here: importing torch takes seconds

    return load(settings)


@dataclass(slots=True)
class EvaluationJob:
    """One call of the command. `service` is asked instead of `encoder`; `against` is a second model."""

    pairs: PairRequest
    encoder: EncoderSettings | None
    against: EncoderSettings | None
    service: QueryClient | None
    extra: Mapping[str, Any] = field(default_factory=dict)
    demo: bool = False
    group_by: str | None = None
    slice_keys: tuple[str, ...] = ()
    num_samples: int = 1_000
    worst_file: Path | None = None
    num_worst: int = 50
    load: Callable[[EncoderSettings], Encoder] = load_encoder

    def run(self) -> Evaluation:
        """Raises `TooManyBadPairs`, `BadInput`, `QueryServiceError` or a `ClipIndexError`."""
        tally = PairTally()
        gallery, answers = self._answers(tally)
        quality, rankings = scored(answers, gallery)
        other = self._other(gallery)
        if self.worst_file is not None:
            self._write_worst(gallery, quality, rankings)
        return Evaluation(
            name=answers.name,
            quality=quality,
            gallery=gallery,
            against_name=other.name if other is not None else "",
            against=scored(other, gallery)[0] if other is not None else None,
            slice_keys=self.slice_keys,
            num_samples=self.num_samples,
            notes=self._notes(tally, answers),
        )

    def _answers(self, tally: PairTally) -> tuple[Gallery, Answers]:
        if self.service is not None:
            return self._served(self.service, tally)
        with tempfile.TemporaryDirectory() as folder:
            settings = self.encoder or EncoderSettings(model=str(write_demo_model(Path(folder))))
            encoder = self.load(settings)
        name = "the demo's model" if self.encoder is None else settings.model
        if self.demo:
            gallery = build_demo_gallery()
            pictures = embed_items(gallery.pictures, encoder)
        else:
            gallery = Gallery(self.group_by)
            embedded = embed_pictures(self.pairs.read(), encoder, gallery, tally)
            self._check(tally)
            self._check_keys(gallery)
            if gallery.is_trivial:
                raise BadInput(_TRIVIAL)
            pictures = Embedded.of_parts(embedded)
        captions = embed_texts(gallery.captions, encoder)
        return gallery, ModelAnswers(name, pictures, captions, captions)

    def _check(self, tally: PairTally) -> None:
        tally.check(self.pairs.max_bad_share)
        described(tally.lines())

    def _check_keys(self, gallery: Gallery) -> None:
        keys = [*self.slice_keys, *([self.group_by] if self.group_by is not None else [])]
        if (complaint := unknown_key(keys, gallery.metadata_keys)) is not None:
            raise BadInput(complaint)

    def _served(self, client: QueryClient, tally: PairTally) -> tuple[Gallery, ServiceAnswers]:
        if self.demo:
            gallery, held = served_demo(client)
        else:
            gallery = build_gallery_of_pairs(self.pairs, self.group_by, tally)
            self._check_keys(gallery)
            held = held_pictures(client, gallery)
        answers = ServiceAnswers(client, self.extra)
        answers.left_out = leave_out(gallery, held, answers)
        return gallery, answers

    def _other(self, gallery: Gallery) -> Answers | None:
        if self.against is None:
            return None
        encoder = self.load(self.against)
        pictures, captions = embed_items(gallery.pictures, encoder), embed_texts(gallery.captions, encoder)
        texts = captions if gallery.texts == gallery.captions else embed_texts(gallery.texts, encoder)
        return ModelAnswers(self.against.model, pictures, captions, texts)

    def _notes(self, tally: PairTally, answers: Answers) -> dict[str, Any]:
        notes: dict[str, Any] = {"skipped": tally.reasons} if tally.skipped else {}
        if isinstance(answers, ServiceAnswers):
            notes |= {"num_other_hits": answers.num_other, "num_left_out": answers.left_out}
        return notes

    def _write_worst(
        self, gallery: Gallery, quality: TwoWayQuality, rankings: Mapping[str, Ranking | None]
    ) -> None:
        rights = {"text_to_image": gallery.text_to_image(), "image_to_text": gallery.image_to_text()}
        sections = [
            section
            for direction, right in rights.items()
            if (found := quality.by_direction[direction]) is not None
            and (ranking := rankings[direction]) is not None
            for section in worst_sections(ranking, found, right, self.num_worst)
        ]
        assert self.worst_file is not None
        self.worst_file.write_text(build_gallery("The worst queries", sections), encoding="utf-8")


def build_gallery_of_pairs(
    pairs: PairRequest, group_by: str | None = None, tally: PairTally | None = None
) -> Gallery:
    """Build the gallery of pairs that no model has to embed. Raises `TooManyBadPairs`."""
    tally = PairTally() if tally is None else tally
    gallery = Gallery(group_by)
    for checked in checked_pairs(pairs.read(), decode_small, tally):
        gallery.add(checked.pair, checked.digest)
    tally.check(pairs.max_bad_share)
    described(tally.lines())
    return gallery


def scored(answers: Answers, gallery: Gallery) -> tuple[TwoWayQuality, dict[str, Ranking | None]]:
    """Let the gallery's queries be answered; return how good the answers are, and the rankings."""
    to_image, to_text = gallery.text_to_image(), gallery.image_to_text()
    rankings = {
        "text_to_image": answers.rank_pictures(to_image) if to_image.asked else None,
        "image_to_text": answers.rank_captions(to_text) if to_text.asked else None,
    }
    quality = TwoWayQuality(
        text_to_image=_quality(rankings["text_to_image"], to_image),
        image_to_text=_quality(rankings["image_to_text"], to_text),
        num_pairs=gallery.num_pairs,
    )
    return quality, rankings


def _quality(ranking: Ranking | None, right: RightAnswers) -> Quality | None:
    return None if ranking is None else score_rankings(ranking, right)
