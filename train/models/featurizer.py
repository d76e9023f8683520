"""The feature recipe inside the graph: raw touch points in, 64 resampled ones out.

`swipe.features` is the definition and this a copy of it, in operators that ONNX opset 14,
ExecuTorch and Core ML all have and XNNPACK computes fast: arithmetic, slices and clamps. There is
no search, scatter or reciprocal in it, and no matrix product either: Core ML computes in float16
from the first of these on.

Times are float32. The time of a grid point is a count times a period, and rounding that product
would move it by microseconds, which fast strokes turn into visible errors. So the period is kept in
two parts: the products of the coarse one are exact, those of the fine one are small.

What it leaves out: sorting. The recipe sorts by time; here a row whose time goes back is dropped,
as if its time were a repeated one. Touch events never do that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor, nn

from swipe.contract import POINTS, SAMPLE_PERIOD_MS

_NEVER: Final = 1e30
_PERIOD_PARTS: Final = 8.0
"""The period in eighths of a millisecond has 8 bits: products with counts up to 2^16 are exact."""
_STEP_PARTS: Final = 64.0
"""The grid's step in these parts has at most 11 bits: products with counts up to 2^13 are exact."""


class Featurizer(nn.Module):
    """``points [B, N >= 2, 3]`` (x, y, t_ms) -> ``features [B, 2, 64]`` in [0, 1].

    A swipe of fewer than N points is filled up with copies of its last row, or with zeros: the
    recipe drops rows whose time is repeated, and such rows are that or go back in time. As exact as
    float32 allows for swipes of up to a minute, the longest that readers of swipes accept.
    """

    def __init__(self) -> None:
        super().__init__()
        self.place: Tensor
        place = torch.arange(POINTS, dtype=torch.float32)[None, :, None]
        self.register_buffer("place", place, persistent=False)

    def forward(self, points: Tensor) -> Tensor:
        x, y, t = (points[:, :, axis : axis + 1].transpose(1, 2) for axis in range(3))
        t = _scan(t - t[:, :, :1], torch.maximum, backwards=False)
        weights = self._weights(t)
        axes = [(weights * axis).sum(dim=2, keepdim=True) for axis in (x, y)]
        return torch.cat(axes, dim=2).clamp(0.0, 1.0).transpose(1, 2)

    def _weights(self, t: Tensor) -> Tensor:
        """What each point counts in each feature, ``[B, 64, N]``, of ordered times ``[B, 1, N]``.

        Linear interpolation on the 60 Hz grid, and linear interpolation between two grid times.
        """
        duration = t[:, :, -1:]
        intervals = _intervals(duration)
        scaled = self.place * intervals
        before = torch.floor(scaled / (POINTS - 1.0))
        share = (scaled - before * (POINTS - 1.0)) / (POINTS - 1.0)
        coarse = torch.floor(duration / intervals * _STEP_PARTS) / _STEP_PARTS
        fine = (duration - intervals * coarse) / intervals
        later = _next(t)
        low, high = (
            _hats(((tick * coarse) - t + tick * fine) / (later - t))
            for tick in (before, before + 1.0)
        )
        return low * (1.0 - share) + high * share


def _intervals(duration: Tensor) -> Tensor:
    """``max(1, round(duration / SAMPLE_PERIOD_MS))``, as float64 would round it.

    The quotient's float32 error can cross one half; the remainder is small, and shows it.
    """
    coarse = int(SAMPLE_PERIOD_MS * _PERIOD_PARTS) / _PERIOD_PARTS
    fine = SAMPLE_PERIOD_MS - coarse
    count = torch.floor(duration / SAMPLE_PERIOD_MS + 0.5)
    rest = (duration - count * coarse) - count * fine
    half = SAMPLE_PERIOD_MS / 2.0
    count = count + (rest > half).to(torch.float32) - (rest < -half).to(torch.float32)
    return count.clamp(min=1.0)


def _next(t: Tensor) -> Tensor:
    """The next greater time after each of the ordered `t`, or one that is never reached."""
    later = torch.cat([t[:, :, 1:], t[:, :, -1:]], dim=2)
    repeated = (later <= t).to(torch.float32)
    return _scan(later + repeated * _NEVER, torch.minimum, backwards=True)


def _hats(progress: Tensor) -> Tensor:
    """Weights of the points, from how far a time has come from each point to the next one.

    A point's weight is how much of the way to it is done, less how much of the way to the next:
    exactly 0 for all points but two, and for repeated ones, which share their way.
    """
    done = progress.clamp(0.0, 1.0)
    reached = torch.cat([done[:, :, :1] * 0.0 + 1.0, done[:, :, :-1]], dim=2)
    return reached - done


def _scan(
    values: Tensor, combine: Callable[[Tensor, Tensor], Tensor], *, backwards: bool
) -> Tensor:
    """Running maximum or minimum along the last axis, in as many steps as its length has bits."""
    step = 1
    while step < values.shape[2]:
        if backwards:
            shifted = torch.cat([values[:, :, step:], values[:, :, -step:]], dim=2)
        else:
            shifted = torch.cat([values[:, :, :step], values[:, :, :-step]], dim=2)
        values = combine(values, shifted)
        step *= 2
    return values
