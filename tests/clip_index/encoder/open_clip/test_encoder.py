from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import skimage
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from clip_index.content import Embeddings
from clip_index.encoder.open_clip import load_encoder
from clip_index.encoder.open_clip.towers import (
    EagerImageTower,
    EagerTextTower,
    PackedImageTower,
    PackedTextTower,
    build_image_tower,
    build_text_tower,
    length_groups,
)
from clip_index.encoder.protocol import Encoder, Prepared, PreparedImage, PreparedText
from clip_index.encoder.settings import EncoderSettings
from clip_index.errors import BadContent, EncoderBroken, EncoderUnavailable
from fakes.tiny_clip import tiny_config, write_tiny_clip

pytestmark = pytest.mark.encoder

PHOTOGRAPHS = [
    Path(skimage.__file__).parent / "data" / name for name in ("astronaut.png", "coffee.png", "chelsea.png")
]
TEXTS = [
    "a",
    "a red dress on a wooden table",
    "Ein Kleid, zwei Schuhe & drei Taschen – für 19,99 €!",
    "鞋子和裙子",
    " ".join(f"word{number}" for number in range(22)),
    "one two three four five",
]

CONFIGS = {
    "plain": tiny_config(),
    "quick gelu": tiny_config(quick_gelu=True),
    "custom text": tiny_config(custom_text=True),
    "pooled at eos": tiny_config(text={"pool_type": "eos", "eos_id": 49407}),
    "projection with bias": tiny_config(text={"proj_bias": True}),
    "no norm before": tiny_config(vision={"no_ln_pre": True}),
    "patches leave a border": tiny_config(vision={"patch_size": 9, "image_size": 32}),
    "one layer": tiny_config(vision={"layers": 1}, text={"layers": 1}),
    "short context": tiny_config(text={"context_length": 16}),
    "layer scale": tiny_config(vision={"ls_init_value": 0.1}, text={"ls_init_value": 0.1}),
    "mean of patches": tiny_config(vision={"pool_type": "avg"}),
    "not causal": tiny_config(custom_text=True, text={"no_causal_mask": True, "pool_type": "last"}),
    "attention pool": tiny_config(vision={"attentional_pool": True, "attn_pooler_heads": 2}),
}
EAGER_TEXTS = {"layer scale", "not causal"}
EAGER_IMAGES = {"layer scale", "mean of patches", "attention pool"}


@pytest.fixture(scope="module")
def model_directory(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    root = tmp_path_factory.mktemp("models")

    def written(name: str) -> Path:
        directory = root / name
        return directory if directory.exists() else write_tiny_clip(directory, CONFIGS[name])

    return written


@pytest.fixture(scope="module")
def encoder(model_directory: Callable[[str], Path]) -> Encoder:
    return load(model_directory("plain"))


def load(directory: Path, precision: Any = "fp32", max_batch: int = 32) -> Encoder:
    return load_encoder(EncoderSettings(model=str(directory), precision=precision, max_batch=max_batch))


def with_projection(directory: Path, value: float) -> Path:
    """A model whose text projection holds nothing but `value`; returns its folder."""
    write_tiny_clip(directory, CONFIGS["plain"])
    weights = load_file(directory / "open_clip_model.safetensors")
    weights["text_projection"].fill_(value)
    save_file(weights, directory / "open_clip_model.safetensors")
    return directory


def prepare_all(encoder: Encoder) -> list[Prepared]:
    """Texts and pictures in turn."""
    texts = [encoder.prepare_text(text) for text in TEXTS]
    images = [encoder.prepare_image(path.read_bytes()) for path in PHOTOGRAPHS]
    return [item for pair in zip(texts, images * 2, strict=True) for item in pair]


@torch.inference_mode()
def encode_by_open_clip(directory: Path, prepared: list[Prepared]) -> list[Embeddings]:
    """The same model, eager and padded, one item at a time."""
    model = open_clip.create_model(f"local-dir:{directory}").eval()
    config = model.visual.preprocess_cfg
    mean, std = (torch.tensor(config[key]) for key in ("mean", "std"))

    def embed(item: Prepared) -> Embeddings:
        if isinstance(item, PreparedText):
            embeddings = model.encode_text(torch.from_numpy(item.tokens).long(), normalize=True)
        else:
            pixels = (torch.from_numpy(item.pixels) / 255 - mean) / std
            embeddings = model.encode_image(pixels.permute(2, 0, 1)[None], normalize=True)
        return np.asarray(embeddings, dtype=np.float32)

    return [embed(item) for item in prepared]


def assert_close(ours: list[Embeddings], theirs: list[Embeddings], tolerance: float) -> None:
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, atol=tolerance)


