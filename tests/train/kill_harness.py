"""Kills a training run at random moments, again and again: ``python kill_harness.py OUT KILLS``.

Run as a program of its own: it imports torch once and forks every attempt, so that no kill is
spent on imports. Each attempt resumes in ``OUT/killed`` where the one before was killed; a pipe
tells when it is in its first step, and whether it ended before the kill reached it. After every
kill each published file is inspected. In the end the run is left to finish, and the figures are
printed as JSON. ``OUT/whole`` holds the same run, uninterrupted.

With ``--in-place`` checkpoints are written without a temporary file: what must not go unnoticed.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from swipe.layout import load_layout
from train import sealed
from train.checkpoint import Checkpoint
from train.config import TrainConfig
from train.inspection.kinds import inspect_file
from train.loop import fit
from train.models import TcnSpec
from train.progress import Progress
from train.runs import STATE
from train.task import Batch, Score

STEPS = 300
WIDTH = 160
STARTED, ENDED = b"s", b"e"


class SmallTask:
    """Least squares with BatchNorm and dropout, saved after every step.

    Its checkpoint takes longer to write than a step to compute, so kills hit the writing.
    """

    batches_per_epoch = 10

    def __init__(self, say: Callable[[bytes], object]) -> None:
        torch.manual_seed(0)
        self.model: nn.Module = nn.Sequential(
            nn.Linear(WIDTH, WIDTH), nn.BatchNorm1d(WIDTH), nn.ReLU(), nn.Dropout(0.2),
            nn.Linear(WIDTH, 1),
        )  # fmt: skip
        self._say = say

    def batch(self, step: int) -> Batch:
        self._say(STARTED)
        x = torch.randn(8, WIDTH, generator=torch.Generator().manual_seed(step))
        return Batch({"x": x, "y": x[:, :1]}, [f"{step}-{row}" for row in range(8)])

    def loss(self, batch: Batch) -> Tensor:
        return nn.functional.mse_loss(self.model(batch.tensors["x"]), batch.tensors["y"])

    def evaluate(self) -> Score:
        # Rises, so that every evaluation writes best as well as last.
        value = float(self.model[1].num_batches_tracked)  # type: ignore[index, union-attr]
        return Score(value, {"score": value}, "")

    def checkpoint(self, step: int, score: Score) -> Checkpoint:
        tensors = {name: t.detach().clone() for name, t in self.model.state_dict().items()}
        contract = load_layout("qwerty").contract()
        return Checkpoint(TcnSpec(channels=4), contract, tensors, step, score.metrics, {})


def train(folder: Path, say: Callable[[bytes], object]) -> None:
    """Train in `folder`, from its state if there is one."""
    config = TrainConfig.model_validate(
        {
            "optimizer": {"batch_size": 8},
            "length": {"steps": STEPS},
            "evaluation": {"times": STEPS},
            "record": {"every": 1, "tensorboard": False},
        }
    )
    folder.mkdir(exist_ok=True)
    fit(SmallTask(say), config, folder, _look_away, resume=(folder / STATE).is_file())


def _look_away(progress: Progress) -> None:
    """An observer that does not look."""


def attempt(folder: Path, delay: float | None) -> tuple[bytes, int]:
    """Train in a child, killed `delay` seconds into its first step; (what it said, its status)."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(reading)
            train(folder, lambda word: os.write(writing, word))
            os.write(writing, ENDED)
            code = 0
        except BaseException:  # noqa: BLE001 - goes no further than this child, so it is shown
            traceback.print_exc()
        finally:
            os._exit(code)  # neither pytest's nor the parent's cleaning up is the child's
    os.close(writing)
    said = os.read(reading, 1)
    if delay is not None:
        time.sleep(delay)
        os.kill(child, signal.SIGKILL)
    while more := os.read(reading, 1 << 16):
        said += more
    os.close(reading)
    return said, os.waitpid(child, 0)[1]


def damaged(folder: Path) -> list[str]:
    """Published files that do not prove themselves."""
    found = []
    for path in sorted(folder.glob("[!.]*")):
        if path.suffix == ".safetensors":
            inspection = inspect_file(path)
            if not inspection.valid:
                found.append(f"{path.name}: {inspection.reasons}")
        elif path.suffix == ".json":
            try:
                json.loads(path.read_text())
            except ValueError as error:
                found.append(f"{path.name}: {error}")
    return found


def write_in_place(path: Path, data: bytes) -> None:
    """What `swipe.files.write_bytes_atomic` would be without its care."""
    with path.open("wb", buffering=0) as stream:
        stream.write(data[: len(data) // 2])
        os.fsync(stream.fileno())
        stream.write(data[len(data) // 2 :])
        os.fsync(stream.fileno())


def main(out: Path, kills: int, seed: int = 0) -> dict[str, Any]:
    """Kill the run `kills` times, then let it end; what was seen, JSON-ready."""
    out.mkdir(exist_ok=True)
    began = time.monotonic()
    assert attempt(out / "whole", None)[1] == 0
    seconds = time.monotonic() - began
    folder, rng = out / "killed", random.Random(seed)
    folder.mkdir()
    seen: dict[str, Any] = {"kills": 0, "while_writing": 0, "damaged": [], "failed": []}
    while seen["kills"] < kills:
        for leftover in folder.glob(".*"):
            leftover.unlink()
        # Short enough that the run cannot end, even on a machine that has become twice as fast.
        said, status = attempt(folder, rng.uniform(0.0, seconds / (1.5 * kills)))
        if os.WIFEXITED(status):
            seen["failed"].append(f"ended by itself with {os.waitstatus_to_exitcode(status)}")
            break
        if said.startswith(STARTED) and ENDED not in said:
            seen["kills"] += 1
            seen["while_writing"] += any(folder.glob(".*"))
        seen["damaged"] += damaged(folder)
        if seen["damaged"]:
            break
    else:
        said, status = attempt(folder, None)
        if status != 0:
            seen["failed"].append(f"the last attempt ended with {status}")
        seen["steps_left"] = said.count(STARTED)
    seen["seconds"] = time.monotonic() - began
    return seen


if __name__ == "__main__":
    torch.set_num_threads(1)  # a fork inherits no other threads
    torch.optim.AdamW([nn.Parameter(torch.ones(1))])  # imports its half second's worth once
    if "--in-place" in sys.argv:
        sealed.write_bytes_atomic = write_in_place
    print(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]))))
