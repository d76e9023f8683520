"""One format, one process: ``python -P -m exporter.worker JOB FORMAT``.

Each heavy library lives and dies in its own process, so a crash in one format is that format's
failure, and two formats build at the same time. The job is a folder; ``job.json`` says what to do,
``samples.npz`` holds the swipes, ``progress`` lines go to stdout, the outcome to ``<format>.json``.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from exporter.ladder import Say, Subject, climb
from exporter.policy import Policy
from exporter.provenance import THREADS
from exporter.targets import find_target
from exporter.views import find_view
from exporter.words import Words
from swipe.errors import ExitCode, GateError, LoweringError, MissingError, SwipeError, UsageError

SAMPLES: Final = "samples.npz"

Records = dict[str, list[dict[str, Any]]]
"""Rung records by view, JSON-ready."""


@dataclass(frozen=True, slots=True)
class Job:
    """What every format of one export shares.

    Attributes:
        checkpoint: path of the weights.
        folder: where artefacts go.
        views: names of the views to build.
        lexicon: lexicon specification to decode with.
        policy: what the user decided about the ladder.
        rounding: largest error of PyTorch's own float32 logits, against float64.
        preset: record of the decoder's preset; None for the default settings.
    """

    checkpoint: str
    folder: str
    views: tuple[str, ...]
    lexicon: str
    policy: Policy
    rounding: float
    preset: dict[str, Any] | None = None

    @classmethod
    def load(cls, path: Path) -> Job:
        """The job that was written to `path` as JSON."""
        fields = json.loads(path.read_text())
        return cls(**{**fields, "policy": Policy(**fields["policy"])})


def run_worker(job_folder: Path, job: Job, target: str, say: Say) -> Records:
    """Build one format in a child process.

    Raises:
        GateError: the format's float baseline was refused, or the process died.
        MissingError: a library of the format cannot be imported.
    """
    outcome_file = job_folder / f"{target}.json"
    log_file = job_folder / f"{target}.log"
    (job_folder / f"{target}.job.json").write_text(json.dumps(asdict(job)))
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

    from swipe.decode import BeamDecoder
    from swipe.lexicon import load_lexicon
    from swipe.presets import settings_of
    from train.checkpoint import load_checkpoint

    torch.set_num_threads(THREADS)
    checkpoint = load_checkpoint(Path(job.checkpoint))
    with np.load(job_folder / SAMPLES) as samples:
        calibration, features, logits = (samples[n] for n in ("calibration", "features", "logits"))
        truths, writers = (samples[name].tolist() for name in ("words", "writers"))
    lexicon = load_lexicon(job.lexicon)
    decode = BeamDecoder(lexicon, settings_of(job.preset, lexicon)).decode_words
    words = Words(truths, writers, decode)
    records: Records = {}
    for view in map(find_view, job.views):
        subject = Subject(
            view.name,
            view.stem,
            view.lowering(checkpoint, features[:1], calibration),
            view.evidence(checkpoint, features, logits, words, job.rounding),
        )
        climbed = climb(find_target(target_name), subject, Path(job.folder), job.policy, say)
        records[view.name] = [
            {**asdict(record), "verdict": record.verdict.to_dict()} for record in climbed
        ]
    return records


def main() -> int:
    """Entry of the child process."""
    job_folder, target = Path(sys.argv[1]), sys.argv[2]
    job = Job.load(job_folder / f"{target}.job.json")
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
