"""One update of the model, or none: every hand-over inside a step is checked here.

The batch before the model sees it, the loss, the gradients' norm, and the parameters and buffers
after the update. A step that fails any of these, or whose batch does not fit the model or the
memory, leaves parameters, buffers and optimizer bit for bit as they were.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

import torch
from torch import Tensor, nn

from swipe.errors import DataError, NonFiniteError
from train.distributed import ALONE, Ranks
from train.finite import all_finite, culprit, find_nonfinite
from train.task import Batch, Task

CPU: Final = torch.device("cpu")

Kind = Literal["not finite", "out of memory", "does not fit"]


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a step was not taken.

    Attributes:
        kind: what sort of reason it is.
        cause: what happened, for a person.
        tensor: name or module path of the tensor it was seen in; empty when there is none.
        row_ids: the samples of the step's batches, as far as they were drawn.
        batches: numbers of those batches.
    """

    kind: Kind
    cause: str
    tensor: str = ""
    row_ids: tuple[str, ...] = ()
    batches: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a step did.

    Attributes:
        loss: mean over the step's samples; NaN when the step was not taken.
        norm: of the gradients, before clipping; NaN when the step was not taken.
        samples: how many were drawn by this process.
        problem: why the step was not taken; None when it was.
    """

    loss: float
    norm: float
    samples: int
    problem: Problem | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Stepper:
    """What stays the same from step to step.

    Attributes:
        task: model, batches and loss.
        optimizer: what updates the model's parameters.
        clip_norm: the gradients' norm is clipped to this.
        seed: of what is random inside the model.
        device: where the model is.
        precision: of the forward pass; parameters stay float32.
        ranks: the processes that share the step.
        contain: whether a batch that does not fit may be skipped. With BatchNorm over several
            processes it may not: the others wait inside the forward pass.
    """

    task: Task
    optimizer: torch.optim.Optimizer
    clip_norm: float
    seed: int = 0
    device: torch.device = CPU
    precision: torch.dtype = torch.float32
    ranks: Ranks = ALONE
    contain: bool = True

    def step(self, batches: Sequence[int]) -> Outcome:
        """Accumulate the gradients of `batches`, average them over all processes, and update."""
        buffers = list(self.task.model.buffers())
        kept = [b.clone() for b in buffers]
        outcome = self._step(batches)
        if outcome.problem is not None:
            for buffer, before in zip(buffers, kept, strict=True):
                buffer.copy_(before)
        return outcome

    def _step(self, batches: Sequence[int]) -> Outcome:
        self.optimizer.zero_grad(set_to_none=True)
        losses: list[float] = []
        rows: list[str] = []
        for number in batches:
            problem = self._gradients(number, len(batches), losses, rows)
            if problem is not None:
                return self._refused(problem, batches, rows)
        parameters = list(self.task.model.parameters())
        self.ranks.mean_gradients(parameters)
        named = self.task.model.named_parameters()
        gradients = {name: p.grad for name, p in named if p.grad is not None}
        total = nn.utils.get_total_norm(gradients.values())
        if not math.isfinite(norm := float(total)):
            tensor, what = culprit(gradients)
            cause = f"gradient norm is {norm}, {tensor}: {what}"
            return self._refused(Problem("not finite", cause, tensor), batches, rows)
        nn.utils.clip_grads_with_norm_(parameters, self.clip_norm, total)
        before = _snapshot(parameters, self.optimizer)
        self.optimizer.step()
        if not all_finite([*parameters, *self.task.model.buffers()]):
            state = {
                **dict(self.task.model.named_parameters()),
                **dict(self.task.model.named_buffers()),
            }
            tensor, what = culprit(state)
            _restore(before, self.optimizer)
            problem = Problem("not finite", f"update, {tensor}: {what}", tensor)
            return self._refused(problem, batches, rows)
        loss = self.ranks.mean(math.fsum(losses) / len(losses))
        return Outcome(loss, norm, len(rows) * self.ranks.world)

    def _gradients(
        self, number: int, share: int, losses: list[float], rows: list[str]
    ) -> Problem | None:
        """Add the gradients of batch `number` to the parameters'; the problem of any rank.

        All ranks agree after each part, since the parts hold collectives of their own.
        """
        batch, loss = None, None
        try:
            batch = self.task.batch(number)
            problem = _bad_values(batch)
            rows.extend(batch.row_ids)
        except (*_MISFITS, DataError) as error:
            problem = _misfit(error)
        if (shared := self._agree(problem)) is not None:
            return shared
        assert batch is not None
        # What is random inside the model is a function of the batch's number, as the batch is.
        torch.manual_seed(self.seed + number)
        try:
            batch = batch.to(self.device)
            with torch.autocast(
                self.device.type, self.precision, enabled=self.precision != torch.float32
            ):
                loss = self.task.loss(batch)
            if not math.isfinite(value := float(loss.detach())):
                problem = Problem("not finite", f"loss is {value}")
        except (*_MISFITS, NonFiniteError) as error:
            if not self.contain:
                raise
            problem = _misfit(error)
        if (shared := self._agree(problem)) is not None:
            return shared
        assert loss is not None
        losses.append(value)
        try:
            (loss / share).backward()  # type: ignore[no-untyped-call]
        except _MISFITS as error:
            if not self.contain:
                raise
            problem = _misfit(error)
        return self._agree(problem)

    def _agree(self, problem: Problem | None) -> Problem | None:
        """The problem of the first rank that has one; all ranks get the same answer."""
        if not self.ranks.any(problem is not None):
            return None
        found: list[Problem | None] = self.ranks.gather(problem)
        rank, first = next((r, p) for r, p in enumerate(found) if p is not None)
        return (
            first if self.ranks.world == 1 else replace(first, cause=f"rank {rank}: {first.cause}")
        )

    def _refused(self, problem: Problem, batches: Sequence[int], rows: list[str]) -> Outcome:
        """The outcome of a step that was not taken, with the samples of all processes."""
        all_rows = [row for part in self.ranks.gather(rows) for row in part]
        all_batches = [number for part in self.ranks.gather(list(batches)) for number in part]
        whole = replace(problem, row_ids=tuple(all_rows), batches=tuple(sorted(all_batches)))
        self.optimizer.zero_grad(set_to_none=True)  # frees what a failed backward pass left
        return Outcome(math.nan, math.nan, len(all_rows), whole)


_MISFITS: Final = (RuntimeError, ValueError, IndexError, MemoryError)
"""What torch and numpy raise when a batch does not fit the model or the memory."""


def _misfit(error: Exception) -> Problem:
    text = (str(error) or type(error).__name__).splitlines()[0]
    if isinstance(error, NonFiniteError):
        return Problem("not finite", text)
    memory = isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate memory" in text
    if memory and torch.cuda.is_available():
        torch.cuda.empty_cache()
    return Problem("out of memory" if memory else "does not fit", f"{type(error).__name__}: {text}")


def _bad_values(batch: Batch) -> Problem | None:
    found = find_nonfinite(batch.tensors)
    return None if found is None else Problem("not finite", f"batch, {found}", found.name)


def _snapshot(
    parameters: list[nn.Parameter], optimizer: torch.optim.Optimizer
) -> list[tuple[Tensor, Tensor]]:
    """Copies of what an update changes: parameters and optimizer moments."""
    live: list[Tensor] = [p.data for p in parameters]
    for state in optimizer.state.values():
        live.extend(v for v in state.values() if isinstance(v, Tensor))
    return [(t, t.clone()) for t in live]


def _restore(before: Iterable[tuple[Tensor, Tensor]], optimizer: torch.optim.Optimizer) -> None:
    for live, copy in before:
        live.copy_(copy)
    known = {id(live) for live, _ in before}
    # A first step creates moments that the snapshot could not know: start those over.
    for parameter in list(optimizer.state):
        values = optimizer.state[parameter].values()
        if any(isinstance(v, Tensor) and id(v) not in known for v in values):
            del optimizer.state[parameter]
