"""Every axis at its ends, and one beyond; every padding: what a network is tried with."""

from __future__ import annotations

from typing import Any

from brought_models import (
    AXIS,
    sequence_call,
    sequences,
)

from exporter.adapter import Axis
from exporter.proof import references, require_meaning
from exporter.sweep import beyond, extremes, paddings, resized


def test_every_axis_is_swept_and_one_more_is_to_be_refused() -> None:
    given = sequences()
    assert [name for name, _ in extremes(given)] == ["T = 4", "T = 10", "T = 24"]
    ((name, call),) = beyond(given)
    assert (name, call["features"].shape, call["frames"].tolist()) == ("T = 25", (1, 6, 25), [25])
    (case,) = paddings(given)
    assert {padded["features"].shape[2] for padded in case.padded} == {24}


def test_two_axes_are_swept_alone_and_together() -> None:
    axes = {"features": {1: Axis("C", 5, 7), 2: AXIS}}
    names = [name for name, _ in extremes(sequences(axes=axes))]
    assert names == [
        "C = 5", "C = 6", "C = 7", "T = 4", "T = 10", "T = 24",
        "all axes at their least", "all axes at their most",
    ]  # fmt: skip


def test_an_axis_of_one_size_is_static_and_still_padded() -> None:
    static = {"features": {2: Axis("T", 24, 24)}}

    def whole(number: int) -> Any:
        length = 6 + number % 10
        return sequence_call(number, length, padding=24 - length)

    given = sequences(
        axes=static,
        example=whole(0),
        calibration=[whole(n) for n in range(50, 58)],
        verification=[whole(n) for n in range(40)],
    )
    assert given.dynamic == {}
    assert not list(extremes(given))
    require_meaning(given, references(given), 0.0)


def test_resizing_repeats_the_example() -> None:
    given = sequences()
    longer = resized(given, {"T": 13})["features"]
    assert (longer[..., 10:] == given.example["features"][..., :3]).all()
