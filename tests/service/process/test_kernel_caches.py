"""How many kernels are kept is chosen before torch is loaded, unless the operator has chosen."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from service.process.kernel_caches import bound_kernel_caches

BOUNDS = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "256", "LRU_CACHE_CAPACITY": "128"}


def test_fewer_kernels_are_kept_than_the_libraries_keep() -> None:
    environment = {"PATH": "/bin"}
    bound_kernel_caches(environment)
    assert environment == {"PATH": "/bin", **BOUNDS}


@pytest.mark.parametrize("chosen", ["ONEDNN_PRIMITIVE_CACHE_CAPACITY", "DNNL_PRIMITIVE_CACHE_CAPACITY"])
def test_what_the_operator_has_chosen_stays(chosen: str) -> None:
    environment = {chosen: "7", "LRU_CACHE_CAPACITY": "9"}
    bound_kernel_caches(environment)
    assert environment == {chosen: "7", "LRU_CACHE_CAPACITY": "9"}


@pytest.mark.parametrize("program", ["consumer", "query_api"])
def test_a_service_chooses_before_torch_is_loaded(program: str) -> None:
    code = f"""
import builtins, json, os, sys
from clip_index.encoder.settings import EncoderSettings
from {program}.__main__ import load_warm_encoder
assert "torch" not in sys.modules
real = builtins.__import__
def look(name, *rest, **more):
    if name.startswith("clip_index.encoder.open_clip"):
        print(json.dumps({{name: os.environ.get(name) for name in {list(BOUNDS)!r}}}))
        sys.exit()
    return real(name, *rest, **more)
builtins.__import__ = look
load_warm_encoder(EncoderSettings("no model"))
"""
    environment = {name: value for name, value in os.environ.items() if name not in BOUNDS}
    found = subprocess.run(
        [sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, env=environment, text=True
    )
    assert json.loads(found.stdout.splitlines()[-1]) == BOUNDS
