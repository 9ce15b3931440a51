"""What has to be fetched before a model can be loaded, and whether it can be reached.

Asked by itself, because the hub's client tries again for minutes and says nothing meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError
from open_clip.pretrained import get_pretrained_cfg

from clip_index.encoder.open_clip.models import local_weights
from clip_index.encoder.settings import EncoderSettings
from clip_index.errors import EncoderUnavailable

_HUB = "hf-hub:"
_WEIGHTS = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
)
_ASK_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Download:
    """The weights that loading will fetch. `size_bytes` is None if the hub does not tell it."""

    url: str
    size_bytes: int | None


def find_download(settings: EncoderSettings) -> Download | None:
    """Return what loading the model will fetch; None if that is nothing, or not known.

    Raises `EncoderUnavailable` if the hub does not answer within some seconds.
    """
    repository = _repository(settings)
    if repository is None or constants.HF_HUB_OFFLINE or _is_cached(repository, settings):
        return None
    url = hf_hub_url(repository, _WEIGHTS[0])
    try:
        return Download(url, get_hf_file_metadata(url, timeout=_ASK_SECONDS).size)
    except HfHubHTTPError:
        return None  # the hub answers: loading says what it lacks
    except Exception as error:  # the hub's client raises those of whatever library it asks with
        host = urlsplit(url).netloc
        reason = (
            f"its weights have to be fetched from {host}, which cannot be reached ({error}): connect it, or "
            "give a directory with the model (CLIPTIDE_ENCODER__MODEL)"
        )
        raise EncoderUnavailable(settings.model, reason) from error


def weigh_model(settings: EncoderSettings) -> int | None:
    """Return the bytes of a model's weights, on disk or at the hub; None if nobody knows them."""
    if (local := local_weights(settings)) is not None:
        return local.stat().st_size if local.is_file() else None
    repository = _repository(settings)
    if repository is None:
        return None
    for name in _WEIGHTS:
        path = try_to_load_from_cache(repository, name, cache_dir=settings.cache_dir)
        if isinstance(path, str):
            return Path(path).stat().st_size
    download = find_download(settings)
    return download.size_bytes if download is not None else None


def _repository(settings: EncoderSettings) -> str | None:
    if settings.model.startswith(_HUB):
        return settings.model.removeprefix(_HUB)
    if settings.pretrained is None:
        return None
    known = get_pretrained_cfg(settings.model.replace("/", "-"), settings.pretrained)
    return known.get("hf_hub", "").strip("/") or None


def _is_cached(repository: str, settings: EncoderSettings) -> bool:
    cached = (try_to_load_from_cache(repository, name, cache_dir=settings.cache_dir) for name in _WEIGHTS)
    return any(isinstance(path, str) for path in cached)
