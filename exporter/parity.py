"""Parity: does an artefact still say what PyTorch says? Numpy only, fail-closed.

Nothing here repairs, drops or averages away a bad value: NaN, Inf, a missing or misshapen output
and zero samples are failures before any metric is computed, and every limit is written
``not (value <= limit)`` so that NaN fails it.

What it leaves out: running anything. It compares arrays and decoded words that others produced.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

ROUNDING_MARGIN: Final = 10.0
"""Multiple of PyTorch's own float32 rounding error that a float32 artefact may differ by."""

IMPOSSIBLE: Final = -1e3
"""A log-probability below which a class is as good as masked."""


class Status(StrEnum):
    """What is known of an artefact. Only PASS is a pass."""

    PASS = "PASS"
    FAIL = "FAIL"
    UNVERIFIED = "UNVERIFIED"


class Level(StrEnum):
    """How far an artefact was checked: its structure only, or by executing it on this host."""

    STRUCTURAL = "structural"
    HOST = "host"


@dataclass(frozen=True, slots=True)
class Limits:
    """What an artefact may differ by.

    Attributes:
        max_abs_delta: largest |logit difference|; None where quantization makes it meaningless.
        frame_agreement: least share of agreeing frames among those where either side spoke.
        accuracy_drop: most points of decoded top-1 that may be lost.
    """

    max_abs_delta: float | None
    frame_agreement: float
    accuracy_drop: float

    def allowing(self, rounding: float) -> Limits:
        """These limits, for a model whose own float32 arithmetic is off by up to `rounding`.

        No float32 artefact can agree better with PyTorch than PyTorch agrees with exact
        arithmetic; other kernels add in another order, so a few times that error is honest.
        """
        if self.max_abs_delta is None:
            return self
        return replace(self, max_abs_delta=max(self.max_abs_delta, ROUNDING_MARGIN * rounding))


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """What one implementation said about the verification swipes.

    Attributes:
        logits: float32[N, T, C], or log-probabilities; the blank is the last class.
        words: decoded candidates per swipe, best first.
    """

    logits: NDArray[np.float32]
    words: Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True)
class Metrics:
    """Agreement with PyTorch and accuracy against the truth, on the same swipes.

    Frames agree when their argmax is the same; frames where both say blank are left out, because
    most frames are blank and would hide the ones that spell the word. Outputs below `IMPOSSIBLE`
    count as equal: at -1e4, where masks put a class, neighbouring floats are 1e-3 apart.

    Shares are in [0, 1], accuracies and drops in percentage points.
    """

    samples: int
    max_abs_delta: float
    mean_abs_delta: float
    frame_agreement: float
    word_agreement: float
    top1: float
    top4: float
    reference_top1: float
    reference_top4: float
    accuracy_drop: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome of a comparison.

    Attributes:
        status: PASS only when every check was made and held.
        level: how far the artefact was checked.
        reasons: why it is not a pass; empty exactly for PASS.
        metrics: None when there was nothing sound to measure.
    """

    status: Status
    level: Level
    reasons: tuple[str, ...]
    metrics: Metrics | None = None

    def failing(self, reasons: Iterable[str]) -> Verdict:
        """This verdict, or a failure that also has these `reasons` if there are any."""
        added = tuple(reasons)
        return replace(self, status=Status.FAIL, reasons=self.reasons + added) if added else self

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready fields."""
        return {
            "status": str(self.status),
            "level": str(self.level),
            "reasons": list(self.reasons),
            "metrics": None if self.metrics is None else asdict(self.metrics),
        }


def unverified(reason: str) -> Verdict:
    """The verdict on an artefact that could be inspected but not executed here."""
    return Verdict(Status.UNVERIFIED, Level.STRUCTURAL, (reason,))


def refused(reason: str, level: Level = Level.STRUCTURAL) -> Verdict:
    """The verdict on an artefact that failed before anything could be compared."""
    return Verdict(Status.FAIL, level, (reason,))


def compare(
    reference: Answers, candidate: Answers, truths: Sequence[str], limits: Limits
) -> Verdict:
    """Judge `candidate` against PyTorch's `reference` on swipes whose words are `truths`."""
    unsound = _unsound(reference, candidate, truths)
    if unsound is not None:
        return refused(unsound, Level.HOST)
    metrics = measure(reference, candidate, truths)
    reasons = list(_misses(metrics.max_abs_delta, metrics.frame_agreement, limits))
    if not (metrics.accuracy_drop <= limits.accuracy_drop):
        reasons.append(
            f"decoded top-1 falls {metrics.accuracy_drop:.2f} points, the budget is "
            f"{limits.accuracy_drop:.2f}"
        )
    status = Status.FAIL if reasons else Status.PASS
    return Verdict(status, Level.HOST, tuple(reasons), metrics)


