from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from clip_index.encoder.open_clip import load_encoder, models
from clip_index.encoder.open_clip.models import load_model
from clip_index.encoder.open_clip.tokens import WordTokenizer
from clip_index.encoder.protocol import EncoderFingerprint
from clip_index.encoder.settings import EncoderSettings
from clip_index.errors import EncoderUnavailable
from fakes.tiny_clip import tiny_config, write_tiny_clip

pytestmark = pytest.mark.encoder
NEEDS = "it needs a model_cfg with vision_cfg and text_cfg"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return write_tiny_clip(tmp_path / "model", tiny_config())


def fingerprint(model: Path | str, **settings: object) -> EncoderFingerprint:
    return load_encoder(EncoderSettings(model=str(model), **settings)).fingerprint  # type: ignore[arg-type]


def refusal(model: Path | str, pretrained: str | None = None) -> str:
    with pytest.raises(EncoderUnavailable) as caught:
        load_encoder(EncoderSettings(model=str(model), pretrained=pretrained))
    message = str(caught.value)
    assert "\n" not in message
    assert str(model) in message
    return message


def test_a_directory_a_prefixed_directory_and_its_file_are_one_model(directory: Path) -> None:
    file = directory / "open_clip_model.safetensors"
    assert fingerprint(directory) == fingerprint(f"local-dir:{directory}") == fingerprint(file)


def test_the_only_weights_of_a_directory_may_have_any_name(directory: Path) -> None:
    expected = fingerprint(directory)
    (directory / "open_clip_model.safetensors").rename(directory / "epoch-7.safetensors")
    assert fingerprint(directory) == expected


def test_a_directory_may_be_called_after_siglip(directory: Path, tmp_path: Path) -> None:
    expected = fingerprint(directory)
    assert fingerprint(directory.rename(tmp_path / "better-than-SigLIP")) == expected


def test_a_tokenizer_shares_the_tables_of_open_clips_own_one_and_not_its_words(directory: Path) -> None:
    import open_clip

    built = open_clip.tokenizer._tokenizer
    words = dict(built.cache)
    tokenizer = load_model(EncoderSettings(model=str(directory))).tokenizer
    assert isinstance(tokenizer, WordTokenizer)
    tokenizer.encode("some unheard-of word", 75)
    assert tokenizer._tokenizer.encoder is built.encoder
    assert tokenizer._tokenizer.bpe_ranks is built.bpe_ranks
    assert built.cache == words


def test_weights_beside_the_preferred_ones_are_another_model(directory: Path, tmp_path: Path) -> None:
    other = write_tiny_clip(tmp_path / "other", tiny_config(), seed=1)
    (other / "open_clip_model.safetensors").rename(directory / "other.safetensors")
    assert fingerprint(directory) != fingerprint(directory / "other.safetensors")


def test_a_name_may_go_with_a_file(tmp_path: Path) -> None:
    import open_clip

    weights = tmp_path / "weights.safetensors"
    save_file(open_clip.create_model("ViT-S-32-alt").state_dict(), weights)
    assert fingerprint("ViT-S-32-alt", pretrained=str(weights)).architecture == "ViT-S-32-alt"


