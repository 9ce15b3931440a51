"""What open_clip imports and serving does not use is imported when something uses it, and changes nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from clip_index.encoder.open_clip.deferred_imports import deferred_imports
from fakes.tiny_clip import tiny_config, write_tiny_clip

TIMM = {"timm_model_name": "test_vit", "timm_model_pretrained": False, "image_size": 160}
SIGLIP_TEXT = {
    "context_length": 16,
    "vocab_size": 8,
    "hf_tokenizer_name": "owner/name",
    "no_causal_mask": True,
    "proj_bias": True,
    "pool_type": "last",
}
FAMILIES = {
    "ViT": tiny_config(),
    "ResNet": tiny_config(vision={"layers": [1, 1, 1, 1], "width": 32, "image_size": 64}),
    "timm, linear": tiny_config(vision=TIMM | {"timm_pool": "avg", "timm_proj": "linear"}),
    "timm, two layers": tiny_config(vision=TIMM | {"timm_pool": "avg", "timm_proj": "mlp"}),
    "timm, attention": tiny_config(
        vision=TIMM | {"timm_model_name": "resnet10t", "timm_pool": "abs_attn", "timm_proj": ""},
    ),
    "timm, rotary attention": tiny_config(
        vision=TIMM | {"timm_model_name": "resnet10t", "timm_pool": "rot_attn", "timm_proj": ""},
    ),
    "SigLIP": tiny_config(
        custom_text=True, text=SIGLIP_TEXT, vision=TIMM | {"timm_pool": "map", "timm_proj": "none"}
    ),
    "CoCa": tiny_config(
        text={"embed_cls": True, "output_tokens": True},
        vision={"attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True},
        multimodal_cfg={"width": 32, "context_length": 76, "vocab_size": 49408, "layers": 1, "heads": 2},
        custom_text=True,
    ),
}
PROGRAM = """
import hashlib, io, json, sys
import numpy as np
from PIL import Image
for name in json.loads(sys.argv[1]):
    __import__(name)
