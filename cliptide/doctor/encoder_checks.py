"""Tries the model: whether its weights are here, what it runs on, and whether the index was built by it."""

from __future__ import annotations

import time
from collections.abc import Iterator

from clip_index.encoder.canary import warm_up
from clip_index.encoder.protocol import EncoderFingerprint
from clip_index.encoder.settings import EncoderSettings
from clip_index.errors import ClipIndexError
from clip_index.indexes.index_directory import IndexDirectory
from clip_index.indexes.kept_crops import with_crops_of_index
from clip_index.storage.shard_store import StoreUnreachable
from cliptide.doctor.findings import Finding, failed, ok, skipped, warning
from cliptide.terminal.waiting import waiting_told
from consumer.settings import Settings

_MODEL = "CLIPTIDE_ENCODER__MODEL and CLIPTIDE_ENCODER__PRETRAINED"
_CROPS = "CLIPTIDE_ENCODER__MAX_CROPS"


def check_encoder(settings: Settings) -> Iterator[Finding]:
    """Load the model and encode a picture and a text, unless its weights would have to be downloaded."""
    from clip_index.encoder.open_clip import find_download  # here: importing torch takes seconds

    model = settings.encoder.model
    try:
        with waiting_told(f"the model {model}"):
            download = find_download(settings.encoder)
    except ClipIndexError as error:
        yield failed("model", str(error), f"set {_MODEL} to a model that is here, such as a directory")
        return
    if download is None:
        yield from _check_loading(settings)
        return
    size = "" if download.size_bytes is None else f" ({download.size_bytes / 2**20:,.0f} MiB)"
    message = f"the weights of {model} are not here yet: the first start fetches {download.url}{size}"
    yield warning("model", message, "start a service once with access to that address, or use a directory")


def check_devices(settings: EncoderSettings) -> Iterator[Finding]:
    """Say what the encoder runs on, and which GPUs it leaves alone."""
    from clip_index.encoder.open_clip.devices import describe_processor, names_of_gpus  # here: torch

    gpus = names_of_gpus()
    if settings.device == "cuda":
        if gpus:
            yield ok("gpu", f"the encoder runs on {gpus[0]}")
        else:
            yield failed("gpu", "torch finds no GPU", "set CLIPTIDE_ENCODER__DEVICE to cpu")
    elif gpus:
        unused = f"set CLIPTIDE_ENCODER__DEVICE to cuda to use {', '.join(gpus)}"
        yield ok("gpu", f"the encoder runs on {describe_processor()}; {unused}")
    else:
        yield ok("gpu", f"none is needed: the encoder runs on {describe_processor()}")


def _check_loading(settings: Settings) -> Iterator[Finding]:
    try:
        with waiting_told(f"the model {settings.encoder.model} to load"):
            fingerprint, seconds = _load(_as_index_was_built(settings))
    except ClipIndexError as error:
        yield failed("model", str(error), f"correct {_MODEL}")
        return
    took = f"{fingerprint.dimension} numbers for each content, loaded in {seconds:.1f} s"
    yield ok("model", f"{settings.encoder.model} encodes: {took}")
    yield from _check_fingerprint(settings, fingerprint)


def _as_index_was_built(settings: Settings) -> EncoderSettings:
    try:
        return with_crops_of_index(settings.encoder, settings.index.location, settings.index.id)
    except StoreUnreachable:  # another check tells that
        return settings.encoder


def _load(settings: EncoderSettings) -> tuple[EncoderFingerprint, float]:
    from clip_index.encoder.open_clip import load_encoder  # here: importing torch takes seconds

    started = time.monotonic()
    encoder = load_encoder(settings)
    warm_up(encoder, batch_sizes=(1,))
    return encoder.fingerprint, time.monotonic() - started


def _check_fingerprint(settings: Settings, fingerprint: EncoderFingerprint) -> Iterator[Finding]:
    index_id = settings.index.id
    try:
        built_by = IndexDirectory.open(settings.index.location, index_id).description.fingerprint
    except (ClipIndexError, OSError):
        yield skipped("index's model", f"there is no index {index_id} that can be read")
        return
    if built_by == fingerprint:
        yield ok("index's model", f"the index {index_id} was built by this model")
        return
    message = f"the index {index_id} was built by another model: {built_by}; this one is {fingerprint}"
    remedy = (
        f"set {_MODEL} to the index's model, {_CROPS} to its number of crops (unset: the index's own), "
        "or build another index with a new CLIPTIDE_INDEX__ID"
    )
    yield failed("index's model", message, remedy)
