"""What `make install` would do, asked of make itself. Nothing is downloaded."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
OF_PYTORCH = ("torch==", "torchvision==", "triton==", "nvidia-", "cuda-")


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["make", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)


def requirements_of(path: Path) -> list[str]:
    return re.findall(r"^[a-z].*==[^\s]+", path.read_text(), re.MULTILINE)


def test_installing_says_how_much_it_downloads_and_shows_pips_progress(tmp_path: Path) -> None:
    done = make("--dry-run", "install", f"VENV={tmp_path / 'venv'}", "TORCH=")
    assert done.returncode == 0, done.stderr
    said, installed = done.stdout.index("about 3 GB"), done.stdout.index("--require-hashes")
    assert said < installed
    assert "--quiet" not in done.stdout


def test_the_cpu_build_leaves_out_cuda_and_nothing_else(tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    names = ("requirements-cpu.txt", "requirements-torch.txt")
    done = make(f"VENV={venv}", *(f"{venv}/{name}" for name in names))
    assert done.returncode == 0, done.stderr
    rest, torch = (requirements_of(venv / name) for name in names)
    every = requirements_of(ROOT / "requirements.lock")
    assert sorted(rest) == sorted(name for name in every if not name.startswith(OF_PYTORCH))
    assert sorted(torch) == sorted(name for name in every if re.match("torch(vision)?==", name))
    assert "--torch-backend=cpu" in make("--dry-run", "install", f"VENV={venv}", "TORCH=cpu").stdout


def test_the_build_that_was_installed_first_is_kept(tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    venv.mkdir()
    (venv / ".torch").write_text("cpu\n")
    assert "--torch-backend=cpu" in make("--dry-run", "install", f"VENV={venv}").stdout


@pytest.mark.parametrize(("there", "asked"), [("", "cpu"), ("cpu", "")], ids=["with CUDA", "for the CPU"])
def test_who_asks_for_the_other_build_is_told_to_clean_first(tmp_path: Path, there: str, asked: str) -> None:
    venv = tmp_path / "venv"
    venv.mkdir()
    (venv / ".torch").write_text(f"{there}\n")
    (venv / ".installed").touch()
    done = make(".same-torch", f"VENV={venv}", f"TORCH={asked}")
    assert done.returncode != 0
    assert "make clean" in done.stderr
    assert make(".same-torch", f"VENV={venv}").returncode == 0


def test_a_cpu_build_that_cannot_be_fetched_is_told_with_the_way_on(tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    (venv / "bin").mkdir(parents=True)
    python = venv / "bin" / "python"
    python.write_text('#!/bin/sh\ncase "$*" in *torch-backend*) exit 2;; esac\n')
    python.chmod(0o755)
    done = make("install", f"VENV={venv}", "TORCH=cpu")
    assert done.returncode != 0
    assert "make install TORCH= takes the build with CUDA" in done.stderr
    assert not (venv / ".installed").exists()


def test_another_build_is_refused() -> None:
    done = make("--dry-run", "install", "TORCH=rocm")
    assert done.returncode != 0
    assert "TORCH is cpu or empty, not rocm" in done.stderr
