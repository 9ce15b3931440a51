"""A text and a picture that every encoder can encode: for warming up and for readiness."""

from __future__ import annotations

import base64

from clip_index.encoder.protocol import Encoder

CANARY_TEXT = "a canary"
# a PNG of 16 by 16 pixels, yellow
CANARY_PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAABAAAAAQCAIAAACQkWg2AAAAGklEQVR42mP8dUmEgRTAxEAiGNUwqmHoaAAA74ECAEDITyIAAAAASUVORK5CYII="
)


def warm_up(encoder: Encoder, batch_sizes: tuple[int, ...] = (1, 8, 32)) -> None:
    """Encode canaries in batches of the usual sizes.

    The first pass of each shape chooses and prepares kernels. That takes seconds, for which
    the first uploads should not have to wait.
    """
    text, image = encoder.prepare_text(CANARY_TEXT), encoder.prepare_image(CANARY_PNG)
    for size in batch_sizes:
        encoder.encode([image] * size)
        encoder.encode([text] * size)
