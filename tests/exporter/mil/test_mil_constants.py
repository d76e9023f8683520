"""Compressed weights against coremltools' own decompression, and what cannot be decoded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("coremltools")

from coremltools.optimize import _utils as packing
from hypothesis import given
from hypothesis import strategies as st
from mil_programs import Array, Case, edit, mb, run, save

from exporter.mil import Interpreter
from exporter.mil.program import unpack_bits
from swipe.errors import LoweringError

generator = np.random.default_rng(2)
ZERO = np.zeros(1, dtype=np.float32)


def integers(low: int, high: int, *shape: int) -> Array:
    return generator.integers(low, high, shape)


def normal(*shape: int, dtype: Any = np.float32) -> Array:
    return generator.standard_normal(shape).astype(dtype)


def packed(values: Array, bits: int) -> Array:
    return packing.pack_elements_into_bits(values.astype(np.uint8), bits)


BITS6, MASK = integers(0, 64, 5, 7), integers(0, 2, 5, 7)
OLD = {
    "affine": lambda: mb.constexpr_affine_dequantize(
        quantized_data=integers(-128, 128, 6, 4).astype(np.int8), zero_point=np.int8(3),
        scale=np.float32(0.1), axis=0),
    "affine_channels": lambda: mb.constexpr_affine_dequantize(
        quantized_data=integers(0, 256, 6, 4).astype(np.uint8),
        zero_point=integers(0, 256, 4).astype(np.uint8),
        scale=np.abs(normal(4, dtype=np.float16)), axis=1),
    "table": lambda: mb.constexpr_lut_to_dense(
        indices=packed(BITS6, 6), lut=normal(64), shape=np.uint32([5, 7])),
    "sparse": lambda: mb.constexpr_sparse_to_dense(
        nonzero_data=normal(int(MASK.sum())), mask=np.packbits(MASK, bitorder="little"),
        shape=np.uint32([5, 7])),
    "cast": lambda: mb.constexpr_cast(
        source_val=normal(3, 4, dtype=np.float16), output_dtype="fp32"),
}  # fmt: skip
NEW = {
    "blocks": lambda: mb.constexpr_blockwise_shift_scale(
        data=integers(-128, 128, 6, 8).astype(np.int8), scale=np.abs(normal(3, 2)) + 0.1,
        offset=integers(-5, 5, 3, 2).astype(np.int8)),
    "grouped_table": lambda: mb.constexpr_lut_to_dense(
        indices=integers(0, 256, 6, 4).astype(np.uint8), lut=normal(2, 1, 256, 1)),
    "vectors": lambda: mb.constexpr_lut_to_dense(
        indices=integers(0, 256, 6, 4).astype(np.uint8), lut=normal(1, 1, 256, 3),
        vector_axis=0),
}  # fmt: skip


@pytest.mark.parametrize(("decoders", "target"), [(OLD, "iOS17"), (NEW, "iOS18")])
def test_compressed_weights_are_what_coremltools_makes_of_them(
    decoders: dict[str, Any], target: str, tmp_path: Path
) -> None:
    wanted: dict[str, Array] = {}

    def used(name: str, make: Any) -> Any:
        def build(zero: Any) -> Any:
            value = make()
            wanted[name] = value.op.materialized_val_inference()
            if value.op.op_type == "constexpr_cast" or wanted[name].dtype == np.float32:
                return mb.add(x=value, y=zero)
            return mb.add(x=mb.cast(x=value, dtype="fp32"), y=zero)

        return build

    cases = [Case(name, used(name, make), (ZERO,)) for name, make in decoders.items()]
    results = run(cases, tmp_path, target)
    assert set(wanted) == set(decoders)
    for name, values in wanted.items():
        tolerance = 1e-3 if values.dtype == np.float16 else 1e-6
        np.testing.assert_allclose(results[name], values, rtol=tolerance, atol=tolerance)


@given(
    bits=st.sampled_from([1, 2, 3, 4, 6]),
    values=st.lists(st.integers(0, 255), min_size=1, max_size=40),
)
def test_unpacking_undoes_packing(bits: int, values: list[int]) -> None:
    small = np.array(values, dtype=np.uint8) % (1 << bits)
    assert unpack_bits(packed(small, bits), bits, len(small), "uint4").tolist() == small.tolist()


def test_signed_elements_below_eight_bits_keep_their_sign() -> None:
    # 0xF7: the lower four bits first.
    assert unpack_bits(np.array([0xF7], np.uint8), 4, 2, "int4").tolist() == [7, -1]


def test_what_cannot_be_decoded_is_refused_when_opened(tmp_path: Path) -> None:
    case = Case("y", lambda x: mb.add(x=OLD["affine"](), y=x), (ZERO,))
    package = save([case], tmp_path)

    def change(operations: Any) -> None:
        (found,) = [o for o in operations if o.type == "constexpr_affine_dequantize"]
        source = found.attributes if "scale" in found.attributes else found.inputs
        del source["scale"]

    edit(package, change)
    with pytest.raises(LoweringError, match=r"\(constexpr_affine_dequantize\) cannot be decoded"):
        Interpreter.open(package)
