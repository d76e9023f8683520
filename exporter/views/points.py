"""One keyboard, and raw touch points: the feature recipe is inside the graph.

A host passes what it gets from the screen. There is no recipe to port, so none to get wrong.

Where a swipe has more than `ROWS` points, the host keeps the first, the last and evenly spaced ones
between, as `rows_of` does. Where it has fewer, the other rows repeat the last point, or hold zeros:
the recipe drops them.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from exporter.evidence import Evidence, Trial
from exporter.formats import calls_of
from exporter.manifest import ViewEntry
from exporter.views.baked import Baked
from exporter.views.view import TRIAL_SWIPES
from exporter.words import Words
from swipe.contract import ModelContract
from swipe.features import features
from swipe.gesture import Gesture

if TYPE_CHECKING:
    from torch import nn

    from train.checkpoint import Checkpoint
    from train.models import SwipeModel

ROWS: Final = 640
"""Touch points that fit: ten seconds at 60 Hz. The longest of 8,152 real swipes has 590."""


ZEROS: Final = "zeros in unused rows"


def rows_of(gestures: Iterable[Gesture]) -> NDArray[np.float32]:
    """``float32[B, ROWS, 3]``: x and y in letter-area units, ms since the first point."""
    swipes = [_filled(gesture.points) for gesture in gestures]
    return np.stack(swipes) if swipes else np.empty((0, ROWS, 3), dtype=np.float32)


def _filled(points: NDArray[np.float32]) -> NDArray[np.float32]:
    last = len(points) - 1
    index = (
        np.minimum(np.arange(ROWS), last)
        if last < ROWS
        else np.rint(np.linspace(0, last, ROWS)).astype(np.int64)
    )
    rows: NDArray[np.float32] = points[index].astype(np.float32)
    rows[:, 2] -= rows[:, 2].min()
    return rows


class Points(Baked):
    """See the module."""

    name, stem, takes = "points", "model-points", "points"

    def module(self, model: SwipeModel, contract: ModelContract) -> nn.Module:
        import torch

        from train.models import from_points

        return from_points(model, torch.tensor(contract.keys))

    def taken(self, contract: ModelContract) -> tuple[int, ...]:
        return (1, ROWS, 3)

    def evidence(
        self,
        checkpoint: Checkpoint,
        rows: NDArray[np.float32],
        logits: NDArray[np.float32],
        words: Words,
        rounding: float = 0.0,
    ) -> Evidence:
        """As for every view, and the same swipes once more with zeros in the unused rows.

        PyTorch answers by the numpy recipe of the very rows that artefacts get: `logits` may come
        from swipes that had more points than fit.
        """
        from train.evaluate import predict

        contract = checkpoint.contract
        recipe = np.stack([features(swipe) for swipe in rows])
        answers = predict(checkpoint.model(), contract, recipe)
        some = rows[:TRIAL_SWIPES]
        own = self._rounding(checkpoint, some)
        evidence = super().evidence(checkpoint, rows, answers, words, max(rounding, own))
        zeros = Trial(
            ZEROS,
            calls_of(_with_zeros(some), name=self.takes),
            list(answers[:TRIAL_SWIPES]),
        )
        return replace(evidence, trials=(*evidence.trials, zeros))

    def describe(self, contract: ModelContract) -> ViewEntry:
        return super().describe(contract).model_copy(update={"also_tried": (ZEROS,)})

    def _rounding(self, checkpoint: Checkpoint, rows: NDArray[np.float32]) -> float:
        """Largest |float32 - float64| of the outputs, the recipe's arithmetic included."""
        import torch

        single = self.module(checkpoint.model(), checkpoint.contract)
        double = copy.deepcopy(single).double()
        swipes = torch.from_numpy(rows)
        with torch.inference_mode():
            return float((single(swipes) - double(swipes.double())).abs().max())

    @property
    def conventions(self) -> dict[str, str]:
        return {
            "points": f"touch points (x, y, t) in order: x and y in letter-area units, t in ms "
            f"since the first point; unused rows repeat the last point or are 0; of more than "
            f"{ROWS} points keep the first, the last and evenly spaced ones",
            "logits": super().conventions["logits"],
        }


def _with_zeros(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """`rows` with zeros where `rows_of` repeats the last point."""
    repeated = np.zeros(rows.shape[:2], dtype=bool)
    repeated[:, 1:] = (rows[:, 1:] == rows[:, :-1]).all(axis=2)
    # From the end on: a point that is repeated within the swipe stays.
    trailing = np.logical_and.accumulate(repeated[:, ::-1], axis=1)[:, ::-1]
    return np.where(trailing[:, :, None], np.float32(0), rows)


POINTS: Final = Points()
