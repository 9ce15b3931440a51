"""What is said before a model is fetched, and how soon a hub that does not answer is given up."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from clip_index.encoder.open_clip import downloads
from clip_index.encoder.open_clip.downloads import Download, find_download
from clip_index.encoder.settings import EncoderSettings
from clip_index.errors import EncoderUnavailable


@pytest.fixture(autouse=True)
def _online(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads.constants, "HF_HUB_OFFLINE", False)


@pytest.mark.parametrize(
    ("settings", "repository"),
    [
        pytest.param({}, "laion/CLIP-ViT-B-32-laion2B-s34B-b79K", id="the default"),
        pytest.param({"model": "hf-hub:owner/name"}, "owner/name", id="an address"),
    ],
)
def test_what_is_fetched_is_known_with_its_size(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, settings: dict[str, str], repository: str
) -> None:
    monkeypatch.setattr(downloads, "get_hf_file_metadata", lambda url, timeout: SimpleNamespace(size=605))
    download = find_download(EncoderSettings(**settings, cache_dir=tmp_path))  # type: ignore[arg-type]
    assert isinstance(download, Download)
    assert repository in download.url
    assert download.size_bytes == 605


def test_a_hub_that_does_not_answer_is_given_up_within_a_bound_and_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def time_out(url: str, timeout: float) -> None:
        assert timeout <= 10
        raise ConnectionError("timed out")

    monkeypatch.setattr(downloads, "get_hf_file_metadata", time_out)
    with pytest.raises(EncoderUnavailable, match=r"fetched from huggingface\.co, which cannot be reached"):
        find_download(EncoderSettings(cache_dir=tmp_path))


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({"model": "/srv/model"}, id="a directory"),
        pytest.param({"model": "ViT-B-32", "pretrained": "weights.safetensors"}, id="a file"),
        pytest.param({"model": "ViT-B-32", "pretrained": None}, id="no weights"),
    ],
)
def test_a_local_model_asks_nobody(monkeypatch: pytest.MonkeyPatch, settings: dict[str, str]) -> None:
    monkeypatch.setattr(downloads, "get_hf_file_metadata", None)
    assert find_download(EncoderSettings(**settings)) is None  # type: ignore[arg-type]


def test_what_is_in_the_cache_asks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "get_hf_file_metadata", None)
    monkeypatch.setattr(downloads, "try_to_load_from_cache", lambda *_, **__: "/cache/weights")
    assert find_download(EncoderSettings()) is None
