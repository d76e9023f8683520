"""The file of calls: what goes in comes out, and a damaged file gives nothing."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from android_harness.pack import ALIGNMENT, TYPES, Refused, Returned, pack_calls, read_answers
from exporter.formats import Inputs
from swipe.errors import GateError, UsageError


@st.composite
def calls(draw: st.DrawFn) -> list[Inputs]:
    """Calls with the same names and types, and shapes of their own, empty ones too."""
    names = draw(st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=3, unique=True))
    types = [draw(st.sampled_from(sorted(TYPES))) for _ in names]
    count = draw(st.integers(1, 4))
    sizes = st.lists(st.integers(0, 3), max_size=3)

    def array(dtype: str) -> NDArray[Any]:
        shape = tuple(draw(sizes))
        seed = draw(st.integers(0, 255))
        return (np.arange(np.prod(shape, dtype=int)) + seed).reshape(shape).astype(dtype)

    return [{n: array(t) for n, t in zip(names, types, strict=True)} for _ in range(count)]


@given(calls())
def test_a_pack_returns_what_was_packed(given_calls: list[Inputs]) -> None:
    answers = read_answers(pack_calls(given_calls))
    assert answers.names == tuple(given_calls[0])
    assert len(answers.calls) == len(given_calls)
    for packed, call in zip(answers.calls, given_calls, strict=True):
        assert isinstance(packed, Returned)
        for array, value in zip(packed.arrays, call.values(), strict=True):
            assert array.dtype == value.dtype
            np.testing.assert_array_equal(array, value)


CALL = {"features": np.arange(128, dtype=np.float32).reshape(1, 2, 64)}


def test_arrays_lie_where_a_runner_can_compute_on_them() -> None:
    data = pack_calls([CALL, CALL])
    piece = CALL["features"].tobytes()
    first = data.index(piece)
    assert first % ALIGNMENT == 0
    assert data.index(piece, first + 1) % ALIGNMENT == 0


@given(st.data())
def test_a_cut_pack_is_refused(data: st.DataObject) -> None:
    whole = pack_calls([CALL])
    kept = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(GateError, match="damaged"):
        read_answers(whole[:kept])


def test_what_follows_the_end_is_refused() -> None:
    with pytest.raises(GateError, match="end"):
        read_answers(pack_calls([CALL]) + b"x")


@pytest.mark.parametrize(
    ("at", "value", "reason"),
    [
        (0, b"X", "start"),
        (16, b"\x63", "type 99"),
        (32, b"\x07", "status 7"),
        (36, b"\x02", "array of shape"),
    ],
    ids=["magic", "type", "status", "rank"],
)
def test_a_damaged_pack_is_refused(at: int, value: bytes, reason: str) -> None:
    whole = bytearray(pack_calls([CALL]))
    whole[at : at + 1] = value
    with pytest.raises(GateError, match=reason):
        read_answers(bytes(whole))


@pytest.mark.parametrize(
    ("shape", "size", "reason"),
    [
        ((2**32, 2**32), 0, "array of shape"),
        ((2**62, 4, 0), 1, "array of shape"),
        ((1,) * 17, 4, "17 dimensions"),
        ((1,) * 100, 4, "100 dimensions"),
    ],
    ids=["product", "size", "one more", "many"],
)
def test_a_shape_that_no_array_can_have_is_refused(
    shape: tuple[int, ...], size: int, reason: str
) -> None:
    array = struct.pack(f"<II{len(shape)}qQ", 0, len(shape), *shape, size)
    with pytest.raises(GateError, match=reason):
        read_answers(pack_calls([CALL])[:32] + array + bytes(1000))


def test_answers_without_arrays_are_refused() -> None:
    with pytest.raises(GateError, match="no arrays"):
        read_answers(b"SWPACK01" + struct.pack("<III", 0, 1, 0) + b"SWPEND01")


def test_a_refused_call_comes_with_its_reason() -> None:
    words = b"too long"
    head = pack_calls([CALL])[:32]
    refusal = (1).to_bytes(4, "little") + len(words).to_bytes(4, "little") + words
    (answer,) = read_answers(head + refusal + b"SWPEND01").calls
    assert answer == Refused("too long")


@pytest.mark.parametrize(
    ("given_calls", "reason"),
    [
        ([], "no calls"),
        ([CALL, {"other": CALL["features"]}], "call 1"),
        ([CALL, {"features": CALL["features"].astype(np.int64)}], "call 1"),
        ([{"text": np.array(["a"])}], "cannot be sent"),
        ([{"features": CALL["features"].astype(np.float64)}], "float64"),
    ],
    ids=["none", "names", "types", "strings", "float64"],
)
def test_calls_that_no_pack_can_hold_are_refused(given_calls: list[Inputs], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        pack_calls(given_calls)
