from pathlib import Path

import pytest
import torch

from clip_index.encoder.open_clip import load_encoder
from clip_index.encoder.open_clip.models import Model, load_model
from clip_index.encoder.settings import EncoderSettings
from clip_index.errors import EncoderUnavailable
from cliptide.finetuning import weights
from cliptide.finetuning.weights import (
    WEIGHTS_FILE,
    choose_trained,
    copy_weights,
    mixed,
    write_model,
)
from tests.cliptide.untrained_model import write_untrained_model

pytestmark = pytest.mark.encoder


def load(folder: Path) -> Model:
    return load_model(EncoderSettings(model=str(folder), pretrained=None))


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

    with pytest.raises(EncoderUnavailable, match=r"visual\.proj holds NaN or infinity"):
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


@pytest.mark.parametrize(
    "text",
    [
        pytest.param('{"preprocess_cfg": {}}', id="nothing"),
        pytest.param("[1]", id="a list"),
        pytest.param('{"model_cfg": {"embed_dim": 128, "vision_cfg": {}}}', id="half of it"),
    ],
)
def test_a_config_that_describes_no_model_says_what_it_needs(folder: Path, text: str):
    (folder / "open_clip_config.json").write_text(text)
    with pytest.raises(EncoderUnavailable, match="it needs a model_cfg with vision_cfg and text_cfg"):
        load(folder)


def test_a_config_that_is_not_json_is_named(folder: Path):
    (folder / "open_clip_config.json").write_text("{")
    with pytest.raises(EncoderUnavailable, match=r"open_clip_config\.json is not JSON"):
        load(folder)


def test_a_written_model_may_be_read_by_whoever_may_read_its_config(folder: Path, tmp_path: Path):
    """Services run under users of their own."""
    write_model(tmp_path / "out", load(folder))
    modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "out").iterdir()}
    assert len(modes) == 1


def test_a_model_that_cannot_be_written_leaves_the_one_that_is_there(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    out, model = tmp_path / "out", load(folder)
    write_model(out, model, {"README.md": "the first"})
    before = {path.name: path.read_bytes() for path in out.iterdir()}

    def fill_the_disk(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(weights, "save_file", fill_the_disk)
    with pytest.raises(OSError, match="No space left"):
        write_model(out, model, {"README.md": "the second"})
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_what_a_killed_process_has_left_half_written_goes_with_the_next_model(folder: Path, tmp_path: Path):
    (tmp_path / "out" / weights.UNFINISHED_FOLDER).mkdir(parents=True)
    (tmp_path / "out" / weights.UNFINISHED_FOLDER / WEIGHTS_FILE).write_bytes(b"half")
    write_model(tmp_path / "out", load(folder))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "open_clip_config.json",
        "open_clip_model.safetensors",
    ]
