"""Pickled CLIP weights become a directory that open_clip loads, and no pickle runs code."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clip_index.encoder.settings import EncoderSettings
from tests.cliptide.untrained_model import write_untrained_model
from tools.import_weights import CONFIG_FILE, WEIGHTS_FILE, ImportRefused, import_weights, main

pytestmark = pytest.mark.encoder
State = dict[str, Any]


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_untrained_model(tmp_path_factory.mktemp("earlier"))


@pytest.fixture
def state(earlier: Path) -> State:
    from safetensors.torch import load_file

    [weights] = earlier.glob("*.safetensors")
    found = load_file(weights)
    return {name: tensor.float() for name, tensor in found.items()}


@pytest.fixture
def config(earlier: Path, state: State, tmp_path: Path) -> str:
    return str(earlier / CONFIG_FILE)


def pickled(value: object, tmp_path: Path) -> Path:
    import torch

    path = tmp_path / "earlier.pt"
    torch.save(value, path)
    return path


def test_imported_weights_encode_as_before(earlier: Path, state: State, config: str, tmp_path: Path) -> None:
    from clip_index.encoder.open_clip import load_encoder

    fingerprint = import_weights(pickled(state, tmp_path), tmp_path / "imported", config)
    before, after = (
        load_encoder(EncoderSettings(model=str(path), precision="fp32"))
        for path in (earlier, tmp_path / "imported")
    )
    assert fingerprint == str(before.fingerprint) == str(after.fingerprint)
    assert {path.name for path in (tmp_path / "imported").iterdir()} == {CONFIG_FILE, WEIGHTS_FILE}
    [one], [other] = (e.encode([e.prepare_text("a red shoe")]) for e in (before, after))
    assert np.array_equal(one, other)


@pytest.mark.parametrize(
    "wrap",
    [
        pytest.param(lambda state: {"state_dict": state, "epoch": 3}, id="a checkpoint"),
        pytest.param(lambda state: {"model": state}, id="a checkpoint of another loop"),
        pytest.param(lambda state: {f"module.{n}": t for n, t in state.items()}, id="several GPUs"),
        pytest.param(lambda state: {n: t.double() for n, t in state.items()}, id="another precision"),
    ],
)
def test_what_training_loops_save_is_understood(
    wrap: Callable[[State], object], state: State, config: str, tmp_path: Path
) -> None:
    plain = import_weights(pickled(state, tmp_path), tmp_path / "plain", config)
    assert import_weights(pickled(wrap(state), tmp_path), tmp_path / "wrapped", config) == plain


class RunsCode:
    """A pickle of it writes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def test_a_pickle_that_would_run_code_runs_none_and_says_how_to_save_it(config: str, tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    path = pickled({"model": RunsCode(touched)}, tmp_path)
    with pytest.raises(ImportRefused, match=r"call torch\.save\(model\.state_dict\(\), FILE\)"):
        import_weights(path, tmp_path / "imported", config)
    assert not touched.exists()
    assert not (tmp_path / "imported").exists()


def without_one(state: State) -> State:
    return dict(list(state.items())[1:])


def with_another_size(state: State) -> State:
    return {**state, "logit_scale": state["text_projection"]}


def not_finite(state: State) -> State:
    return {**state, "text_projection": state["text_projection"] * float("nan")}


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        pytest.param(without_one, "of another architecture: 1 missing", id="one is missing"),
        pytest.param(lambda s: {**s, "more": s["logit_scale"]}, r"1 unknown \(more\)", id="one too many"),
        pytest.param(with_another_size, "of another size: logit_scale is", id="another size"),
        pytest.param(not_finite, "text_projection hold values that are not finite", id="not finite"),
        pytest.param(lambda s: {"text_model.x": s["logit_scale"]}, "of the library transformers", id="hf"),
        pytest.param(lambda s: {**s, "epoch": 3}, "epoch: no tensors", id="a number"),
        pytest.param(lambda s: [1, 2], "holds a list", id="a list"),
        pytest.param(lambda s: {}, "of another architecture", id="nothing"),
    ],
)
def test_weights_that_do_not_fit_are_named(
    spoil: Callable[[State], object], said: str, state: State, config: str, tmp_path: Path
) -> None:
    with pytest.raises(ImportRefused, match=said):
        import_weights(pickled(spoil(state), tmp_path), tmp_path / "imported", config)
    assert not (tmp_path / "imported").exists()


def test_weights_of_openai_s_package_need_a_model_with_its_activation(state: State, tmp_path: Path) -> None:
    import torch

    numbers = {name: torch.tensor(1) for name in ("input_resolution", "context_length", "vocab_size")}
    path = pickled({**state, **numbers}, tmp_path)
    with pytest.raises(ImportRefused, match="name the model ViT-B-32-quickgelu"):
        import_weights(path, tmp_path / "imported", "ViT-B-32")
    with pytest.raises(ImportRefused, match="of another architecture"):  # they are too small for it
        import_weights(path, tmp_path / "imported", "ViT-B-32-quickgelu")


@pytest.mark.parametrize("content", [b"", b"no pickle", b"PK\x03\x04 cut"], ids=["empty", "text", "cut"])
def test_a_file_that_is_no_pickle_is_one_sentence(
    content: bytes, config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "weights.pt"
    path.write_bytes(content)
    assert main([str(path), str(tmp_path / "imported"), "--model", config]) == 1
    told = capsys.readouterr().err
    assert told.startswith(f"import_weights: {path} ")
    assert told.count("\n") == 1


def test_an_unknown_model_is_named(state: State, tmp_path: Path) -> None:
    with pytest.raises(ImportRefused, match="open_clip has no model 'ViT-Z'"):
        import_weights(pickled(state, tmp_path), tmp_path / "imported", "ViT-Z")


def test_a_directory_that_holds_something_is_left_alone(state: State, config: str, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    with pytest.raises(ImportRefused, match="is not empty"):
        import_weights(pickled(state, tmp_path), tmp_path / "full", config)
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine"]


def test_the_command_says_which_variable_to_set(
    state: State, config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = tmp_path / "imported"
    assert main([str(pickled(state, tmp_path)), str(directory), "--model", config]) == 0
    assert f"set CLIPTIDE_ENCODER__MODEL={directory}" in capsys.readouterr().out
    assert json.loads((directory / CONFIG_FILE).read_text())["model_cfg"]


PAGE = (Path(__file__).parents[1] / "docs" / "coming_from_earlier_systems.md").read_text()


@pytest.mark.parametrize("number", [0, 1], ids=["links", "ids and users"])
def test_each_table_of_the_page_can_be_published(number: int, tmp_path: Path) -> None:
    from click.testing import CliRunner

    from cliptide.__main__ import main as cliptide
    from fakes.hash_encoder import draw_picture

    table = re.findall(r"^```\n(content_id,.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)[number]
    (tmp_path / "links.csv").write_text(table)
    for name in re.findall(r",([\w/]+\.(?:jpg|txt))", table):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(draw_picture(1) if name.endswith("jpg") else b"a text")
    done = CliRunner().invoke(cliptide, ["publish", str(tmp_path / "links.csv"), "--dry-run", "--json"])
    assert done.exit_code == 0, done.output
    summary = json.loads(re.findall(r"^\{.*?\}\}", done.output, re.MULTILINE)[0])
    assert (summary["rows"], summary["failed"]) == (len(table.splitlines()) - 1, 0)
