"""The ladder: quantize, verify, fall back; one record per rung.

The float baseline is built and verified first: without it there is neither a size to undercut nor
anything to fall back to. Then the quantized rungs are tried, best first, until one passes.
A rung is refused when it cannot be built, is damaged, carries other metadata, takes or gives
something else than its job says, is no smaller than the baseline, gives a value that is not
finite, disagrees with PyTorch beyond its limits, or costs too much accuracy. One that cannot be
told from too costly, for too few samples, is not taken either.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from exporter.cache import remove
from exporter.evidence import Evidence, judge
from exporter.formats import Lowering, Runner
from exporter.formats.build import signature
from exporter.parity import Level, Limits, Status, Verdict, refused, unverified
from exporter.policy import Policy
from exporter.speed import Speed, compare_speed
from exporter.targets import Rung, Target
from exporter.tuning import Budget, CalibrationError, rank_layers, revert_greedily
from swipe.errors import GateError
from swipe.files import sha256_file, size_bytes

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """A model in one form of deployment, and what its artefacts are judged by.

    Attributes:
        name: of the form, e.g. "baked".
        stem: of its artefacts' file names.
        lowering: the job for the formats.
        evidence: what to judge by.
        output_shape: of a whole output, without the batch axis, where the evidence holds a part;
            None: it holds all of it.
    """

    name: str
    stem: str
    lowering: Lowering
    evidence: Evidence
    output_shape: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class RungRecord:
    """What became of one rung.

    Attributes:
        rung: its name.
        taken: whether this is the artefact to ship.
        verdict: how it compares with PyTorch.
        file: the artefact's file name, None when it was not kept.
        size_bytes: its size, None when it was not built.
        sha256: of the artefact, None when it was not kept.
        facts: what its structure says.
        speed: against the float artefact, None where that was not measured.
        float_layers: layers that were kept float to save accuracy.
        seconds: time to build and verify.
    """

    rung: str
    taken: bool
    verdict: Verdict
    file: str | None
    size_bytes: int | None
    sha256: str | None
    facts: dict[str, Any]
    speed: Speed | None
    float_layers: tuple[str, ...]
    seconds: float


class Recollection(Protocol):
    """Where rungs of earlier exports are found; `exporter.memory` has one."""

    def recall_rung(self, rung: Mapping[str, Any], folder: Path) -> RungRecord | None:
        """The record of what `rung` determines, its artefact put into `folder`; None: unknown."""

    def keep_rung(self, rung: Mapping[str, Any], record: RungRecord, folder: Path) -> None:
        """Remember `record`, whose artefact is in `folder`."""


@dataclass(frozen=True, slots=True, eq=False)
class _Baseline:
    """The float artefact that quantized ones are measured against."""

    size_bytes: int
    runner: Runner | None
    sha256: str | None


def climb(
    target: Target,
    subject: Subject,
    folder: Path,
    policy: Policy,
    say: Say,
    memory: Recollection | None = None,
) -> list[RungRecord]:
    """Build and verify the rungs of `target` in `folder`; exactly one record is taken.

    Args:
        target: the format.
        subject: the model, and what to judge by; it names the artefacts.
        folder: where artefacts go, as ``<stem>.<rung><suffix>``; refused ones are removed.
        policy: what the user decided.
        say: told about each step.
        memory: earlier results; None to work out everything.

    Raises:
        GateError: the float baseline itself was refused, so there is nothing to ship; or nothing
            but it can be shipped, and that is not enough.
    """
    float_record, runner = _recall_or_try(
        target, subject, target.baseline, folder, None, policy, say, memory
    )
    if float_record.verdict.status is Status.FAIL:
        raise GateError(
            f"{target.name} {subject.name} {float_record.rung} was refused: "
            f"{'; '.join(float_record.verdict.reasons)}",
            fix="nothing was published; mend the model or the format's libraries",
        )
    baseline = _Baseline(float_record.size_bytes or 0, runner, float_record.sha256)
    # Where nothing can be executed, not being refused is as far as any rung gets.
    wanted = float_record.verdict.status
    records: list[RungRecord] = []
    for rung in target.rungs[:-1] if policy.quantize else ():
        record, _ = _recall_or_try(target, subject, rung, folder, baseline, policy, say, memory)
        if record.verdict.metrics is not None and record.verdict.status is not Status.PASS:
            tuned = _tuned(target, subject, rung, folder, baseline, policy, say, memory)
            record = tuned or record
        taken = record.verdict.status in (Status.PASS, wanted)
        records.append(replace(record, taken=True) if taken else _removed(record, folder))
        if taken:
            break
    fell_back = not any(record.taken for record in records)
    if fell_back and policy.quantize and policy.require_quantized:
        reasons = [f"{r.rung}: {'; '.join(r.verdict.reasons)}" for r in records]
        raise GateError(
            f"{target.name} {subject.name}: no quantized artefact passed ({'. '.join(reasons)})",
            fix="raise --budget or --tune-minutes, or leave out --require-quantized to ship float",
        )
    return [*records, replace(float_record, taken=fell_back)]


def _tuned(
    target: Target,
    subject: Subject,
    rung: Rung,
    folder: Path,
    baseline: _Baseline,
    policy: Policy,
    say: Say,
    memory: Recollection | None,
) -> RungRecord | None:
    """The rung with as few layers kept float as make it pass; None if none do in the time given."""
    if not policy.tune_minutes:
        return None
    budget = Budget(policy.tune_minutes)
    name = f"{target.name} {subject.name} {rung.name}"
    passed: list[RungRecord] = []

    def passes(kept: frozenset[str]) -> bool:
        lowering = replace(subject.lowering, float_layers=kept)
        variant = replace(subject, lowering=lowering)
        record, _ = _recall_or_try(target, variant, rung, folder, baseline, policy, say, memory)
        if record.verdict.status is Status.PASS:
            passed.append(record)
        return record.verdict.status is Status.PASS

    layers = target.format().layers(subject.lowering, rung.name)
    say(f"{name}: ranking {len(layers)} layers by what keeping each one float gains")
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, f"trial{target.suffix}")
        error_of = CalibrationError(
            target, rung.name, subject.lowering, path, lambda line: say(f"{name}: {line}")
        )
        ranked = rank_layers(layers, error_of, budget)
    if revert_greedily(ranked, passes, budget) is None:
        say(f"{name}: no choice of float layers passed in {policy.tune_minutes:g} minutes")
    return passed[0] if passed else None


def _recall_or_try(
    target: Target,
    subject: Subject,
    rung: Rung,
    folder: Path,
    baseline: _Baseline | None,
    policy: Policy,
    say: Say,
    memory: Recollection | None,
) -> tuple[RungRecord, Runner | None]:
    """As `_try`, from `memory` where it is there."""
    if memory is None:
        return _try(target, subject, rung, folder, baseline, policy, say)
    parts = {
        "rung": rung.name,
        "float_layers": sorted(subject.lowering.float_layers),
        "baseline": None if baseline is None else baseline.sha256,
        "policy": [policy.budget, policy.require_faster] if rung.quantized else [],
    }
    record = memory.recall_rung(parts, folder)
    if record is None:
        record, runner = _try(target, subject, rung, folder, baseline, policy, say)
        memory.keep_rung(parts, record, folder)
        return record, runner
    say(f"{target.name} {subject.name} {rung.name}: {record.verdict.status} (from the cache)")
    # Opened all the same where the next rung's speed is measured against it.
    wanted = baseline is None and record.file is not None and target.level.executed
    return record, target.format().load(folder / str(record.file)) if wanted else None


def _try(
    target: Target,
    subject: Subject,
    rung: Rung,
    folder: Path,
    baseline: _Baseline | None,
    policy: Policy,
    say: Say,
) -> tuple[RungRecord, Runner | None]:
    """Build one rung and judge it; returns it opened where it can be executed."""
    path = folder / f"{subject.stem}.{rung.name}{target.suffix}"
    name = f"{target.name} {subject.name} {rung.name}"
    started = time.monotonic()
    size: int | None = None
    facts: dict[str, Any] = {}
    runner: Runner | None = None
    speed: Speed | None = None
    try:
        say(f"{name}: building")
        _build(target, rung, subject.lowering, path)
        size = size_bytes(path)
        facts = target.format().inspect(path)
        verdict = _check(target, subject, path, facts, size, baseline)
        if verdict is None and not target.level.executed:
            verdict = unverified(f"{target.name} executes on {'/'.join(target.executes_on)} only")
        if verdict is None:
            say(f"{name}: verifying")
            runner = target.format().load(path)
            limits = limits_of(target, rung.name, policy.budget, subject.evidence.rounding)
            verdict = judge(runner, subject.evidence, limits, target.level)
            if baseline is not None and baseline.runner is not None:
                if target.level is not Level.REFERENCE:
                    speed = compare_speed(runner, baseline.runner, subject.evidence.calls)
                verdict = _with_speed(verdict, speed, policy)
    except GateError as error:
        verdict = refused(str(error))
    record = RungRecord(
        rung=rung.name,
        taken=False,
        verdict=verdict,
        file=path.name,
        size_bytes=size,
        sha256=None if size is None else sha256_file(path),
        facts=facts,
        speed=speed,
        float_layers=tuple(sorted(subject.lowering.float_layers)),
        seconds=round(time.monotonic() - started, 2),
    )
    say(f"{name}: {verdict.status}" + "".join(f"; {r}" for r in verdict.reasons))
    if verdict.status is Status.FAIL:
        return _removed(record, folder), None
    return record, runner


def limits_of(target: Target, rung: str, budget: float, rounding: float) -> Limits:
    """What artefacts of `rung` may differ by, given the user's `budget` of points.

    Raises:
        GateError: `target` has no such rung.
    """
    found = target.find_rung(rung)
    limits = found.limits.allowing(rounding)
    return replace(limits, accuracy_drop=budget) if found.quantized else limits


def _build(target: Target, rung: Rung, job: Lowering, path: Path) -> None:
    if rung is target.baseline:
        target.format().lower(job, path)
    else:
        target.format().quantize(job, path, rung.name)


def _check(
    target: Target,
    subject: Subject,
    path: Path,
    facts: dict[str, Any],
    size: int,
    baseline: _Baseline | None,
) -> Verdict | None:
    """The refusal of an artefact that need not be executed to be refused."""
    job = subject.lowering
    foreign = foreign_metadata(target, path, job.metadata)
    if foreign is not None:
        return refused(foreign)
    wanted = {"inputs": signature(job.example, job), "outputs": dict[str, list[int | str]]()}
    if not job.dynamic:
        shape = subject.output_shape or subject.evidence.reference.outputs[0].shape
        if job.spelling is not None:
            wanted["outputs"][job.spelling.name] = [1]
        wanted["outputs"][job.output_name] = [1, *shape]
    for kind, shapes in wanted.items():
        if shapes and not is_signature(facts[kind], shapes):
            return refused(f"its {kind} are {facts[kind]}, expected {shapes}")
    if baseline is not None and not (size < baseline.size_bytes):
        return refused(f"{size:,} bytes, the float artefact has {baseline.size_bytes:,}")
    return None


def foreign_metadata(target: Target, path: Path, wanted: Mapping[str, str]) -> str | None:
    """Why the artefact at `path` does not carry the `wanted` metadata, or None if it does.

    Raises:
        LoweringError: it is damaged or holds no metadata.
        MissingError: the format's library is not installed.
    """
    embedded = target.format().metadata(path)
    for key, value in wanted.items():
        if embedded.get(key) != value:
            return f"carries {key} {embedded.get(key)!r}, expected {value!r}"
    return None


def is_signature(found: dict[str, list[Any]], wanted: dict[str, list[int | str]]) -> bool:
    """Whether names and shapes are the `wanted` ones, or positions where a format has no names."""
    names = (list(wanted), [str(position) for position in range(len(wanted))])
    return list(found) in names and list(found.values()) == list(wanted.values())


def _with_speed(verdict: Verdict, speed: Speed | None, policy: Policy) -> Verdict:
    if not policy.require_faster:
        return verdict
    if speed is None:
        return verdict.failing(["its speed cannot be measured here, and --require-faster asks"])
    if not (speed.ratio < 1):
        return verdict.failing([f"takes {speed.ratio:.2f} times as long as float"])
    return verdict


def _removed(record: RungRecord, folder: Path) -> RungRecord:
    """`record` of an artefact that is not kept, once its file is gone."""
    remove(folder / str(record.file))
    return replace(record, file=None, sha256=None)
