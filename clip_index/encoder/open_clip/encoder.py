"""An encoder that runs open_clip's models, on the processor or on a GPU."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import structlog
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from clip_index.content import Embeddings
from clip_index.encoder.image_headers import ImageLimits
from clip_index.encoder.images import Resizing, read_crops
from clip_index.encoder.open_clip.devices import find_device, gpu_format
from clip_index.encoder.open_clip.fixed_batches import FixedBatchTower
from clip_index.encoder.open_clip.models import (
    Model,
    architecture_name,
    canonical_json,
    map_model,
    weights_digest,
)
from clip_index.encoder.open_clip.processor import multiplies_bf16
from clip_index.encoder.open_clip.shared_tower import SharedTower
from clip_index.encoder.open_clip.shared_weights import WeightsNotShared, share_weights
from clip_index.encoder.open_clip.single_threads import on_one_processor
from clip_index.encoder.open_clip.tokens import TextTokenizer
from clip_index.encoder.open_clip.towers import (
    EagerImageTower,
    EagerTextTower,
    PackedImageTower,
    PackedTextTower,
    Tower,
    build_image_tower,
    build_text_tower,
)
from clip_index.encoder.open_clip.uniform_tower import NUM_PROBES, OneRowTower, is_uniform
from clip_index.encoder.open_clip.weights_once import own_weights
from clip_index.encoder.picture_crops import DEFAULT_MAX_CROPS, Cropping
from clip_index.encoder.protocol import EncoderFingerprint, Prepared, PreparedImage, PreparedText
from clip_index.encoder.settings import EncoderSettings, Precision
from clip_index.encoder.text_windows import Windowing, check_not_blank, lay_out
from clip_index.errors import EncoderBroken, EncoderUnavailable

# The smallest shares of a batch that are worth a thread, measured on ViT-B-32 with two processors.
_MIN_IMAGES, _MIN_TEXTS = 8, 16
_log = structlog.get_logger(__name__)
_FORMATS = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}


def load_encoder(settings: EncoderSettings) -> OpenClipEncoder:
    """Load a model. Weights that are given by a name are downloaded once.

    If `settings.threads` is set, it becomes torch's number of threads in this process.
    Raises EncoderUnavailable.
    """
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    device = find_device(settings)
    model = on_one_processor(map_model, settings)
    preparation = Preparation.of(model, settings)
    fingerprint = _fingerprint(model, preparation)  # before the weights move to a GPU
    is_gpu = device.type == "cuda"
    dtype = gpu_format(settings.precision) if is_gpu else _dtype(settings.precision)
    towers = (
        _gpu_towers(model, preparation, dtype, device=device, settings=settings)
        if is_gpu
        else _processor_towers(model, preparation, dtype, settings)
    )
    return OpenClipEncoder(
        fingerprint=fingerprint,
        preparation=preparation,
        towers=towers,
        max_batch=settings.max_batch,
        number_format=_FORMATS[dtype],
    )


@dataclass(frozen=True, slots=True)
class Towers:
    """Both halves of a model."""

    image: Tower
    text: Tower


def _processor_towers(
    model: Model, preparation: Preparation, dtype: torch.dtype, settings: EncoderSettings
) -> Towers:
    plain = on_one_processor(_plain_towers, model.module, dtype)
    if settings.shared_weights is not None:
        _share_weights(plain, settings.shared_weights)
    return Towers(
        _shared(plain.image, _image_probes(preparation.resizing), _MIN_IMAGES),
        _shared(plain.text, _text_probes(preparation), _MIN_TEXTS),
    )


def _plain_towers(module: Any, dtype: torch.dtype) -> Towers:
    images, texts = build_image_tower(module, dtype), build_text_tower(module, dtype)
    if not (isinstance(images, PackedImageTower) and isinstance(texts, PackedTextTower)):
        own_weights(module)  # a packed tower has its own weights, and the others use the module
    return Towers(images, texts)


def _share_weights(towers: Towers, directory: Path) -> None:
    packed = [
        tower
        for tower in (towers.image, towers.text)
        if isinstance(tower, (PackedImageTower, PackedTextTower))
    ]
    try:
        if packed:
            share_weights(packed, directory)
    except WeightsNotShared as reason:
        _log.warning("weights are not shared", directory=str(directory), reason=str(reason))


def _gpu_towers(
    model: Model,
    preparation: Preparation,
    dtype: torch.dtype,
    *,
    device: torch.device,
    settings: EncoderSettings,
) -> Towers:
    """Move a model to a GPU, and try a pass. Raises `EncoderUnavailable` if there is no room."""
    try:
        towers = fixed_towers(model.module.to(device), dtype, device, settings.max_batch)
        _embed(towers.image, _image_probes(preparation.resizing).numpy())
        _embed(towers.text, _text_probes(preparation).numpy())
    except torch.cuda.OutOfMemoryError as error:
        rows = f"{settings.max_batch} crops at once: set a smaller CLIPTIDE_ENCODER__MAX_BATCH"
        raise EncoderUnavailable(settings.model, f"the GPU has no room for it and {rows}") from error
    return towers


def fixed_towers(module: Any, dtype: torch.dtype, device: torch.device, num_rows: int) -> Towers:
    """Return both halves of open_clip's module, which is on `device`. Every pass has `num_rows` rows."""
    return Towers(
        FixedBatchTower(EagerImageTower(module, dtype, device), device, num_rows),
        FixedBatchTower(EagerTextTower(module, dtype, device), device, num_rows),
    )


