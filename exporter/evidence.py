"""What an artefact is judged by, and how: run every sample, compare with PyTorch's answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from exporter.formats import Inputs, Runner, Speaker
from exporter.parity import (
    Answers,
    Level,
    Limits,
    Population,
    Reading,
    Verdict,
    compare,
    disagreements,
)
from exporter.parity.outputs import Outputs
from swipe.errors import GateError, LoweringError

Real = Callable[[Inputs, NDArray[np.float32]], NDArray[np.float32]]
"""A call and its output -> the part of the output that has meaning: what padding gave has none."""


def whole(call: Inputs, output: NDArray[np.float32]) -> NDArray[np.float32]:
    """The `Real` of models that know no padding."""
    return output


@dataclass(frozen=True, slots=True, eq=False)
class Trial:
    """Further calls, compared as numbers: another keyboard, another length.

    Attributes:
        name: what is tried, e.g. "dvorak".
        calls: the calls.
        expected: PyTorch's outputs.
    """

    name: str
    calls: Sequence[Inputs]
    expected: Outputs


@dataclass(frozen=True, slots=True, eq=False)
class Refusal:
    """A call that the artefact has to refuse, e.g. one frame more than it was declared for."""

    name: str
    call: Inputs


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """What rungs are judged by.

    Attributes:
        calls: the verification samples, which calibration has not seen.
        population: who made them, and which belong together.
        reading: how outputs are read.
        reference: PyTorch's answers, in the artefact's own output classes.
        answer: from outputs to answers, the same for every implementation.
        rounding: largest error of PyTorch's own float32 outputs, against float64.
        trials: what has to agree besides.
        refusals: what has to be refused.
        real: which part of an output counts; PyTorch's outputs here hold nothing else.
        texts: for artefacts that write text: what they have to write, by their own outputs.
    """

    calls: Sequence[Inputs]
    population: Population
    reading: Reading
    reference: Answers
    answer: Callable[[Outputs], Answers]
    rounding: float = 0.0
    trials: tuple[Trial, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    real: Real = whole
    texts: Callable[[Outputs], list[str]] | None = None


def lacking(evidence: Evidence, limits: Limits) -> tuple[str, ...]:
    """Why not even PyTorch's own answers would pass, so that no artefact can; empty if they do."""
    perfect = evidence.reference
    return compare(perfect, perfect, evidence.population, evidence.reading, limits).reasons


def judge(runner: Runner, evidence: Evidence, limits: Limits, level: Level = Level.HOST) -> Verdict:
    """Run all samples through `runner`, which executes at `level`, and compare with PyTorch.

    Raises:
        LoweringError: it cannot be executed, or an output is misshapen or not finite.
    """
    outputs = run_all(runner, evidence.calls, evidence.reference.outputs, evidence.real)
    verdict = compare(
        evidence.reference,
        evidence.answer(outputs),
        evidence.population,
        evidence.reading,
        limits,
        level,
    )
    verdict = verdict.failing(
        f"{trial.name}: {reason}"
        for trial in evidence.trials
        for reason in disagreements(
            trial.expected,
            run_all(runner, trial.calls, trial.expected, evidence.real),
            evidence.reading,
            limits,
        )
    )
    verdict = verdict.failing(_misspelled(runner, evidence, outputs))
    return verdict.failing(
        f"{refusal.name}: accepted, and should have been refused"
        for refusal in evidence.refusals
        if _accepts(runner, refusal.call)
    )


def run_all(
    runner: Runner, calls: Sequence[Inputs], expected: Outputs, real: Real = whole
) -> list[NDArray[np.float32]]:
    """Outputs of every call, one at a time as a phone does: the `real` part, like `expected`.

    Raises:
        LoweringError: an output has another shape, or is not finite and so cannot be decoded.
    """
    outputs: list[NDArray[np.float32]] = []
    bad = total = 0
    for number, (call, wanted) in enumerate(zip(calls, expected, strict=True)):
        output = runner(*call.values())
        row = real(call, output[0]) if output.ndim and len(output) == 1 else output
        if row.shape != wanted.shape:
            raise LoweringError(
                f"sample {number} gives an output of shape {output.shape}, PyTorch's is "
                f"{(1, *wanted.shape)}",
                fix="export again from the checkpoint",
            )
        # What padding gave is counted too: NaN there is one `max` away from what is real.
        bad += output.size - int(np.isfinite(output).sum())
        total += output.size
        outputs.append(row)
    if bad:
        raise LoweringError(f"{bad} of {total} outputs are NaN or Inf", fix="use another rung")
    return outputs


def _accepts(runner: Runner, call: Inputs) -> bool:
    try:
        runner(*call.values())
    except GateError:
        return False
    return True


def _misspelled(runner: Runner, evidence: Evidence, outputs: Outputs) -> Iterator[str]:
    """Why the text is not what the artefact's own `outputs` spell; exact on every rung."""
    if evidence.texts is None:
        return
    if not isinstance(runner, Speaker):
        yield "it gives no text"
        return
    wanted = evidence.texts(outputs)
    given = [runner.speak(*call.values()) for call in evidence.calls]
    wrong = [pair for pair in zip(wanted, given, strict=True) if pair[0] != pair[1]]
    if wrong:
        yield (
            f"{len(wrong)} of {len(given)} texts are not what its own outputs spell, "
            f"e.g. {wrong[0][1]!r} for {wrong[0][0]!r}"
        )
