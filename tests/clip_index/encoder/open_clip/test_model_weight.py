"""How large a model's weights are, before it is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from clip_index.encoder.open_clip import weigh_model
from clip_index.encoder.settings import EncoderSettings

pytestmark = pytest.mark.encoder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "open_clip_config.json").write_text("{}")
    (tmp_path / "open_clip_model.safetensors").write_bytes(b"x" * 1234)
    return tmp_path


def test_the_weights_of_a_directory_are_weighed_without_being_read(folder: Path) -> None:
    assert weigh_model(EncoderSettings(model=str(folder))) == 1234
    assert weigh_model(EncoderSettings(model=f"local-dir:{folder}")) == 1234


def test_a_file_of_weights_is_weighed(folder: Path) -> None:
    assert weigh_model(EncoderSettings(model=str(folder / "open_clip_model.safetensors"))) == 1234


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param(EncoderSettings(model="/no/such/folder"), id="missing folder"),
        pytest.param(EncoderSettings(model="ViT-B-32", pretrained=None), id="name without weights"),
    ],
)
def test_what_nobody_can_weigh_has_no_weight(settings: EncoderSettings) -> None:
    assert weigh_model(settings) is None
