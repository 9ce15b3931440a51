from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load

from cliptide.demo.small_clip.model import EMBEDDING_KEY
from cliptide.demo.train import main


@pytest.mark.encoder
def test_the_same_seed_trains_the_same_weights(tmp_path: Path):
    arguments = ["--steps", "2", "--batch-size", "8", "--pictures-each", "1"]
    first, second = tmp_path / "first.safetensors", tmp_path / "deeper" / "second.safetensors"
    main([*arguments, "--out", str(first)])
    main([*arguments, "--out", str(second)])

    assert first.read_bytes() == second.read_bytes()
    assert load(first.read_bytes())[EMBEDDING_KEY].dtype == np.float16
