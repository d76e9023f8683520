"""The image task: cross-entropy over classes, scored by top-1 on images never trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from examples.vision.data import label_of, picture
from examples.vision.model import build
from train.checkpoint import ModelCheckpoint, copy_tensors
from train.task import Batch, Score

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN: Final = 10
"""Images in the figure."""


class VisionTask:
    """Model, generated images, cross-entropy and top-1 accuracy.

    Args:
        seed: of the weights, the images and their order.
        batch_size: images of a batch.
        samples: images to train on.
        held_out: further images to choose the best checkpoint by.
        classes: number of classes.
        image: height and width in pixels; the one place where it is said.
        size: of the model; see `examples.vision.model.build`.
    """

    def __init__(
        self,
        seed: int,
        batch_size: int,
        *,
        samples: int = 20_000,
        held_out: int = 300,
        classes: int = 30,
        image: int = 224,
        size: str = "small",
    ) -> None:
        torch.manual_seed(seed)
        self._seed, self._size = seed, min(batch_size, samples)
        self._samples, self._held_out = samples, held_out
        self._options = {"classes": classes, "image": image, "size": size}
        self._classes, self._image = classes, image
        self.model = build(classes, image, size)

    @property
    def batches_per_epoch(self) -> int:
        """How many batches show every image once; a last one that is not full is left out."""
        return self._samples // self._size

    def batch(self, index: int) -> Batch:
        """Batch `index`: each epoch in an order of its own."""
        epoch, position = divmod(index, self.batches_per_epoch)
        order = np.random.default_rng([self._seed, 1, epoch]).permutation(self._samples)
        return self._collate(order[position * self._size : (position + 1) * self._size].tolist())

    def loss(self, batch: Batch) -> Tensor:
        """Cross-entropy, averaged over the batch."""
        scores = self.model(batch.tensors["images"])
        return F.cross_entropy(scores.float(), batch.tensors["labels"])

    def evaluate(self) -> Score:
        """Top-1 accuracy on held-out images; an image with a score of NaN or Inf is wrong."""
        right = 0
        numbers = range(self._samples, self._samples + self._held_out)
        for first in range(0, self._held_out, self._size):
            batch = self._collate(list(numbers[first : first + self._size]))
            scores = self._scores(batch)
            hits = scores.nan_to_num().argmax(dim=1) == batch.tensors["labels"]
            right += int((hits & scores.isfinite().all(dim=1)).sum())
        top1 = 100.0 * right / self._held_out
        chance = 100.0 / self._classes
        summary = f"top-1 {top1:.1f} % of {self._held_out} images (chance {chance:.1f} %)"
        return Score(top1, {"top1": top1, "images": self._held_out}, summary)

    def checkpoint(self, step: int, score: Score) -> ModelCheckpoint:
        """The model as it is now."""
        return ModelCheckpoint(
            "examples.vision.model:build",
            self._options,
            copy_tensors(self.model),
            step,
            score.metrics,
        )

    def figure(self) -> Figure:
        """Held-out images under their class; in red with the class that is seen instead."""
        from matplotlib.figure import Figure

        held_out = range(self._samples, self._samples + min(SHOWN, self._held_out))
        batch = self._collate(list(held_out))
        seen = self._scores(batch).argmax(dim=1).tolist()
        rows = zip(batch.tensors["images"], batch.tensors["labels"].tolist(), seen, strict=True)
        figure = Figure(figsize=(10, 4.4), layout="constrained")
        for number, (image, label, guess) in enumerate(rows):
            axes = figure.add_subplot(2, SHOWN // 2, number + 1)
            axes.imshow((image + 0.5).clamp(0.0, 1.0).permute(1, 2, 0).numpy())
            title, colour = (label, "black") if guess == label else (f"{label} → {guess}", "red")
            axes.set_title(str(title), color=colour)
            axes.set_axis_off()
        return figure

    def _scores(self, batch: Batch) -> Tensor:
        """Class scores of `batch` ``[B, classes]`` on the CPU."""
        self.model.eval()
        images = batch.tensors["images"].to(next(self.model.parameters()).device)
        with torch.inference_mode():
            return cast(Tensor, self.model(images)).float().cpu()

    def _collate(self, numbers: list[int]) -> Batch:
        images = [picture(self._seed, n, self._classes, self._image) for n in numbers]
        tensors = {
            "images": torch.from_numpy(np.stack(images)),
            "labels": torch.tensor([label_of(n, self._classes) for n in numbers]),
        }
        return Batch(tensors, [f"image-{number}" for number in numbers])
