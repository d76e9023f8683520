"""The ladder: quantize, verify, fall back; one record per rung.

The float baseline is built and verified first: without it there is neither a size to undercut nor
anything to fall back to. Then the quantized rungs are tried, best first, until one is not refused.
A rung is refused when it cannot be built, is damaged, carries another contract, takes or gives
something else than its view says, is no smaller than the baseline, gives a value that is not
finite, or disagrees with PyTorch beyond its limits.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from exporter.evidence import Evidence, judge
from exporter.formats import Lowering
from exporter.parity import Limits, Status, Verdict, refused, unverified
from exporter.targets import Rung, Target
from exporter.views import CONTRACT_KEY, View
from swipe.errors import GateError, MissingError
from swipe.files import sha256_file, size_bytes

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class RungRecord:
    """What became of one rung.

    Attributes:
        rung: its name.
        taken: whether this is the artefact to ship.
        verdict: how it compares with PyTorch.
        file: the artefact's file name, None when it was refused.
        size_bytes: its size, None when it was not built.
        sha256: of the artefact, None when it was refused.
        facts: what its structure says.
        seconds: time to build and verify.
    """

    rung: str
    taken: bool
    verdict: Verdict
    file: str | None
    size_bytes: int | None
    sha256: str | None
    facts: dict[str, Any]
    seconds: float


def climb(
    target: Target,
    view: View,
    job: Lowering,
    evidence: Evidence,
    folder: Path,
    *,
    quantize: bool,
    budget: float,
    say: Say,
) -> list[RungRecord]:
    """Build and verify the rungs of `target` in `folder`; exactly one record is taken.

    Args:
        target: the format.
        view: what the job is a form of; it names the artefacts.
        job: the model to lower, with its calibration inputs.
        evidence: what to judge by.
        folder: where artefacts go, as ``<stem>.<rung><suffix>``; refused ones are removed.
        quantize: whether quantized rungs are tried.
        budget: points of decoded top-1 that quantization may cost.
        say: told about each step.

    Raises:
        GateError: the float baseline itself was refused, so there is nothing to ship.
    """
    baseline = _try(target, view, target.baseline, job, evidence, folder, None, say)
    if baseline.verdict.status is Status.FAIL:
        raise GateError(
            f"{target.name} {view.name} {baseline.rung} was refused: "
            f"{'; '.join(baseline.verdict.reasons)}",
            fix="nothing was published; mend the model or the format's libraries",
        )
    records: list[RungRecord] = []
    for rung in target.rungs[:-1] if quantize else ():
        budgeted = replace(rung, limits=replace(rung.limits, accuracy_drop=budget))
        record = _try(target, view, budgeted, job, evidence, folder, baseline.size_bytes, say)
        records.append(record)
        if record.verdict.status is not Status.FAIL:
            records[-1] = replace(record, taken=True)
            break
    fell_back = not any(record.taken for record in records)
    return [*records, replace(baseline, taken=fell_back)]


def _try(
    target: Target,
    view: View,
    rung: Rung,
    job: Lowering,
    evidence: Evidence,
    folder: Path,
    must_undercut: int | None,
    say: Say,
) -> RungRecord:
    """Build one rung and judge it; a refused artefact is removed."""
    path = folder / f"{view.stem}.{rung.name}{target.suffix}"
    name = f"{target.name} {view.name} {rung.name}"
    started = time.monotonic()
    size: int | None = None
    facts: dict[str, Any] = {}
    try:
        say(f"{name}: building")
        _build(target, rung, job, path)
        size = size_bytes(path)
        facts = target.format().inspect(path)
        say(f"{name}: verifying")
        verdict = _judge(target, job, evidence, path, facts, rung.limits)
        if must_undercut is not None and not (size < must_undercut):
            verdict = refused(f"{size:,} bytes, the float artefact has {must_undercut:,}")
    except GateError as error:
        verdict = refused(str(error))
    kept = verdict.status is not Status.FAIL
    if not kept and path.exists():
        _remove(path)
    say(f"{name}: {verdict.status}" + "".join(f"; {r}" for r in verdict.reasons))
    return RungRecord(
        rung=rung.name,
        taken=False,
        verdict=verdict,
        file=path.name if kept else None,
        size_bytes=size,
        sha256=sha256_file(path) if kept else None,
        facts=facts,
        seconds=round(time.monotonic() - started, 2),
    )


def _build(target: Target, rung: Rung, job: Lowering, path: Path) -> None:
    if rung is target.baseline:
        target.format().lower(job, path)
    else:
        target.format().quantize(job, path, rung.name)


def _judge(
    target: Target,
    job: Lowering,
    evidence: Evidence,
    path: Path,
    facts: dict[str, Any],
    limits: Limits,
) -> Verdict:
    embedded = target.format().metadata(path).get(CONTRACT_KEY)
    if embedded != job.metadata[CONTRACT_KEY]:
        return refused(f"carries contract {embedded}, expected {job.metadata[CONTRACT_KEY]}")
    shape = (1, *evidence.reference.logits.shape[1:])
    for kind, wanted in (
        ("inputs", {name: value.shape for name, value in job.example.items()}),
        ("outputs", {job.output_name: shape}),
    ):
        if not _is_signature(facts[kind], wanted):
            return refused(f"its {kind} are {facts[kind]}, expected {wanted}")
    try:
        runner = target.format().load(path)
    except MissingError as error:
        return unverified(str(error))
    return judge(runner, evidence, limits.allowing(evidence.rounding))


def _is_signature(found: dict[str, list[int]], wanted: dict[str, tuple[int, ...]]) -> bool:
    """Whether names and shapes are the `wanted` ones, or positions where a format has no names."""
    shapes = [list(shape) for shape in wanted.values()]
    names = (list(wanted), [str(position) for position in range(len(wanted))])
    return list(found) in names and list(found.values()) == shapes


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
