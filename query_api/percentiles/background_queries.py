"""Queries that nobody asked: what a score is compared with. Blocking."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import TypeAlias

import numpy as np

from clip_index.content import MODALITIES, Embeddings, Modality, unit_mean
from clip_index.reading.searcher import Searcher
from query_api.percentiles.scale import PercentileScale

NUM_PICTURES = 256
NUM_CONTENTS_OF_CENTROID = 1000

Scales: TypeAlias = Mapping[Modality, PercentileScale]
"""By the modality of the hits."""


@dataclass(frozen=True, slots=True)
class BackgroundQuery:
    """A unit vector (dimension,), and the content that must not count as its hit: itself."""

    embedding: Embeddings
    own_id: str | None = None


def read_phrases() -> list[str]:
    """Return the phrases that the package ships: nonsense, and some that almost make sense."""
    return files("query_api.percentiles").joinpath("background_phrases.txt").read_text("utf-8").splitlines()


def build_scales(
    searcher: Searcher, phrases: Sequence[Embeddings], rest: Callable[[float], None] = lambda _: None
) -> dict[Modality, Scales]:
    """Return the scales of each query modality, for the hit modalities that there are contents of.

    Texts are compared with the phrases, pictures with a sample of the index's own pictures.
    `rest` is called after each search with the seconds that it took: others may have the processor then.
    """
    background = {
        "text": [BackgroundQuery(embedding) for embedding in phrases],
        "image": _own_pictures(searcher),
    }

    def lift(query: BackgroundQuery, modality: Modality, centroid: Embeddings) -> float:
        began = time.monotonic()
        lifted = _lift(searcher, query, modality, centroid)
        rest(time.monotonic() - began)
        return lifted

    centroids = {modality: _find_centroid(searcher, modality) for modality in MODALITIES}
    return {
        kind: {
            modality: PercentileScale(
                centroid, np.sort([lift(query, modality, centroid) for query in background[kind]])
            )
            for modality, centroid in centroids.items()
            if centroid is not None and background[kind]
        }
        for kind in MODALITIES
    }


def _own_pictures(searcher: Searcher) -> list[BackgroundQuery]:
    locations = searcher.sample("image", NUM_PICTURES)
    contents = zip(searcher.read_many(locations, ()), locations, strict=True)
    return [
        BackgroundQuery(unit_mean(searcher.embeddings(location)), content.content_id)
        for content, location in contents
    ]


def _find_centroid(searcher: Searcher, modality: Modality) -> Embeddings | None:
    locations = searcher.sample(modality, NUM_CONTENTS_OF_CENTROID)
    if not locations:
        return None
    centroid: Embeddings = np.concatenate([searcher.embeddings(location) for location in locations]).mean(
        axis=0
    )
    return centroid


def _lift(searcher: Searcher, query: BackgroundQuery, modality: Modality, centroid: Embeddings) -> float:
    """Return how far the best hit rises above the query's mean score."""
    [hits] = searcher.search(query.embedding[None], k=2, modality=modality)
    best = next((hit.score for hit in hits if hit.content_id != query.own_id), -1.0)
    return best - float(query.embedding @ centroid)
