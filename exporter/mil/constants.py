"""Compressed constants: what the ``constexpr_`` operations stand for, decoded when a package opens.

Products are computed in float32 and rounded once to the declared type. What it leaves out: the two
operations that keep a result sparse.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from exporter.mil.program import Constant, unpack_bits

Inputs = Mapping[str, Constant]


def affine_dequantize(inputs: Inputs) -> Constant:
    """``scale * (quantized_data - zero_point)``, a scale for all or for each index of ``axis``."""
    data, axis = inputs["quantized_data"], int(inputs["axis"])

    def along(values: Constant) -> NDArray[np.float32]:
        shape = [1] * data.ndim
        shape[axis] = -1
        return values.astype(np.float32).reshape(shape if values.ndim else [])

    shifted = data.astype(np.float32) - along(inputs["zero_point"])
    return np.asarray(along(inputs["scale"]) * shifted)


def blockwise_shift_scale(inputs: Inputs) -> Constant:
    """``scale * (data - offset)``, where both have a value for each block."""
    data = inputs["data"].astype(np.float32)

    def spread(values: Constant) -> NDArray[np.float32]:
        wide = values.astype(np.float32)
        for axis, size in enumerate(data.shape):
            if size % wide.shape[axis]:
                raise ValueError(f"{size} elements in {wide.shape[axis]} blocks")
            wide = wide.repeat(size // wide.shape[axis], axis)
        return wide

    shifted = data - spread(inputs["offset"]) if "offset" in inputs else data
    return np.asarray(spread(inputs["scale"]) * shifted)


def lut_to_dense(inputs: Inputs) -> Constant:
    """What the indices point at in the table, one table (iOS 16) or one for each block."""
    indices, table = inputs["indices"], inputs["lut"]
    if "shape" in inputs:
        shape, bits = inputs["shape"].tolist(), int(math.log2(table.size))
        flat = unpack_bits(indices, bits, math.prod(shape), "uint8")
        return np.asarray(table[flat].reshape(shape))
    where = []
    for axis, size in enumerate(indices.shape):
        if size % table.shape[axis]:
            raise ValueError(f"{size} elements in {table.shape[axis]} blocks")
        block = np.arange(size) // (size // table.shape[axis])
        where.append(block.reshape([-1 if i == axis else 1 for i in range(indices.ndim)]))
    vectors = table[(*where, indices)]
    if vectors.shape[-1] == 1:
        return np.asarray(vectors[..., 0])
    axis = int(inputs["vector_axis"]) % indices.ndim
    shape = list(indices.shape)
    shape[axis] *= vectors.shape[-1]
    return np.asarray(np.moveaxis(vectors, -1, axis + 1).reshape(shape))


def sparse_to_dense(inputs: Inputs) -> Constant:
    """The values where the mask is set, in row-major order; 0 elsewhere."""
    values, mask = inputs["nonzero_data"], inputs["mask"]
    if "shape" in inputs:
        shape = inputs["shape"].tolist()
        mask = unpack_bits(mask, 1, math.prod(shape), "uint8").reshape(shape)
    dense = np.zeros(mask.shape, dtype=values.dtype)
    dense[mask != 0] = values
    return dense


def cast(inputs: Inputs) -> Constant:
    """The values; the declared type says to what."""
    return inputs["source_val"]


DECODERS: Final[Mapping[str, tuple[Callable[[Inputs], Constant], frozenset[str]]]] = {
    "constexpr_affine_dequantize": (
        affine_dequantize, frozenset({"quantized_data", "zero_point", "scale", "axis"})
    ),
    "constexpr_blockwise_shift_scale": (
        blockwise_shift_scale, frozenset({"data", "scale", "offset"})
    ),
    "constexpr_lut_to_dense": (
        lut_to_dense, frozenset({"indices", "lut", "shape", "vector_axis"})
    ),
    "constexpr_sparse_to_dense": (sparse_to_dense, frozenset({"nonzero_data", "mask", "shape"})),
    "constexpr_cast": (cast, frozenset({"source_val", "output_dtype"})),
}  # fmt: skip
"""By operation type: the decoder, and all inputs it knows."""
