"""Artefacts executed again on the bundle's swipes: the same verdict, and the same figures?

Figures are compared within a tolerance. On the kind of machine that exported (system, int8
instructions, versions of the libraries that compute) one thread gives the same numbers, and the
tolerance is for kernels that block by the cache at hand; elsewhere int8 kernels add otherwise.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from exporter.evidence import judge
from exporter.ladder import Say, limits_of
from exporter.manifest import FILE, Build, Manifest
from exporter.parity import Level, Status, Verdict, refused
from exporter.provenance import THREADS, library_versions, processor
from exporter.reopened import Reopened, reopen
from exporter.targets import Target
from exporter.verification.artefacts import Artefact
from exporter.verification.consistency import leaves
from exporter.verification.findings import Finding, Gate, judged, unknown
from swipe.errors import GateError, MissingError, SwipeError

COMPUTING: Final = ("torch", "numpy")
ROUNDING_FACTOR: Final = 2.0


@dataclass(frozen=True, slots=True)
class Tolerance:
    """By how much figures may differ from the manifest's.

    Attributes:
        swipes: how many swipes may end otherwise, in scores and in shares of them.
        share: how much shares of frames may differ.
        delta: relative difference of the largest and the mean output difference, beside 1e-4.
    """

    swipes: float
    share: float
    delta: float

    def allows(self, name: str, recorded: float, total: float) -> float:
        """The largest difference of the figure called `name`, of `total` swipes."""
        group, _, leaf = name.partition(".")
        points = 100.0 * self.swipes / total
        if leaf in ("samples", "letters") or group == "samples":
            return 0.0
        if group.endswith("abs_delta"):
            return 1e-4 + self.delta * abs(recorded)
        if group == "greedy_edits":
            return max(self.swipes * 2, self.share * total * 10)
        if group == "cost":
            # The bound and the worst part rest on fewer swipes than all of them.
            return points if leaf == "drop" else 4 * points
        if group in ("scores", "reference_scores"):
            return points
        return max(self.share, self.swipes / total)


SAME_KIND: Final = Tolerance(swipes=1, share=0.002, delta=0.1)
ANOTHER_KIND: Final = Tolerance(swipes=4, share=0.02, delta=1.0)


def check_execution(
    folder: Path, manifest: Manifest, artefacts: list[Artefact], lexicon: str | None, say: Say
) -> Iterator[Finding]:
    """Judge every artefact again and compare with what the manifest says."""
    import torch

    torch.set_num_threads(THREADS)
    try:
        reopened = reopen(folder, manifest, lexicon, say)
        if reopened.lexicon.sha256 != manifest.source.lexicon_sha256:
            raise GateError(f"{lexicon} is not the lexicon that decoded", fix="name that one")
    except SwipeError as error:
        # Whatever is wrong with checkpoint, swipes or lexicon was refused by name before.
        for artefact in artefacts:
            yield unknown(Gate.EXECUTION, artefact.path.name, str(error), matters=True)
        return
    yield judged(Gate.ROUNDING, "PyTorch", _other_rounding(manifest, reopened))
    for artefact in artefacts:
        yield _executed(manifest, artefact, reopened, say)


def left_out(artefacts: list[Artefact]) -> Iterator[Finding]:
    """What is said when nothing is executed."""
    for artefact in artefacts:
        why = "nothing was executed: add --deep"
        yield unknown(Gate.EXECUTION, artefact.path.name, why, matters=False)


def _other_rounding(manifest: Manifest, reopened: Reopened) -> Iterator[str]:
    recorded, found = manifest.source.reference_rounding, reopened.rounding
    if not (found / ROUNDING_FACTOR <= recorded <= found * ROUNDING_FACTOR):
        yield f"{found:.2e}, {FILE} says {recorded:.2e}"


def _executed(manifest: Manifest, artefact: Artefact, reopened: Reopened, say: Say) -> Finding:
    name, target = artefact.path.name, artefact.target
    if not target.level.executed:
        where = "/".join(target.executes_on)
        return unknown(Gate.EXECUTION, name, f"executes on {where} only", matters=True)
    say(f"{name}: executing")
    try:
        verdict = _judged_again(manifest, artefact, reopened)
    except MissingError as error:
        return unknown(Gate.EXECUTION, name, str(error), matters=True)
    same = is_same_kind(artefact.build, target)
    tolerance = SAME_KIND if same else ANOTHER_KIND
    recorded = artefact.entry.verdict
    reasons = []
    if Level(recorded.level).executed or verdict.status is Status.FAIL:
        if verdict.status is not Status(recorded.status):
            why = f" ({'; '.join(verdict.reasons)})" if verdict.reasons else ""
            reasons.append(f"{verdict.status}{why}, {FILE} says {recorded.status}")
        reasons += differences(recorded.metrics or {}, verdict.metrics or {}, tolerance)
    kind = "the same" if same else "another"
    return judged(Gate.EXECUTION, name, reasons, f"{verdict.status} on {kind} kind of machine")


def _judged_again(manifest: Manifest, artefact: Artefact, reopened: Reopened) -> Verdict:
    target, source = artefact.target, manifest.source
    evidence = reopened.evidence[artefact.view.name]
    try:
        limits = limits_of(
            target, artefact.entry.rung, source.accuracy_budget, source.reference_rounding
        )
        runner = target.format().load(artefact.path, THREADS)
        return judge(runner, evidence, limits, target.level)
    except GateError as error:
        return refused(str(error), target.level)


def is_same_kind(build: Build, target: Target) -> bool:
    """Whether this machine computes as the one of `build` did."""
    versions = library_versions()
    libraries = [*COMPUTING, *target.libraries]
    return (
        build.platform == f"{platform.system()} {platform.machine()}"
        and build.processor_flags == processor().flags
        and all(build.versions.get(name) == versions.get(name) for name in libraries)
    )


def differences(
    recorded: Mapping[str, Any], found: Mapping[str, Any], tolerance: Tolerance
) -> list[str]:
    """Figures that differ from the `recorded` ones by more than `tolerance` allows."""
    ours, theirs = dict(leaves(dict(found))), dict(leaves(dict(recorded)))
    total = ours.get("samples", 1.0)
    return [
        f"{name} is {ours.get(name)}, {FILE} says {theirs.get(name)}"
        for name in sorted(ours.keys() | theirs.keys())
        if name not in ours
        or name not in theirs
        or not (abs(ours[name] - theirs[name]) <= tolerance.allows(name, theirs[name], total))
    ]
