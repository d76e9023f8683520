"""The EEG task: mean squared error, scored by how often the strongest region is found."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from examples.eeg.data import Head
from examples.eeg.model import build
from train.checkpoint import ModelCheckpoint, copy_tensors
from train.task import Batch, Score

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN: Final = 6
"""Recordings in the figure."""


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
        """How well the activity of held-out recordings is found; chosen by `located`.

        Every figure is bounded whatever the model says: an error of 1e12 can neither become the
        best one nor, as an infinite figure that no checkpoint may hold, end the run.
        """
        numbers = range(self._recordings, self._recordings + self._held_out)
        parts = [
            numbers[first : first + self._size] for first in range(0, len(numbers), self._size)
        ]
        answers, truths = zip(*(self._answers(self._collate(list(p))) for p in parts), strict=True)
        metrics = figures(torch.cat(answers), torch.cat(truths))
        summary = (
            f"strongest region found in {metrics['located']:.1f} % of {len(numbers)} recordings "
            f"(chance {100.0 / self._options['regions']:.1f} %), R² {metrics['r2']:.2f}, "
            f"correlation {metrics['correlation']:.2f}"
        )
        return Score(metrics["located"], {**metrics, "recordings": len(numbers)}, summary)

    def checkpoint(self, step: int, score: Score) -> ModelCheckpoint:
        """The model as it is now."""
        return ModelCheckpoint(
            "examples.eeg.model:build",
            self._options,
            copy_tensors(self.model),
            step,
            score.metrics,
        )

    def figure(self) -> Figure:
        """True and found activity of some held-out recordings, region by region."""
        from matplotlib.figure import Figure

        held_out = range(self._recordings, self._recordings + min(SHOWN, self._held_out))
        answers, truths = self._answers(self._collate(list(held_out)))
        figure = Figure(figsize=(10, 4.4), layout="constrained")
        for number, (answer, truth) in enumerate(zip(answers, truths, strict=True)):
            axes = figure.add_subplot(2, SHOWN // 2, number + 1)
            axes.bar(range(len(truth)), truth.tolist(), color="0.8", label="true")
            axes.plot(answer.tolist(), color="steelblue", label="found")
            axes.set_xlabel("region")
        axes.legend()
        return figure

    def _answers(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """What the model finds in `batch` and what is true, both ``[B, R]`` on the CPU."""
        self.model.eval()
        signals = batch.tensors["signals"].to(self.model.head.weight.device)
        with torch.inference_mode():
            answers = cast(Tensor, self.model(signals)).float().cpu()
        return answers, batch.tensors["activity"]

    def _collate(self, numbers: list[int]) -> Batch:
        signals, activity = zip(*(self._head.recording(n) for n in numbers), strict=True)
        tensors = {
            "signals": torch.from_numpy(np.stack(signals)),
            "activity": torch.from_numpy(np.stack(activity)),
        }
        return Batch(tensors, [f"recording-{number}" for number in numbers])


def figures(answers: Tensor, truths: Tensor) -> dict[str, float]:
    """Figures of ``answers [N, R]`` against ``truths [N, R]``, finite whatever the answers are.

    ``located`` is the share of rows whose strongest region is found, in percent; a row with NaN or
    Inf has none. ``r2`` is the share of variance explained, cut off at -1, and ``correlation`` is
    Pearson's; with NaN or Inf anywhere they are -1 and 0.
    """
    finite = answers.isfinite().all(dim=1)
    hits = finite & (answers.nan_to_num().argmax(dim=1) == truths.argmax(dim=1))
    located, r2, correlation = 100.0 * int(hits.sum()) / len(hits), -1.0, 0.0
    if bool(finite.all()):
        given, true = answers.double(), truths.double()
        error = float(((given - true) ** 2).sum())
        r2 = max(-1.0, 1.0 - error / float(((true - true.mean()) ** 2).sum()))
        given, true = given - given.mean(), true - true.mean()
        spread = float(given.norm() * true.norm())
        correlation = float((given * true).sum()) / spread if spread > 0.0 else 0.0
        correlation = max(-1.0, min(1.0, correlation))  # rounding may go beyond
    return {"located": located, "r2": r2, "correlation": correlation}
