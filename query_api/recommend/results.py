"""From examples to the answer of a recommendation. Blocking: for a worker."""

from __future__ import annotations

from collections.abc import Sequence

from query_api.answers.snapshot import build_snapshot
from query_api.recommend.interests import Interest
from query_api.recommend.models import (
    InterestAnswer,
    RecommendAnswer,
    RecommendedHit,
    RecommendedHits,
    RecommendRequest,
    WeightedExample,
)
from query_api.recommend.owner_interests import OwnerInterests
from query_api.recommend.recommendation import (
    KnownExample,
    Recommended,
    recommend_by_examples,
    recommend_by_interests,
)
from query_api.search.results import write_hits
from query_api.serving.engine import Snapshot
from query_api.telemetry.stages import Stages


def build_answer(
    searcher: Snapshot,
    wanted: RecommendRequest,
    *,
    positive: Sequence[KnownExample],
    negative: Sequence[KnownExample],
    stages: Stages,
    owner_interests: OwnerInterests,
) -> str:
    """Recommend by the examples, or by the owner's interests, and write the answer as JSON."""
    interests: Sequence[Interest] = ()
    with stages.measure("search"):
        observed = searcher.observed_by(stages.search_observer)
        if wanted.owner_id is None:
            found = recommend_by_examples(observed, positive, negative, wanted)
        else:
            interests = owner_interests.find(observed, wanted.owner_id)
            found = recommend_by_interests(observed, interests, wanted)
    with stages.measure("columns"):
        results = {modality: _build_hits(searcher, hits, wanted) for modality, hits in found.items()}
    answer = RecommendAnswer(
        results=results,
        missing_ids=_missing_ids([*(wanted.positive or []), *wanted.negative], [*positive, *negative]),
        interests=[_describe(interest) for interest in interests],
        snapshot=build_snapshot(searcher),
        timings=stages.as_milliseconds(),
    )
    return answer.model_dump_json(exclude_unset=True)


def _build_hits(
    searcher: Snapshot, recommended: Sequence[Recommended], wanted: RecommendRequest
) -> RecommendedHits:
    written = write_hits(searcher, [one.hit for one in recommended], wanted.include)
    pairs = zip(written, recommended, strict=True)
    return RecommendedHits(hits=[RecommendedHit(**fields, because=one.because) for fields, one in pairs])


def _missing_ids(examples: Sequence[WeightedExample], known: Sequence[KnownExample]) -> list[str]:
    """Return the content ids among the examples that are not live contents."""
    asked = [example.content_id for example in examples if example.content_id is not None]
    found = {example.content_id for example in known}
    return sorted({content_id for content_id in asked if content_id not in found})


def _describe(interest: Interest) -> InterestAnswer:
    return InterestAnswer(
        content_id=interest.medoid.content_id,
        num_uploads=interest.num_uploads,
        weight=round(interest.weight, 4),
    )
