"""Small networks of one's own, and what a factory says of them; each can be sabotaged."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from exporter.adapter import Axis, Exportable, Inputs, Kind, Length, Reading

CHANNELS, CLASSES, BLANK = 6, 4, 3
AXIS = Axis("T", 4, 24)


class Pooled(nn.Module):
    """CTC scores ``[B, T, 4]`` of ``[B, 6, T]``, with the mean over all real frames added."""

    def __init__(self, *, masked: bool = True) -> None:
        super().__init__()
        self.masked = masked
        self.head = nn.Linear(CHANNELS, CLASSES)
        self.register_buffer("scale", torch.ones(1), persistent=False)

    def forward(self, features: Tensor, frames: Tensor) -> Tensor:
        real = (torch.arange(features.shape[2]) < frames[:, None])[:, None]
        kept = torch.where(real, features, 0.0) if self.masked else features + 0.0 * frames.sum()
        mean = kept.sum(dim=2, keepdim=True) / frames[:, None, None]
        return self.head((features + mean).transpose(1, 2)) * self.scale


def sequence_call(number: int, frames: int | None = None, *, padding: int = 0) -> Inputs:
    """Sample `number`: noise of some length, and zeros after it."""
    generator = np.random.default_rng(number)
    length = frames or int(generator.integers(AXIS.least, AXIS.most - 4))
    features = np.zeros((1, CHANNELS, length + padding), dtype=np.float32)
    features[0, :, :length] = 2 * generator.standard_normal((CHANNELS, length))
    return {"features": features, "frames": np.array([length], dtype=np.int64)}


def sequences(*, masked: bool = True, **changes: Any) -> Exportable:
    """A CTC model for 4 to 24 frames, and whatever is to be different."""
    torch.manual_seed(0)
    fields: dict[str, Any] = {
        "module": Pooled(masked=masked).eval(),
        "example": sequence_call(0, 10),
        "calibration": [sequence_call(number) for number in range(100, 108)],
        "verification": [sequence_call(number) for number in range(40)],
        "reading": Reading(Kind.CTC, BLANK),
        "axes": {"features": {2: AXIS}},
        "lengths": (Length("frames", "T"),),
    }
    return Exportable(**(fields | changes))


class Perceptron(nn.Module):
    """Class scores of eight numbers; large enough for int8 to save something."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 3)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)  # type: ignore[no-any-return]


def rows(count: int, seed: int) -> list[Inputs]:
    """Calls of eight numbers."""
    drawn = np.random.default_rng(seed).standard_normal((count, 1, 8)).astype(np.float32)
    return [{"x": row} for row in drawn]


def classes(**changes: Any) -> Exportable:
    """A classifier that is right by its own definition, and whatever is to be different."""
    torch.manual_seed(0)
    module = Perceptron().eval()
    verification = rows(400, seed=1)
    with torch.no_grad():
        labels = [int(module(torch.from_numpy(call["x"])).argmax()) for call in verification]
    fields: dict[str, Any] = {
        "module": module,
        "example": rows(1, seed=3)[0],
        "calibration": rows(32, seed=2),
        "verification": verification,
        "reading": Reading(Kind.CLASSES),
        "name": "classes",
        "metric": lambda outputs: [
            float(row.argmax() == label) for row, label in zip(outputs, labels, strict=True)
        ],
        "metric_name": "top1",
    }
    return Exportable(**(fields | changes))
