"""A run that several processes share, as torchrun starts it: ``ranks_job.py FOLDER SETTINGS``.

SETTINGS is JSON: batch, accumulate, steps, sync_norm, stop (a step to be interrupted at), resume,
and sabotage: {"rank": r, "batches": [numbers], "kind": "nan" | "shape" | "loss"}.
"""

from __future__ import annotations

import json
import math
import os
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from swipe.layout import load_layout
from swipe.lexicon import load_lexicon
from swipe.synthesis import synthesize
from train.config import TrainConfig
from train.distributed import joined
from train.loop import fit
from train.progress import Progress
from train.swipe_data import SwipeData
from train.swipe_task import SwipeTask
from train.task import Batch

QUIET = {"layouts": 0, "rows": 0, "scale": 0, "shear": 0, "translate": 0, "mirror": 0, "noise": 0}
WORDS = "wordfreq:2000"


class Sabotaged(SwipeTask):
    """A swipe task that goes wrong on one rank at some batches."""

    plan: dict[str, Any] | None = None
    number = -1

    def _hit(self) -> str:
        plan = self.plan
        here = plan is not None and plan["rank"] == int(os.environ.get("RANK", "0"))
        return plan["kind"] if plan and here and self.number in plan["batches"] else ""

    def batch(self, index: int) -> Batch:
        self.number = index
        batch = super().batch(index)
        if self._hit() == "nan":
            batch.tensors["features"][0, 0, 0] = math.nan
        if self._hit() == "shape":
            return Batch({**batch.tensors, "features": torch.zeros(3, 5)}, batch.row_ids)
        return batch

    def loss(self, batch: Batch) -> Tensor:
        return super().loss(batch) * (math.nan if self._hit() == "loss" else 1.0)


def main() -> None:
    folder, settings = Path(sys.argv[1]), json.loads(sys.argv[2])
    folder.mkdir(exist_ok=True)
    config = TrainConfig.model_validate(
        {
            "model": {"channels": 8, "dilations": [1, 2]},
            "augment": QUIET,
            "optimizer": {"batch_size": settings["batch"], "accumulate": settings["accumulate"]},
            "schedule": {"warmup_steps": 2},
            "length": {"steps": settings["steps"]},
            "evaluation": {"times": 4, "swipes": 20, "lexicon": WORDS, "beam_width": 8},
            "record": {"every": 1, "tensorboard": False},
            "distributed": {"sync_norm": settings["sync_norm"]},
            "device": "cpu",
        }
    )
    layout = load_layout("qwerty")
    swipes = synthesize(layout, load_lexicon(WORDS), 832)
    gestures = list(swipes.gestures)
    data = SwipeData(gestures[:768], gestures[768:], 0, (swipes,), {"synthetic": True})
    with joined() as ranks:
        task = Sabotaged(config, data, layout)
        task.plan = settings.get("sabotage")
        here = Progress()

        def observe(progress: Progress) -> None:
            nonlocal here
            here = progress

        progress = fit(
            task,
            config,
            folder,
            observe,
            resume=settings.get("resume", False),
            # Only the last rank is asked to stop: all must.
            stop=lambda: ranks.rank == ranks.world - 1 and here.step == settings.get("stop"),
            ranks=ranks,
        )
    print(json.dumps({"rank": ranks.rank, "taken": progress.taken, "skipped": progress.skipped}))


if __name__ == "__main__":
    main()
