"""A picture of held-out swipes and what the model reads in them, for whoever watches a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = 4


def draw_swipes(
    features: NDArray[np.float32],
    truths: Sequence[str],
    read: Sequence[str],
    keys: NDArray[np.float32],
    letters: str,
) -> Figure:
    """Draw swipes over their keyboard, each under what was meant and what was read.

    Args:
        features: float32[N, 2, T], x and y in letter-area units.
        truths: the N words that were meant.
        read: the N words that the model gave.
        keys: float32[K, 2], key centres.
        letters: the K letters.
    """
    from matplotlib.figure import Figure

    rows = -(-len(features) // COLUMNS)
    figure = Figure(figsize=(3.2 * COLUMNS, 1.7 * rows), layout="constrained")
    for number, (path, truth, word) in enumerate(zip(features, truths, read, strict=True)):
        axes = figure.add_subplot(rows, COLUMNS, number + 1)
        right = truth == word
        axes.set_title(
            truth if right else f"{truth} → {word or '(nothing)'}",
            color="black" if right else "firebrick",
            fontsize=9,
        )
        for letter, (x, y) in zip(letters, keys, strict=True):
            axes.text(x, y, letter, ha="center", va="center", color="0.7", fontsize=7)
        # Time runs from light to dark.
        axes.plot(path[0], path[1], color="steelblue", linewidth=1)
        axes.scatter(path[0], path[1], c=np.arange(path.shape[1]), cmap="Blues", s=6, zorder=2)
        axes.set_xlim(0, 1)
        axes.set_ylim(1, 0)
        axes.set_axis_off()
    return figure
