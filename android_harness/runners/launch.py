"""Starting a runner on a device, and believing only what it can prove to have done.

The exit status that adb gives is no proof of anything: a link that drops can look like success.
What counts is the runner's own record, complete and with the nonce of this run, and files whose
hashes are those in the record.
"""

from __future__ import annotations

import hashlib
import secrets
import shlex
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from android_harness.devices import Completed, Device
from android_harness.devices.folder import DeviceFolder
from android_harness.pack import Answers, read_answers
from android_harness.runners.record import Asked, Invocation, RunRecord, read_record
from android_harness.runners.sets import RunnerSet
from swipe.errors import GateError, LoweringError, UsageError

GRACE_SECONDS: Final = 60.0
"""Beyond the runner's own limit, for loading and for writing outputs."""

FINISHED, USAGE, FAILED = 0, 2, 3
"""Exit statuses of a runner; the first and the last come with a record."""
NOT_STARTED: Final = (126, 127)
"""Exit statuses of a shell, for a program that it cannot start; no runner has them."""


@dataclass(frozen=True, slots=True, eq=False)
class Launcher:
    """Runners that are on a device.

    Attributes:
        device: where.
        folder: our folder there.
        runners: the programs.
        place: the folder on the device that holds them.
    """

    device: Device
    folder: DeviceFolder
    runners: RunnerSet
    place: str

    def hindrance(self, engine: str) -> str | None:
        """Why the program of `engine` cannot be started there at all; None: it can.

        Raises:
            MissingError: the device is gone.
        """
        ended = self.device.shell(self._start(self.runners.command(engine)))
        if ended.code not in NOT_STARTED:
            return None
        return (
            f"the runner for {engine} cannot be started{_said(ended)}; see whether the device's "
            "folder takes programs, or build the runners for its system"
        )

    def run(
        self, engine: str, model: str, sha256: str, pack: str, asked: Asked, *, outputs: bool
    ) -> tuple[RunRecord, Answers | None]:
        """Execute one artefact once.

        Args:
            engine: name of the artefact's format.
            model: the artefact on the device.
            sha256: its hash.
            pack: the calls on the device.
            asked: what to do.
            outputs: whether the answers to all calls are wanted.

        Returns:
            The runner's record, and the answers if they were asked for.

        Raises:
            MissingError: the device is gone.
            UsageError: the runner does not do what was asked of it, whatever the artefact.
            LoweringError: the artefact cannot be executed there.
            GateError: what came back is not of this run, or not what the record says.
        """
        nonce = secrets.token_hex(8)
        place = self.folder.new_run(nonce)
        asking = Invocation(
            model=model,
            pack=pack,
            result=f"{place}/result.json",
            nonce=nonce,
            outputs=f"{place}/outputs" if outputs else None,
            library=self.runners.program(engine).library,
            tether=True,
            **asdict(asked),
        )
        ended = self.device.shell(
            self._command(engine, asking, place),
            asked.max_secs + GRACE_SECONDS,
            tether=True,
        )
        record = self._record(ended, place, asking)
        if record.model_sha256 != sha256:
            raise GateError(
                f"{self.device.name} executed another file than {model}",
                fix="swipe-bench --clean with the same --device, then measure again",
            )
        return record, self._answers(record, place) if outputs else None

    def _command(self, engine: str, asking: Invocation, place: str) -> str:
        """One line for the device's shell; the runner takes the shell's place."""
        words = [*self.runners.command(engine), *asking.arguments()]
        return self._start(words, before=f"echo $$ > {shlex.quote(place)}/pid && ")

    def _start(self, words: Sequence[str], before: str = "") -> str:
        environment = ["ORT_DISABLE_TELEMETRY=1", f"LD_LIBRARY_PATH={self.place}"]
        return (
            f"cd {shlex.quote(self.place)} && {before}exec env {shlex.join([*environment, *words])}"
        )

    def _record(self, ended: Completed, place: str, asking: Invocation) -> RunRecord:
        last = _said(ended)
        if ended.code == USAGE:
            raise UsageError(
                f"the runner on {self.device.name} does not do that{last}",
                fix="ask for something else, see swipe-bench run -h",
            )
        if ended.code not in (FINISHED, FAILED):
            raise LoweringError(
                f"the runner on {self.device.name} ended with status {ended.code}{last}",
                fix="run it by hand on the device; a status above 128 is a signal, 139 a crash",
            )
        text = self._pull(f"{place}/result.json").decode(errors="replace")
        record = read_record(text, asking.nonce)
        if record.stage == "cpus":
            raise UsageError(
                f"{self.device.name}: {record.error}", fix="name CPUs that it has with --cpus"
            )
        if record.stage == "load" and asking.ep != "cpu":
            raise UsageError(
                f"{self.device.name} cannot load it for --ep {asking.ep}: {record.error}",
                fix="leave --ep away, or build the runners with a library that has it",
            )
        if not record.ok:
            raise LoweringError(
                f"{self.device.name} failed at {record.stage}: {record.error}",
                fix="export again, or leave the artefact out",
            )
        return record

    def _answers(self, record: RunRecord, place: str) -> Answers:
        if record.outputs is None:
            raise GateError("the runner wrote no outputs", fix="build the runners again")
        data = self._pull(f"{place}/outputs")
        if hashlib.sha256(data).hexdigest() != record.outputs.sha256:
            raise GateError("the outputs were damaged on their way", fix="measure again")
        return read_answers(data)

    def _pull(self, remote: str) -> bytes:
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / "pulled"
            self.device.pull(remote, path)
            return path.read_bytes()


def _said(ended: Completed) -> str:
    """The last line that a program printed, to be put behind what became of it."""
    lines = (ended.stderr or ended.stdout).strip().splitlines()
    return f": {lines[-1]}" if lines else ""
