"""What a run needs besides its weights to continue: moments, counters; one sealed file.

The weights themselves are repeated here, so that model and optimizer can never come from
different moments of the run.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from swipe.errors import CheckpointError, UsageError
from train.progress import Progress
from train.runs import STATE
from train.sealed import read_sealed, write_sealed

_FIX: Final = "start the run again without --resume"


def save_state(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress
) -> None:
    """Write ``state.safetensors`` into `folder`, atomically.

    Raises:
        NonFiniteError: weights or moments hold NaN or Inf; nothing is written.
    """
    tensors = {f"model.{name}": t for name, t in model.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        for key, value in state.items():
            tensors[f"optimizer.{index}.{key}"] = torch.as_tensor(value)
    counters = {
        "step": progress.step,
        "fraction": progress.fraction,
        "loss": progress.loss if math.isfinite(progress.loss) else None,
        "skipped": progress.skipped,
        "samples": progress.samples,
        "seconds": progress.seconds,
        "best": progress.best if math.isfinite(progress.best) else None,
        "history": progress.history,
    }
    write_sealed(folder / STATE, tensors, counters, fix="lower the learning rate and start again")


def load_state(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress
) -> None:
    """Put model, optimizer and counters back to where ``state.safetensors`` left them.

    Raises:
        UsageError: the folder holds no state.
        CheckpointError: the state is damaged or of another model.
        NonFiniteError: weights or moments hold NaN or Inf.
    """
    path = folder / STATE
    if not path.is_file():
        raise UsageError(f"{folder} holds no {STATE} to resume from", fix=_FIX)
    counters, tensors = read_sealed(path, fix=_FIX)
    try:
        _restore_counters(progress, counters)
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


def _restore_counters(progress: Progress, counters: dict[str, Any]) -> None:
    progress.step = int(counters["step"])
    progress.fraction = float(counters["fraction"])
    progress.loss = math.nan if counters["loss"] is None else float(counters["loss"])
    progress.skipped = int(counters["skipped"])
    progress.samples = int(counters["samples"])
    progress.seconds = float(counters["seconds"])
    progress.best = -math.inf if counters["best"] is None else float(counters["best"])
    progress.history = list(counters["history"])