class TestFingerprint:
    def test_it_names_what_decides_an_embedding(self, directory: Path) -> None:
        found = fingerprint(directory)
        assert found.architecture.startswith("clip-")
        assert found.dimension == 16
        assert found.windowing == "75/60/64 tokenizer=clip-bpe-49408 clean=lower crops=3@1.8"
        assert json.loads(found.preprocessing)["size"] == [32, 32]
        assert len(found.weights_digest) == 64

    def test_an_encoder_of_one_crop_has_the_fingerprint_of_indexes_from_before_there_were_more(
        self, directory: Path
    ) -> None:
        found = fingerprint(directory, max_crops=1)
        assert found.windowing == "75/60/64 tokenizer=clip-bpe-49408 clean=lower"
        assert found != fingerprint(directory)
        assert found.has_same_model_as(fingerprint(directory))

    def test_a_model_that_is_shown_the_whole_picture_has_one_crop(self, tmp_path: Path) -> None:
        squashing = write_tiny_clip(
            tmp_path / "squashing", tiny_config(), preprocessing={"resize_mode": "squash"}
        )
        assert "crops" not in fingerprint(squashing, max_crops=9).windowing

    def test_precision_threads_and_batches_are_no_part_of_it(self, directory: Path) -> None:
        expected = fingerprint(directory, precision="fp32")
        threads = torch.get_num_threads()
        assert fingerprint(directory, precision="bf16", max_batch=1, threads=threads) == expected

    def test_the_place_is_no_part_of_it(self, directory: Path, tmp_path: Path) -> None:
        expected = fingerprint(directory)
        assert fingerprint(directory.rename(tmp_path / "elsewhere")) == expected

    def test_other_weights_are_seen(self, directory: Path, tmp_path: Path) -> None:
        other = fingerprint(write_tiny_clip(tmp_path / "other", tiny_config(), seed=1))
        assert other.weights_digest != fingerprint(directory).weights_digest

    def test_one_changed_weight_is_seen(self, directory: Path) -> None:
        before = fingerprint(directory).weights_digest
        weights = load_file(directory / "open_clip_model.safetensors")
        weights["visual.proj"][0, 0] += 1e-6
        save_file(weights, directory / "open_clip_model.safetensors")
        assert fingerprint(directory).weights_digest != before

    def test_half_precision_files_are_known_by_their_values(self, directory: Path) -> None:
        file = directory / "open_clip_model.safetensors"
        halves = {name: tensor.half() for name, tensor in load_file(file).items()}
        save_file(halves, file)
        as_halves = fingerprint(directory)
        save_file({name: tensor.float() for name, tensor in halves.items()}, file)
        assert fingerprint(directory) == as_halves

    def test_another_activation_is_seen(self, directory: Path, tmp_path: Path) -> None:
        quick = write_tiny_clip(tmp_path / "quick", tiny_config(quick_gelu=True))
        assert fingerprint(quick).weights_digest == fingerprint(directory).weights_digest
        assert fingerprint(quick).architecture != fingerprint(directory).architecture

    def test_another_preprocessing_is_seen(self, directory: Path, tmp_path: Path) -> None:
        squashed = write_tiny_clip(
            tmp_path / "squashed", tiny_config(), preprocessing={"resize_mode": "squash"}
        )
        assert fingerprint(squashed).preprocessing != fingerprint(directory).preprocessing


