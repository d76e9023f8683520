"""The EEG task: mean squared error, scored by how often the strongest region is found."""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from examples.eeg.data import Head
from examples.eeg.model import build
from train.checkpoint import ModelCheckpoint, copy_tensors
from train.task import Batch, Score


class EegTask:
    """Model, generated recordings, squared error and localisation accuracy.

    Args:
        seed: of the weights, the head, the recordings and their order.
        batch_size: recordings of a batch.
        recordings: to train on.
        held_out: further recordings to choose the best checkpoint by.
        sensors: C.
        regions: R.
        samples: T, at 128 Hz.
        width: channels of the model.
        depth: blocks of the model.
    """

    def __init__(
        self,
        seed: int,
        batch_size: int,
        *,
        recordings: int = 50_000,
        held_out: int = 500,
        sensors: int = 32,
        regions: int = 32,
        samples: int = 128,
        width: int = 96,
        depth: int = 2,
    ) -> None:
        torch.manual_seed(seed)
        self._seed, self._size = seed, min(batch_size, recordings)
        self._recordings, self._held_out = recordings, held_out
        self._head = Head(seed, sensors, regions, samples)
        self._options = {"sensors": sensors, "regions": regions, "width": width, "depth": depth}
        self.model = build(**self._options)

    @property
    def batches_per_epoch(self) -> int:
        """How many batches show every recording once; a last one that is not full is left out."""
        return self._recordings // self._size

    def batch(self, index: int) -> Batch:
        """Batch `index`: each epoch in an order of its own."""
        epoch, position = divmod(index, self.batches_per_epoch)
        order = np.random.default_rng([self._seed, 2, epoch]).permutation(self._recordings)
        return self._collate(order[position * self._size : (position + 1) * self._size].tolist())

    def loss(self, batch: Batch) -> Tensor:
        """Mean squared error of the activities."""
        return F.mse_loss(self.model(batch.tensors["signals"]).float(), batch.tensors["activity"])

    def evaluate(self) -> Score:
        """How often the strongest region is found, and the share of variance explained.

        Chosen by the former, which lies in [0, 100] whatever the model says: a squared error of
        1e12 cannot become the best one.
        """
        self.model.eval()
        device = self.model.head.weight.device
        found, error, variance = 0, 0.0, 0.0
        numbers = range(self._recordings, self._recordings + self._held_out)
        for first in range(0, self._held_out, self._size):
            batch = self._collate(list(numbers[first : first + self._size])).to(device)
            truth = batch.tensors["activity"]
            with torch.inference_mode():
                given = cast(Tensor, self.model(batch.tensors["signals"]))
            found += int((given.argmax(dim=1) == truth.argmax(dim=1)).sum())
            error += float(((given - truth) ** 2).sum())
            variance += float(((truth - truth.mean()) ** 2).sum())
        located = 100.0 * found / self._held_out
        explained = 1.0 - error / variance
        metrics = {"located": located, "r2": explained, "recordings": self._held_out}
        chance = 100.0 / truth.shape[1]
        summary = (
            f"strongest region found in {located:.1f} % of {self._held_out} recordings "
            f"(chance {chance:.1f} %), R² {explained:.2f}"
        )
        return Score(located, metrics, summary)

    def checkpoint(self, step: int, score: Score) -> ModelCheckpoint:
        """The model as it is now."""
        return ModelCheckpoint(
            "examples.eeg.model:build",
            self._options,
            copy_tensors(self.model),
            step,
            score.metrics,
        )

    def _collate(self, numbers: list[int]) -> Batch:
        signals, activity = zip(*(self._head.recording(n) for n in numbers), strict=True)
        tensors = {
            "signals": torch.from_numpy(np.stack(signals)),
            "activity": torch.from_numpy(np.stack(activity)),
        }
        return Batch(tensors, [f"recording-{number}" for number in numbers])