@pytest.mark.parametrize("name", CONFIGS)
def test_embeddings_are_open_clips_own(name: str, model_directory: Callable[[str], Path]) -> None:
    directory = model_directory(name)
    encoder = load(directory)
    prepared = prepare_all(encoder)
    assert_close(encoder.encode(prepared), encode_by_open_clip(directory, prepared), 1e-5)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_without_onednn_embeddings_are_the_same(
    precision: str, model_directory: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = model_directory("plain")
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)
    encoder = load(directory, precision)
    prepared = prepare_all(encoder)
    tolerance = 1e-5 if precision == "fp32" else 0.05
    assert_close(encoder.encode(prepared), encode_by_open_clip(directory, prepared), tolerance)


@pytest.mark.parametrize("name", CONFIGS)
def test_bf16_stays_near(name: str, model_directory: Callable[[str], Path]) -> None:
    directory = model_directory(name)
    encoder = load(directory, "bf16")
    prepared = prepare_all(encoder)
    for ours, theirs in zip(encoder.encode(prepared), encode_by_open_clip(directory, prepared), strict=True):
        assert (ours * theirs).sum(axis=1).min() > 0.998


@pytest.mark.parametrize("name", CONFIGS)
def test_plain_halves_are_packed_and_others_are_left_to_open_clip(
    name: str, model_directory: Callable[[str], Path]
) -> None:
    model = open_clip.create_model(f"local-dir:{model_directory(name)}")
    text = EagerTextTower if name in EAGER_TEXTS else PackedTextTower
    image = EagerImageTower if name in EAGER_IMAGES else PackedImageTower
    assert type(build_text_tower(model, torch.float32)) is text
    assert type(build_image_tower(model, torch.float32)) is image


def test_every_text_length_is_exact(encoder: Encoder, model_directory: Callable[[str], Path]) -> None:
    rng = np.random.default_rng(0)
    lengths = rng.permutation(np.arange(1, 76))
    prepared: list[Prepared] = [encoder.prepare_text(" ".join(["dress"] * length)) for length in lengths]
    assert_close(encoder.encode(prepared), encode_by_open_clip(model_directory("plain"), prepared), 1e-5)


def test_the_real_architecture_is_exact(tmp_path: Path) -> None:
    config = open_clip.get_model_config("ViT-B-32")
    config["vision_cfg"]["layers"] = config["text_cfg"]["layers"] = 2
    directory = write_tiny_clip(tmp_path / "model", config)
    encoder = load(directory)
    prepared = prepare_all(encoder)
    assert_close(encoder.encode(prepared), encode_by_open_clip(directory, prepared), 1e-5)


def test_pictures_are_preprocessed_as_open_clip_does(model_directory: Callable[[str], Path]) -> None:
    directory = model_directory("plain")
    encoder = load(directory)
    model, transform = open_clip.create_model_from_pretrained(f"local-dir:{directory}", return_transform=True)
    for path in PHOTOGRAPHS:
        with Image.open(path) as image, torch.inference_mode():
            theirs = model.encode_image(transform(image)[None], normalize=True).numpy()
        ours = encoder.encode([encoder.prepare_image(path.read_bytes())])[0]
        assert float(ours[0] @ theirs[0]) > 0.999


def test_results_come_in_the_order_of_the_items(encoder: Encoder) -> None:
    prepared = prepare_all(encoder)
    together = encoder.encode(prepared)
    assert_close(together, [encoder.encode([item])[0] for item in prepared], 1e-5)
    assert_close(encoder.encode(prepared[::-1])[::-1], together, 1e-5)


@pytest.mark.parametrize("max_batch", [1, 3, 64])
def test_the_batch_size_changes_nothing(max_batch: int, model_directory: Callable[[str], Path]) -> None:
    directory = model_directory("plain")
    encoder = load(directory, max_batch=max_batch)
    prepared = prepare_all(encoder)
    assert_close(encoder.encode(prepared), encode_by_open_clip(directory, prepared), 1e-5)


def test_rows_are_unit_vectors_of_float32(encoder: Encoder) -> None:
    for rows in encoder.encode(prepare_all(encoder)):
        assert rows.dtype == np.float32
        assert rows.shape == (1, 16)
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)


def test_a_long_text_has_a_row_for_each_window(encoder: Encoder) -> None:
    long, short = encoder.encode([encoder.prepare_text("dress " * 200), encoder.prepare_text("dress")])
    assert long.shape == (4, 16)
    assert short.shape == (1, 16)


def test_nothing_gives_nothing(encoder: Encoder) -> None:
    assert encoder.encode([]) == []


