"""Two processes under torchrun train what one process trains; what one rank meets, all heed."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from train.checkpoint import load_checkpoint
from train.distributed import ALONE, Ranks
from train.sync_norm import SyncedBatchNorm, synchronize_norms

JOB = Path(__file__).with_name("ranks_job.py")
STEPS = 12


def run(
    folder: Path, processes: int, *, batch: int = 32, accumulate: int = 1, **settings: Any
) -> subprocess.CompletedProcess[str]:
    """Train in `processes` processes; `settings` are those of ``ranks_job.py``."""
    given = {"batch": batch, "accumulate": accumulate, "steps": STEPS, "sync_norm": True}
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command = [sys.executable, *(torchrun if processes > 1 else []), str(JOB)]
    return subprocess.run(
        [*command, str(folder), json.dumps(given | settings)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def figures(folder: Path, name: str) -> list[float]:
    """One figure of each step."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [row[name] for row in map(json.loads, lines) if "gradient_norm" in row]


def ends(done: subprocess.CompletedProcess[str]) -> list[dict[str, int]]:
    """What each rank said at its end, by rank."""
    assert done.returncode == 0, done.stderr[-2000:]
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return sorted(found, key=lambda row: row["rank"])


def skipped(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "skipped.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_two_processes_give_the_loss_curve_of_the_doubled_batch(tmp_path: Path) -> None:
    ends(run(tmp_path / "one", 1, batch=64))
    ends(run(tmp_path / "two", 2))
    for name in ("loss", "gradient_norm"):
        one, two = figures(tmp_path / "one", name), figures(tmp_path / "two", name)
        assert len(one) == STEPS
        assert two == pytest.approx(one, rel=2e-5), name
    # The check can fail: without shared BatchNorm statistics the curves part.
    ends(run(tmp_path / "apart", 2, sync_norm=False))
    assert figures(tmp_path / "apart", "gradient_norm") != pytest.approx(
        figures(tmp_path / "one", "gradient_norm"), rel=2e-5
    )


@pytest.mark.slow
def test_accumulating_two_batches_equals_two_processes(tmp_path: Path) -> None:
    """The same batches by number; BatchNorm apart in both."""
    ends(run(tmp_path / "one", 1, accumulate=2))
    ends(run(tmp_path / "two", 2, sync_norm=False))
    one, two = (figures(tmp_path / name, "loss") for name in ("one", "two"))
    assert two == pytest.approx(one, rel=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "sync_norm", "cause"),
    [
        ("nan", True, "rank 1: batch, features: 1 NaN"),
        ("loss", True, "rank 1: loss is nan"),
        ("shape", False, "rank 1: IndexError"),
    ],
)
def test_what_one_rank_cannot_take_no_rank_takes(
    tmp_path: Path, kind: str, sync_norm: bool, cause: str
) -> None:
    """Batch 7 is the second half of step 3; batch 6 was fine, and is not taken either."""
    plan = {"rank": 1, "batches": [7], "kind": kind}
    done = run(tmp_path / "run", 2, sync_norm=sync_norm, sabotage=plan)
    assert [(end["taken"], end["skipped"]) for end in ends(done)] == [(STEPS - 1, 1)] * 2
    (row,) = skipped(tmp_path / "run")
    assert row["step"] == 3
    assert row["cause"].startswith(cause)
    assert len(row["rows"]) == len(set(row["rows"])) == 64, "the rows of both ranks"


@pytest.mark.slow
def test_a_rank_that_never_recovers_stops_all(tmp_path: Path) -> None:
    plan = {"rank": 1, "batches": list(range(9, 2 * STEPS + 40)), "kind": "loss"}
    done = run(tmp_path / "run", 2, steps=40, sabotage=plan)
    assert done.returncode != 0
    assert "could not be taken; at step" in done.stderr
    assert not list(tmp_path.glob("run/best.safetensors")) or load_checkpoint(tmp_path / "run")
    diagnosis = json.loads((tmp_path / "run" / "diagnosis.json").read_text())
    assert diagnosis["rollbacks"] >= 0
    assert diagnosis["cause"] == "rank 1: loss is nan"


@pytest.mark.slow
def test_one_rank_asked_to_stop_stops_all_and_the_run_resumes_to_the_same_weights(
    tmp_path: Path,
) -> None:
    ends(run(tmp_path / "whole", 2))
    stopped = run(tmp_path / "parts", 2, stop=7)
    assert "KeyboardInterrupt" in stopped.stderr
    assert (tmp_path / "parts" / "state.safetensors").is_file()
    # One process would make steps of half as many batches: refused, unless it accumulates.
    refused = run(tmp_path / "parts", 1, resume=True)
    assert "was made of 2 batches" in refused.stderr
    ends(run(tmp_path / "parts", 2, resume=True))
    whole, parts = (load_checkpoint(tmp_path / n / "last.safetensors") for n in ("whole", "parts"))
    assert whole.step == parts.step == STEPS
    assert whole.weights_sha256 == parts.weights_sha256
    assert figures(tmp_path / "parts", "loss") == figures(tmp_path / "whole", "loss")


def test_alone_every_agreement_is_ones_own() -> None:
    assert ALONE.first
    assert ALONE.any(True)
    assert not ALONE.any(False)
    assert ALONE.largest([1.0, 2.0]) == [1.0, 2.0]
    assert ALONE.gather("x") == ["x"]
    assert ALONE.from_first("x") == "x"
    assert math.isnan(ALONE.mean(math.nan))
    assert not Ranks(1, 2).first


def test_synchronizing_norms_keeps_tensors_names_and_answers() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv1d(3, 4, 3), nn.BatchNorm1d(4), nn.Sequential(nn.BatchNorm1d(4)))
    x = torch.randn(5, 3, 9)
    model(x)
    before = dict(model.state_dict(keep_vars=True))
    model.eval()
    answer = model(x)
    synchronize_norms(model)
    assert isinstance(model[1], SyncedBatchNorm)
    assert isinstance(model[2][0], SyncedBatchNorm)  # type: ignore[index]
    after = model.state_dict(keep_vars=True)
    assert list(after) == list(before)
    assert all(after[name] is before[name] for name in before)
    assert torch.equal(model(x), answer)
