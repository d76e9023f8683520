"""What became of each check: a gate, what it was about, and how it ended."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum

from swipe.errors import ExitCode


class Outcome(StrEnum):
    """How a check ended. What was not looked at is never VERIFIED."""

    VERIFIED = "VERIFIED"
    REFUSED = "REFUSED"
    CANNOT = "CANNOT BE RECOMPUTED"


class Gate(StrEnum):
    """What is checked."""

    SCHEMA = "schema"
    SEAL = "manifest hash"
    FILES = "files"
    RUNGS = "rungs"
    VERDICTS = "verdicts"
    FIGURES = "figures"
    RECIPE = "recipe"
    BUILD = "build"
    CHECKPOINT = "checkpoint"
    WEIGHTS = "weights hash"
    CONTRACT = "contract"
    VIEWS = "views"
    SWIPES = "verification swipes"
    CALIBRATION = "calibration swipes"
    LEXICON = "lexicon"
    DECODER = "decoder"
    REPORT = "report"
    HASH = "artefact hash"
    SIZE = "artefact size"
    METADATA = "embedded contract"
    FACTS = "artefact facts"
    SIGNATURE = "inputs and outputs"
    EXECUTION = "execution"
    ROUNDING = "reference rounding"
    SIGNED = "signature"


@dataclass(frozen=True, slots=True)
class Finding:
    """One check.

    Attributes:
        gate: which.
        about: what it looked at: a file, a format, or nothing in particular.
        outcome: how it ended.
        detail: why, unless it is VERIFIED; what was found, where that is of interest.
        matters: whether a bundle is unverified while this cannot be recomputed.
    """

    gate: Gate
    about: str
    outcome: Outcome
    detail: str = ""
    matters: bool = True

    def to_dict(self) -> dict[str, str | bool]:
        """JSON-ready fields."""
        return {**asdict(self), "gate": str(self.gate), "outcome": str(self.outcome)}


def judged(gate: Gate, about: str, reasons: Iterable[str], detail: str = "") -> Finding:
    """VERIFIED, or REFUSED for all `reasons`."""
    found = "; ".join(reasons)
    if found:
        return Finding(gate, about, Outcome.REFUSED, found)
    return Finding(gate, about, Outcome.VERIFIED, detail)


def unknown(gate: Gate, about: str, why: str, *, matters: bool) -> Finding:
    """CANNOT BE RECOMPUTED, because of `why`."""
    return Finding(gate, about, Outcome.CANNOT, why, matters)


def exit_code(findings: Iterable[Finding]) -> ExitCode:
    """What the findings tell the shell."""
    listed = list(findings)
    if any(finding.outcome is Outcome.REFUSED for finding in listed):
        return ExitCode.GATE_FAILED
    missing = any(finding.outcome is Outcome.CANNOT and finding.matters for finding in listed)
    return ExitCode.UNVERIFIED if missing or not listed else ExitCode.OK
