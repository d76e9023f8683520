"""Training on keyboards that nobody swiped on: other letters on the keys, and one row more.

A model that has seen one keyboard only learns by heart where its letters are. Here a share of the
swipes is carried to a keyboard with the same places and shuffled letters (`swipe.transplant`), and
a share is seen on one of four rows, whose letters lie on the upper or lower three. The built-in
layouts are not used: they remain a fair test of keyboards never trained on.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from swipe.transplant import transplant
from train.config import Augment
from train.stream import Rows

ROW_HEIGHT: Final = np.float32(0.75)
"""Of a row among four, when a row among three is 1."""


def relayout(
    rows: Rows, keys: NDArray[np.float32], config: Augment, rng: np.random.Generator
) -> tuple[Rows, NDArray[np.float32]]:
    """Give each swipe its keyboard, and carry it there.

    Args:
        rows: swipes on the keyboard `keys`; not changed.
        keys: float32[K, 2], its centres in class order.
        config: shares of the swipes.
        rng: source of all randomness.

    Returns:
        The rows with other trajectories, and float32[B, K, 2], the keyboard of each.
    """
    count = len(rows.lengths)
    keyboards = np.repeat(keys[None], count, axis=0)
    paths = rows.trajectories.copy()
    shuffled = np.flatnonzero(rng.uniform(size=count) < config.layouts)
    if len(shuffled):
        order = rng.uniform(size=(len(shuffled), len(keys))).argsort(axis=1)
        keyboards[shuffled] = keys[order]
        letters = rows.targets[shuffled]
        paths[shuffled] = transplant(
            paths[shuffled],
            keys[letters],
            np.take_along_axis(keyboards[shuffled], letters[:, :, None], axis=1),
            rows.lengths[shuffled],
        )
    lower = rng.uniform(size=count) < config.rows
    offset = np.float32(1 - ROW_HEIGHT) * rng.integers(2, size=count).astype(np.float32)[lower]
    keyboards[lower, :, 1] = keyboards[lower, :, 1] * ROW_HEIGHT + offset[:, None]
    paths[lower, 1] = paths[lower, 1] * ROW_HEIGHT + offset[:, None]
    return replace(rows, trajectories=paths), keyboards