class TestRefusals:
    def test_an_unknown_name_comes_with_near_ones(self) -> None:
        assert "similar names: ViT-B-32" in refusal("ViT-B-33", "openai")

    def test_an_unknown_tag_comes_with_near_ones(self) -> None:
        assert "similar names: laion2b_s34b_b79k" in refusal("ViT-B-32", "laion2b_s34b_b79")

    def test_a_name_without_weights(self) -> None:
        assert "weights are missing" in refusal("ViT-B-32", None)

    def test_a_directory_without_a_description(self, tmp_path: Path) -> None:
        assert f"there is no file {tmp_path / 'open_clip_config.json'}" in refusal(tmp_path)

    def test_a_directory_without_weights(self, directory: Path) -> None:
        (directory / "open_clip_model.safetensors").unlink()
        assert "there is no file" in refusal(directory)

    def test_pickled_weights_are_not_opened(self, directory: Path) -> None:
        (directory / "open_clip_model.safetensors").unlink()
        torch.save({}, directory / "open_clip_pytorch_model.bin")
        assert "there is no file" in refusal(directory)
        assert "can run code" in refusal("ViT-B-32", str(directory / "open_clip_pytorch_model.bin"))

    @pytest.mark.parametrize("place", ["/nowhere/model", "./model", "../model"])
    def test_a_directory_that_is_not_there(self, place: str) -> None:
        assert f"there is no file {Path(place) / 'open_clip_config.json'}" in refusal(place)

    def test_a_file_that_is_not_there(self, tmp_path: Path) -> None:
        assert "there is no file" in refusal(tmp_path / "weights.safetensors")

    @pytest.mark.parametrize(
        ("kept", "reason"),
        [
            pytest.param(0, "header too small", id="empty"),
            pytest.param(5, "header too small", id="a few bytes"),
            pytest.param(1000, "invalid header length", id="header cut"),
        ],
    )
    def test_cut_weights(self, directory: Path, kept: int, reason: str) -> None:
        file = directory / "open_clip_model.safetensors"
        file.write_bytes(file.read_bytes()[:kept])
        assert reason in refusal(directory)

    def test_weights_of_another_shape(self, directory: Path) -> None:
        description = {"model_cfg": tiny_config(vision={"width": 64}), "preprocess_cfg": {}}
        (directory / "open_clip_config.json").write_text(json.dumps(description))
        assert "size mismatch" in refusal(directory)

    def test_weights_with_a_tensor_missing(self, directory: Path) -> None:
        file = directory / "open_clip_model.safetensors"
        weights = load_file(file)
        del weights["ln_final.weight"]
        save_file(weights, file)
        assert "ln_final.weight" in refusal(directory)

    @pytest.mark.parametrize(
        ("description", "reason"),
        [
            pytest.param("", "open_clip_config.json is not JSON: Expecting value", id="empty"),
            pytest.param("[]", NEEDS, id="a list"),
            pytest.param("{}", NEEDS, id="no model"),
            pytest.param('{"model_cfg": {}}', NEEDS, id="no towers"),
            pytest.param('{"model_cfg": {"text_cfg": {}, "vision_cfg": 7}}', NEEDS, id="wrong types"),
        ],
    )
    def test_a_broken_description(self, directory: Path, description: str, reason: str) -> None:
        (directory / "open_clip_config.json").write_text(description)
        assert reason in refusal(directory)

    def test_the_tokenizer_of_a_directory_is_named_if_its_file_is_missing(self, tmp_path: Path) -> None:
        model = write_tiny_clip(tmp_path / "model", tiny_config())
        config = tiny_config(text={"hf_tokenizer_name": "owner/name"})
        (model / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
        message = refusal(model)
        assert "the tokenizer owner/name" in message
        assert f"there is no file {model / 'tokenizer.json'}" in message

    def test_a_vocabulary_that_is_smaller_than_the_tokenizers(self, tmp_path: Path) -> None:
        model = write_tiny_clip(tmp_path / "model", tiny_config(text={"vocab_size": 1000}))
        assert "vocabulary has 1000 tokens" in refusal(model)

    def test_weights_that_cannot_be_fetched(self, tmp_path: Path) -> None:
        code = (
            "from pathlib import Path; from clip_index.encoder.settings import EncoderSettings\n"
            "from clip_index.errors import EncoderUnavailable\n"
            "from clip_index.encoder.open_clip import load_encoder\n"
            f"for model in ('ViT-B-32', 'hf-hub:owner/name'):\n"
            f"    try: load_encoder(EncoderSettings(model=model, cache_dir=Path({str(tmp_path)!r})))\n"
            "    except EncoderUnavailable as error: print(error)\n"
        )
        offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "PATH": ""}
        done = subprocess.run([sys.executable, "-c", code], env=offline, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        named, hub = done.stdout.splitlines()
        assert named.startswith("the encoder ViT-B-32 cannot be loaded")
        assert hub.startswith("the encoder hf-hub:owner/name cannot be loaded")
        assert done.stderr == ""


def test_settings_and_errors_do_not_load_torch() -> None:
    code = (
        "import sys, clip_index, clip_index.encoder.protocol, clip_index.errors, clip_index.encoder.images, "
        "clip_index.encoder.text_windows, clip_index.encoder.settings; "
        "sys.exit('torch' in sys.modules or 'open_clip' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_after_two_loads_at_a_time_the_log_is_as_it_was(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load, before = models._load, logging.root.manager.disable
    has_begun, other_has_begun, is_over = threading.Event(), threading.Event(), threading.Event()
    disabled: list[int] = []

    def load_while_another_loads(*arguments: Any) -> models.Model:
        has_begun.set()
        assert other_has_begun.wait(60)
        return load(*arguments)

    def load_for_longer(*arguments: Any) -> models.Model:
        other_has_begun.set()
        assert is_over.wait(60)
        disabled.append(logging.root.manager.disable)
        return load(*arguments)

    settings = EncoderSettings(str(directory))
    monkeypatch.setattr(models, "_load", load_while_another_loads)
    first = threading.Thread(target=load_model, args=(settings,))
    first.start()
    assert has_begun.wait(60)
    monkeypatch.setattr(models, "_load", load_for_longer)
    second = threading.Thread(target=load_model, args=(settings,))
    second.start()
    first.join()
    is_over.set()
    second.join()
    assert disabled == [logging.ERROR]
    assert logging.root.manager.disable == before
