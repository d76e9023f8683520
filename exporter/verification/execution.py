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

from exporter.conformance import foreign_metadata
from exporter.evidence import Evidence, judge
from exporter.manifest import FILE, Build, Manifest, ModelSource, SwipeSource
from exporter.origins import Subjects, reopen
from exporter.parity import Level, Status, Verdict, refused
from exporter.provenance import THREADS, library_versions, processor
from exporter.targets import Target
from exporter.verification.artefacts import Artefact
from exporter.verification.consistency import leaves
from exporter.verification.contents import wrong_views
from exporter.verification.findings import Finding, Gate, judged, unknown
from swipe.errors import GateError, MissingError, SwipeError
from swipe.progress import Say

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
    source = manifest.source
    try:
        subjects = reopen(folder, source, lexicon=lexicon, say=say)
        if isinstance(source, SwipeSource) and (
            subjects.decoding["sha256"] != source.lexicon_sha256
        ):
            raise GateError(f"{lexicon} is not the lexicon that decoded", fix="name that one")
        evidence = {name: subjects.evidence(name) for name in {a.view for a in artefacts}}
        rounding = subjects.rounding()
    except SwipeError as error:
        # Whatever is wrong with checkpoint, samples or lexicon was refused by name before; what is
        # wrong with a factory is said here.
        yield from _not_executed(manifest, artefacts, str(error), matters=True)
        return
    if isinstance(source, ModelSource):
        other = subjects.calibration_sha256 != source.calibration_sha256
        reasons = ["the factory gives other samples than it was calibrated on"] if other else []
        yield judged(Gate.CALIBRATION, "", reasons)
        yield judged(Gate.VIEWS, "", wrong_views(subjects.describe(), manifest))
    yield judged(Gate.ROUNDING, "PyTorch", _other_rounding(manifest, rounding))
    for artefact in artefacts:
        yield _executed(manifest, artefact, subjects, evidence[artefact.view], say)


def left_out(manifest: Manifest, artefacts: list[Artefact]) -> Iterator[Finding]:
    """What is said when nothing is executed."""
    return _not_executed(manifest, artefacts, "nothing was executed: add --deep", matters=False)


def _not_executed(
    manifest: Manifest, artefacts: list[Artefact], why: str, *, matters: bool
) -> Iterator[Finding]:
    if isinstance(manifest.source, ModelSource):
        # Only the factory tells, and its code is not run but to execute.
        yield unknown(Gate.CALIBRATION, "", why, matters=matters)
        yield unknown(Gate.VIEWS, "", why, matters=matters)
    for artefact in artefacts:
        yield unknown(Gate.EXECUTION, artefact.path.name, why, matters=matters)


def _other_rounding(manifest: Manifest, found: float) -> Iterator[str]:
    recorded = manifest.source.reference_rounding
    if not (found / ROUNDING_FACTOR <= recorded <= found * ROUNDING_FACTOR):
        yield f"{found:.2e}, {FILE} says {recorded:.2e}"


def _executed(
    manifest: Manifest, artefact: Artefact, subjects: Subjects, evidence: Evidence, say: Say
) -> Finding:
    name, target = artefact.path.name, artefact.target
    if not target.level.executed:
        where = "/".join(target.executes_on)
        return unknown(Gate.EXECUTION, name, f"executes on {where} only", matters=True)
    say(f"{name}: executing")
    try:
        verdict = _judged_again(manifest, artefact, subjects, evidence)
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


def _judged_again(
    manifest: Manifest, artefact: Artefact, subjects: Subjects, evidence: Evidence
) -> Verdict:
    target, rounding = artefact.target, manifest.source.reference_rounding
    try:
        # Of anyone's model this is more than can be told without its factory.
        foreign = foreign_metadata(target, artefact.path, subjects.metadata(artefact.view))
        if foreign is not None:
            return refused(foreign, target.level)
        limits = target.find_rung(artefact.entry.rung).limits_within(
            manifest.accuracy_budget, rounding
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
