"""Ctrl-C ends a run between two steps, saves it, and the resumed run is the uninterrupted one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from swipe.errors import UsageError
from train.checkpoint import load_checkpoint
from train.runs import find_run

FIT = [sys.executable, "-m", "train.cli", "fit"]
SETTINGS = [
    "--data", "synthetic:600", "--steps", "60", "--set", "data.dev_share=0.3",
    "--set", "evaluation.times=1", "--set", "evaluation.swipes=20",
    "--set", "optimizer.batch_size=64", "--set", "model.channels=16",
]  # fmt: skip


def test_resume_takes_the_run_whose_state_was_saved_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not ``runs/latest``, which is the newest run that *finished*."""
    monkeypatch.chdir(tmp_path)
    for age, name in enumerate(("interrupted", "finished")):
        state = tmp_path / "runs" / name / "state.safetensors"
        state.parent.mkdir(parents=True)
        state.write_text("-")
        os.utime(state, (1000 - age, 1000 - age))
    (tmp_path / "runs" / "latest").symlink_to("finished")
    assert find_run(None) == Path("runs/interrupted")
    with pytest.raises(UsageError, match="holds no run"):
        find_run(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_resumes_to_the_same_weights(
    tmp_path: Path, number: signal.Signals
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    subprocess.run([*FIT, *SETTINGS, "--out", whole], cwd=tmp_path, check=True, capture_output=True)

    with subprocess.Popen(
        [*FIT, *SETTINGS, "--out", parts],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "run folder" in line:
                process.send_signal(number)
                break
        printed = process.stdout.read()
    assert process.returncode == 130, printed
    assert f"swipe-train fit --resume --out {parts}" in printed
    assert (parts / "state.safetensors").is_file()

    resumed = subprocess.run(
        [*FIT, "--resume", "--out", parts],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
    )
    assert "60 steps" in resumed.stdout
    one, other = (load_checkpoint(f / "last.safetensors") for f in (whole, parts))
    assert one.step == other.step == 60
    assert one.weights_sha256 == other.weights_sha256
