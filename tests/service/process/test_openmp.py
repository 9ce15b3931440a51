"""How the threads of OpenMP wait is chosen before torch is loaded, unless the operator has chosen."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from service.process.openmp import choose_waiting


@pytest.mark.parametrize("name", ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"])
def test_what_the_operator_has_chosen_stays(name: str) -> None:
    environment = {name: "7", "PATH": "/bin"}
    choose_waiting(environment)
    assert environment == {name: "7", "PATH": "/bin"}


def test_otherwise_threads_sleep_while_they_wait() -> None:
    environment = {"PATH": "/bin"}
    choose_waiting(environment)
    assert environment == {"PATH": "/bin", "OMP_WAIT_POLICY": "PASSIVE"}


@pytest.mark.parametrize("program", ["consumer", "query_api"])
def test_a_service_chooses_before_torch_is_loaded(program: str) -> None:
    """The library of OpenMP reads its variables when it is loaded, which is when torch is imported."""
    code = f"""
import builtins, os, sys
from clip_index.encoder.settings import EncoderSettings
from {program}.__main__ import load_warm_encoder
assert "torch" not in sys.modules
real = builtins.__import__
def look(name, *rest, **more):
    if name.startswith("clip_index.encoder.open_clip"):
        print({{n: v for n, v in os.environ.items() if n in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}})
        sys.exit()
    return real(name, *rest, **more)
builtins.__import__ = look
load_warm_encoder(EncoderSettings())
"""
    names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
    environment = {name: value for name, value in os.environ.items() if name not in names}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == str({"OMP_WAIT_POLICY": "PASSIVE"})
