"""Weights in a file that all processes of a machine map, so that the machine holds them once.

Each process lays the weights out itself, as it does without a file. Then it compares them with the file byte
by byte, and maps the file in their place. So whatever the file holds, embeddings are those of the weights
that were loaded, and a file that is damaged or unfinished is written again. A file may be deleted at any
time, but nobody may write into it, because it is mapped: its name is a digest of its bytes, and it is
read-only.

torch's compiler maps weights in the same way, through the functions of torch's C interface that are used
here.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, TypeAlias
from uuid import uuid4

import numpy as np
import torch
import xxhash
from numpy.typing import NDArray
from torch import Tensor

Bytes: TypeAlias = NDArray[np.uint8]
Exchange: TypeAlias = Callable[[Tensor], Tensor]

_ALIGNMENT = 64  # what oneDNN allocates weights with
_COMPARED_BYTES = 2**20
_PACKED_LAYOUT = 3  # c10::Layout::Mkldnn
_READ_ONLY = 0o444
_UNFINISHED = "unfinished-"


class WeightsNotShared(Exception):
    """Why weights stay in the memory of their process."""


class HasWeights(Protocol):
    def exchange_weights(self, exchange: Exchange) -> None:
        """Put what `exchange` returns in the place of each large weight, always in the same order."""


def share_weights(owners: Sequence[HasWeights], directory: Path) -> None:
    """Map the large weights of all owners from a file in `directory`, which is written if it is missing.

    Raises `WeightsNotShared`; all weights are as before then.
    """
    weights: list[Tensor] = []

    def collect(weight: Tensor) -> Tensor:
        weights.append(weight)
        return weight

    for owner in owners:
        owner.exchange_weights(collect)
    try:
        mapped = iter([*_mapped_weights(weights, directory)])
    except (OSError, AttributeError, RuntimeError) as error:
        raise WeightsNotShared(str(error)) from error
    for owner in owners:
        owner.exchange_weights(lambda _: next(mapped))


def _mapped_weights(weights: Sequence[Tensor], directory: Path) -> Iterator[Tensor]:
    parts = [_bytes_of(weight) for weight in weights]
    memory = _map_file(parts, directory)
    for weight, part, start in zip(weights, parts, _starts(parts), strict=True):
        yield _tensor_in(memory[start : start + len(part)], weight)


def _bytes_of(weight: Tensor) -> Bytes:
    """Return the bytes of a weight where they lie. They are valid as long as the weight."""
    if weight.layout == torch.strided:
        return weight.detach().reshape(-1).view(torch.uint8).numpy()
    size, address = torch.ops.mkldnn._nbytes(weight), torch.ops.mkldnn.data_ptr(weight)
    return np.frombuffer((ctypes.c_uint8 * size).from_address(address), np.uint8)


def _tensor_in(memory: Bytes, like: Tensor) -> Tensor:
    """Return the tensor `like` whose bytes are `memory`, which lives as long as the tensor."""
    if like.layout == torch.strided:
        return torch.from_numpy(memory).view(like.dtype).view(like.shape)
    packed = _packed_tensor(memory, like)
    if packed.layout != like.layout or torch.ops.mkldnn.data_ptr(packed) != memory.ctypes.data:
        raise WeightsNotShared("torch has another layout for packed weights")
    vars(packed)["memory"] = memory  # torch does not know whose it is
    return packed


def _packed_tensor(memory: Bytes, like: Tensor) -> Tensor:
    description = torch.ops.mkldnn._get_mkldnn_serialized_md(like).numpy()
    library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
    if like.dtype == torch.bfloat16:
        dtype = library.aoti_torch_dtype_bfloat16()
    else:
        dtype = library.aoti_torch_dtype_float32()
    rows, columns = like.shape
    handle = ctypes.c_void_p()
    failed = library.aoti_torch_create_tensor_from_blob_v2(
        ctypes.c_void_p(memory.ctypes.data),
        ctypes.c_int64(2),
        (ctypes.c_int64 * 2)(rows, columns),
        (ctypes.c_int64 * 2)(columns, 1),
        ctypes.c_int64(0),  # storage offset
        ctypes.c_int32(dtype),
        ctypes.c_int32(library.aoti_torch_device_type_cpu()),
        ctypes.c_int32(0),  # device index
        ctypes.byref(handle),
        ctypes.c_int32(_PACKED_LAYOUT),
        ctypes.c_void_p(description.ctypes.data),
        ctypes.c_int64(description.size),
    )
    if failed:
        raise WeightsNotShared("torch cannot use packed weights where they are mapped")
    [tensor] = torch._C._aoti.alloc_tensors_by_stealing_from_void_ptrs([_capsule(handle)])
    return tensor


def _capsule(handle: ctypes.c_void_p) -> Any:
    new = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
    return new(("PyCapsule_New", ctypes.pythonapi))(handle, None, None)


def _starts(parts: Sequence[Bytes]) -> list[int]:
    starts, end = [], 0
    for part in parts:
        starts.append(end)
        end += -(-len(part) // _ALIGNMENT) * _ALIGNMENT
    return starts


def _map_file(parts: Sequence[Bytes], directory: Path) -> Bytes:
    """Return the mapped bytes of the file that holds the parts, each at its start."""
    file = directory / f"weights-{_digest(parts)}"
    directory.mkdir(parents=True, exist_ok=True)
    _remove_left_over(directory)
    for should_write in (False, True):
        if should_write:
            _write(parts, file)
        if (memory := _mapped(file)) is not None and _holds(memory, parts):
            return memory
    raise WeightsNotShared(f"{file} does not hold what was written")


def _digest(parts: Sequence[Bytes]) -> str:
    digest = xxhash.xxh3_128()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part.data)
    return digest.hexdigest()


def _mapped(file: Path) -> Bytes | None:
    """Map a file. Nobody writes into the memory, and a write would not reach the file."""
    try:
        with file.open("rb") as stream:
            return np.frombuffer(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY), np.uint8)
    except (FileNotFoundError, ValueError):  # it is empty
        return None


def _holds(memory: Bytes, parts: Sequence[Bytes]) -> bool:
    starts = _starts(parts)
    if len(memory) != starts[-1] + len(parts[-1]):
        return False
    return all(
        _equal(part, memory[start : start + len(part)]) for part, start in zip(parts, starts, strict=True)
    )


def _equal(one: Bytes, other: Bytes) -> bool:
    """Compare in pieces, because numpy makes an array of the answers of a comparison."""
    return all(
        np.array_equal(one[at : at + _COMPARED_BYTES], other[at : at + _COMPARED_BYTES])
        for at in range(0, len(one), _COMPARED_BYTES)
    )


def _write(parts: Sequence[Bytes], file: Path) -> None:
    """Write a file, or write one again that holds something else. All processes map the one that is first."""
    is_there = file.exists()
    unfinished = file.with_name(f"{_UNFINISHED}{file.name}-{uuid4().hex}")
    try:
        with unfinished.open("xb") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)  # as long as somebody is writing it
            for part, start in zip(parts, _starts(parts), strict=True):
                stream.seek(start)
                stream.write(part.data)
            stream.flush()
            unfinished.chmod(_READ_ONLY)
            if is_there:
                os.replace(unfinished, file)
            else:
                _link(unfinished, file)
    finally:
        unfinished.unlink(missing_ok=True)


def _remove_left_over(directory: Path) -> None:
    """Remove what processes have left that were killed while they were writing: 300 MB each time."""
    for unfinished in directory.glob(f"{_UNFINISHED}*"):
        with suppress(OSError), unfinished.open("rb") as stream:  # one that is being written is locked
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(stream.fileno()).st_size:  # else it is about to be locked
                unfinished.unlink()


def _link(unfinished: Path, file: Path) -> None:
    try:
        os.link(unfinished, file)
    except FileExistsError:
        return
