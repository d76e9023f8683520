"""What is known of an artefact, how far it was checked, and what it may differ by."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final

ROUNDING_MARGIN: Final = 10.0
"""Multiple of PyTorch's own float32 rounding error that a float32 artefact may differ by."""


class Status(StrEnum):
    """What is known of an artefact. Only PASS is a pass."""

    PASS = "PASS"
    FAIL = "FAIL"
    UNVERIFIED = "UNVERIFIED"


class Level(StrEnum):
    """How far an artefact was checked, weakest first.

    Its structure only; by executing what its file says in an interpreter of ours; in the format's
    own runtime on this machine; in that runtime on an emulated phone processor; on a phone.
    """

    STRUCTURAL = "structural"
    REFERENCE = "reference"
    HOST = "host"
    ARM64 = "arm64"
    DEVICE = "device"

    @property
    def executed(self) -> bool:
        """Whether anything ran."""
        return self is not Level.STRUCTURAL


@dataclass(frozen=True, slots=True)
class Limits:
    """What an artefact may differ by from PyTorch.

    Attributes:
        max_abs_delta: largest |output difference|; None where quantization makes it meaningless.
        frame_agreement: least share of equal decisions among those where either side spoke.
        decisive_agreement: the same among the decisions that PyTorch was sure of.
        blank_drift: most that the share of blank frames may change, either way.
        accuracy_drop: most points of accuracy that may be lost.
        bounded: whether the loss has to stay below `accuracy_drop` with its statistical bound, and
            not only as measured; what no metric scores is UNVERIFIED then if it is values, or
            too few decisions. Outputs that are the same numbers need no statistics.
    """

    max_abs_delta: float | None
    frame_agreement: float
    accuracy_drop: float
    decisive_agreement: float = 0.0
    blank_drift: float = 1.0
    bounded: bool = False

    def allowing(self, rounding: float) -> Limits:
        """These limits, for a model whose own float32 arithmetic is off by up to `rounding`.

        No float32 artefact can agree better with PyTorch than PyTorch agrees with exact
        arithmetic; other kernels add in another order, so a few times that error is honest.
        """
        if self.max_abs_delta is None:
            return self
        return replace(self, max_abs_delta=max(self.max_abs_delta, ROUNDING_MARGIN * rounding))


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome of a comparison.

    Attributes:
        status: PASS only when every check was made and held.
        level: how far the artefact was checked.
        reasons: why it is not a pass; empty exactly for PASS.
        metrics: JSON-ready figures; None when there was nothing sound to measure.
        lasting: whether it rests on what the artefact is. False where an error or the clock refused
            it: memory may have run out, or the machine was busy.
    """

    status: Status
    level: Level
    reasons: tuple[str, ...]
    metrics: dict[str, Any] | None = None
    lasting: bool = True

    def failing(self, reasons: Iterable[str]) -> Verdict:
        """This verdict, or a failure that also has these `reasons` if there are any."""
        added = tuple(reasons)
        return replace(self, status=Status.FAIL, reasons=self.reasons + added) if added else self

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready fields of the outcome."""
        return {
            "status": str(self.status),
            "level": str(self.level),
            "reasons": list(self.reasons),
            "metrics": self.metrics,
        }


def unverified(reason: str) -> Verdict:
    """The verdict on an artefact that could be inspected but not executed here."""
    return Verdict(Status.UNVERIFIED, Level.STRUCTURAL, (reason,))


def refused(reason: str, level: Level = Level.STRUCTURAL) -> Verdict:
    """The verdict on an artefact that failed before anything could be compared."""
    return Verdict(Status.FAIL, level, (reason,))
