"""The pack: one file of many calls, that a native runner maps into memory; its answers come back as
a file of the same form.

Little-endian, every array at a multiple of 64 bytes from the start, so that a runner computes on
the mapped file without copying::

    "SWPACK01"  u32 tensors per call  u32 calls
    per tensor: u32 type (`TYPES`)  u32 length of name  name (UTF-8)
    per call:   u32 status
                status 0, per tensor: u32 rank  i64 size of each dimension  u64 bytes
                                      zeros up to a multiple of 64  the array  (C order)
                status 1, refused:    u32 length of reason  reason (UTF-8)
    "SWPEND01"

A file without its end is one that was cut, and nothing of it is used.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from exporter.formats import Inputs
from swipe.errors import GateError, UsageError

START: Final = b"SWPACK01"
END: Final = b"SWPEND01"
ALIGNMENT: Final = 64
RETURNED, REFUSED = 0, 1
MOST_DIMENSIONS: Final = 16
"""What the runners read and write."""

TYPES: Final = {"float32": 1, "uint8": 2, "int8": 3, "int32": 6, "int64": 7, "bool": 9}
"""Type codes: those of ONNX's TensorProto.DataType."""

_NAMES: Final = {code: np.dtype(name) for name, code in TYPES.items()}


@dataclass(frozen=True, slots=True, eq=False)
class Returned:
    """What a call gave.

    Attributes:
        arrays: in the order of the outputs.
    """

    arrays: tuple[NDArray[Any], ...]


@dataclass(frozen=True, slots=True)
class Refused:
    """What the engine said to a call that it would not execute."""

    reason: str


def pack_calls(calls: Sequence[Inputs]) -> bytes:
    """The file of `calls`, whose arrays have the same names and types in the same order.

    Raises:
        UsageError: there is no call, they differ, or a type has no code, such as strings.
    """
    if not calls:
        raise UsageError("no calls to pack", fix="use a bundle with verification samples")
    declared = {name: value.dtype.name for name, value in calls[0].items()}
    unknown = sorted(set(declared.values()) - set(TYPES))
    if unknown:
        raise UsageError(
            f"inputs of type {', '.join(unknown)} cannot be sent to a device",
            fix=f"use a view whose inputs are {', '.join(TYPES)}",
        )
    out = bytearray(START + struct.pack("<II", len(declared), len(calls)))
    for name, dtype in declared.items():
        out += struct.pack("<II", TYPES[dtype], len(name.encode())) + name.encode()
    for number, call in enumerate(calls):
        if {name: value.dtype.name for name, value in call.items()} != declared:
            raise UsageError(
                f"call {number} has other inputs than the first", fix="give every call the same"
            )
        out += struct.pack("<I", RETURNED)
        for value in call.values():
            out += struct.pack(f"<I{value.ndim}qQ", value.ndim, *value.shape, value.nbytes)
            out += bytes(-len(out) % ALIGNMENT)
            out += np.ascontiguousarray(value, dtype=value.dtype.newbyteorder("<")).tobytes()
    return bytes(out + END)


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """A read pack.

    Attributes:
        names: of the arrays of each call.
        calls: what each call gave, or why not.
    """

    names: tuple[str, ...]
    calls: tuple[Returned | Refused, ...]


def read_answers(data: bytes) -> Answers:
    """What a runner wrote.

    Raises:
        GateError: it is cut, damaged, or not such a file.
    """
    reader = _Reader(data)
    if reader.take(len(START)) != START:
        raise _damaged("it does not start as one")
    tensors, count = reader.unpack("<II")
    if not tensors:
        raise _damaged("its calls have no arrays")
    names, types = [], []
    for _ in range(tensors):
        code, length = reader.unpack("<II")
        if code not in _NAMES:
            raise _damaged(f"type {code} is unknown")
        types.append(_NAMES[code])
        names.append(reader.text(length))
    calls = tuple(_read_call(reader, types) for _ in range(count))
    if reader.take(len(END)) != END or reader.at != len(data):
        raise _damaged("it does not end where it should")
    return Answers(tuple(names), calls)


def _read_call(reader: _Reader, types: Sequence[np.dtype[Any]]) -> Returned | Refused:
    (status,) = reader.unpack("<I")
    if status == REFUSED:
        (length,) = reader.unpack("<I")
        return Refused(reader.text(length))
    if status != RETURNED:
        raise _damaged(f"a call has status {status}")
    arrays = []
    for dtype in types:
        (rank,) = reader.unpack("<I")
        if rank > MOST_DIMENSIONS:
            raise _damaged(f"an array has {rank} dimensions")
        *shape, size = reader.unpack(f"<{rank}qQ")
        if any(extent < 0 for extent in shape) or math.prod(shape) * dtype.itemsize != size:
            raise _damaged(f"an array of shape {shape} has {size} bytes")
        reader.align()
        array = np.frombuffer(reader.take(size), dtype=dtype).reshape(shape)
        arrays.append(array.astype(dtype.newbyteorder("="), copy=True))
    return Returned(tuple(arrays))


@dataclass(slots=True)
class _Reader:
    data: bytes
    at: int = 0

    def take(self, size: int) -> bytes:
        piece = self.data[self.at : self.at + size]
        if len(piece) != size:
            raise _damaged(f"{size} bytes at {self.at} are wanted, {len(piece)} are there")
        self.at += size
        return piece

    def unpack(self, form: str) -> tuple[int, ...]:
        return struct.unpack(form, self.take(struct.calcsize(form)))

    def text(self, size: int) -> str:
        return self.take(size).decode(errors="replace")

    def align(self) -> None:
        self.take(-self.at % ALIGNMENT)


def _damaged(reason: str) -> GateError:
    return GateError(f"the device's answers are damaged: {reason}", fix="measure again")
