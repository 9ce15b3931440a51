"""What stands at the end of a wide or tall picture is found by the demo's model."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clip_index.content import Embeddings
from clip_index.encoder.open_clip import load_encoder
from clip_index.encoder.protocol import Encoder
from clip_index.encoder.settings import EncoderSettings
from cliptide.demo.garments.captions import plain_query
from cliptide.demo.garments.combinations import Combination
from cliptide.demo.garments.drawing import PictureDrawer
from cliptide.demo.small_clip.model import write_model_directory

pytestmark = pytest.mark.encoder

SIDE = 96
WANTED = Combination("dress", "red", "plain")
BESIDE = Combination("hat", "blue", "plain")
OTHERS = [
    Combination(garment, colour, "plain")
    for garment in ("dress", "coat", "jumper", "skirt", "scarf")
    for colour in ("red", "blue", "green", "yellow")
    if (garment, colour) != ("dress", "red")
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model_directory(tmp_path_factory.mktemp("demo") / "model")


def load(model: Path, max_crops: int | None) -> Encoder:
    return load_encoder(EncoderSettings(str(model), max_crops=max_crops))


def side_by_side(*parts: Image.Image, axis: int) -> bytes:
    output = io.BytesIO()
    Image.fromarray(np.concatenate([np.asarray(part) for part in parts], axis)).save(output, "PNG")
    return output.getvalue()


def rank_of_first(encoder: Encoder, query: str, pictures: list[bytes]) -> int:
    """How many pictures the query is nearer to than to the first one, by the best row of each."""
    text, *rows = encoder.encode([encoder.prepare_text(query), *map(encoder.prepare_image, pictures)])
    scores = [best_score(text, of_picture) for of_picture in rows]
    return sum(score > scores[0] for score in scores)


def best_score(text: Embeddings, of_picture: Embeddings) -> float:
    return float((of_picture @ text[0]).max())


@pytest.mark.parametrize("is_last", [False, True], ids=["at the beginning", "at the end"])
@pytest.mark.parametrize("axis", [1, 0], ids=["2:1", "1:2"])
def test_a_garment_at_the_end_of_a_picture_is_found(model: Path, axis: int, is_last: bool) -> None:
    drawer = PictureDrawer()
    wanted, beside = (drawer.draw(one, seed=1, size=SIDE) for one in (WANTED, BESIDE))
    pair = (beside, wanted) if is_last else (wanted, beside)
    gallery = [side_by_side(drawer.draw(one, seed=2, size=SIDE), axis=axis) for one in OTHERS]
    pictures = [side_by_side(*pair, axis=axis), *gallery]
    assert rank_of_first(load(model, None), plain_query(WANTED), pictures) == 0
    assert rank_of_first(load(model, 1), plain_query(WANTED), pictures) > 0