def test_tokens_are_open_clips_own(encoder: Encoder) -> None:
    tokenizer = open_clip.get_tokenizer("ViT-B-32")
    for text in TEXTS:
        np.testing.assert_array_equal(encoder.prepare_text(text).tokens, tokenizer(text).numpy())


def test_a_spelled_out_end_token_does_not_end_the_text(encoder: Encoder) -> None:
    tokens = encoder.prepare_text("before <end_of_text> after").tokens[0].tolist()
    assert tokens.count(49407) == 1
    assert tokens[: tokens.index(49407)][-1] == encoder.prepare_text("after").tokens[0, 1]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param("", "empty_text", id="empty"),
        pytest.param(" \n\t", "empty_text", id="blank"),
    ],
)
def test_texts_that_cannot_be_encoded_are_bad_contents(text: str, reason: str, encoder: Encoder) -> None:
    with pytest.raises(BadContent) as caught:
        encoder.prepare_text(text)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("word " * 4000, id="English"),
        pytest.param("红色连衣裙配白色运动鞋" * 400, id="Chinese"),
        pytest.param("красное платье и белые кроссовки " * 400, id="Russian"),
        pytest.param("لباس أحمر وحذاء أبيض " * 400, id="Arabic"),
        pytest.param("लाल पोशाक और सफेद जूते " * 400, id="Hindi"),
        pytest.param("👗👟🧢" * 800, id="emoji"),
        pytest.param("a " * 100_000, id="200000 characters"),
        pytest.param("qzxj" * 20_000, id="one endless word"),
    ],
)
def test_of_a_text_that_does_not_fit_the_beginning_is_kept_in_every_language(
    text: str, encoder: Encoder
) -> None:
    prepared = encoder.prepare_text(text)
    assert prepared.is_truncated
    assert prepared.tokens.shape == (64, 77)
    beginning = encoder.prepare_text(text[:100])
    assert not beginning.is_truncated
    assert (prepared.tokens[0, :20] == beginning.tokens[0, :20]).all()


def test_white_space_before_a_text_takes_no_room(encoder: Encoder) -> None:
    prepared = encoder.prepare_text(" " * 200_000 + "dress" + " " * 200_000)
    assert not prepared.is_truncated
    assert (prepared.tokens == encoder.prepare_text("dress").tokens).all()


def test_a_lone_surrogate_is_text(encoder: Encoder) -> None:
    assert encoder.prepare_text("dress \ud800 red").tokens.shape == (1, 77)


def test_a_bad_picture_is_a_bad_content(encoder: Encoder) -> None:
    with pytest.raises(BadContent, match="not_an_image"):
        encoder.prepare_image(b"no picture")


def test_many_threads_prepare_what_one_would(encoder: Encoder) -> None:
    texts, pictures = TEXTS * 20, [path.read_bytes() for path in PHOTOGRAPHS * 4]
    with ThreadPoolExecutor(8) as threads:
        tokens = [threads.submit(encoder.prepare_text, text) for text in texts]
        pixels = [threads.submit(encoder.prepare_image, data) for data in pictures]
    for text, future in zip(texts, tokens, strict=True):
        np.testing.assert_array_equal(future.result().tokens, encoder.prepare_text(text).tokens)
    for data, image in zip(pictures, pixels, strict=True):
        np.testing.assert_array_equal(image.result().pixels, encoder.prepare_image(data).pixels)


def test_pixels_may_come_in_any_memory_layout(encoder: Encoder) -> None:
    upright = encoder.prepare_image(PHOTOGRAPHS[0].read_bytes()).pixels
    turned = PreparedImage(np.asfortranarray(upright))
    assert_close(encoder.encode([turned]), encoder.encode([PreparedImage(upright)]), 1e-6)


def test_a_projection_of_zeros_is_noticed_by_what_it_encodes(tmp_path: Path) -> None:
    encoder = load(with_projection(tmp_path / "model", 0.0))
    with pytest.raises(EncoderBroken):
        encoder.encode([encoder.prepare_text("dress")])


@pytest.mark.parametrize("value", [float("nan"), float("inf")], ids=["nan", "infinity"])
def test_a_projection_that_is_no_number_is_refused_at_once(value: float, tmp_path: Path) -> None:
    directory = with_projection(tmp_path / "model", value)
    with pytest.raises(EncoderUnavailable, match=r"damaged: text_projection holds NaN or infinity"):
        load(directory)


def test_only_equal_lengths_share_a_group() -> None:
    groups = length_groups([3, 3, 4, 5, 8, 20])
    assert [(group.num_sequences, group.length) for group in groups] == [
        (2, 3),
        (1, 4),
        (1, 5),
        (1, 8),
        (1, 20),
    ]
