"""What only CTC can get wrong: labels that cannot be spelled, frames that are all the same."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final, Protocol

import torch
from torch import Tensor

from swipe.errors import DataError
from train.ctc import frames_needed
from train.preflight.check import Check
from train.step import REFUSALS, said
from train.task import Batch, CtcTask, Task

BATCHES: Final = 20
SECONDS: Final = 3.0
"""Labels are read until either is used up."""
VARIATION: Final = 1e-3
"""Least spread of the logits over time, as a share of their whole spread."""


class _Trained(CtcTask, Task, Protocol):
    """A task that is both."""


def check_labels(task: _Trained) -> Iterator[Check]:
    """Do the labels round-trip through the alphabet, and do they fit into the frames?"""
    alphabet = task.alphabet
    started, seen, wrong, infeasible = time.monotonic(), 0, "", list[str]()
    for number in range(min(BATCHES, task.batches_per_epoch)):
        try:
            batch = task.batch(number)
            targets, lengths = batch.tensors["targets"], batch.tensors["lengths"]
            tight = frames_needed(targets, lengths) > task.frames(batch)
        except REFUSALS as error:
            wrong = wrong or f"batch {number} cannot be read: {said(error)}"
            break
        infeasible += [row for row, bad in zip(batch.row_ids, tight.tolist(), strict=True) if bad]
        rows = zip(targets.tolist(), lengths.tolist(), strict=True)
        for row_id, (row, length) in zip(batch.row_ids, rows, strict=True):
            label = row[:length]
            try:
                if not label or alphabet.encode(alphabet.decode(label)) != label:
                    wrong = wrong or f"{row_id} has the label {label}"
            except DataError as error:
                wrong = wrong or f"{row_id}: {error}"
        seen += len(lengths)
        if time.monotonic() - started > SECONDS:
            break
    yield Check(
        "labels round-trip through the alphabet",
        not wrong,
        wrong or f"{seen:,} labels over {alphabet.classes} classes, blank {alphabet.blank}",
        "mend that batch, or encode the labels with the task's own Alphabet; padding is not a class"
        if wrong
        else "",
    )
    yield Check(
        "labels fit into the frames",
        not infeasible,
        f"{len(infeasible):,} of {seen:,} need more frames than there are"
        + (f": {', '.join(infeasible[:3])}" if infeasible else ""),
        "leave such samples out, or let the model keep more frames" if infeasible else "",
    )


def check_frames_differ(task: _Trained, batch: Batch) -> Check:
    """A model that pools over time says the same in every frame, and can spell nothing."""
    # Dropout would let frames differ that are all the same.
    task.model.eval()
    logits, real = _frames(task, batch)
    task.model.train()
    count = real.sum(dim=1).clamp(min=1)[:, None]
    mean = (logits * real[..., None]).sum(dim=1) / count
    over_time = (((logits - mean[:, None]) ** 2) * real[..., None]).sum(dim=1) / count
    spread = float(logits[real].std())
    share = float(over_time.mean().sqrt()) / spread if spread > 0 else 0.0
    # NaN fails.
    passed = share >= VARIATION
    return Check(
        "frames differ over time",
        passed,
        f"logits vary over time by {share:.2%} of their spread",
        "" if passed else "look for a pooling over time, a missing position, or an expand()",
    )


def check_not_only_blank(task: CtcTask, batch: Batch) -> Check:
    """After learning by heart, about as many frames must say a symbol as the labels have."""
    logits, real = _frames(task, batch)
    spoken = int(((logits.argmax(dim=-1) != task.alphabet.blank) & real).sum())
    wanted = int(batch.tensors["lengths"].sum())
    passed = spoken >= wanted / 2
    return Check(
        "blank does not dominate",
        passed,
        f"{spoken} frames say a symbol, the labels have {wanted}; {int(real.sum())} frames in all",
        ""
        if passed
        else "train longer or faster at first (warm-up too long?), and check that the blank's "
        "class is the loss's",
    )


def _frames(task: CtcTask, batch: Batch) -> tuple[Tensor, Tensor]:
    """Logits ``[B, T, K]`` and which frames are real, ``bool[B, T]``."""
    with torch.no_grad():
        logits = task.logits(batch).float()
    frames = task.frames(batch).to(logits.device)
    return logits, torch.arange(logits.shape[1], device=logits.device) < frames[:, None]
