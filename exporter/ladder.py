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
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from exporter.cache import remove
from exporter.conformance import misfit
from exporter.evidence import judge, lacking
from exporter.formats import Runner
from exporter.parity import Level, Status, Verdict, refused, unverified
from exporter.policy import Policy
from exporter.speed import Speed, compare_speed
from exporter.subject import Subject
from exporter.targets import Rung, Target
from exporter.tuning import Budget, CalibrationError, rank_layers, revert_greedily
from swipe.errors import GateError
from swipe.files import sha256_file, size_bytes
from swipe.progress import Say


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
        """Remember `record`, whose artefact is in `folder`, if its verdict lasts."""


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
    ground = _Ladder(target, folder, policy, say, memory)
    float_record, baseline = ground.foot(subject)
    ladder = replace(ground, baseline=baseline)
    # Where nothing can be executed, not being refused is as far as any rung gets.
    wanted = float_record.verdict.status
    records: list[RungRecord] = []
    for rung in target.rungs[:-1] if policy.quantize else ():
        record, _ = ladder.attempt(subject, rung)
        if record.verdict.metrics is not None and record.verdict.status is not Status.PASS:
            record = ladder.tuned(subject, rung) or record
        taken = record.verdict.status in (Status.PASS, wanted)
        records.append(replace(record, taken=True) if taken else _removed(record, folder))
        if taken:
            break
    fell_back = not any(record.taken for record in records)
    if fell_back and policy.quantize and policy.require_quantized:
        reasons = [f"{r.rung}: {'; '.join(r.verdict.reasons)}" for r in records]
        could = any(not ladder.lacking(subject, rung) for rung in target.rungs[:-1])
        mend = "raise --budget or --tune-minutes" if could else "judge by more samples or a metric"
        raise GateError(
            f"{target.name} {subject.name}: no quantized artefact passed ({'. '.join(reasons)})",
            fix=f"{mend}, or leave out --require-quantized to ship float",
        )
    return [*records, replace(float_record, taken=fell_back)]


