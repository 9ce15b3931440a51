import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from safetensors import SafetensorError
from safetensors.numpy import load_file

from clip_index.encoder.open_clip import load_encoder
from clip_index.encoder.settings import EncoderSettings
from cliptide.__main__ import main
from cliptide.finetuning.weights import UNFINISHED_FOLDER, WEIGHTS_FILE
from tests.cliptide.pairs.pictures import COLOURS, png, write_pair_folder
from tests.cliptide.untrained_model import write_untrained_model

pytestmark = pytest.mark.encoder

FAST = ["--train", "last-blocks", "--batch-size", "8", "--learning-rate", "2e-3", "--held-out", "0.3"]
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_untrained_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pair_folder(tmp_path_factory.mktemp("pairs"))


def finetune(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["finetune", *map(str, arguments)])


def last_json(result: Result) -> dict:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout.splitlines()[-1])


def test_a_tuned_model_is_a_directory_that_the_encoder_takes_as_it_is(
    model: Path, pairs: Path, tmp_path: Path
):
    out, board = tmp_path / "out", tmp_path / "board"
    card = last_json(
        finetune(pairs, "--model", model, "--output", out, *FAST, "--epochs", 4, "--tensorboard", board)
    )

    assert card["written"]["num_pairs"] == card["pairs"]["held_out"] >= 2
    assert card["pairs"]["training"] + card["pairs"]["held_out"] == card["pairs"]["seen"] == 32
    assert sorted(path.name for path in out.iterdir()) == [
        "README.md",
        "finetune.json",
        "open_clip_config.json",
        "open_clip_model.safetensors",
    ]
    encoder = load_encoder(EncoderSettings(model=str(out)))
    assert encoder.fingerprint != load_encoder(EncoderSettings(model=str(model))).fingerprint
    text = (out / "README.md").read_text()
    assert "| text to image | recall@1 |" in text
    assert "| `learning_rate` | 0.002 |" in text
    assert str(tmp_path) not in text
    assert json.loads((out / "finetune.json").read_text()) == card
    assert {"loss", "learning_rate", "text_to_image/recall_at_1"} <= tags_of(board)


def tags_of(board: Path) -> set[str]:
    from tensorboardX.proto.event_pb2 import Event

    (file,) = board.glob("events.out.tfevents.*")
    data, at, tags = file.read_bytes(), 0, set()
    while at < len(data):  # records of TensorFlow: length, its CRC, the bytes, their CRC
        length = int.from_bytes(data[at : at + 8], "little")
        event = Event.FromString(data[at + 12 : at + 12 + length])
        tags |= {value.tag for value in event.summary.value}
        at += length + 16
    return tags


def test_a_killed_run_goes_on_from_its_checkpoint_and_ends_where_it_would_have(
    model: Path, pairs: Path, tmp_path: Path
):
    def arguments(name: str) -> list[str]:
        flags = [*FAST, "--epochs", "12", "--patience", "12", "--checkpoint-seconds", "0"]
        places = [str(pairs), "--model", str(model), "--output", str(tmp_path / name)]
        return [sys.executable, "-m", "cliptide", "finetune", *places, *flags]

    killed = subprocess.Popen(arguments("killed"), env=ONE_THREAD, stderr=subprocess.DEVNULL)
    checkpoint = tmp_path / "killed" / ".finetune" / "checkpoint.safetensors"
    deadline = time.monotonic() + 120
    while not checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert checkpoint.exists()
    assert not (tmp_path / "killed" / WEIGHTS_FILE).exists()

    resumed = subprocess.run(arguments("killed"), env=ONE_THREAD, capture_output=True, text=True, check=True)
    subprocess.run(arguments("whole"), env=ONE_THREAD, capture_output=True, check=True)

    assert "going on from the checkpoint at step" in resumed.stderr
    ours, theirs = (load_file(tmp_path / name / WEIGHTS_FILE) for name in ("killed", "whole"))
    assert all(np.allclose(ours[name], theirs[name], atol=1e-5) for name in theirs)
    assert not (tmp_path / "killed" / ".finetune").exists()


def test_a_checkpoint_of_other_settings_is_refused_and_names_what_differs(
    model: Path, pairs: Path, tmp_path: Path
):
    from cliptide.finetuning.checkpoint import Checkpoint, Progress, read_checkpoint, write_checkpoint
    from cliptide.finetuning.errors import FinetuneRefused

    path = tmp_path / "checkpoint.safetensors"
    write_checkpoint(path, {"epochs": 3, "seed": 1}, Checkpoint(Progress(step=7), {}, {}, {}))

    found = read_checkpoint(path, {"epochs": 3, "seed": 1})
    assert found is not None
    assert found.progress.step == 7
    with pytest.raises(FinetuneRefused, match="epochs was 3 and is 4"):
        read_checkpoint(path, {"epochs": 4, "seed": 1})
    path.write_bytes(b"nonsense")
    with pytest.raises(FinetuneRefused, match="no checkpoint that can be read"):
        read_checkpoint(path, {"epochs": 3, "seed": 1})


