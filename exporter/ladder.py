"""The ladder: quantize, verify, fall back; one record per rung.

The float baseline is built and verified first: without it there is neither a size to undercut nor
anything to fall back to. Then the quantized rungs are tried, best first, until one is not refused.
A rung is refused when it cannot be built, is damaged, carries another contract, is no smaller than
the baseline, gives a value that is not finite, or disagrees with PyTorch beyond its limits.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from exporter.formats import Lowering
from exporter.parity import Answers, Limits, Status, Verdict, compare, refused, unverified
from exporter.targets import Rung, Target
from swipe.errors import GateError, LoweringError, MissingError
from swipe.files import sha256_file, size_bytes

CONTRACT_KEY: Final = "contract_id"
"""Metadata key under which every artefact carries the contract it was built for."""

Decode = Callable[[NDArray[np.float32]], list[list[str]]]
"""Logits float32[N, T, K + 1] -> candidates per swipe, best first."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """What rungs are judged by.

    Attributes:
        features: float32[N, 2, 64], verification swipes that calibration has not seen.
        truths: their words.
        reference: PyTorch's answers to them.
        decode: from logits to words, the same for every implementation.
        rounding: largest error of PyTorch's own float32 logits, against float64.
    """

    features: NDArray[np.float32]
    truths: Sequence[str]
    reference: Answers
    decode: Decode
    rounding: float = 0.0


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
        job: the model to lower, with its calibration inputs.
        evidence: what to judge by.
        folder: where artefacts go, as ``model.<rung><suffix>``; refused ones are removed.
        quantize: whether quantized rungs are tried.
        budget: points of decoded top-1 that quantization may cost.
        say: told about each step.

    Raises:
        GateError: the float baseline itself was refused, so there is nothing to ship.
    """
    baseline = _try(target, target.baseline, job, evidence, folder, None, say)
    if baseline.verdict.status is Status.FAIL:
        raise GateError(
            f"{target.name} {baseline.rung} was refused: {'; '.join(baseline.verdict.reasons)}",
            fix="nothing was published; mend the model or the format's libraries",
        )
    records: list[RungRecord] = []
    for rung in target.rungs[:-1] if quantize else ():
        budgeted = replace(rung, limits=replace(rung.limits, accuracy_drop=budget))
        record = _try(target, budgeted, job, evidence, folder, baseline.size_bytes, say)
        records.append(record)
        if record.verdict.status is not Status.FAIL:
            records[-1] = replace(record, taken=True)
            break
    fell_back = not any(record.taken for record in records)
    return [*records, replace(baseline, taken=fell_back)]


def _try(
    target: Target,
    rung: Rung,
    job: Lowering,
    evidence: Evidence,
    folder: Path,
    must_undercut: int | None,
    say: Say,
) -> RungRecord:
    """Build one rung and judge it; a refused artefact is removed."""
    path = folder / f"model.{rung.name}{target.suffix}"
    started = time.monotonic()
    size: int | None = None
    facts: dict[str, Any] = {}
    try:
        say(f"{target.name} {rung.name}: building")
        _build(target, rung, job, path)
        size = size_bytes(path)
        facts = target.format().inspect(path)
        say(f"{target.name} {rung.name}: verifying")
        verdict = _judge(target, job, evidence, path, rung.limits)
        if must_undercut is not None and not (size < must_undercut):
            verdict = refused(f"{size:,} bytes, the float artefact has {must_undercut:,}")
    except GateError as error:
        verdict = refused(str(error))
    kept = verdict.status is not Status.FAIL
    if not kept and path.exists():
        _remove(path)
    say(f"{target.name} {rung.name}: {verdict.status}" + "".join(f"; {r}" for r in verdict.reasons))
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
    target: Target, job: Lowering, evidence: Evidence, path: Path, limits: Limits
) -> Verdict:
    embedded = target.format().metadata(path).get(CONTRACT_KEY)
    if embedded != job.metadata[CONTRACT_KEY]:
        return refused(f"carries contract {embedded}, expected {job.metadata[CONTRACT_KEY]}")
    try:
        runner = target.format().load(path)
    except MissingError as error:
        return unverified(str(error))
    answers = answer(runner, evidence)
    return compare(evidence.reference, answers, evidence.truths, limits.allowing(evidence.rounding))


def answer(
    runner: Callable[[NDArray[np.float32]], NDArray[np.float32]], evidence: Evidence
) -> Answers:
    """Run every verification swipe, one at a time as a phone does, and decode the logits.

    Raises:
        LoweringError: an output is not finite, so it cannot be decoded.
    """
    rows = [runner(row[None]) for row in evidence.features]
    if {row.shape for row in rows} != {(1, *evidence.reference.logits.shape[1:])}:
        raise LoweringError(
            f"outputs of shape {sorted({row.shape for row in rows})}, PyTorch's is "
            f"{(1, *evidence.reference.logits.shape[1:])}",
            fix="export again from the checkpoint",
        )
    logits = np.concatenate(rows)
    if not np.isfinite(logits).all():
        bad = int(logits.size - np.isfinite(logits).sum())
        raise LoweringError(
            f"{bad} of {logits.size} outputs are NaN or Inf", fix="use another rung"
        )
    return Answers(logits, evidence.decode(logits))


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
