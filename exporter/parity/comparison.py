"""One implementation's answers against PyTorch's: every figure, every limit, one verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exporter.parity.cost import RULE_OF_THREE, Cost, accuracy_cost
from exporter.parity.outputs import (
    Agreement,
    Decisions,
    Kind,
    Outputs,
    Reading,
    differences,
    misses,
    unsound,
)
from exporter.parity.verdict import Level, Limits, Status, Verdict, refused
from swipe.scoring import Edits, count_edits


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """What one implementation said about the verification samples.

    Attributes:
        outputs: one array per sample, without the batch axis.
        words: decoded candidates per sample, best first; None where nothing is decoded.
        scores: in [0, 1] per sample, by name, e.g. "top1"; the first is what the accuracy budget
            is about. Empty where nobody knows what is right.
    """

    outputs: Outputs
    words: Sequence[Sequence[str]] | None = None
    scores: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Population:
    """Who made the samples, and which belong together.

    Attributes:
        writers: of each sample; those of one writer are alike.
        strata: the members of each part, bool[N] by name; parts without members are left out.
    """

    writers: Sequence[str]
    strata: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Metrics:
    """Agreement with PyTorch and accuracy, on the same samples.

    Attributes:
        samples: how many were compared.
        max_abs_delta: largest difference of any number.
        mean_abs_delta: mean difference of all numbers.
        agreement: of the decisions; None for outputs that are values.
        greedy_agreement: share of equal greedy strings; CTC only, as the next.
        greedy_edits: letters of the greedy strings that were substituted, deleted and inserted,
            against PyTorch's, whose letters are counted too.
        word_agreement: share of equal first candidates; None where nothing is decoded.
        scores: means in percent, by name.
        reference_scores: PyTorch's.
        cost: of the first score; None where there are no scores.
    """

    samples: int
    max_abs_delta: float
    mean_abs_delta: float
    agreement: Agreement | None
    greedy_agreement: float | None
    greedy_edits: Edits | None
    word_agreement: float | None
    scores: dict[str, float]
    reference_scores: dict[str, float]
    cost: Cost | None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready fields."""
        return {**asdict(self), "cost": None if self.cost is None else self.cost.to_dict()}


def compare(
    reference: Answers,
    candidate: Answers,
    population: Population,
    reading: Reading,
    limits: Limits,
    level: Level = Level.HOST,
) -> Verdict:
    """Judge `candidate`, which was executed at `level`, against PyTorch's `reference`."""
    reason = _unsound(reference, candidate, population, reading)
    if reason is not None:
        return refused(reason, level)
    metrics = measure(reference, candidate, population, reading)
    reasons = list(misses(metrics.max_abs_delta, metrics.agreement, limits))
    status = Status.FAIL if reasons else Status.PASS
    if metrics.cost is not None:
        outcome, why = metrics.cost.judge(limits.accuracy_drop)
        if outcome is Status.FAIL or (limits.bounded and outcome is Status.UNVERIFIED):
            reasons.append(why)
            status = Status.FAIL if Status.FAIL in (status, outcome) else Status.UNVERIFIED
    elif (lack := untold(metrics, limits)) is not None:
        reasons.append(lack)
        status = Status.FAIL if status is Status.FAIL else Status.UNVERIFIED
    return Verdict(status, level, tuple(reasons), metrics.to_dict())


def untold(metrics: Metrics, limits: Limits) -> str | None:
    """Why outputs that no metric scores do not tell what was lost; None where they do.

    Decisions that all agree are no proof where there are few: n samples without an error leave
    3 / n possible, as in `exporter.parity.cost`.
    """
    if not limits.bounded or metrics.cost is not None:
        return None
    if metrics.agreement is None:
        return "outputs are values that no metric scores: what they may lose cannot be told"
    allowed = 1.0 - limits.frame_agreement
    # Rounded, as 3 / (1 - 0.9) is a little more than 30.
    needed = math.ceil(round(RULE_OF_THREE / allowed, 6)) if allowed > 0 else math.inf
    if metrics.samples >= needed:
        return None
    more = f"; {needed:,} would tell" if math.isfinite(needed) else ""
    return f"decisions on {metrics.samples:,} samples may agree by chance{more}"


def measure(
    reference: Answers, candidate: Answers, population: Population, reading: Reading
) -> Metrics:
    """All metrics of two sound answers to the same samples."""
    delta = differences(reference.outputs, candidate.outputs)
    agreement = greedy_agreement = edits = word_agreement = cost = None
    if reading.kind is not Kind.VALUES:
        wanted, given = Decisions.of(reference.outputs), Decisions.of(candidate.outputs)
        agreement = Agreement.between(wanted, given, reading.blank)
        if reading.blank is not None:
            texts = wanted.strings(reading.blank), given.strings(reading.blank)
            greedy_agreement = _equal_share(*texts)
            edits = count_edits(*texts)
    if reference.words is not None and candidate.words is not None:
        word_agreement = _equal_share(_firsts(reference.words), _firsts(candidate.words))
    if reference.scores:
        name = next(iter(reference.scores))
        cost = accuracy_cost(
            reference.scores[name], candidate.scores[name], population.writers, population.strata
        )
    return Metrics(
        samples=len(reference.outputs),
        max_abs_delta=float(delta.max()),
        mean_abs_delta=float(delta.mean()),
        agreement=agreement,
        greedy_agreement=greedy_agreement,
        greedy_edits=edits,
        word_agreement=word_agreement,
        scores={name: 100.0 * float(s.mean()) for name, s in candidate.scores.items()},
        reference_scores={name: 100.0 * float(s.mean()) for name, s in reference.scores.items()},
        cost=cost,
    )


def _unsound(
    reference: Answers, candidate: Answers, population: Population, reading: Reading
) -> str | None:
    """Why nothing may be measured, or None."""
    reason = unsound(reference.outputs, candidate.outputs)
    if reason is not None:
        return reason
    if list(reference.scores) != list(candidate.scores):
        return f"scores {list(candidate.scores)}, PyTorch has {list(reference.scores)}"
    counts = {
        len(reference.outputs),
        len(population.writers),
        *(len(a.words) for a in (reference, candidate) if a.words is not None),
        *(len(s) for a in (reference, candidate) for s in a.scores.values()),
    }
    if len(counts) != 1 or (reference.words is None) != (candidate.words is None):
        return f"{sorted(counts)} outputs, words and scores: some are missing"
    for answers in (reference, candidate):
        if not all(((s >= 0) & (s <= 1)).all() for s in answers.scores.values()):
            return "a score is not in [0, 1]"
    if reading.kind is Kind.CTC and all(
        (row.argmax(axis=-1) == reading.blank).all() for row in reference.outputs
    ):
        return "PyTorch answers nothing but blank: there is nothing to compare"
    return None


def _firsts(words: Sequence[Sequence[str]]) -> list[str | None]:
    return [row[0] if row else None for row in words]


def _equal_share(first: Sequence[object], second: Sequence[object]) -> float:
    return float(np.mean([a == b for a, b in zip(first, second, strict=True)]))
