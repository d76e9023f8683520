"""What a run needs besides its weights to continue: moments, counters; one sealed file.

The weights themselves are repeated here, so that model and optimizer can never come from
different moments of the run.
"""

from __future__ import annotations

import math
import os
import shutil
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn

from swipe.errors import CheckpointError, UsageError
from swipe.files import replacing
from train.checkpoint import copy_tensors
from train.progress import Progress
from train.runs import STATE
from train.sealed import read_sealed, write_sealed

GOOD: Final = "good.safetensors"
"""The state of the last sane evaluation: what a run goes back to when steps cannot be taken."""
_FIX: Final = "start the run again without --resume"
_COUNTERS: Final = (
    "step", "fraction", "taken", "skipped", "skipped_in_a_row", "skipped_in_epoch", "rollbacks",
    "taken_at_good", "explosions", "samples", "seconds", "history", "batches_per_step",
)  # fmt: skip
_MAYBE_NOT_FINITE: Final = {"loss": math.nan, "gradient_norm": math.nan, "best": -math.inf}
"""Counters that are written as null before they have a value, and what they are until then."""


def save_state(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress
) -> None:
    """Write ``state.safetensors`` into `folder`, atomically.

    Raises:
        NonFiniteError: weights or moments hold NaN or Inf; nothing is written.
    """
    # Copies: weights that two layers share have two names, and the format wants two tensors.
    tensors = {f"model.{name}": t for name, t in copy_tensors(model).items()}
    for index, state in optimizer.state_dict()["state"].items():
        for key, value in state.items():
            tensors[f"optimizer.{index}.{key}"] = torch.as_tensor(value)
    counters = {name: getattr(progress, name) for name in _COUNTERS}
    for name in _MAYBE_NOT_FINITE:
        value = getattr(progress, name)
        counters[name] = value if math.isfinite(value) else None
    write_sealed(folder / STATE, tensors, counters, fix="lower the learning rate and start again")


def mark_good(folder: Path) -> None:
    """Let the state just saved be the one that a run goes back to.

    A second name for the same file where there can be one: no copy, and replacing one leaves the
    other. Mounted drives and memory cards have no second names; there it is copied.
    """
    fresh = folder / f".{GOOD}.{os.getpid()}"
    try:
        fresh.unlink(missing_ok=True)
        os.link(folder / STATE, fresh)
        os.replace(fresh, folder / GOOD)
    except OSError:
        with replacing(folder / GOOD) as temporary:
            shutil.copyfile(folder / STATE, temporary)


def load_state(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress | None
) -> None:
    """Put model, optimizer and counters back to where the state file `path` left them.

    Args:
        path: the state file.
        model: gets its weights and buffers.
        optimizer: gets its moments.
        progress: gets its counters; None leaves them.

    Raises:
        CheckpointError: the state is damaged or of another model.
        NonFiniteError: weights or moments hold NaN or Inf.
        UsageError: its steps were made of another number of batches.
    """
    counters, tensors = read_sealed(path, fix=_FIX)
    try:
        if progress is not None:
            _require_equal_steps(int(counters["batches_per_step"]), progress.batches_per_step)
            for name in _COUNTERS:
                setattr(progress, name, type(getattr(progress, name))(counters[name]))
            for name, unknown in _MAYBE_NOT_FINITE.items():
                value = counters[name]
                setattr(progress, name, unknown if value is None else float(value))
        weights = {k.removeprefix("model."): t for k, t in tensors.items() if k[:6] == "model."}
        model.load_state_dict(weights, strict=True)
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            if name.startswith("optimizer."):
                _, index, key = name.split(".")
                state.setdefault(int(index), {})[key] = tensor
        optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be resumed from: {error!r}", fix=_FIX) from error


def _require_equal_steps(recorded: int, given: int) -> None:
    if recorded != given:
        raise UsageError(
            f"each step of this run was made of {recorded} batches (processes times "
            f"optimizer.accumulate), and would now be made of {given}",
            fix=f"resume it with torchrun so that there are {recorded} again",
        )
