"""Maps FAISS's files of inverted lists where they lie."""

from __future__ import annotations

import ctypes
import os
from typing import Any

import faiss

from clip_index.storage.mapped_part import MappedPart

_fseek = ctypes.CDLL(None).fseek
_fseek.argtypes = (ctypes.c_void_p, ctypes.c_long, ctypes.c_int)
_FILE_MARK = b"IwSq"  # FAISS's name for an inverted file over a scalar quantizer


def has_lists(part: MappedPart) -> bool:
    """Whether a vector file holds inverted lists."""
    return bytes(part.data[: len(_FILE_MARK)]) == _FILE_MARK


def open_lists(part: MappedPart) -> Any:
    """Map the lists where they lie in their file; `RuntimeError` if FAISS cannot read them.

    FAISS maps lists only of a file that it has opened itself, from the place that it has read up to.
    """
    reader = faiss.FileIOReader(str(part.path))
    if _fseek(int(reader.f), part.offset, os.SEEK_SET):
        raise RuntimeError(f"no position {part.offset}")
    return faiss.read_index(reader, faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY)