def test_too_many_bad_pairs_end_the_command_with_2_before_training_and_leave_nothing(
    model: Path, pairs: Path, tmp_path: Path
):
    bad = write_pair_folder(tmp_path / "bad")
    with (bad / "pairs.jsonl").open("a") as table:
        table.write(
            '{"image": "absent.png", "caption": "a cloth"}\n{"image": "red-0.png", "caption": " "}\n' * 2
        )
    (bad / "blue-1.png").write_bytes(png("blue", 1)[:60])

    result = finetune(bad, "--model", model, "--output", tmp_path / "out", *FAST)

    assert result.exit_code == 2
    assert "skipped 5 of 36 pairs" in result.stderr
    assert "missing picture 2" in result.stderr
    assert "broken picture 1" in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        pytest.param(["--held-out", "0.001"], "0 held out are too few", id="nothing held out"),
        pytest.param(["--model", "/nowhere/model"], "cannot be loaded", id="no model"),
        pytest.param(["--device", "cuda"], "there is no GPU", id="no gpu"),
    ],
)
def test_what_cannot_be_trained_is_one_sentence_and_exit_code_2(
    model: Path, pairs: Path, tmp_path: Path, flags: list[str], message: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    result = finetune(pairs, "--model", model, "--output", tmp_path / "out", *FAST, *flags)

    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_model_that_is_there_already_is_not_replaced_unasked(model: Path, pairs: Path):
    result = finetune(pairs, "--model", model, "--output", model)

    assert result.exit_code == 2
    assert "holds a model already" in result.stderr


def test_tuning_that_improves_nothing_writes_nothing(model: Path, pairs: Path, tmp_path: Path):
    flags = ["--train", "projections", "--learning-rate", "1e-30", "--epochs", "1", "--held-out", "0.3"]
    result = finetune(pairs, "--model", model, "--output", tmp_path / "out", *flags)

    assert result.exit_code == 1
    assert "has not improved" in result.stderr
    assert not (tmp_path / "out" / WEIGHTS_FILE).exists()


@pytest.mark.parametrize(
    ("module", "error"),
    [
        pytest.param("checkpoint", SafetensorError("No space left on device"), id="checkpoint"),
        pytest.param("weights", OSError(28, "No space left on device"), id="model"),
    ],
)
def test_a_full_disk_is_one_sentence_and_the_same_command_goes_on_later(
    model: Path, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, error: Exception
):
    out = tmp_path / "out"
    words = (pairs, "--model", model, "--output", out, *FAST, "--epochs", 4)

    def fill_the_disk(*_: object, **__: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(f"cliptide.finetuning.{module}.save_file", fill_the_disk)
        result = finetune(*words)
    assert result.exit_code == 1
    assert "No space left" in result.stderr
    assert result.stderr.splitlines()[-1].startswith(f"Error: {out} cannot be written (")
    assert not (out / WEIGHTS_FILE).exists()
    assert last_json(finetune(*words))["written"]


@pytest.mark.parametrize("below", ["file", "file/out"])
def test_an_output_that_is_a_file_or_lies_below_one_is_one_sentence(
    model: Path, pairs: Path, tmp_path: Path, below: str
):
    (tmp_path / "file").write_text("x")
    result = finetune(pairs, "--model", model, "--output", tmp_path / below, *FAST)
    assert result.exit_code in (1, 2)
    assert "Traceback" not in result.output
    assert result.stderr.splitlines()[-1].startswith("Error: ")
    assert (tmp_path / "file").read_text() == "x"


@pytest.mark.parametrize("name", ["open_clip_model.safetensors", "open_clip_config.json", "README.md"])
def test_a_directory_where_a_file_is_to_be_written_is_found_before_the_training(
    model: Path, pairs: Path, tmp_path: Path, name: str
):
    """Training takes hours, and its end is too late to say so."""
    (tmp_path / "out" / name).mkdir(parents=True)
    result = finetune(pairs, "--model", model, "--output", tmp_path / "out", "--overwrite", *FAST)
    assert result.exit_code == 2
    assert result.stderr == (
        f"Error: {tmp_path / 'out' / name} is a directory: move it away, or use another --output\n"
    )


def test_a_file_where_the_unfinished_model_is_to_lie_is_found_before_the_training(
    model: Path, pairs: Path, tmp_path: Path
):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / UNFINISHED_FOLDER).write_text("x")
    result = finetune(pairs, "--model", model, "--output", tmp_path / "out", *FAST)
    assert result.exit_code == 2
    assert result.stderr.endswith("is a file: move it away, or use another --output\n")


@pytest.mark.parametrize(
    ("rows", "flags", "message"),
    [
        pytest.param([], [], "there is no usable pair", id="no row"),
        pytest.param([("red-0.png", "a cloth", "x")], [], "1 held out are too few", id="one pair"),
        pytest.param(
            [("red-0.png", f"caption {number}", "x") for number in range(20)],
            [],
            "the number of pictures is 1)",
            id="one picture with many captions",
        ),
        pytest.param(
            [(f"{colour}-{n}.png", "a cloth", "x") for colour in COLOURS for n in range(4)],
            [],
            "all pairs to train on have one caption",
            id="one caption for all",
        ),
        pytest.param(
            [(f"{colour}-{n}.png", f"a {colour} cloth", "x") for colour in COLOURS for n in range(4)],
            ["--group-by", "metadata"],
            "no pair has the metadata key metadata: there are shop",
            id="a key that no pair has",
        ),
        pytest.param(
            [(f"{colour}-{n}.png", f"a {colour} cloth", "x") for colour in COLOURS for n in range(4)],
            ["--group-by", "shop"],
            "every caption is right for every held-out picture",
            id="one group for all",
        ),
    ],
)
def test_pairs_that_teach_nothing_or_tell_nothing_are_refused_before_the_training(
    model: Path,
    pairs: Path,
    tmp_path: Path,
    rows: list[tuple[str, str, str]],
    flags: list[str],
    message: str,
):
    table = pairs / "other.csv"
    lines = ["file,caption,metadata.shop", *(",".join(row) for row in rows)]
    table.write_text("\n".join(lines) + "\n")
    try:
        result = finetune(table, "--model", model, "--output", tmp_path / "out", *FAST, *flags)
    finally:
        table.unlink()
    assert result.exit_code == 2
    assert message in result.stderr
    assert "step" not in result.stderr
    assert not (tmp_path / "out").exists()
