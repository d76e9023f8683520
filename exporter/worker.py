"""One format, one process: ``python -P -m exporter.worker JOB FORMAT``.

Each heavy library lives and dies in its own process, so a crash in one format is that format's
failure, and two formats build at the same time. The job is a folder; ``<format>.job.json`` says
what to do, progress lines go to stdout, the outcome to ``<format>.json``.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any, Final, TextIO

from pydantic import BaseModel, ConfigDict, Field

from exporter.cache import Cache
from exporter.ladder import climb
from exporter.manifest import AnySource
from exporter.memory import Memory, to_record
from exporter.policy import Policy
from exporter.provenance import THREADS
from exporter.targets import find_target
from swipe.errors import ExitCode, GateError, LoweringError, MissingError, SwipeError, UsageError
from swipe.progress import Say

LOG_LINES: Final = 20
CAUSES: Final = {
    signal.SIGKILL: (
        "mostly the kernel, for lack of memory",
        "close other programs, or build this format alone and one view at a time (--view)",
    ),
    signal.SIGSEGV: (
        "a crash inside a native library",
        "compare the libraries with the tested ones: swipe-export doctor",
    ),
    signal.SIGABRT: (
        "a native library gave up, or memory ran out inside it",
        "see its last lines above; compare the libraries with the tested ones: swipe-export doctor",
    ),
    signal.SIGILL: (
        "a library was built for another processor",
        "reinstall the format's libraries for this machine: swipe-export doctor",
    ),
    signal.SIGBUS: (
        "a file or shared memory vanished or the disk is full",
        "make room in the temporary folder, see TMPDIR",
    ),
    signal.SIGTERM: ("somebody asked it to end", "run the export again"),
    signal.SIGINT: ("somebody interrupted it", "run the export again"),
}
"""What usually sends a worker each signal, and the mend."""

Records = dict[str, list[dict[str, Any]]]
"""Rung records by view, JSON-ready."""


class Workers:
    """The child processes of one export, so that an interrupt ends them all, and none follows."""

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[str]] = set()
        self._lock = Lock()
        self._ended = False

    @contextmanager
    def start(self, command: Sequence[str], log: TextIO) -> Iterator[subprocess.Popen[str]]:
        """The program `command`, waited for at the end of the block.

        Raises:
            CancelledError: all were ended, before or meanwhile.
        """
        with self._lock:
            self._require_wanted()
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
            self._running.add(process)
        try:
            with process:
                yield process
        finally:
            with self._lock:
                self._running.discard(process)
        self._require_wanted()

    def _require_wanted(self) -> None:
        if self._ended:
            raise CancelledError

    def end(self) -> None:
        """Kill all: only the main thread is told of an interrupt, and others wait for them."""
        with self._lock:
            self._ended = True
            for process in self._running:
                process.kill()


class Job(BaseModel):
    """What every format of one export shares."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    folder: str
    """Of the bundle: weights and samples are in it, artefacts go there."""
    views: tuple[str, ...]
    """The forms of the model to build."""
    policy: Policy
    """What the user decided about the ladder."""
    source: AnySource
    """What the bundle is made from."""
    lexicon: str | None = None
    """Where its lexicon is; None: where the record says."""
    cache: str | None = None
    """Folder of earlier results; None to use and keep none."""
    parts: dict[str, Any] = Field(default_factory=dict)
    """All that shapes the results of all formats, see `exporter.memory`."""

    def memory(self, target: str, view: str, say: Say) -> Memory | None:
        """What is remembered of one format and view; None without a cache."""
        if self.cache is None:
            return None
        return Memory(Cache(Path(self.cache), say), {**self.parts, "format": target, "view": view})


