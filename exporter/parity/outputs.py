"""Outputs against PyTorch's, as numbers and as the decisions that they amount to.

Outputs come as one array per sample, since sequences differ in length; figures are over all
numbers, or over all decisions: no sample, frame or class is weighed by the shape it came in.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from exporter.parity.verdict import Limits

Outputs = Sequence[NDArray[np.float32]]
"""One array per sample, without the batch axis."""

IMPOSSIBLE: Final = -1e3
"""A log-probability below which a class is as good as masked."""

MARGIN: Final = 2.0
"""How much the best class has to lead, in nats, for a decision to count as sure: odds of 7 to 1."""


class Kind(StrEnum):
    """What the numbers are."""

    CTC = "ctc"
    """Scores ``[T, C]`` of every frame, one class of them the blank."""
    CLASSES = "classes"
    """Scores over the last axis."""
    VALUES = "values"
    """Numbers that mean themselves."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How outputs are read.

    Attributes:
        kind: what they are.
        blank: the class that means nothing was written; CTC only.
    """

    kind: Kind
    blank: int | None = None


@dataclass(frozen=True, slots=True)
class Decisions:
    """The best class of every frame of all samples, of one implementation.

    Attributes:
        best: int64[F].
        lead: float64[F], by how much it leads.
        lengths: frames of each sample.
    """

    best: NDArray[np.int64]
    lead: NDArray[np.float64]
    lengths: NDArray[np.int64]

    @classmethod
    def of(cls, outputs: Outputs) -> Decisions:
        """Those of finite `outputs` ``[..., C]``, C of at least 2."""
        frames = np.concatenate([row.reshape(-1, row.shape[-1]) for row in outputs])
        top = np.partition(frames.astype(np.float64), -2, axis=1)
        counts = np.array([row.size // row.shape[-1] for row in outputs], dtype=np.int64)
        return cls(frames.argmax(axis=1), top[:, -1] - top[:, -2], counts)

    def strings(self, blank: int) -> list[str]:
        """Greedy CTC of each sample, a character per class."""
        written = []
        for best in np.split(self.best, np.cumsum(self.lengths)[:-1]):
            previous = np.concatenate([[blank], best[:-1]])
            kept = best[(best != previous) & (best != blank)]
            written.append("".join(map(chr, kept + ord("!"))))
        return written


@dataclass(frozen=True, slots=True)
class Agreement:
    """Decisions against PyTorch's; shares in [0, 1].

    Attributes:
        frames: of equal decisions, among the frames where either side spoke; most frames are blank
            and would hide the ones that spell. 1 where nobody spoke.
        decisive: the same, of those where PyTorch's best class leads by `MARGIN`.
        blank_drift: blank share minus PyTorch's; 0 without a blank.
    """

    frames: float
    decisive: float
    blank_drift: float

    @classmethod
    def between(cls, reference: Decisions, candidate: Decisions, blank: int | None) -> Agreement:
        """That of `candidate` with PyTorch's `reference`."""
        ours, theirs = candidate.best, reference.best
        spoken = (ours != blank) | (theirs != blank)
        return cls(
            frames=_share((ours == theirs)[spoken]),
            decisive=_share((ours == theirs)[spoken & (reference.lead >= MARGIN)]),
            blank_drift=float((ours == blank).mean() - (theirs == blank).mean()),
        )


def unsound(reference: Outputs, candidate: Outputs) -> str | None:
    """Why the numbers may not be compared, or None."""
    if not reference:
        return "no sample was compared"
    if len(reference) != len(candidate):
        return f"{len(candidate)} outputs, PyTorch gave {len(reference)}: some are missing"
    for number, (wanted, given) in enumerate(zip(reference, candidate, strict=True)):
        if wanted.shape != given.shape:
            return f"output shape {given.shape} of sample {number}, PyTorch's is {wanted.shape}"
    for name, outputs in (("PyTorch", reference), ("the artefact", candidate)):
        total = sum(row.size for row in outputs)
        bad = total - sum(int(np.isfinite(row).sum()) for row in outputs)
        if bad or not total:
            return f"{bad} of {total} outputs of {name} are NaN or Inf"
    return None


def differences(reference: Outputs, candidate: Outputs) -> NDArray[np.float64]:
    """|candidate - reference| of every number, where `IMPOSSIBLE` is as low as either gets."""
    wanted, given = (
        np.maximum(np.concatenate([row.ravel() for row in rows]), IMPOSSIBLE, dtype=np.float64)
        for rows in (reference, candidate)
    )
    delta: NDArray[np.float64] = np.abs(given - wanted)
    return delta


def disagreements(
    reference: Outputs, candidate: Outputs, reading: Reading, limits: Limits
) -> tuple[str, ...]:
    """Why `candidate` is not what PyTorch says, by its numbers alone; empty if it is."""
    reason = unsound(reference, candidate)
    if reason is not None:
        return (reason,)
    largest = float(differences(reference, candidate).max())
    agreement = None
    if reading.kind is not Kind.VALUES:
        agreement = Agreement.between(
            Decisions.of(reference), Decisions.of(candidate), reading.blank
        )
    return tuple(misses(largest, agreement, limits))


def misses(max_abs_delta: float, agreement: Agreement | None, limits: Limits) -> Iterator[str]:
    """Which limits on the outputs are missed; the figure named first is what would have passed."""
    if limits.max_abs_delta is not None and not (max_abs_delta <= limits.max_abs_delta):
        yield f"max |delta| {max_abs_delta:.2e} exceeds {limits.max_abs_delta:.1e}"
    if agreement is None:
        return
    if not (agreement.frames >= limits.frame_agreement):
        yield (f"per-frame agreement {agreement.frames:.2%} is below {limits.frame_agreement:.2%}")
    if not (agreement.decisive >= limits.decisive_agreement):
        yield (
            f"agreement where PyTorch is sure {agreement.decisive:.2%} is below "
            f"{limits.decisive_agreement:.2%}"
        )
    if not (abs(agreement.blank_drift) <= limits.blank_drift):
        yield (
            f"share of blank frames changes by {agreement.blank_drift:+.2%}, more than "
            f"{limits.blank_drift:.2%}"
        )


def _share(equal: NDArray[np.bool_]) -> float:
    return float(equal.mean()) if equal.size else 1.0
