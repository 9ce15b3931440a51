"""What README and the page of the demo show can be run, and README is one page."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.examples.running_demo import ROOT, RunningDemo

README = (ROOT / "README.md").read_text()
USUAL_URL = "http://127.0.0.1:8080"
MAX_LINES = 130


def block(language: str) -> str:
    [found] = re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    return str(found)


def fields_of(answer: object) -> set[str]:
    """Return the names of all fields, at any depth."""
    if isinstance(answer, dict):
        return set(answer).union(*map(fields_of, answer.values()))
    if isinstance(answer, list):
        return set().union(*map(fields_of, answer))
    return set()


def test_readme_is_one_page() -> None:
    assert len(README.splitlines()) <= MAX_LINES


@pytest.mark.broker
@pytest.mark.encoder
def test_the_calls_of_readme_answer_what_it_shows(demo: RunningDemo, tmp_path: Path) -> None:
    output = demo.run(block("sh").replace(USUAL_URL, demo.client.url), tmp_path)
    answers = [json.loads(line) for line in re.split(r"(?<=\})(?=\{)", output)]
    shown = [json.loads(line) for line in block("json").splitlines()]
    assert len(answers) == len(shown) == 3
    for answer, sample in zip(answers, shown, strict=True):
        assert fields_of(sample) <= fields_of(answer)
    assert answers[2]["results"]["text"]["hits"][0]["content_id"] == "note-1"


@pytest.mark.broker
@pytest.mark.encoder
def test_the_calls_of_the_demos_page_are_answered(demo: RunningDemo) -> None:
    page = (ROOT / "docs" / "demo.md").read_text().partition("## Calls to try")[2]
    found = re.search(r"^```\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert found is not None
    calls = found[1].replace(USUAL_URL, demo.client.url).replace("curl ", "curl --fail-with-body -s ")
    assert demo.run(calls, ROOT).count('"timings"') == len(re.findall("^curl", found[1], re.MULTILINE))


@pytest.mark.broker
@pytest.mark.encoder
def test_the_python_of_readme_prints_what_it_shows(demo: RunningDemo, tmp_path: Path) -> None:
    (tmp_path / "ask.py").write_text(block("python").replace(USUAL_URL, demo.client.url))
    lines = demo.run("python ask.py", tmp_path).splitlines()
    assert len(lines) == 2
    assert all(re.fullmatch(r"image-\d{5} [01]\.\d+ \w+ \w+", line) for line in lines)
