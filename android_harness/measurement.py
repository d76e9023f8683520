"""The measuring protocol on a device: everything that is executed there, in the order it is.

Heat first, then every artefact's outputs (they are judged before any latency is believed), then
memory in a run of its own, heat again, and then rounds: in each, every artefact is started afresh,
loaded cold, warmed up and timed, in rotating order. A process per round and artefact costs a
second each and shows what one long process hides: the luck of one memory layout. `docs/device.md`
has the reasons.

What it leaves out: judging. That needs PyTorch, and happens in `judgement` when devices are done.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np

from android_harness.artefacts import Artefact
from android_harness.devices import Device, Facts, Thermal
from android_harness.devices.folder import DeviceFolder
from android_harness.devices.lock import Lock
from android_harness.interleaving import rotated
from android_harness.pack import Answers, pack_calls
from android_harness.parity import wanted_calls
from android_harness.results import Slice
from android_harness.runners.launch import Launcher
from android_harness.runners.record import Asked, RunRecord
from android_harness.runners.sets import RunnerSet, build_command
from android_harness.thermal import Gate, throttling, wait_until_cool
from swipe.errors import LoweringError
from swipe.progress import Say

SLICE_SECONDS: Final = 5.0
"""Length of a piece of a sustained run."""

ROUND_SECONDS: Final = 60.0
"""Most for the timed calls of a round, unless more is asked for."""

OUTPUT_SECONDS: Final = 1800.0
"""Most for the outputs of all calls: an emulator takes a hundred times as long as a phone."""


@dataclass(frozen=True, slots=True)
class DevicePlan:
    """How long and how to measure on a device.

    Attributes:
        rounds: over all artefacts; each is a new process.
        iters: least number of timed calls per round.
        min_secs: least seconds of timed calls per round.
        max_secs: most seconds of timed calls per round.
        warmup: calls before, in every process.
        threads: CPU threads.
        cpus: CPUs to stay on, e.g. "4-7"; None: any.
        ep: execution provider.
        sustained_secs: how long to go on afterwards with each artefact that is shipped.
        gate: when the device is cool enough.
    """

    rounds: int = 5
    iters: int = 100
    min_secs: float = 0.5
    max_secs: float = ROUND_SECONDS
    warmup: int = 20
    threads: int = 1
    cpus: str | None = None
    ep: str = "cpu"
    sustained_secs: float = 0.0
    gate: Gate = field(default_factory=Gate)

    @property
    def asked(self) -> Asked:
        """What every run has in common."""
        return Asked(
            warmup=self.warmup,
            max_secs=self.max_secs,
            threads=self.threads,
            cpus=self.cpus,
            ep=self.ep,
        )


@dataclass(slots=True, eq=False)
class Runs:
    """What one artefact did on a device.

    Attributes:
        answers: to `wanted_calls`; None if it could not be executed.
        memory: the record of the memory pass.
        rounds: the records of the timed runs.
        failure: why it could not be executed, or not to the end.
        sustained: pieces of the sustained run.
    """

    answers: Answers | None = None
    memory: RunRecord | None = None
    rounds: list[RunRecord] = field(default_factory=list)
    failure: str | None = None
    sustained: list[Slice] = field(default_factory=list)


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """All that one device gave, not yet judged.

    Attributes:
        facts: what it is.
        before, after: how hot it was.
        waited_s: for it to cool down.
        hot: why it was still too hot when measuring began; empty if it was not.
        throttled: what says that it slowed down.
        runs: by the artefact's name.
        skipped: artefacts that could not be executed there, with the reason.
        elsewhere: artefacts of formats that are not for such a device.
    """

    facts: Facts
    before: Thermal
    after: Thermal
    waited_s: float
    hot: tuple[str, ...]
    throttled: tuple[str, ...]
    runs: Mapping[str, Runs]
    skipped: Mapping[str, str]
    elsewhere: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Placed:
    """An artefact on the device, with the calls it will get."""

    artefact: Artefact
    model: str
    pack: str
    runs: Runs

    @property
    def timed(self) -> int:
        return len(self.artefact.evidence.calls)


def measure_device(
    device: Device,
    facts: Facts,
    artefacts: Sequence[Artefact],
    runners: RunnerSet,
    plan: DevicePlan,
    say: Say,
) -> Measured:
    """Execute `artefacts` on `device`, which `facts` describe.

    Raises:
        MissingError: the device is gone, full, or used by another.
        GateError: something came back that is not of this run.
    """
    folder = DeviceFolder(device)
    with folder.lock() as lock:
        for killed in folder.stale_run_cleanup():
            say(f"{device.name}: ended program {killed.pid}, which an earlier run left behind")
        folder.prune()
        # A format with a list of systems is not for others.
        fitting = [artefact for artefact in artefacts if not artefact.target.executes_on]
        skipped = dict(_skipped(fitting, runners))
        executable = [artefact for artefact in fitting if artefact.name not in skipped]
        say(f"{device.name}: copying runners, {len(executable)} artefacts and their calls")
        launcher = Launcher(device, folder, runners, folder.ensure_set(runners.paths))
        skipped |= _hindered(executable, launcher)
        placed = _place(folder, [each for each in executable if each.name not in skipped])
        first = wait_until_cool(device, plan.gate, say)
        for item in placed:
            say(f"{device.name}: outputs of {item.artefact.name}")
            _collect_outputs(launcher, item, plan)
        second = wait_until_cool(device, plan.gate, say)
        before = device.thermal()
        _run_rounds(launcher, placed, plan, lock, say)
        after = device.thermal()
        _sustain(launcher, placed, plan, say)  # heat is its purpose, and no fault of the rounds
        folder.prune()
    return Measured(
        facts=facts,
        before=before,
        after=after,
        waited_s=first.waited_s + second.waited_s,
        hot=second.reasons,
        throttled=tuple(throttling(before, after)),
        runs={item.artefact.name: item.runs for item in placed},
        skipped=skipped,
        elsewhere=tuple(artefact.name for artefact in artefacts if artefact not in fitting),
    )


def _skipped(artefacts: Sequence[Artefact], runners: RunnerSet) -> Iterator[tuple[str, str]]:
    for artefact in artefacts:
        if artefact.unread is not None:
            yield artefact.name, artefact.unread
        elif artefact.target.name not in runners.manifest.programs:
            reason = runners.manifest.absent.get(artefact.target.name, "the format is not ours")
            fix = build_command(runners.manifest.flavour)
            yield artefact.name, f"no runner for {artefact.target.name}: {reason}; then {fix}"
        elif artefact.evidence.texts is not None:
            yield artefact.name, "its operators on text are a library that is not on the device"


def _hindered(artefacts: Sequence[Artefact], launcher: Launcher) -> dict[str, str]:
    """What cannot be executed because its runner does not start, which is no fault of its own."""
    found = {engine: launcher.hindrance(engine) for engine in {a.target.name for a in artefacts}}
    why = ((artefact.name, found[artefact.target.name]) for artefact in artefacts)
    return {name: reason for name, reason in why if reason is not None}


def _place(folder: DeviceFolder, artefacts: Sequence[Artefact]) -> list[_Placed]:
    packs = {}
    with TemporaryDirectory() as scratch:
        for artefact in artefacts:
            path = Path(scratch) / f"{artefact.view}.pack"
            if not path.exists():
                path.write_bytes(pack_calls(wanted_calls(artefact.evidence)))
                packs[artefact.view] = folder.ensure_file(path)
    return [
        _Placed(artefact, folder.ensure_file(artefact.path), packs[artefact.view], Runs())
        for artefact in artefacts
    ]


def _collect_outputs(launcher: Launcher, item: _Placed, plan: DevicePlan) -> None:
    """Outputs of every call, and memory in a run that does nothing but call."""
    patient = replace(plan.asked, warmup=0, max_secs=OUTPUT_SECONDS)
    with _one_artefact(item.runs):
        _, item.runs.answers = _run(launcher, item, patient, outputs=True)
        item.runs.memory, _ = _run(launcher, item, replace(plan.asked, timed=item.timed))


def _run_rounds(
    launcher: Launcher, placed: Sequence[_Placed], plan: DevicePlan, lock: Lock, say: Say
) -> None:
    by_name = {item.artefact.name: item for item in placed}
    asked = replace(plan.asked, iters=plan.iters, min_secs=plan.min_secs)
    for number in range(plan.rounds):
        lock.require()  # two hosts would measure each other
        for name in rotated(list(by_name), number):
            say(f"{launcher.device.name}: measuring, round {number + 1} of {plan.rounds}: {name}")
            item = by_name[name]
            if item.runs.failure is None:
                with _one_artefact(item.runs):
                    record, _ = _run(launcher, item, replace(asked, timed=item.timed))
                    item.runs.rounds.append(record)


def _sustain(launcher: Launcher, placed: Sequence[_Placed], plan: DevicePlan, say: Say) -> None:
    """Go on for a while with what is shipped: the curve of latency while the device warms up."""
    asked = replace(plan.asked, iters=1, min_secs=SLICE_SECONDS, warmup=0)
    for item in placed:
        if not item.artefact.entry.taken:
            continue
        for number in range(int(np.ceil(plan.sustained_secs / SLICE_SECONDS))):
            if item.runs.failure is not None:
                break
            at_s = number * SLICE_SECONDS
            say(
                f"{launcher.device.name}: {item.artefact.name} for {at_s:.0f} of "
                f"{plan.sustained_secs:.0f} s"
            )
            with _one_artefact(item.runs):
                record, _ = _run(launcher, item, replace(asked, timed=item.timed))
                item.runs.sustained.append(_slice(at_s, record))


def _slice(at_s: float, record: RunRecord) -> Slice:
    p50, p90 = np.percentile(record.latency_ns, [50, 90]) / 1e6
    last = record.blocks[-1] if record.blocks else None
    return Slice(
        at_s=at_s,
        p50_ms=float(p50),
        p90_ms=float(p90),
        temp_mc=last and last.temp_mc,
        khz_max=last and last.khz_max,
    )


@contextmanager
def _one_artefact(runs: Runs) -> Iterator[None]:
    """What an artefact cannot do is its own failure, and no reason to stop with the others."""
    try:
        yield
    except LoweringError as error:
        runs.failure = str(error)


def _run(
    launcher: Launcher, item: _Placed, asked: Asked, *, outputs: bool = False
) -> tuple[RunRecord, Answers | None]:
    entry, engine = item.artefact.entry, item.artefact.target.name
    if engine != "onnx":  # whose programs have their backend written into them
        asked = replace(asked, ep="cpu")
    digest = str(entry.sha256)
    return launcher.run(engine, item.model, digest, item.pack, asked, outputs=outputs)
