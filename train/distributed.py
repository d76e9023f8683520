"""Several processes that train one model: what they have to tell each other, and when.

Started by torchrun, which sets RANK, WORLD_SIZE and LOCAL_RANK; alone without it. Every rank
computes the gradients of its own batches; they are summed in one flat collective that every rank
reaches, whatever happened to its batch. That is why this is not DistributedDataParallel: its hooks
reduce gradients while they are computed, so a rank that has to skip would leave the others waiting
or hand them its NaN.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Final

import torch
from torch import Tensor, nn

from swipe.errors import GateError, UsageError

PATIENCE: Final = timedelta(minutes=30)
"""How long a rank waits for the others: longer than any evaluation, which rank 0 does alone."""


class Ranks:
    """The processes of a run. All of them must make the same calls in the same order.

    Attributes:
        rank: number of this process, from 0.
        world: number of processes.
        local: number of this process on its machine.
    """

    def __init__(self, rank: int = 0, world: int = 1, local: int = 0) -> None:
        self.rank, self.world, self.local = rank, world, local

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files and speaks to the user."""
        return self.rank == 0

    def any(self, flag: bool) -> bool:
        """Whether `flag` holds on any rank."""
        return bool(self.largest([float(flag)])[0])

    def largest(self, values: Sequence[float]) -> list[float]:
        """The largest of each value over all ranks; NaN counts as larger than any number."""
        if self.world == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64)
        tensor = torch.where(tensor.isnan(), torch.inf, tensor)
        torch.distributed.all_reduce(tensor, torch.distributed.ReduceOp.MAX)
        return [float(v) for v in tensor]

    def mean(self, value: float) -> float:
        """The mean of `value` over all ranks."""
        if self.world == 1:
            return value
        tensor = torch.tensor([value], dtype=torch.float64)
        torch.distributed.all_reduce(tensor)
        return float(tensor) / self.world

    def mean_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Replace each gradient by its mean over all ranks, in one collective."""
        if self.world == 1:
            return
        trained = [p for p in parameters if p.requires_grad]
        # A parameter without a gradient here may have one elsewhere: it counts as zero.
        flat = torch.cat(
            [
                (torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1).float()
                for p in trained
            ]
        )
        torch.distributed.all_reduce(flat)
        flat /= self.world
        start = 0
        for parameter in trained:
            part = flat[start : start + parameter.numel()].view_as(parameter)
            parameter.grad = part.to(parameter.dtype)
            start += parameter.numel()

    def gather(self, value: Any) -> list[Any]:
        """`value` of every rank, in rank order; must be picklable."""
        if self.world == 1:
            return [value]
        found: list[Any] = [None] * self.world
        torch.distributed.all_gather_object(found, value)
        return found

    def from_first(self, value: Any) -> Any:
        """`value` of rank 0, on every rank."""
        if self.world == 1:
            return value
        holder = [value]
        torch.distributed.broadcast_object_list(holder, src=0)
        return holder[0]

    def require_equal(self, tensors: Sequence[Tensor], when: str) -> None:
        """Prove that all ranks hold the same `tensors`.

        Raises:
            GateError: they differ.
        """
        if self.world == 1:
            return
        norms = torch._foreach_norm([t.detach().float() for t in tensors if t.numel()])
        found = self.gather([float(norm) for norm in norms])
        if any(other != found[0] for other in found):
            raise GateError(
                f"the processes hold different weights {when}",
                fix="start them with the same code, data and settings, and look for randomness "
                "that is not a function of the seed and the batch number",
            )


ALONE: Final = Ranks()


@contextmanager
def joined() -> Iterator[Ranks]:
    """The processes that torchrun started, or this one alone.

    Raises:
        UsageError: torchrun's environment is incomplete, or the others cannot be reached.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield ALONE
        return
    try:
        ranks = Ranks(int(os.environ["RANK"]), world, int(os.environ["LOCAL_RANK"]))
        if torch.cuda.is_available():
            torch.cuda.set_device(ranks.local)
            torch.distributed.init_process_group("cpu:gloo,cuda:nccl", timeout=PATIENCE)
        else:
            torch.distributed.init_process_group("gloo", timeout=PATIENCE)
    except (KeyError, ValueError, RuntimeError) as error:
        raise UsageError(
            f"{world} processes were asked for, and they cannot find each other: {error}",
            fix="start them with torchrun --nproc-per-node N --no-python swipe-train fit …",
        ) from error
    try:
        yield ranks
    finally:
        torch.distributed.destroy_process_group()