def disagreements(
    reference: NDArray[np.float32], candidate: NDArray[np.float32], limits: Limits
) -> tuple[str, ...]:
    """Why outputs ``[N, T, C]`` are not PyTorch's, by their numbers alone; empty if they are."""
    unsound = _unsound_outputs(reference, candidate)
    if unsound is not None:
        return (unsound,)
    largest = float(_differences(reference, candidate).max())
    return tuple(_misses(largest, _agreement(reference, candidate), limits))


def measure(reference: Answers, candidate: Answers, truths: Sequence[str]) -> Metrics:
    """All metrics of two sound answers of equal shape."""
    delta = _differences(reference.logits, candidate.logits)
    same = [_first(a) == _first(b) for a, b in zip(reference.words, candidate.words, strict=True)]
    top1, top4 = _accuracy(candidate, truths)
    reference_top1, reference_top4 = _accuracy(reference, truths)
    return Metrics(
        samples=len(truths),
        max_abs_delta=float(delta.max()),
        mean_abs_delta=float(delta.mean()),
        frame_agreement=_agreement(reference.logits, candidate.logits),
        word_agreement=float(np.mean(same)),
        top1=top1,
        top4=top4,
        reference_top1=reference_top1,
        reference_top4=reference_top4,
        accuracy_drop=reference_top1 - top1,
    )


def _unsound(reference: Answers, candidate: Answers, truths: Sequence[str]) -> str | None:
    """Why nothing may be measured, or None."""
    if not truths:
        return "no sample was compared"
    unsound = _unsound_outputs(reference.logits, candidate.logits)
    if unsound is not None:
        return unsound
    counts = {len(truths), len(reference.logits), len(reference.words), len(candidate.words)}
    if len(counts) != 1:
        return f"{sorted(counts)} words, logits and decoded lists: some outputs are missing"
    if (reference.logits.argmax(axis=-1) == reference.logits.shape[-1] - 1).all():
        return "PyTorch answers nothing but blank: there is nothing to compare"
    return None


def _unsound_outputs(reference: NDArray[np.float32], candidate: NDArray[np.float32]) -> str | None:
    if candidate.shape != reference.shape:
        return f"output shape {candidate.shape}, PyTorch's is {reference.shape}"
    for name, outputs in (("PyTorch", reference), ("the artefact", candidate)):
        bad = int(outputs.size - np.isfinite(outputs).sum())
        if bad:
            return f"{bad} of {outputs.size} outputs of {name} are NaN or Inf"
    return None


def _differences(
    reference: NDArray[np.float32], candidate: NDArray[np.float32]
) -> NDArray[np.float64]:
    """|candidate - reference|, where `IMPOSSIBLE` is as low as either gets."""
    wanted = np.maximum(reference, IMPOSSIBLE, dtype=np.float64)
    delta: NDArray[np.float64] = np.abs(
        np.maximum(candidate, IMPOSSIBLE, dtype=np.float64) - wanted
    )
    return delta


def _agreement(reference: NDArray[np.float32], candidate: NDArray[np.float32]) -> float:
    """Share of equal argmaxes among the frames where either side spoke; 1 where nobody did."""
    ours, theirs = candidate.argmax(axis=-1), reference.argmax(axis=-1)
    blank = reference.shape[-1] - 1
    spoken = (ours != blank) | (theirs != blank)
    return float((ours == theirs)[spoken].mean()) if spoken.any() else 1.0


def _misses(max_abs_delta: float, frame_agreement: float, limits: Limits) -> Iterator[str]:
    """Which limits on the outputs are missed."""
    if limits.max_abs_delta is not None and not (max_abs_delta <= limits.max_abs_delta):
        yield f"max |delta logit| {max_abs_delta:.2e} exceeds {limits.max_abs_delta:.1e}"
    if not (frame_agreement >= limits.frame_agreement):
        yield f"per-frame agreement {frame_agreement:.2%} is below {limits.frame_agreement:.2%}"


def _first(words: Sequence[str]) -> str | None:
    return words[0] if words else None


def _accuracy(answers: Answers, truths: Sequence[str]) -> tuple[float, float]:
    """Top-1 and top-4 in percent."""
    top1 = [truth in list(words[:1]) for truth, words in zip(truths, answers.words, strict=True)]
    top4 = [truth in list(words[:4]) for truth, words in zip(truths, answers.words, strict=True)]
    return 100.0 * float(np.mean(top1)), 100.0 * float(np.mean(top4))
