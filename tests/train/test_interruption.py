"""Ctrl-C ends a run between two steps, saves it, and the resumed run is the uninterrupted one."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from linear_task import LinearTask, settings

from swipe.console import console
from swipe.errors import UsageError
from swipe.progress import PlainLines
from train import fit as fit_module
from train.assemble import Assembled
from train.checkpoint import load_checkpoint
from train.runs import STATE, find_run

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


@pytest.mark.parametrize(
    ("code", "ends"), [(errno.EPIPE, BrokenPipeError), (errno.ENOSPC, UsageError)]
)
def test_a_lost_output_ends_a_run_as_ctrl_c_does(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    code: int,
    ends: type[Exception],
) -> None:
    """Its reader has left, or its disk is full: what was learnt is saved, and stderr says how."""

    def lose(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(console, "quiet", False)
    monkeypatch.setattr(PlainLines, "offer", lose)
    monkeypatch.setattr(fit_module, "assemble", lambda _: Assembled(LinearTask(), "samples"))
    folder = tmp_path / "my run"
    config: Any = settings(evaluation={"times": 1})
    with pytest.raises(ends):
        fit_module.start(config, "linear", folder, preflight=False)
    assert (folder / STATE).is_file()
    printed = capsys.readouterr().err
    assert f"saved; continue with: swipe-train fit --resume --out '{folder}'" in printed
    assert os.strerror(code) in printed
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 2


@pytest.mark.slow
def test_a_run_whose_reader_leaves_is_saved(tmp_path: Path) -> None:
    """``swipe-train fit | head -1``."""
    code = (
        "import sys; from swipe import progress; progress.PLAIN_LINE_SECONDS = 0.0\n"
        "from train.cli import main; main()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, "fit", *SETTINGS, "--steps", "100000", "--no-preflight",
         "--out", "my run"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stderr is not None
        for line in process.stdout:
            if "step " in line:
                break
        process.stdout.close()
        printed = process.stderr.read()
    assert process.returncode == 141, printed
    assert "saved; continue with: swipe-train fit --resume --out 'my run'" in printed
    assert (tmp_path / "my run" / STATE).is_file()


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
