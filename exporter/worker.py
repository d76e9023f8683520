"""One format, one process: ``python -P -m exporter.worker JOB FORMAT``.

Each heavy library lives and dies in its own process, so a crash in one format is that format's
failure, and two formats build at the same time. The job is a folder; ``<format>.job.json`` says
what to do, progress lines go to stdout, the outcome to ``<format>.json``.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from exporter.ladder import Say, climb
from exporter.manifest import AnySource
from exporter.origins import reopen
from exporter.policy import Policy
from exporter.targets import find_target
from swipe.errors import ExitCode, GateError, LoweringError, MissingError, SwipeError, UsageError

Records = dict[str, list[dict[str, Any]]]
"""Rung records by view, JSON-ready."""


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


def run_worker(job_folder: Path, job: Job, target: str, say: Say) -> Records:
    """Build one format in a child process.

    Raises:
        GateError: the format's float baseline was refused, or the process died.
        MissingError: a library of the format cannot be imported.
    """
    outcome_file = job_folder / f"{target}.json"
    log_file = job_folder / f"{target}.log"
    (job_folder / f"{target}.job.json").write_text(job.model_dump_json())
    command = [sys.executable, "-P", "-m", "exporter.worker", str(job_folder), target]
    with (
        log_file.open("w") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        for line in process.stdout or ():
            say(line.rstrip("\n"))
    code = process.returncode
    if not outcome_file.is_file():
        tail = log_file.read_text(errors="replace").strip().splitlines()[-20:]
        for line in tail:
            say(f"{target}: {line}")
        raise LoweringError(
            f"{target}: the worker ended with code {code} and no result",
            fix="see its last lines above; a negative code is a signal, -9 mostly out of memory",
        )
    outcome = json.loads(outcome_file.read_text())
    if "error" in outcome:
        kinds = {ExitCode.MISSING: MissingError, ExitCode.USAGE: UsageError}
        kind = kinds.get(ExitCode(outcome["exit_code"]), GateError)
        raise kind(outcome["error"], fix=outcome["fix"])
    records: Records = outcome["records"]
    return records


def build(job_folder: Path, job: Job, target_name: str, say: Say) -> Records:
    """The work itself, in the child: lower, verify, fall back."""
    import torch

    torch.set_num_threads(1)
    folder = Path(job.folder)
    subjects = reopen(folder, job.source, scratch=job_folder, say=lambda line: None)
    target = find_target(target_name)
    records: Records = {}
    for view in job.views:
        climbed = climb(target, subjects.subject(view), folder, job.policy, say)
        records[view] = [
            {**asdict(record), "verdict": record.verdict.to_dict()} for record in climbed
        ]
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
