"""What a device gave -> rows with a verdict beside every latency."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from android_harness.artefacts import Artefact
from android_harness.measurement import DevicePlan, Measured, Runs
from android_harness.parity import compare_places, judge_answers, replay, wanted_calls
from android_harness.results import DeviceReport, Memory, Row
from android_harness.runners.record import RunRecord, cpu_numbers
from android_harness.stats import summarize
from android_harness.thermal import drifting, limited, limiting
from exporter.manifest import Verdict as VerdictEntry
from exporter.parity import refused
from swipe.errors import LoweringError


def judge_device(
    measured: Measured, artefacts: Sequence[Artefact], plan: DevicePlan
) -> DeviceReport:
    """The report on one device.

    Args:
        measured: what it gave.
        artefacts: those of the bundle, in the order of the rows.
        plan: what was asked of it.
    """
    executed = [artefact for artefact in artefacts if artefact.name in measured.runs]
    return DeviceReport(
        facts=measured.facts,
        thermal=(measured.before, measured.after),
        waited_s=measured.waited_s,
        throttled=measured.throttled,
        rows=tuple(_row(artefact, measured, plan) for artefact in executed),
        skipped=dict(measured.skipped),
        elsewhere=measured.elsewhere,
        sustained={
            name: tuple(runs.sustained) for name, runs in measured.runs.items() if runs.sustained
        },
    )


def _row(artefact: Artefact, measured: Measured, plan: DevicePlan) -> Row:
    runs = measured.runs[artefact.name]
    level = measured.facts.level
    if runs.failure is not None or runs.answers is None or not runs.rounds:
        return artefact.row(refused(runs.failure or "nothing was executed", level))
    replayed = replay(wanted_calls(artefact.evidence), runs.answers, artefact)
    verdict = judge_answers(replayed, artefact, level)
    row = artefact.row(verdict).model_copy(update=_timing(runs, measured, plan))
    if verdict.metrics is None:
        return row
    try:
        difference, edits = compare_places(replayed, artefact)
    except LoweringError as error:
        failing = verdict.failing([f"the same file on this machine: {error}"])
        return row.model_copy(update={"verdict": VerdictEntry(**failing.to_dict())})
    return row.model_copy(update={"from_host": difference, "word_edits": edits})


def _timing(runs: Runs, measured: Measured, plan: DevicePlan) -> dict[str, object]:
    samples = tuple(run.latency_ns for run in runs.rounds)
    times = [run.times_ms for run in runs.rounds if run.times_ms is not None]
    memory = runs.memory
    return {
        "engine": runs.rounds[0].engine,
        "load_ms": tuple(t.load + t.init for t in times),
        "first_ms": tuple(t.first for t in times),
        "latency_ns": samples,
        "blocks": tuple(run.blocks for run in runs.rounds),
        "latency": summarize(samples),
        "memory": memory and Memory(rss=memory.rss_kb, pss_kb=memory.pss_kb),
        "invalid": tuple(dict.fromkeys(_invalid(runs, measured, plan))),
    }


def _invalid(runs: Runs, measured: Measured, plan: DevicePlan) -> Iterator[str]:
    """Why latencies are not to be used."""
    for reason in measured.hot:
        yield f"started hot: {reason}"
    if measured.facts.kind == "android":  # elsewhere a limit may be what the machine is set to
        yield from limited(measured.facts, measured.before)
    yield from measured.throttled
    yield from limiting(runs.rounds)
    if measured.facts.emulated is None:  # an emulator's drift is that of the machine around it
        yield from drifting(runs.rounds)
    for run in runs.rounds:
        yield from _short_of(run, plan)


def _short_of(run: RunRecord, plan: DevicePlan) -> Iterator[str]:
    """What one run did not get that was asked for."""
    if len(run.latency_ns) < plan.iters:
        yield f"only {len(run.latency_ns)} of {plan.iters} calls in {plan.max_secs:g} s"
    if run.threads is not None and run.threads != plan.threads:
        yield f"{run.threads} threads instead of {plan.threads}"
    if plan.cpus is not None and cpu_numbers(run.cpus.got) != cpu_numbers(plan.cpus):
        yield f"CPUs {run.cpus.got} instead of {plan.cpus}"
