"""Task: what the training loop must be told about a problem; it knows nothing else.

Swipe typing is one task (`train.swipe_task`), `examples/` holds others. Randomness is a function
of (seed, batch number), never of hidden state, so a resumed run draws exactly the batches the
uninterrupted one would have drawn, and processes that share a run draw different ones.

A task may also be a `CtcTask`, which gets the checks that only CTC needs, `Contracted`, or
`Drawable`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from train.ctc import Alphabet
from train.finite import null_for_nonfinite

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """One step's samples.

    Attributes:
        tensors: what the model and the loss need, by name; the first axis counts the samples.
        row_ids: identifiers of the samples, for the quarantine when the step cannot be taken.
    """

    tensors: Mapping[str, Tensor]
    row_ids: Sequence[str]

    def to(self, device: torch.device) -> Batch:
        """The same batch on `device`."""
        moved = {name: t.to(device, non_blocking=True) for name, t in self.tensors.items()}
        return Batch(moved, self.row_ids)

    def head(self, count: int) -> Batch:
        """The first `count` samples."""
        return Batch({n: t[:count] for n, t in self.tensors.items()}, self.row_ids[:count])


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

    def recorded(self) -> Score:
        """The same as JSON takes it: null for metrics that are NaN or Inf, Python's own numbers."""
        return Score(float(self.value), null_for_nonfinite(self.metrics), self.summary)


class Saveable(Protocol):
    """What a checkpoint file is made of; see `train.checkpoint`."""

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """Parameters and buffers by module path."""
        ...

    def record(self) -> dict[str, Any]:
        """JSON-ready description, without tensors."""
        ...


class Task(Protocol):
    """A model, its data, its loss and its score."""

    @property
    def model(self) -> nn.Module:
        """What is trained; always the same object, on the device that the loop moved it to."""
        ...

    @property
    def batches_per_epoch(self) -> int:
        """How many batches show every sample once."""
        ...

    def batch(self, index: int) -> Batch:
        """Batch `index` of the run, on the CPU; equal numbers give equal batches."""
        ...

    def loss(self, batch: Batch) -> Tensor:
        """Scalar mean loss of `batch`, differentiable in the model's parameters."""
        ...

    def evaluate(self) -> Score:
        """Score the model as it is on held-out samples, in bounded memory."""
        ...

    def checkpoint(self, step: int, score: Score) -> Saveable:
        """A copy of the model as it is, with the record of how it came to be."""
        ...


@runtime_checkable
class CtcTask(Protocol):
    """A task whose loss is CTC; its batches hold ``targets [B, L]`` and ``lengths [B]``."""

    @property
    def alphabet(self) -> Alphabet:
        """Symbols and blank of the classes."""
        ...

    def logits(self, batch: Batch) -> Tensor:
        """Class scores ``[B, T, K]`` of `batch`, before the softmax."""
        ...

    def frames(self, batch: Batch) -> Tensor:
        """How many of the T frames are real, ``int64[B]``."""
        ...


@runtime_checkable
class Drawable(Protocol):
    """A task that can show a person what the model does."""

    def figure(self) -> Figure:
        """A picture of some held-out samples and what the model makes of them."""
        ...


@runtime_checkable
class Contracted(Protocol):
    """A task whose data, model and configuration each have an opinion on what a model takes."""

    def contract_ids(self, batch: Batch) -> Mapping[str, str]:
        """The contract's id by who says so; all must be equal."""
        ...