def recall_records(job: Job, target: str, say: Say) -> Records | None:
    """The outcome of an earlier export, its artefacts put into the job's folder.

    None when any view of it is unknown: a worker then finds the others again.
    """
    records: Records = {}
    for view in job.views:
        memory = job.memory(target, view, say)
        kept = None if memory is None else memory.recall_ladder(job.policy, Path(job.folder))
        if kept is None:
            return None
        records[view] = kept
    for view, kept in records.items():
        taken = next(record for record in kept if record["taken"])
        say(f"{target} {view} {taken['rung']}: {taken['verdict']['status']} (from the cache)")
    return records


def run_worker(
    job_folder: Path, job: Job, target: str, say: Say, workers: Workers | None = None
) -> Records:
    """Build one format in a child process, one of `workers`.

    Raises:
        CancelledError: the workers were ended.
        GateError: the format's float baseline was refused, or the process died.
        MissingError: a library of the format cannot be imported.
    """
    outcome_file = job_folder / f"{target}.json"
    log_file = job_folder / f"{target}.log"
    (job_folder / f"{target}.job.json").write_text(job.model_dump_json())
    command = [sys.executable, "-P", "-m", "exporter.worker", str(job_folder), target]
    with (
        log_file.open("w") as log,
        (workers or Workers()).start(command, log) as process,
    ):
        for line in process.stdout or ():
            say(line.rstrip("\n"))
    if not outcome_file.is_file():
        lines = log_file.read_text(errors="replace").strip().splitlines()
        for line in lines[-LOG_LINES:]:
            say(f"{target}: {line}")
        raise died(target, process.returncode)
    outcome = json.loads(outcome_file.read_text())
    if "error" in outcome:
        kinds = {ExitCode.MISSING: MissingError, ExitCode.USAGE: UsageError}
        kind = kinds.get(ExitCode(outcome["exit_code"]), GateError)
        raise kind(outcome["error"], fix=outcome["fix"])
    records: Records = outcome["records"]
    return records


def died(target: str, code: int) -> LoweringError:
    """The error for a worker that ended without a result; a negative `code` is a signal."""
    if code >= 0:
        return LoweringError(
            f"{target}: the worker ended with code {code} and no result",
            fix="see its last lines above; if they name no cause, please report them",
        )
    try:
        sent = signal.Signals(-code)
    except ValueError:
        name, (cause, fix) = f"signal {-code}", ("unknown", "run the export again")
    else:
        name, (cause, fix) = sent.name, CAUSES.get(sent, ("unusual", "run the export again"))
    return LoweringError(f"{target}: the worker was ended by {name} ({cause})", fix=fix)


def build(job_folder: Path, job: Job, target_name: str, say: Say) -> Records:
    """The work itself, in the child: lower, verify, fall back."""
    import torch

    from exporter.origins import reopen

    torch.set_num_threads(THREADS)
    folder = Path(job.folder)
    subjects = reopen(
        folder, job.source, scratch=job_folder, lexicon=job.lexicon, say=lambda line: None
    )
    target = find_target(target_name)
    records: Records = {}
    for view in job.views:
        memory = job.memory(target_name, view, say)
        kept = None if memory is None else memory.recall_ladder(job.policy, folder)
        if kept is not None:
            records[view] = kept
            continue
        climbed = climb(target, subjects.subject(view), folder, job.policy, say, memory)
        records[view] = list(map(to_record, climbed))
        if memory is not None:
            memory.keep_ladder(job.policy, climbed, folder)
    return records


def main() -> int:
    """Entry of the child process."""
    job_folder, target = Path(sys.argv[1]), sys.argv[2]
    job = Job.model_validate_json((job_folder / f"{target}.job.json").read_bytes())
    try:
        outcome: dict[str, Any] = {
            "records": build(job_folder, job, target, lambda line: print(line, flush=True))
        }
    except SwipeError as error:
        outcome = {"error": str(error), "fix": error.fix, "exit_code": int(error.exit_code)}
    (job_folder / f"{target}.json").write_text(json.dumps(outcome))
    return 0


if __name__ == "__main__":
    sys.exit(main())
