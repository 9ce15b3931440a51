"""Encoders map their weights from one file, and encode as with weights of their own."""

from __future__ import annotations

import fcntl
import gc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from structlog.testing import capture_logs

from clip_index.encoder.open_clip import load_encoder, shared_weights
from clip_index.encoder.protocol import Encoder
from clip_index.encoder.settings import EncoderSettings
from fakes.hash_encoder import draw_picture
from fakes.tiny_clip import tiny_config, write_tiny_clip

pytestmark = [
    pytest.mark.encoder,
    pytest.mark.skipif(
        not hasattr(torch.ops.mkldnn, "data_ptr"), reason="this torch does not say where they lie"
    ),
]
CONFIGS = [
    pytest.param(tiny_config(), id="both halves are packed"),
    pytest.param(tiny_config(vision={"ls_init_value": 0.1}), id="the half of texts"),
    pytest.param(tiny_config(custom_text=True, text={"no_causal_mask": True}), id="the half of pictures"),
]


@pytest.fixture
def settings(tmp_path: Path) -> EncoderSettings:
    model = write_tiny_clip(tmp_path / "model", tiny_config())
    return EncoderSettings(str(model), None, shared_weights=tmp_path / "shared")


def embeddings(encoder: Encoder) -> list[bytes]:
    texts = [encoder.prepare_text("a red dress " * number) for number in (1, 2, 7)]
    pictures = [encoder.prepare_image(draw_picture(number)) for number in range(3)]
    return [rows.tobytes() for rows in encoder.encode([*texts, *pictures])]


def own_embeddings(settings: EncoderSettings) -> list[bytes]:
    return embeddings(load_encoder(replace(settings, shared_weights=None)))


def only_file(settings: EncoderSettings) -> Path:
    assert settings.shared_weights is not None
    [file] = settings.shared_weights.iterdir()
    return file


def is_mapped(file: Path) -> bool:
    return str(file) in Path("/proc/self/maps").read_text()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("config", CONFIGS)
def test_embeddings_are_those_of_own_weights_in_every_bit(
    config: dict[str, Any], precision: Any, tmp_path: Path
) -> None:
    model = write_tiny_clip(tmp_path / "model", config)
    settings = EncoderSettings(str(model), None, precision=precision, shared_weights=tmp_path / "shared")
    encoders = [load_encoder(settings) for _ in range(2)]
    assert is_mapped(only_file(settings))
    assert [embeddings(encoder) for encoder in encoders] == [own_embeddings(settings)] * 2


def test_a_second_encoder_maps_the_file_of_the_first_one(settings: EncoderSettings) -> None:
    load_encoder(settings)
    before = only_file(settings).stat()
    load_encoder(settings)
    assert only_file(settings).stat() == before


def test_encoders_that_are_loaded_at_once_map_one_file(settings: EncoderSettings) -> None:
    with ThreadPoolExecutor(4) as threads:
        encoders = list(threads.map(load_encoder, [settings] * 4))
    file, lines = only_file(settings), Path("/proc/self/maps").read_text().splitlines()
    assert {line.split()[4] for line in lines if str(file) in line} == {str(file.stat().st_ino)}
    assert [embeddings(encoder) for encoder in encoders] == [own_embeddings(settings)] * 4


def flip_a_bit(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(flip_a_bit, id="one bit"),
        pytest.param(lambda file: file.write_bytes(file.read_bytes()[:-1]), id="its end is missing"),
        pytest.param(lambda file: file.write_bytes(file.read_bytes() + b"1"), id="too long"),
        pytest.param(lambda file: file.write_bytes(b""), id="empty"),
    ],
)
def test_a_damaged_file_is_written_again(settings: EncoderSettings, damage: Callable[[Path], object]) -> None:
    encoder = load_encoder(settings)
    file = only_file(settings)
    whole = file.read_bytes()
    del encoder
    gc.collect()
    file.chmod(0o644)
    damage(file)
    assert embeddings(load_encoder(settings)) == own_embeddings(settings)
    assert file.read_bytes() == whole


def test_what_a_killed_process_has_left_is_removed_and_what_one_is_writing_is_not(
    settings: EncoderSettings,
) -> None:
    load_encoder(settings)
    file = only_file(settings)
    killed, alive = (file.with_name(f"unfinished-{file.name}-{number}") for number in range(2))
    killed.write_bytes(b"half")
    alive.write_bytes(b"half")
    with alive.open("rb") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        load_encoder(settings)
        assert set(file.parent.iterdir()) == {file, alive}


def test_an_encoder_that_is_not_used_any_more_lets_go_of_the_file(settings: EncoderSettings) -> None:
    encoder = load_encoder(settings)
    file = only_file(settings)
    assert is_mapped(file)
    del encoder
    gc.collect()
    assert not is_mapped(file)


def test_a_file_may_be_deleted_while_it_is_mapped(settings: EncoderSettings) -> None:
    encoder = load_encoder(settings)
    only_file(settings).unlink()
    assert embeddings(encoder) == own_embeddings(settings)


def test_where_nothing_can_be_written_weights_are_own_ones(settings: EncoderSettings, tmp_path: Path) -> None:
    file = tmp_path / "a file"
    file.write_text("no directory")
    with capture_logs() as logs:
        encoder = load_encoder(replace(settings, shared_weights=file))
    assert [entry["event"] for entry in logs] == ["weights are not shared"]
    assert embeddings(encoder) == own_embeddings(settings)


def test_without_the_functions_of_torch_weights_are_own_ones(
    settings: EncoderSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: object) -> None:
        raise AttributeError("no such function")

    monkeypatch.setattr(shared_weights, "_packed_tensor", missing)
    with capture_logs() as logs:
        encoder = load_encoder(settings)
    assert [entry["reason"] for entry in logs] == ["no such function"]
    assert embeddings(encoder) == own_embeddings(settings)
