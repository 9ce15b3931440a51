"""Runs a campaign in its own process, because kills fork, and a process with threads must not fork."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_PROJECT = Path(__file__).resolve().parent.parent
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def start_campaign(
    name: str, *, number: int, seed: int = 1, environment: Mapping[str, str] | None = None
) -> subprocess.Popen[str]:
    arguments = [name, "--number", str(number), "--seed", str(seed)]
    return subprocess.Popen(
        [sys.executable, "-m", "crashes.campaign", *arguments],
        cwd=_PROJECT,
        env={**os.environ, **_ONE_THREAD, **(environment or {})},
        stdout=subprocess.PIPE,
        text=True,
    )


def finish_campaign(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Wait for the campaign and return its result; see `campaign.run`."""
    output, _ = process.communicate()
    if process.returncode not in (0, 1) or not output:
        raise RuntimeError(f"the campaign ended with {process.returncode}")
    [result] = json.loads(output.splitlines()[-1]).values()
    return dict(result)
