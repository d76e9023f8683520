"""What a run needs besides its weights to continue: moments, counters; one atomic file.

The weights themselves are repeated here, so that model and optimizer can never come from
different moments of the run.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor, nn

from swipe.errors import CheckpointError, UsageError
from swipe.files import write_bytes_atomic
from train.finite import require_finite

if TYPE_CHECKING:
    from train.loop import Progress

FILE: Final = "state.safetensors"


def save_state(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress
) -> None:
    """Write ``state.safetensors`` into `folder`, atomically.

    Raises:
        NonFiniteError: weights or moments hold NaN or Inf; nothing is written.
    """
    from safetensors.torch import save

    tensors = {f"model.{name}": t for name, t in model.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        for key, value in state.items():
            tensors[f"optimizer.{index}.{key}"] = torch.as_tensor(value)
    require_finite(
        tensors, where=f"before saving {FILE}", fix="lower the learning rate and start again"
    )
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
    contiguous = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    data = save(contiguous, {"progress": json.dumps(counters, allow_nan=False)})
    write_bytes_atomic(folder / FILE, data)


def load_state(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress
) -> None:
    """Put model, optimizer and counters back to where ``state.safetensors`` left them.

    Raises:
        UsageError: the folder holds no state.
        CheckpointError: the state is damaged or of another model.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    path = folder / FILE
    if not path.is_file():
        raise UsageError(
            f"{folder} holds no {FILE} to resume from", fix="start the run without --resume"
        )
    data = path.read_bytes()
    try:
        tensors: dict[str, Tensor] = load(data)
        length = int.from_bytes(data[:8], "little")
        counters = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["progress"])
        require_finite(tensors, where=f"in {path}", fix="start the run again")
        weights = {k.removeprefix("model."): t for k, t in tensors.items() if k[:6] == "model."}
        model.load_state_dict(weights, strict=True)
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            if name.startswith("optimizer."):
                _, index, key = name.split(".")
                state.setdefault(int(index), {})[key] = tensor
        optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    except (SafetensorError, KeyError, RuntimeError, ValueError) as error:
        raise CheckpointError(
            f"{path} cannot be resumed from: {error}", fix="start the run without --resume"
        ) from error
    progress.step = counters["step"]
    progress.fraction = counters["fraction"]
    progress.loss = math.nan if counters["loss"] is None else counters["loss"]
    progress.skipped = counters["skipped"]
    progress.samples = counters["samples"]
    progress.seconds = counters["seconds"]
    progress.best = -math.inf if counters["best"] is None else counters["best"]
    progress.history = counters["history"]
