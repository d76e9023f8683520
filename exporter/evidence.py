"""What an artefact is judged by, and how: run every swipe, compare with PyTorch's answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from exporter.formats import Runner
from exporter.parity import Answers, Limits, Verdict, compare, disagreements
from swipe.errors import LoweringError

Decode = Callable[[NDArray[np.float32]], list[list[str]]]
"""Outputs float32[N, T, C] -> candidates per swipe, best first."""

NO_CONTEXT: Final[tuple[NDArray[np.float32], ...]] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Trial:
    """Swipes with another context, compared as numbers: their words would prove nothing.

    Attributes:
        name: what is tried, e.g. "dvorak".
        features: float32[N, 2, 64].
        context: the inputs after the features, the same for every swipe.
        expected: PyTorch's outputs.
    """

    name: str
    features: NDArray[np.float32]
    context: tuple[NDArray[np.float32], ...]
    expected: NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """What rungs are judged by.

    Attributes:
        features: float32[N, 2, 64], verification swipes that calibration has not seen.
        truths: their words.
        reference: PyTorch's answers to them, in the artefact's own output classes.
        decode: from outputs to words, the same for every implementation.
        rounding: largest error of PyTorch's own float32 logits, against float64.
        context: the inputs after the features, the same for every swipe.
        trials: what has to agree besides.
    """

    features: NDArray[np.float32]
    truths: Sequence[str]
    reference: Answers
    decode: Decode
    rounding: float = 0.0
    context: tuple[NDArray[np.float32], ...] = NO_CONTEXT
    trials: tuple[Trial, ...] = ()


def judge(runner: Runner, evidence: Evidence, limits: Limits) -> Verdict:
    """Run all swipes through `runner` and compare with PyTorch.

    Raises:
        LoweringError: it cannot be executed, or an output is misshapen or not finite.
    """
    reference = evidence.reference
    outputs = run_all(runner, evidence.features, evidence.context, reference.logits)
    answers = Answers(outputs, evidence.decode(outputs))
    verdict = compare(reference, answers, evidence.truths, limits)
    return verdict.failing(
        f"{trial.name}: {reason}"
        for trial in evidence.trials
        for reason in disagreements(
            trial.expected,
            run_all(runner, trial.features, trial.context, trial.expected),
            limits,
        )
    )


def run_all(
    runner: Runner,
    features: NDArray[np.float32],
    context: tuple[NDArray[np.float32], ...],
    expected: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Outputs for every swipe, one at a time as a phone does, shaped like `expected`.

    Raises:
        LoweringError: an output has another shape, or is not finite and so cannot be decoded.
    """
    rows = [runner(row[None], *context) for row in features]
    if {row.shape for row in rows} != {(1, *expected.shape[1:])}:
        raise LoweringError(
            f"outputs of shape {sorted({row.shape for row in rows})}, PyTorch's is "
            f"{(1, *expected.shape[1:])}",
            fix="export again from the checkpoint",
        )
    outputs = np.concatenate(rows)
    if not np.isfinite(outputs).all():
        bad = int(outputs.size - np.isfinite(outputs).sum())
        raise LoweringError(
            f"{bad} of {outputs.size} outputs are NaN or Inf", fix="use another rung"
        )
    return outputs
