"""NumPy arrays that are read where they lie in a mapped file.

`numpy.load(mmap_mode="r")` is not used: it knows no parts of a pack, and keeps a descriptor open for
the life of each array.
"""

from __future__ import annotations

import math
import re
import threading
from tokenize import TokenError
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.lib import format as npy
from numpy.typing import NDArray

from clip_index.errors import DamagedFile
from clip_index.storage.mapped_part import MappedPart

PARSING_HEADERS = threading.Lock()
"""NumPy parses a header by `ast`. Python 3.11 counts the depth of that for all threads together, so that two
at a time may end in "SystemError: AST constructor recursion depth mismatch"."""

HEADER_ERRORS = (
    ValueError,
    KeyError,
    TypeError,
    OverflowError,
    SyntaxError,
    TokenError,
    MemoryError,
    RecursionError,
)
"""What NumPy raises for bytes that are no header, or for a header of an array that no file can hold."""

_USUAL_MAGIC = b"\x93NUMPY\x01\x00"
_USUAL_HEADER = re.compile(
    rb"\{'descr': '(<[fiu][248]|\|[biu]1)', 'fortran_order': False, "
    rb"'shape': \(([1-9]\d{0,17}),(?: ([1-9]\d{0,17}))?\), \} *\n"
)
"""What NumPy writes of an array of one or two dimensions that is not empty. To parse it by `ast` takes 20 µs,
and a new segment has five of them."""


def map_array(part: MappedPart) -> NDArray[Any]:
    """Return the C-ordered array of a `.npy`, read-only. The mapping lives as long as the array."""
    usual = _map_usual(part)
    if usual is not None:
        return usual
    with pa.BufferReader(part.data) as source:
        try:
            version = npy.read_magic(source)
            read_header = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[version]
            with PARSING_HEADERS:
                shape, _, dtype = read_header(source)
            data = np.frombuffer(source.read_buffer(), dtype)
            return data.reshape(shape)
        except HEADER_ERRORS as error:
            raise DamagedFile(part.path, f"not an array ({error!r})") from error


def _map_usual(part: MappedPart) -> NDArray[Any] | None:
    """Return the array if its header is a usual one, and its bytes are as many as the header says."""
    begin = part.data.slice(0, min(part.data.size, 10)).to_pybytes()
    first = 10 + int.from_bytes(begin[8:], "little")
    if begin[:8] != _USUAL_MAGIC or part.data.size < first:
        return None
    header = _USUAL_HEADER.fullmatch(part.data.slice(10, first - 10).to_pybytes())
    if header is None:
        return None
    dtype = np.dtype(header[1].decode())
    shape = tuple(int(length) for length in header.groups()[1:] if length is not None)
    num_bytes = dtype.itemsize * math.prod(shape)
    if part.data.size != first + num_bytes:
        return None
    return np.frombuffer(part.data, dtype, offset=first, count=math.prod(shape)).reshape(shape)
