"""Task: what the training loop must be told about a problem; it knows nothing else.

Swipe typing is one task (`train.swipe_task`). Randomness is a function of (seed, step), never of
hidden state, so a resumed run draws exactly the batches the uninterrupted one would have drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from train.checkpoint import Checkpoint


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """One step's samples.

    Attributes:
        tensors: what the model and the loss need, by name.
        row_ids: identifiers of the samples, for the quarantine when the step is not finite.
    """

    tensors: Mapping[str, Tensor]
    row_ids: Sequence[str]


@dataclass(frozen=True, slots=True)
class Score:
    """One evaluation.

    Attributes:
        value: what the best checkpoint is chosen by; higher is better.
        metrics: JSON-ready figures.
        summary: one line for a person.
    """

    value: float
    metrics: Mapping[str, Any]
    summary: str


class Task(Protocol):
    """A model, its data, its loss and its score."""

    @property
    def model(self) -> nn.Module:
        """What is trained; always the same object."""
        ...

    def batch(self, step: int) -> Batch:
        """The batch of optimizer step `step`; equal steps give equal batches."""
        ...

    def loss(self, batch: Batch) -> Tensor:
        """Scalar loss of `batch`, differentiable in the model's parameters."""
        ...

    def evaluate(self) -> Score:
        """Score the model as it is on held-out samples."""
        ...

    def checkpoint(self, step: int, score: Score) -> Checkpoint:
        """The model as it is, with the record of how it came to be."""
        ...
