"""The encoder of a service, loaded at its start. Importing torch takes seconds, so it is imported late."""

from __future__ import annotations

import os

import structlog

from clip_index.encoder.canary import warm_up
from clip_index.encoder.protocol import Encoder
from clip_index.encoder.settings import EncoderSettings
from service.process.freed_memory import return_freed_memory
from service.process.kernel_caches import bound_kernel_caches
from service.process.openmp import choose_waiting

_log = structlog.get_logger(__name__)


def load_warm_encoder(settings: EncoderSettings) -> Encoder:
    """Load the model and encode once, so that no user waits for that. Raises `EncoderUnavailable`.

    How torch's threads wait (`service.process.openmp`) is settled when torch is imported, and so is how many
    kernels it keeps (`service.process.kernel_caches`).
    """
    _log.info("loading the encoder", model=settings.model)
    _prepare_torch()
    from clip_index.encoder.open_clip import find_download, load_encoder

    if (download := find_download(settings)) is not None:
        _log.info("fetching the model", url=download.url, size_bytes=download.size_bytes)
    encoder = load_encoder(settings)
    warm_up(encoder)
    return_freed_memory()
    return encoder


def weigh_model(settings: EncoderSettings) -> int | None:
    """Return the bytes of a model's weights, on disk or at the hub; None if nobody knows them."""
    _prepare_torch()
    from clip_index.encoder import open_clip

    return open_clip.weigh_model(settings)


def _prepare_torch() -> None:
    choose_waiting(os.environ)
    bound_kernel_caches(os.environ)
