import numpy as np
import pytest

from clip_index.content import Embeddings
from clip_index.encoder.protocol import Encoder, Prepared
from clip_index.errors import BadContent
from fakes.hash_encoder import HashEncoder, draw_picture


@pytest.fixture
def encoder() -> Encoder:
    return HashEncoder()


def embed_text(encoder: Encoder, text: str) -> Embeddings:
    return encoder.encode([encoder.prepare_text(text)])[0]


def test_embeddings_are_unit_vectors_of_float32(encoder: Encoder) -> None:
    prepared: list[Prepared] = [encoder.prepare_text("a red dress"), encoder.prepare_image(draw_picture(1))]
    for rows in encoder.encode(prepared):
        assert rows.shape == (1, 64)
        assert rows.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-6)


def test_texts_that_share_words_are_nearer_than_others(encoder: Encoder) -> None:
    red, also_red, other = (embed_text(encoder, t)[0] for t in ("a red dress", "red dress", "blue shoes"))
    assert red @ also_red > 0.7 > red @ other


def test_equal_pictures_meet_and_different_ones_do_not(encoder: Encoder) -> None:
    one, same, other = encoder.encode([encoder.prepare_image(draw_picture(seed)) for seed in (1, 1, 2)])
    np.testing.assert_array_equal(one, same)
    assert abs(float(one[0] @ other[0])) < 0.7


def test_a_long_text_has_several_rows(encoder: Encoder) -> None:
    assert embed_text(encoder, "word " * 100).shape == (2, 64)


def test_another_seed_is_another_encoder() -> None:
    assert HashEncoder(seed=1).fingerprint != HashEncoder(seed=2).fingerprint
    assert not np.array_equal(
        embed_text(HashEncoder(seed=1), "dress"), embed_text(HashEncoder(seed=2), "dress")
    )


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(b"hello", "not_an_image", id="text"),
        pytest.param(draw_picture(1)[:60], "truncated_image", id="half a picture"),
    ],
)
def test_bad_pictures_have_the_real_reasons(encoder: Encoder, data: bytes, reason: str) -> None:
    with pytest.raises(BadContent) as caught:
        encoder.prepare_image(data)
    assert caught.value.reason == reason


def test_a_blank_text_is_a_bad_content(encoder: Encoder) -> None:
    with pytest.raises(BadContent, match="empty_text"):
        encoder.prepare_text(" \n")
