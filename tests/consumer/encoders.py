"""Encoders that count, wait, fail or kill, around the hashing one."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from clip_index.content import Embeddings
from clip_index.encoder.protocol import Encoder, EncoderFingerprint, Prepared, PreparedImage, PreparedText
from fakes.hash_encoder import HashEncoder


@dataclass
class _Wrapped:
    inner: Encoder = field(default_factory=HashEncoder)

    @property
    def fingerprint(self) -> EncoderFingerprint:
        return self.inner.fingerprint

    def prepare_image(self, data: bytes) -> PreparedImage:
        return self.inner.prepare_image(data)

    def prepare_text(self, text: str) -> PreparedText:
        return self.inner.prepare_text(text)

    def encode(self, prepared: Sequence[Prepared]) -> list[Embeddings]:
        return self.inner.encode(prepared)


@dataclass
class CountingEncoder(_Wrapped):
    num_calls: int = 0
    num_encoded: int = 0
    largest_batch: int = 0

    def encode(self, prepared: Sequence[Prepared]) -> list[Embeddings]:
        self.num_calls += 1
        self.num_encoded += len(prepared)
        self.largest_batch = max(self.largest_batch, len(prepared))
        return super().encode(prepared)


@dataclass
class BrokenEncoder(_Wrapped):
    """Prepares everything and encodes nothing."""

    def encode(self, prepared: Sequence[Prepared]) -> list[Embeddings]:
        raise RuntimeError("a defect")


@dataclass
class HeldEncoder(_Wrapped):
    """Encodes only while `may_encode` is set; `is_encoding` tells that it was asked to."""

    may_encode: threading.Event = field(default_factory=threading.Event)
    is_encoding: threading.Event = field(default_factory=threading.Event)

    def encode(self, prepared: Sequence[Prepared]) -> list[Embeddings]:
        self.is_encoding.set()
        assert self.may_encode.wait(60)
        return super().encode(prepared)


@dataclass
class FailingEncoder(_Wrapped):
    """Raises what no encoder should, for texts with a word."""

    word: str = "poison"

    def prepare_text(self, text: str) -> PreparedText:
        if self.word in text:
            raise RuntimeError("a defect")
        return super().prepare_text(text)


@dataclass
class KillingEncoder(_Wrapped):
    """Ends the process at once, for texts with a word, as a crash in a C library does."""

    word: str = "poison"

    def prepare_text(self, text: str) -> PreparedText:
        if self.word in text:
            os._exit(139)
        return super().prepare_text(text)


@dataclass
class TallyingEncoder(_Wrapped):
    """Appends one byte to a file for each content that it encodes; processes may share the file."""

    tally: Path = field(kw_only=True)

    def encode(self, prepared: Sequence[Prepared]) -> list[Embeddings]:
        embeddings = super().encode(prepared)
        with self.tally.open("ab") as file:
            file.write(b"." * len(prepared))
        return embeddings


@dataclass
class FileHeldEncoder(_Wrapped):
    """Encodes only while a file is absent; leaves a file beside it while it waits."""

    hold: Path = field(kw_only=True)

    def encode(self, prepared: Sequence[Prepared]) -> list[Embeddings]:
        waiting = self.hold.with_suffix(".waiting")
        while self.hold.exists():
            waiting.touch()
            time.sleep(0.01)
        waiting.unlink(missing_ok=True)
        return super().encode(prepared)
