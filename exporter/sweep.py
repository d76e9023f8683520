"""Calls at the ends of every axis, beyond them, and with other padding: what a sample set misses.

An artefact that is right about samples of the usual length may be fixed at that length, may take
more than it has memory for, or may listen to the padding. Each is tried on the artefact itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from exporter.adapter import Axis, Exportable, Inputs, Length

PADDED_SAMPLES: Final = 8
SEED: Final = 0


@dataclass(frozen=True, slots=True, eq=False)
class Padded:
    """Samples beside the same ones with more padding, or with other padding.

    Attributes:
        name: which length input tells them apart from others.
        plain: the samples.
        padded: the same, in the same order.
    """

    name: str
    plain: list[Inputs]
    padded: list[Inputs]


def axes_of(given: Exportable) -> list[Axis]:
    """Every axis once."""
    return list({a.name: a for d in given.axes.values() for a in d.values()}.values())


def extremes(given: Exportable) -> Iterator[tuple[str, Inputs]]:
    """The example with one axis at its least, as it is, and at its most; and with all at once."""
    axes = [axis for axis in axes_of(given) if axis.least < axis.most]
    for axis in axes:
        typical = given.size(given.example, axis.name)
        for size in dict.fromkeys((axis.least, typical, axis.most)):
            yield f"{axis.name} = {size}", resized(given, {axis.name: size})
    if len(axes) > 1:
        yield "all axes at their least", resized(given, {a.name: a.least for a in axes})
        yield "all axes at their most", resized(given, {a.name: a.most for a in axes})


def beyond(given: Exportable) -> Iterator[tuple[str, Inputs]]:
    """The example with one axis at one more than its most: to be refused."""
    for axis in axes_of(given):
        yield f"{axis.name} = {axis.most + 1}", resized(given, {axis.name: axis.most + 1})


def resized(given: Exportable, sizes: Mapping[str, int]) -> Inputs:
    """The example, cut or repeated to `sizes` by axis; its lengths say that all of it is real."""
    call = {}
    for name, value in given.example.items():
        for dimension, axis in given.axes.get(name, {}).items():
            count = value.shape[dimension]
            value = value.take(np.arange(sizes.get(axis.name, count)) % count, dimension)
        call[name] = np.ascontiguousarray(value)
    for length in given.lengths:
        if length.axis in sizes:
            call[length.input] = np.array([sizes[length.axis]], dtype=np.int64)
    return call


def paddings(given: Exportable) -> Iterator[Padded]:
    """For each length input, some samples and the same ones padded as far as the axis goes."""
    for length in given.lengths:
        most = given.axis(length.axis).most
        shorter = [c for c in given.verification if int(c[length.input][0]) < most]
        if not shorter and most > 1:
            # All are as long as may be, which would leave padding untried.
            shorter = [_shortened(given, length)]
        if shorter:
            plain = shorter[:PADDED_SAMPLES]
            padded = [_padded(given, call, length, most) for call in plain]
            yield Padded(f"padding told by {length.input}", plain, padded)


def _shortened(given: Exportable, length: Length) -> Inputs:
    """The example with less of the axis real than there may be, which is more than 1."""
    axis = given.axis(length.axis)
    if axis.least < axis.most:
        return resized(given, {axis.name: axis.least})
    return {**given.example, length.input: np.array([axis.most // 2], dtype=np.int64)}


def _padded(given: Exportable, call: Inputs, length: Length, size: int) -> Inputs:
    """`call` with `size` along the axis, of which no more is real than before.

    The padding holds frames of the sample itself: values as they occur, which say something wrong.
    """
    real = int(call[length.input][0])
    chosen = np.random.default_rng(SEED).integers(0, real, size - real)
    frames = np.concatenate([np.arange(real), chosen])
    padded = {}
    for name, value in call.items():
        for dimension, axis in given.axes.get(name, {}).items():
            if axis.name == length.axis:
                value = value.take(frames, dimension)
        padded[name] = _contiguous(value)
    return padded


def _contiguous(value: NDArray[np.generic]) -> NDArray[np.generic]:
    return np.ascontiguousarray(value)