@dataclass(frozen=True, slots=True, eq=False)
class _Ladder:
    """The rungs of one format, and what they are tried with.

    Attributes:
        target: the format.
        folder: where artefacts go.
        policy: what the user decided.
        say: told about each step.
        memory: earlier results, if any.
        baseline: the float artefact; None until it is there.
    """

    target: Target
    folder: Path
    policy: Policy
    say: Say
    memory: Recollection | None
    baseline: _Baseline | None = None

    def foot(self, subject: Subject) -> tuple[RungRecord, _Baseline]:
        """The float artefact, on which all else stands.

        Raises:
            GateError: it was refused.
        """
        record, runner = self.attempt(subject, self.target.baseline)
        if record.verdict.status is Status.FAIL:
            raise GateError(
                f"{self.target.name} {subject.name} {record.rung} was refused: "
                f"{'; '.join(record.verdict.reasons)}",
                fix="nothing was published; mend the model, or build the other formats alone",
            )
        return record, _Baseline(record.size_bytes or 0, runner, record.sha256)

    def attempt(self, subject: Subject, rung: Rung) -> tuple[RungRecord, Runner | None]:
        """What becomes of `rung`, from memory where it is there.

        Returns:
            The record, and the artefact opened where it can be executed and is needed again.
        """
        if self.memory is None:
            return self._build_and_judge(subject, rung)
        baseline, policy, target = self.baseline, self.policy, self.target
        parts = {
            "rung": rung.name,
            "float_layers": sorted(subject.lowering.float_layers),
            "baseline": None if baseline is None else baseline.sha256,
            "policy": [policy.budget, policy.require_faster] if rung.quantized else [],
        }
        record = self.memory.recall_rung(parts, self.folder)
        if record is None:
            record, runner = self._build_and_judge(subject, rung)
            self.memory.keep_rung(parts, record, self.folder)
            return record, runner
        self.say(f"{self._name(subject, rung)}: {record.verdict.status} (from the cache)")
        # Opened all the same where the next rung's speed is measured against it.
        wanted = baseline is None and record.file is not None and target.level.executed
        return record, target.format().load(self.folder / str(record.file)) if wanted else None

    def tuned(self, subject: Subject, rung: Rung) -> RungRecord | None:
        """The rung with as few layers kept float as make it pass; None if none do in time."""
        if not self.policy.tune_minutes:
            return None
        target, name = self.target, self._name(subject, rung)
        reasons = self.lacking(subject, rung)
        if reasons:
            self.say(f"{name}: whatever layers stay float: {'; '.join(reasons)}")
            return None
        budget = Budget(self.policy.tune_minutes)
        passed: list[RungRecord] = []

        def passes(kept: frozenset[str]) -> bool:
            lowering = replace(subject.lowering, float_layers=kept)
            record, _ = self.attempt(replace(subject, lowering=lowering), rung)
            if record.verdict.status is Status.PASS:
                passed.append(record)
            return record.verdict.status is Status.PASS

        layers = target.format().layers(subject.lowering, rung.name)
        self.say(f"{name}: ranking {len(layers)} layers by what keeping each one float gains")
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch, f"trial{target.suffix}")
            error_of = CalibrationError(
                target, rung.name, subject.lowering, path, lambda line: self.say(f"{name}: {line}")
            )
            ranked = rank_layers(layers, error_of, budget)
        if revert_greedily(ranked, passes, budget) is None:
            minutes = self.policy.tune_minutes
            self.say(f"{name}: no choice of float layers passed in {minutes:g} minutes")
        return passed[0] if passed else None

    def lacking(self, subject: Subject, rung: Rung) -> tuple[str, ...]:
        """Why `rung` cannot pass, whatever it is; empty if it can."""
        limits = rung.limits_within(self.policy.budget, subject.evidence.rounding)
        return lacking(subject.evidence, limits)

    def _build_and_judge(self, subject: Subject, rung: Rung) -> tuple[RungRecord, Runner | None]:
        target, name = self.target, self._name(subject, rung)
        path = self.folder / f"{subject.stem}.{rung.name}{target.suffix}"
        started = time.monotonic()
        size: int | None = None
        facts: dict[str, Any] = {}
        runner: Runner | None = None
        speed: Speed | None = None
        try:
            self.say(f"{name}: building")
            if rung is target.baseline:
                target.format().lower(subject.lowering, path)
            else:
                target.format().quantize(subject.lowering, path, rung.name)
            size = size_bytes(path)
            facts = target.format().inspect(path)
            verdict = self._unexecuted(subject, path, facts, size)
            if verdict is None:
                self.say(f"{name}: verifying")
                runner = target.format().load(path)
                limits = rung.limits_within(self.policy.budget, subject.evidence.rounding)
                verdict = judge(runner, subject.evidence, limits, target.level)
                speed = self._speed(runner, subject)
                verdict = self._with_speed(verdict, speed)
        except GateError as error:
            # Why is not known: a library that ran out of memory raises the same.
            verdict = replace(refused(str(error)), lasting=False)
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
        self.say(f"{name}: {verdict.status}" + "".join(f"; {r}" for r in verdict.reasons))
        if verdict.status is Status.FAIL:
            return _removed(record, self.folder), None
        return record, runner

    def _unexecuted(
        self, subject: Subject, path: Path, facts: dict[str, Any], size: int
    ) -> Verdict | None:
        """The verdict on an artefact that need not, or cannot, be executed."""
        target, baseline = self.target, self.baseline
        reason = misfit(target, subject, path, facts)
        if reason is not None:
            return refused(reason)
        if baseline is not None and not (size < baseline.size_bytes):
            return refused(f"{size:,} bytes, the float artefact has {baseline.size_bytes:,}")
        if not target.level.executed:
            return unverified(f"{target.name} executes on {'/'.join(target.executes_on)} only")
        return None

    def _speed(self, runner: Runner, subject: Subject) -> Speed | None:
        """Against the float artefact; None where there is none yet, or time says nothing."""
        if self.baseline is None or self.baseline.runner is None:
            return None
        if self.target.level is Level.REFERENCE:
            return None
        return compare_speed(runner, self.baseline.runner, subject.evidence.calls)

    def _with_speed(self, verdict: Verdict, speed: Speed | None) -> Verdict:
        if self.baseline is None or not self.policy.require_faster:
            return verdict
        if speed is None:
            return verdict.failing(["its speed cannot be measured here, and --require-faster asks"])
        if speed.ratio < 1:
            return verdict
        slow = verdict.failing([f"takes {speed.ratio:.2f} times as long as float"])
        return replace(slow, lasting=verdict.status is Status.FAIL)

    def _name(self, subject: Subject, rung: Rung) -> str:
        return f"{self.target.name} {subject.name} {rung.name}"


def _removed(record: RungRecord, folder: Path) -> RungRecord:
    """`record` of an artefact that is not kept, once its file is gone."""
    remove(folder / str(record.file))
    return replace(record, file=None, sha256=None)
