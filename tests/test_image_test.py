"""`make image-test` builds every target of the Dockerfile that runs something, and looks at each image."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tools.image_test import (
    DOCKERFILE,
    USER_ID,
    WRITABLE,
    Buildah,
    ImageTestFailed,
    Target,
    check_image,
    targets_of,
)

TARGET = Target("consumer", "consumer")
GOOD = {
    "id -u": "10001",
    "python -m consumer --help": "usage: python -m consumer",
    "cliptide --version": "cliptide, version 0.1.0",
    "sh -c": "index weights",
}


class Answers(Buildah):
    """Buildah whose containers give the answers of this test."""

    answers = GOOD

    def run(self, *arguments: Any) -> str:
        if arguments[0] != "run":
            return "a container"
        command = " ".join(arguments[arguments.index("--") + 1 :])
        [answer] = [said for start, said in self.answers.items() if command.startswith(start)]
        return str(answer)


def test_every_target_that_runs_something_is_built() -> None:
    text = DOCKERFILE.read_text()
    found = targets_of(text)
    assert [target.module for target in found] == re.findall(r'^CMD .*"([\w.]+)"\]$', text, re.MULTILINE)
    assert [target.name for target in found] == ["consumer", "query_api", "demo"]


def test_the_user_is_the_one_that_the_dockerfile_makes() -> None:
    assert re.findall(r"--uid (\d+)", DOCKERFILE.read_text()) == [USER_ID]


def test_every_stage_is_built_on_the_base_that_the_test_makes() -> None:
    bases = re.findall(r"^FROM (\S+) AS", DOCKERFILE.read_text(), re.MULTILINE)
    stages = set(re.findall(r"^FROM \S+ AS (\S+)", DOCKERFILE.read_text(), re.MULTILINE))
    assert set(bases) - stages == {"${PYTHON}"}


def test_a_good_image_passes() -> None:
    check_image(Answers(Path("/nowhere")), TARGET, "an image")


@pytest.mark.parametrize(
    ("command", "answer", "named"),
    [
        pytest.param("id -u", "0", "the user", id="root"),
        pytest.param("python -m consumer --help", "", "--help", id="no help"),
        pytest.param("cliptide --version", "", "cliptide --version", id="no command line"),
        pytest.param("sh -c", "index", "what the user may write", id="weights cannot be written"),
    ],
)
def test_an_image_that_is_not_what_it_must_be_is_named(
    monkeypatch: pytest.MonkeyPatch, command: str, answer: str, named: str
) -> None:
    monkeypatch.setattr(Answers, "answers", {**GOOD, command: answer})
    with pytest.raises(ImageTestFailed, match=f"^consumer: {named}: found '{answer}'"):
        check_image(Answers(Path("/nowhere")), TARGET, "an image")


@pytest.mark.parametrize(("can_write", "code"), [(("index", "weights"), 0), (("index",), 1), ((), 1)])
def test_the_look_at_what_may_be_written_fails_unless_both_folders_may(
    tmp_path: Path, can_write: tuple[str, ...], code: int
) -> None:
    for name in can_write:
        (tmp_path / name).mkdir()
    variables = {"CLIPTIDE_INDEX__ROOT": str(tmp_path / "index"), "HF_HOME": str(tmp_path / "weights")}
    done = subprocess.run(["sh", "-c", WRITABLE], env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert code or done.stdout.strip() == GOOD["sh -c"]
