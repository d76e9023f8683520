"""What a factory returns: accepted as it should be, refused by name when it is not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from brought_models import AXIS, BLANK, classes, rows, sequence_call, sequences
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from exporter.adapter import Axis, Kind, Length, Reading
from swipe.errors import GateError, UsageError


def test_a_sound_exportable_is_taken() -> None:
    assert sequences().dynamic == {"features": {2: AXIS}}
    counted = Axis("T", np.int64(AXIS.least), np.int64(AXIS.most))  # type: ignore[arg-type]
    assert sequences(axes={"features": {2: counted}}).dynamic == {"features": {2: AXIS}}
    assert classes().dynamic == {}


def test_a_verification_sample_that_calibration_has_seen_is_refused() -> None:
    with pytest.raises(GateError, match="1 verification samples are calibration samples too"):
        classes(calibration=[*rows(8, seed=2), classes().verification[5]])


def test_a_sample_is_the_same_however_it_is_padded() -> None:
    shared = sequence_call(7, 9, padding=6)
    shared["features"][..., 9:] = 5.0
    with pytest.raises(GateError, match="the first is number 1"):
        sequences(calibration=[shared], verification=[sequence_call(3), sequence_call(7, 9)])


@given(st.integers(4, 24), st.integers(0, 10))
def test_a_digest_is_that_of_the_real_part(frames: int, padding: int) -> None:
    record = _SEQUENCES
    plain, padded = sequence_call(1, frames), sequence_call(1, frames, padding=padding)
    assert record.digest(plain) == record.digest(padded)
    padded["features"][0, 0, frames - 1] += 1.0
    assert record.digest(plain) != record.digest(padded)


_SEQUENCES = sequences()


def _call(**changes: Any) -> dict[str, Any]:
    return {**sequence_call(1, 10), **changes}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"verification": []}, "there are no verification samples"),
        ({"calibration": []}, "there are no calibration samples"),
        ({"verification": [{"features": sequence_call(1)["features"]}]}, "has the inputs"),
        ({"verification": [_call(frames=np.array([11]))]}, "frames of .* is 11, and T has 10"),
        ({"verification": [_call(frames=np.array([0]))]}, "frames of .* is 0"),
        ({"verification": [_call(frames=np.array([10.0]))]}, "is float64"),
        ({"verification": [_call(features=np.zeros((2, 6, 10), np.float32))]}, "a batch of one"),
        ({"verification": [_call(features=np.zeros((1, 5, 10), np.float32))]}, "is no axis that"),
        ({"verification": [sequence_call(1, 25)]}, "has 25 along Axis"),
        ({"verification": [_call(features=np.full((1, 6, 10), np.nan, np.float32))]}, "NaN or Inf"),
        ({"axes": {"features": {2: Axis("T", 11, 24)}}}, "has .* along Axis"),
        ({"axes": {"features": {3: AXIS}}}, "is dimension 3 of"),
        ({"axes": {"features": {0: AXIS}}}, "is dimension 0 of"),
        ({"axes": {"sound": {2: AXIS}}}, "is dimension 2 of"),
        ({"axes": {"features": {2: Axis("T", 24, 4)}}}, "no valid bounds"),
        ({"axes": {"features": {2: Axis("T", 4.0, 24.0)}}}, "no valid bounds"),  # type: ignore[arg-type]
        ({"axes": {"features": {1: Axis("T", 4, 6), 2: AXIS}}}, "axis T is"),
        ({"lengths": (Length("features", "T"),)}, "no input of one int64"),
        ({"lengths": (Length("frames", "U"),)}, "which is no axis"),
        ({"lengths": (Length("frames", "T", 0),)}, "a stride of 0"),
        ({"lengths": (Length("frames", "T", 2.0),)}, "a stride of 2.0"),  # type: ignore[arg-type]
        ({"reading": Reading(Kind.CTC)}, "the blank is None"),
        ({"reading": Reading(Kind.CLASSES, BLANK)}, "the blank is 3"),
        ({"writers": ["a"]}, "1 writers of 40"),
        ({"strata": {"long": np.zeros(40, dtype=bool)}}, "the stratum long"),
        ({"name": "a/b"}, "it is called 'a/b'"),
        ({"module": nn.Linear}, "no instance of torch.nn.Module"),
        ({"reading": Reading("ctc", BLANK)}, "its reading is Reading.*, and not"),  # type: ignore[arg-type]
        ({"verification": [_call(features=torch.zeros(1, 6, 10))]}, "is a Tensor, no numpy array"),
        ({"metadata": {"version": 3}}, "version of its metadata is 3, no text"),
        ({"meanings": {"frames": None}}, "frames of its meanings is None, no text"),
    ],
)
def test_what_is_wrong_is_said_when_the_record_is_made(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        sequences(**changes)


def test_frames_beyond_the_length_do_not_count() -> None:
    output = np.arange(12, dtype=np.float32)[:, None]
    call = sequence_call(1, 7, padding=5)
    assert len(sequences().real(call, output)) == 7
    assert len(sequences(lengths=(Length("frames", "T", 2),)).real(call, output)) == 4
    assert len(sequences(lengths=(Length("frames", "T", None),)).real(call, output)) == 12


def test_calls_are_laid_out_as_runtimes_want_them() -> None:
    """``row[None]`` has a stride of 0, and ExecuTorch refuses it; so has a transposed array."""
    row = np.arange(8, dtype=np.float32)
    shown = np.arange(16, dtype=np.float32).reshape(8, 2).T[:1]
    made = classes(verification=[{"x": row[None]}, {"x": shown}], metric=None)
    for call, wanted in zip(made.verification, (row, shown[0]), strict=True):
        assert call["x"].strides == (32, 4)
        assert (call["x"][0] == wanted).all()
