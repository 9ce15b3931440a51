from pathlib import Path

import pytest
import torch

from clip_index.encoder.open_clip import load_encoder
from clip_index.encoder.open_clip.models import Model
from clip_index.encoder.settings import EncoderSettings
from clip_index.errors import EncoderUnavailable
from cliptide.finetuning.errors import FinetuneRefused
from cliptide.finetuning.weights import (
    WEIGHTS_FILE,
    choose_trained,
    copy_weights,
    load_finite,
    mixed,
    write_model,
)
from tests.cliptide.untrained_model import write_untrained_model

pytestmark = pytest.mark.encoder


def load(folder: Path) -> Model:
    return load_finite(EncoderSettings(model=str(folder), pretrained=None))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_untrained_model(tmp_path / "start")


def test_what_is_trained_are_the_projections_the_last_blocks_or_everything(folder: Path):
    module = load(folder).module

    projections = choose_trained(module, "projections", 1)
    last_block = choose_trained(module, "last-blocks", 1)
    everything = choose_trained(module, "all", 1)

    assert sorted(projections) == ["logit_scale", "text_projection", "visual.proj"]
    assert {"visual.proj", "ln_final.weight", "visual.ln_post.bias"} <= set(last_block)
    blocks = {
        name.split("resblocks.")[1][0] for name in last_block if name.startswith("transformer.resblocks")
    }
    assert blocks == {"1"}
    assert {name.split("resblocks.")[1][0] for name in last_block if name.startswith("visual.tr")} == {"3"}
    assert everything == [name for name, _ in module.named_parameters()]


def test_mixed_weights_lie_between_the_start_and_the_tuned_ones(folder: Path):
    module = load(folder).module
    start = copy_weights(module, ["logit_scale"])
    tuned = {"logit_scale": start["logit_scale"] + 1}

    assert mixed(start, tuned, 0)["logit_scale"] == start["logit_scale"]
    assert mixed(start, tuned, 1)["logit_scale"] == tuned["logit_scale"]
    assert mixed(start, tuned, 0.25)["logit_scale"] == pytest.approx(start["logit_scale"].item() + 0.25)


def test_a_written_model_is_the_one_in_memory_and_keeps_its_activation(folder: Path, tmp_path: Path):
    """A pretrained tag can ask for QuickGELU, which its architecture's config does not name."""
    import open_clip

    config = load(folder).config
    module = open_clip.model.CLIP(**{**config, "quick_gelu": True})
    open_clip.load_checkpoint(module, str(folder / WEIGHTS_FILE))
    open_clip.set_model_preprocess_cfg(module, load(folder).preprocessing)
    model = Model(module.eval(), load(folder).tokenizer, config)

    write_model(tmp_path / "out", model)

    assert load(tmp_path / "out").config["quick_gelu"] is True
    before, after = (load_encoder(EncoderSettings(model=str(path))) for path in (folder, tmp_path / "out"))
    assert before.fingerprint != after.fingerprint
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "open_clip_config.json",
        "open_clip_model.safetensors",
    ]


def test_weights_with_nan_are_refused_by_name(folder: Path):
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / WEIGHTS_FILE)
    tensors["visual.proj"][0, 0] = torch.nan
    save_file(tensors, folder / WEIGHTS_FILE)

    with pytest.raises(FinetuneRefused, match=r"visual\.proj holds NaN or infinity"):
        load(folder)


def test_weights_that_do_not_fit_their_config_or_are_a_pickle_are_refused(folder: Path):
    config = folder / "open_clip_config.json"
    config.write_text(config.read_text().replace('"embed_dim": 128', '"embed_dim": 64'))
    with pytest.raises(EncoderUnavailable):
        load(folder)

    (folder / WEIGHTS_FILE).unlink()
    torch.save({}, folder / "open_clip_pytorch_model.bin")
    with pytest.raises(EncoderUnavailable, match="there is no file"):
        load(folder)
