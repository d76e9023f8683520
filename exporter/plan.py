"""What an export would do, before it does it: every format, view and rung, and why not the others.

Nothing is built, loaded or proven; the estimate is what such a rung took when it was last built by
this user, whatever the model was, and is absent where there was none.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from exporter.policy import Policy
from exporter.targets import Rung, Target, is_installed, missing_libraries
from swipe.errors import ExitCode

if TYPE_CHECKING:
    from exporter.views import View

Durations = Mapping[tuple[str, str, str], Sequence[float]]
"""Seconds that rungs took, by format, view and rung."""


class Fate(StrEnum):
    """What becomes of a rung."""

    TRIED = "tried"
    FALLBACK = "if refused"
    EXCLUDED = "excluded"


@dataclass(frozen=True, slots=True)
class Row:
    """One rung of one format and view.

    Attributes:
        format: the format.
        view: the view.
        rung: the rung.
        fate: what will become of it.
        reason: why it is excluded, or on what it depends; empty otherwise.
        level: how far its artefact can be checked on this machine, empty when it is excluded.
        level_reason: why no further, empty where the format's own runtime executes it.
        seconds: about how long it takes, None when nothing is known.
    """

    format: str
    view: str
    rung: str
    fate: Fate
    reason: str
    level: str
    level_reason: str
    seconds: float | None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready fields."""
        return {name: getattr(self, name) for name in self.__slots__}


def plan(
    targets: Sequence[Target], views: Sequence[View], policy: Policy, durations: Durations
) -> list[Row]:
    """Every rung of `targets` for the `views`, in the order an export would come to them."""
    return [
        _row(target, view.name, rung, fate, reason, durations)
        for target in targets
        for view in views
        for rung, fate, reason in _fates(target, view, policy)
    ]


def _fates(target: Target, view: View, policy: Policy) -> Iterator[tuple[Rung, Fate, str]]:
    """What becomes of each rung of `target`; the float one is built first."""
    impossible = view.excluded(target.name)
    missing = dict.fromkeys(missing_libraries(target), target.extra)
    missing |= {name: e for name, e in view.libraries.items() if not is_installed(name)}
    quantized = list(target.rungs[:-1])
    for rung in (target.baseline, *quantized):
        if impossible is not None:
            yield rung, Fate.EXCLUDED, impossible
        elif missing:
            extras = ",".join(dict.fromkeys(missing.values()))
            why = f"not installed: {', '.join(missing)}"
            yield rung, Fate.EXCLUDED, f"{why}; pip install 'swipe-export[{extras}]'"
        elif rung is target.baseline:
            yield rung, Fate.TRIED, ""
        elif not policy.quantize:
            yield rung, Fate.EXCLUDED, "--no-quantize"
        elif rung is quantized[0]:
            yield rung, Fate.TRIED, ""
        else:
            before = quantized[quantized.index(rung) - 1].name
            yield rung, Fate.FALLBACK, f"only when {before} is refused"


def _row(
    target: Target, view: str, rung: Rung, fate: Fate, reason: str, durations: Durations
) -> Row:
    excluded = fate is Fate.EXCLUDED
    known = durations.get((target.name, view, rung.name), ())
    return Row(
        format=target.name,
        view=view,
        rung=rung.name,
        fate=fate,
        reason=reason,
        level="" if excluded else str(target.level),
        level_reason="" if excluded else level_reason(target),
        seconds=None if excluded or not known else round(statistics.median(known), 1),
    )


def level_reason(target: Target) -> str:
    """Why artefacts of `target` are not executed in the format's own runtime here, if so."""
    if target.level == "host":
        return ""
    where = f"its own runtime is on {'/'.join(target.executes_on)} only"
    return f"{where}; {'interpreted' if target.interpreted else 'its structure is checked'} here"


def total_seconds(rows: Sequence[Row]) -> float | None:
    """What the rungs that are tried in any case take one after another; None when unknown."""
    tried = [row.seconds for row in rows if row.fate is Fate.TRIED]
    known = [seconds for seconds in tried if seconds is not None]
    return sum(known) if known and len(known) == len(tried) else None


def exit_code(rows: Sequence[Row]) -> ExitCode:
    """What the export would end with if nothing is refused."""
    if any(row.reason.startswith("not installed") for row in rows):
        return ExitCode.MISSING
    return ExitCode.OK