from clip_index.encoder.open_clip import load_encoder
import torch
from clip_index.encoder.settings import EncoderSettings
torch.set_num_threads(1)
data = io.BytesIO()
Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 70, 3), np.uint8)).save(data, "PNG")
found = {}
for family, directory in json.loads(sys.argv[2]).items():
    encoder = load_encoder(EncoderSettings(directory, None, "fp32"))
    prepared = [encoder.prepare_image(data.getvalue()), encoder.prepare_text("a red dress")]
    digests = [hashlib.sha256(rows.tobytes()).hexdigest() for rows in encoder.encode(prepared)]
    found[family] = [digests, sorted({"timm", "torch._dynamo"} & sys.modules.keys())]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def directories(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("families")
    for name, config in FAMILIES.items():
        write_tiny_clip(root / name, config)
    tokenizer = Tokenizer(models.WordLevel({"a": 2, "red": 3, "dress": 4, "?": 1}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(root / "SigLIP" / "tokenizer.json"))
    return {name: str(root / name) for name in FAMILIES}


def encoded(directories: dict[str, str], *imported_before: str) -> dict[str, Any]:
    command = [sys.executable, "-c", PROGRAM, json.dumps(imported_before), json.dumps(directories)]
    found: dict[str, Any] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return found


@pytest.mark.encoder
def test_embeddings_of_every_family_are_those_of_the_plain_import_bit_by_bit(
    directories: dict[str, str],
) -> None:
    lean = encoded(directories)
    plain = encoded(directories, "torch", "timm", "torch._dynamo", "open_clip")
    assert {name: found for name, (found, _) in lean.items()} == {
        name: found for name, (found, _) in plain.items()
    }


@pytest.mark.encoder
def test_a_model_that_needs_no_timm_does_not_load_it_and_one_that_needs_it_does(
    directories: dict[str, str],
) -> None:
    chosen = {name: directories[name] for name in ("ViT", "ResNet", "timm, linear")}
    assert [loaded for _, loaded in encoded(chosen).values()] == [[], [], ["timm", "torch._dynamo"]]


@pytest.mark.encoder
@pytest.mark.skipif(find_spec("cuda") is None, reason="this torch has no CUDA")
def test_the_bindings_of_cuda_are_loaded_when_something_uses_them() -> None:
    program = """
import sys, clip_index.encoder.open_clip, torch.cuda._utils as used
assert used._HAS_CUDA_BINDINGS
assert not {"cuda.bindings.driver", "cuda.bindings.runtime"} & sys.modules.keys()
assert used._cuda_bindings_driver.CUresult.CUDA_SUCCESS == 0
assert used._cuda_bindings_runtime.cudaError_t.cudaSuccess == 0
assert {"cuda.bindings.driver", "cuda.bindings.runtime"} <= sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.encoder
def test_the_models_and_data_sets_of_torchvision_are_loaded_when_something_uses_them() -> None:
    program = """
import sys, clip_index.encoder.open_clip, torchvision
assert not {"torchvision.models", "torchvision.datasets"} & sys.modules.keys()
assert torchvision.models.resnet18 is not None and torchvision.datasets.MNIST is not None
assert {"torchvision.models.resnet", "torchvision.datasets.mnist"} <= sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package `slow_part` that notes in a file when it is loaded."""
    monkeypatch.syspath_prepend(tmp_path)
    root = tmp_path / "slow_part"
    root.mkdir()
    noting = f"import pathlib; pathlib.Path({str(tmp_path / 'loaded')!r}).write_text('loaded')"
    (root / "__init__.py").write_text(f"{noting}\nfrom . import layers\n")
    (root / "layers.py").write_text("class Layer:\n    size = 3\n\nOTHER = 5\n")
    (root / "more.py").write_text("NAME = 7\n")
    yield tmp_path / "loaded"
    for name in [name for name in sys.modules if name.startswith("slow_part")]:
        del sys.modules[name]


SLOW_PART = ({"slow_part": (), "slow_part.layers": ("Layer",)},)


class TestDeferredModule:
    def test_it_is_loaded_by_the_first_use_of_a_name(self, package: Path) -> None:
        with deferred_imports(SLOW_PART):
            from slow_part.layers import Layer
        assert not package.exists()
        assert Layer().size == Layer.size == 3
        assert package.exists()

    def test_its_classes_can_be_derived_from_and_compared_with(self, package: Path) -> None:
        with deferred_imports(SLOW_PART):
            from slow_part.layers import Layer

        class Wider(Layer):
            pass

        assert isinstance(Wider(), Layer)
        assert issubclass(Wider, Layer)
        assert not isinstance(3, Layer)

    def test_its_own_names_are_found_through_it_later(self, package: Path) -> None:
        with deferred_imports(SLOW_PART):
            import slow_part
        assert not package.exists()
        assert slow_part.layers.OTHER == 5

    def test_a_name_that_nobody_foresaw_loads_it_at_once(self, package: Path) -> None:
        with deferred_imports(SLOW_PART):
            from slow_part.layers import OTHER
        assert OTHER == 5
        assert package.exists()

    def test_a_module_that_nobody_foresaw_loads_it_at_once(self, package: Path) -> None:
        with deferred_imports(SLOW_PART):
            from slow_part.more import NAME
        assert NAME == 7
        assert package.exists()

    def test_afterwards_everybody_imports_the_real_one(self, package: Path) -> None:
        with deferred_imports(SLOW_PART):
            import slow_part as stand_in
        import slow_part as real

        assert real is not stand_in
        assert real.layers is stand_in.layers

    def test_it_stays_real_where_it_is_loaded_already(self, package: Path) -> None:
        import slow_part.layers as real

        with deferred_imports(SLOW_PART):
            import slow_part.layers as again
        assert again is real

    def test_it_stays_missing_where_it_is_not_installed(self) -> None:
        with deferred_imports(({"not_installed_part": ()},)), pytest.raises(ModuleNotFoundError):
            import not_installed_part  # noqa: F401

    def test_whether_it_is_installed_is_found_without_importing_what_it_lies_in(self, package: Path) -> None:
        with deferred_imports(({"slow_part.layers": ()}, {"slow_part.missing": ()})):
            assert not package.exists()
            assert "slow_part.layers" in sys.modules
            assert "slow_part.missing" not in sys.modules

    def test_an_import_that_fails_leaves_no_stand_in(self, package: Path) -> None:
        with pytest.raises(ZeroDivisionError), deferred_imports(SLOW_PART):
            raise ZeroDivisionError
        assert "slow_part" not in sys.modules
