"""`python -m tests.consumer.hash_consumer`: the real consumer process, with a hashing encoder.

- `TESTS_KILLING_WORD`: a text that contains the word kills the process.
- `TESTS_TALLY`: a file that grows by one byte for each content that is encoded.
- `TESTS_HOLD`: a file; while it exists, encoding does not end.
- `TESTS_RELEASE_SECONDS`: how long a revoke waits for the batch at hand, which is also told in the log.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import structlog

from clip_index.encoder.protocol import Encoder
from clip_index.encoder.settings import EncoderSettings
from consumer.__main__ import run
from consumer.encoding.thread import Encoding
from consumer.starting import options_from_settings
from fakes.hash_encoder import HashEncoder
from tests.consumer.encoders import FileHeldEncoder, KillingEncoder, TallyingEncoder


def load_encoder(settings: EncoderSettings) -> Encoder:
    encoder: Encoder = HashEncoder()
    if word := os.environ.get("TESTS_KILLING_WORD"):
        encoder = KillingEncoder(encoder, word=word)
    if tally := os.environ.get("TESTS_TALLY"):
        encoder = TallyingEncoder(encoder, tally=Path(tally))
    if hold := os.environ.get("TESTS_HOLD"):
        encoder = FileHeldEncoder(encoder, hold=Path(hold))
    return encoder


def make_patient(release_seconds: float) -> None:
    """Have a revoke wait longer for the batch at hand, and tell in the log that it waits."""
    settle = Encoding.settle

    def settle_and_tell(encoding: Encoding, _: float) -> bool:
        structlog.get_logger(__name__).info("settling")
        return settle(encoding, release_seconds)

    Encoding.settle = settle_and_tell  # type: ignore[method-assign]


if __name__ == "__main__":
    options_from_settings._CANARY_SECONDS = None  # only contents are to be counted and held
    if seconds := os.environ.get("TESTS_RELEASE_SECONDS"):
        make_patient(float(seconds))
    os._exit(run(load_encoder, sys.argv[1:]))
