"""The files of CI services call `.ci/run`, so that they check what a person checks and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import yaml  # type: ignore[import-untyped]

ROOT = Path(__file__).parent.parent
WORKFLOW = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
JENKINSFILE = (ROOT / "Jenkinsfile").read_text()
RUN = (ROOT / ".ci" / "run").read_text()
PREPARES = "apt-get update && apt-get install "  # what .ci/run itself needs to start


def test_the_workflow_of_github_runs_the_script_and_nothing_else() -> None:
    [job] = yaml.safe_load(WORKFLOW)["jobs"].values()
    commands = [step["run"] for step in job["steps"] if "run" in step]
    assert [command for command in commands if not command.startswith(PREPARES)] == ["bash .ci/run"]
    assert [step["uses"].partition("@")[0] for step in job["steps"] if "uses" in step] == ["actions/checkout"]


def test_the_workflow_may_only_read_the_repository() -> None:
    assert yaml.safe_load(WORKFLOW)["permissions"] == {"contents": "read"}


def test_the_jenkinsfile_runs_the_script_and_nothing_else() -> None:
    assert re.findall(r"\b(?:sh|bat|script|powershell|node)\b.*", re.sub(r"//.*", "", JENKINSFILE)) == [
        "sh 'bash .ci/run'"
    ]
    assert JENKINSFILE.count("{") == JENKINSFILE.count("}")


def test_every_command_of_the_script_is_a_target_of_the_makefile() -> None:
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    called = re.findall(r"\bmake ([a-z-]+)", RUN)
    assert {"lint", "test-all", "demo"} <= set(called) <= targets


def test_both_services_give_the_script_the_same_time() -> None:
    [job] = yaml.safe_load(WORKFLOW)["jobs"].values()
    assert re.findall(r"time: (\d+), unit: 'MINUTES'", JENKINSFILE) == [str(job["timeout-minutes"])]
