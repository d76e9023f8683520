"""Augmentation: one affine map per swipe, moving the trajectory and the key centres together.

Because both move, the swipe still passes over its own keys: the model has to read the keyboard's
geometry instead of memorising it. Shape, finiteness, point order and time order are kept.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from train.config import Augment


def augment(
    trajectories: NDArray[np.float32],
    keys: NDArray[np.float32],
    config: Augment,
    rng: np.random.Generator,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Move each swipe and its keyboard by one random affine map, then add noise to the swipe.

    Args:
        trajectories: float32[B, 2, T], not clipped.
        keys: float32[K, 2], the keyboard's centres, or float32[B, K, 2], each swipe's own.
        config: ranges of the map.
        rng: source of all randomness.

    Returns:
        ``(float32[B, 2, T] trajectories, float32[B, K, 2] keys)``.
    """
    count = len(trajectories)
    matrix = np.zeros((count, 2, 2), dtype=np.float32)
    matrix[:, 0, 0] = rng.uniform(1 - config.scale, 1 + config.scale, count)
    matrix[:, 1, 1] = rng.uniform(1 - config.scale, 1 + config.scale, count)
    matrix[:, 0, 1] = rng.uniform(-config.shear, config.shear, count)
    matrix[:, 1, 0] = rng.uniform(-config.shear, config.shear, count)
    mirrored = rng.uniform(size=count) < config.mirror
    matrix[mirrored, :, 0] *= -1.0
    shift = rng.uniform(-config.translate, config.translate, (count, 2, 1)).astype(np.float32)
    center = np.float32(0.5)
    moved = matrix @ (trajectories - center) + center + shift
    moved_keys = matrix @ (np.swapaxes(keys, -1, -2) - center) + center + shift
    noise = rng.normal(0.0, config.noise, moved.shape).astype(np.float32)
    return moved + noise, np.ascontiguousarray(moved_keys.transpose(0, 2, 1))
