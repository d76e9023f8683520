"""Which layers to keep float when int8 costs too much: those whose reverting gains most.

Each layer alone is kept float once, and what that gains is measured on calibration samples, so
that the verification samples stay unseen until an artefact is judged by them. Then layers are kept
float in the order of their gains, one more each time, until the artefact passes or time is up.

What it leaves out: pairs of layers that only help together.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from exporter.formats import Lowering, Runner
from exporter.targets import Target
from swipe.errors import GateError
from swipe.progress import Say

SAMPLES: Final = 64
"""Calibration samples that a layer's gain is measured on."""

Keep = frozenset[str]


class Budget:
    """Time that is spent once for ranking and trying together."""

    def __init__(self, minutes: float) -> None:
        self._end = time.monotonic() + 60 * minutes

    @property
    def spent(self) -> bool:
        """Whether nothing is left."""
        return time.monotonic() >= self._end


def rank_layers(
    layers: Sequence[str], error_of: Callable[[Keep], float], budget: Budget
) -> list[str]:
    """`layers` that gain something when kept float, the largest gain first.

    Args:
        layers: what would be quantized.
        error_of: error of the artefact in which these layers are float.
        budget: when it is spent, layers that were not tried yet are left out.
    """
    before = error_of(frozenset())
    gains = {}
    for layer in layers:
        if budget.spent:
            break
        gains[layer] = before - error_of(frozenset({layer}))
    return sorted((layer for layer in gains if gains[layer] > 0), key=lambda name: -gains[name])


def revert_greedily(
    ranked: Sequence[str], passes: Callable[[Keep], bool], budget: Budget
) -> Keep | None:
    """The shortest prefix of `ranked` that passes when kept float; None if none did in time."""
    kept: Keep = frozenset()
    for layer in ranked:
        if budget.spent:
            return None
        kept |= {layer}
        if passes(kept):
            return kept
    return None


class CalibrationError:
    """Mean squared difference of an artefact from PyTorch on calibration samples.

    Args:
        target: the format.
        rung: what is built.
        lowering: the job; its module answers for PyTorch.
        path: where artefacts are built, one after the other.
        say: told about each.
    """

    def __init__(self, target: Target, rung: str, lowering: Lowering, path: Path, say: Say) -> None:
        import torch

        self._target, self._rung, self._path, self._say = target, rung, path, say
        self._lowering = lowering
        self._calls = lowering.calibration[:SAMPLES]
        with torch.inference_mode():
            self._wanted = [
                np.array(lowering.module(*map(torch.tensor, call.values())).numpy())
                for call in self._calls
            ]

    def __call__(self, kept: Keep) -> float:
        """The error with the layers `kept` float; infinite where that cannot be built or run."""
        job = replace(self._lowering, float_layers=kept)
        try:
            self._target.format().quantize(job, self._path, self._rung)
            error = self._measured(self._target.format().load(self._path))
        except GateError as problem:
            self._say(f"keeping {', '.join(sorted(kept)) or 'nothing'} float: {problem}")
            return float("inf")
        self._say(f"keeping {', '.join(sorted(kept)) or 'nothing'} float: error {error:.3g}")
        return error

    def _measured(self, runner: Runner) -> float:
        squares: list[NDArray[np.float64]] = []
        for call, wanted in zip(self._calls, self._wanted, strict=True):
            delta = np.asarray(runner(*call.values()), dtype=np.float64) - wanted
            squares.append(np.square(delta).ravel())
        error = float(np.concatenate(squares).mean())
        # NaN is no error that another one could be better than.
        return error if np.isfinite(error) else float("inf")