@dataclass(frozen=True, slots=True)
class Preparation:
    """How bytes and texts become model input; thread-safe."""

    resizing: Resizing
    cropping: Cropping
    limits: ImageLimits
    tokenizer: TextTokenizer
    windowing: Windowing

    @classmethod
    def of(cls, model: Model, settings: EncoderSettings) -> Preparation:
        resizing, tokenizer = _resizing(model.preprocessing), model.tokenizer
        num_special = len(tokenizer.prefix) + len(tokenizer.suffix)
        return cls(
            resizing=resizing,
            cropping=_cropping(resizing, settings.max_crops),
            limits=settings.image_limits,
            tokenizer=tokenizer,
            windowing=Windowing.for_context(model.module.context_length, num_special),
        )

    def prepare_image(self, data: bytes) -> PreparedImage:
        middle, *others = read_crops(data, self.resizing, self.limits, self.cropping)
        return PreparedImage(middle, tuple(others))

    def prepare_text(self, text: str) -> PreparedText:
        check_not_blank(text)
        tokenizer = self.tokenizer
        ids = tokenizer.encode(text, self.windowing.max_tokens)
        windows = lay_out(
            ids,
            self.windowing,
            prefix=tokenizer.prefix,
            suffix=tokenizer.suffix,
            padding=tokenizer.padding,
        )
        return PreparedText(windows, tokenizer.is_beyond(text, ids, self.windowing.max_tokens))


class OpenClipEncoder:
    """Implements Encoder. One input has one embedding, whatever it is encoded together with."""

    def __init__(
        self,
        *,
        fingerprint: EncoderFingerprint,
        preparation: Preparation,
        towers: Towers,
        max_batch: int,
        number_format: str = "fp32",
    ) -> None:
        self.number_format = number_format
        self._fingerprint = fingerprint
        self._preparation = preparation
        self._towers = towers
        self._max_batch = max_batch

    @property
    def fingerprint(self) -> EncoderFingerprint:
        return self._fingerprint

    def prepare_image(self, data: bytes) -> PreparedImage:
        return self._preparation.prepare_image(data)

    def prepare_text(self, text: str) -> PreparedText:
        return self._preparation.prepare_text(text)

    def encode(self, prepared: Sequence[Prepared]) -> list[Embeddings]:
        pixels = [item.crops for item in prepared if isinstance(item, PreparedImage)]
        tokens = [item.tokens for item in prepared if isinstance(item, PreparedText)]
        images = self._encode_parts(self._towers.image, pixels)
        texts = self._encode_parts(self._towers.text, tokens)
        return [next(images if isinstance(item, PreparedImage) else texts) for item in prepared]

    def _encode_parts(self, tower: Tower, parts: Sequence[NDArray[Any]]) -> Iterator[Embeddings]:
        """Encode the rows of all parts in batches; return an iterator over the parts' embeddings."""
        if not parts:
            return iter(())
        rows = np.concatenate(parts)
        batches = [rows[start : start + self._max_batch] for start in range(0, len(rows), self._max_batch)]
        embeddings = np.concatenate([_embed(tower, batch) for batch in batches])
        return iter(np.split(embeddings, np.cumsum([len(part) for part in parts])[:-1]))


@torch.inference_mode()
def _embed(tower: Tower, rows: NDArray[Any]) -> Embeddings:
    embeddings: Embeddings = functional.normalize(tower(torch.from_numpy(rows)), dim=-1).numpy()
    # normalising leaves a zero vector zero and turns infinity into NaN
    if not np.all(np.abs(np.linalg.norm(embeddings, axis=1) - 1) < 1e-3):
        raise EncoderBroken("the model returned an embedding that is zero or not finite")
    return embeddings


def _fingerprint(model: Model, preparation: Preparation) -> EncoderFingerprint:
    return EncoderFingerprint(
        architecture=architecture_name(model.config),
        weights_digest=weights_digest(model.module),
        dimension=int(model.config["embed_dim"]),
        preprocessing=canonical_json(model.preprocessing),
        windowing=preparation.cropping.written_behind(f"{preparation.windowing} {model.tokenizer.identity}"),
    )


def _shared(tower: Tower, probes: Tensor, min_share: int) -> Tower:
    if is_uniform(tower, probes):
        return SharedTower(tower, min_share=min_share)
    return SharedTower(OneRowTower(tower), min_share=1)


def _image_probes(resizing: Resizing) -> Tensor:
    shape = (NUM_PROBES, resizing.height, resizing.width, 3)
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))


def _text_probes(preparation: Preparation) -> Tensor:
    texts = [preparation.prepare_text("a red dress " * (number + 1)) for number in range(NUM_PROBES)]
    return torch.from_numpy(np.concatenate([text.tokens[:1] for text in texts]))


def _resizing(config: Any) -> Resizing:
    size = config["size"]
    height, width = (size, size) if isinstance(size, int) else size
    return Resizing(width, height, config["resize_mode"], config["interpolation"], config["fill_color"])


def _cropping(resizing: Resizing, max_crops: int | None) -> Cropping:
    """A model that is shown the whole picture, squashed or padded, needs one crop."""
    if resizing.mode != "shortest":
        return Cropping()
    return Cropping.at_most(DEFAULT_MAX_CROPS if max_crops is None else max_crops)


def _dtype(precision: Precision) -> torch.dtype:
    if precision == "auto":
        return torch.bfloat16 if multiplies_bf16() else torch.float32
    return torch.bfloat16 if precision == "bf16" else torch.float32
