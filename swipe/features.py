"""Gesture -> features float32[2, 64]: the numpy definition every in-graph copy is tested against.

The recipe (its name is part of the model contract):

1. sort by time, drop repeated timestamps (the first is kept), t := t - t[0] in ms;
2. resample linearly to a uniform 60 Hz: n = max(2, round(duration_ms / 16.667) + 1);
3. take 64 points at linspace(0, n - 1, 64) fractional indices, linearly;
4. clip to [0, 1].

Step 3 with a strided slice instead of linspace is a known train/serve skew (argmax agreement
falls from 100 % to 63 %). Velocity and other derived channels belong to the graph, not here.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from swipe.contract import POINTS, SAMPLE_PERIOD_MS
from swipe.errors import NonFiniteError
from swipe.gesture import Gesture


def trajectory(points: NDArray[np.floating], count: int = POINTS) -> NDArray[np.float32]:
    """Steps 1 to 3: resample ``points [N >= 1, 3]`` (x, y, t_ms) to ``float32[2, count]``.

    Not clipped: augmentation moves the trajectory first and clips last.

    Raises:
        NonFiniteError: a coordinate or time is NaN or Inf.
    """
    points = np.asarray(points, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != 3 or not len(points):
        raise ValueError(f"points must be [N >= 1, 3], got {points.shape}")
    if not np.isfinite(points).all():
        raise NonFiniteError(
            "a touch point is NaN or Inf", fix="read swipes through swipe.sources, which drops them"
        )
    t, first = np.unique(points[:, 2], return_index=True)
    xy = points[first, :2]
    t = t - t[0]
    n = max(2, round(float(t[-1]) / SAMPLE_PERIOD_MS) + 1)
    grid = np.linspace(0.0, t[-1], n)
    index = np.linspace(0.0, n - 1.0, count)
    resampled = np.empty((2, count), dtype=np.float32)
    for axis in range(2):
        uniform = np.interp(grid, t, xy[:, axis])
        resampled[axis] = np.interp(index, np.arange(n), uniform)
    return resampled


def features(points: NDArray[np.floating]) -> NDArray[np.float32]:
    """The whole recipe: ``points [N, 3]`` (x, y, t_ms) -> ``float32[2, 64]`` in [0, 1]."""
    return np.clip(trajectory(points), 0.0, 1.0)


def trajectories(gestures: Iterable[Gesture]) -> NDArray[np.float32]:
    """`trajectory` of each gesture, stacked: ``float32[B, 2, 64]``, not clipped."""
    rows = [trajectory(g.points) for g in gestures]
    return np.stack(rows) if rows else np.empty((0, 2, POINTS), dtype=np.float32)


def feature_batch(gestures: Iterable[Gesture]) -> NDArray[np.float32]:
    """`features` of each gesture, stacked: ``float32[B, 2, 64]``."""
    return np.clip(trajectories(gestures), 0.0, 1.0)
