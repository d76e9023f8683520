"""One update of the model, or none: every hand-over inside a step is checked here.

The batch before the model sees it, the loss, the gradients' norm, and the parameters and buffers
after the update. A step that fails any of these, or whose batch does not fit the model or the
memory, leaves parameters, buffers and optimizer bit for bit as they were.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
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
        samples: how many were drawn by all processes.
        problem: why the step was not taken; None when it was.
    """

    loss: float
    norm: float
    samples: int
    problem: Problem | None = None


class Stepper:
    """Takes the steps of one run.

    Args:
        task: model, batches and loss; the model keeps its modules and parameters from here on.
        optimizer: what updates the model's parameters.
        clip_norm: the gradients' norm is clipped to this.
        seed: of what is random inside the model.
        device: where the model is.
        precision: of the forward pass; parameters stay float32.
        ranks: the processes that share the step.
        contain: whether a batch that does not fit may be skipped. With BatchNorm over several
            processes it may not: the others wait inside the forward pass.
    """

    def __init__(
        self,
        task: Task,
        optimizer: torch.optim.Optimizer,
        clip_norm: float,
        *,
        seed: int = 0,
        device: torch.device = CPU,
        precision: torch.dtype = torch.float32,
        ranks: Ranks = ALONE,
        contain: bool = True,
    ) -> None:
        self.task, self.optimizer, self.clip_norm, self.seed = task, optimizer, clip_norm, seed
        self.device, self.precision, self.ranks, self.contain = device, precision, ranks, contain
        # Walking through the modules at every step would be a third of what the checks cost.
        self._parameters = dict(task.model.named_parameters())
        self._buffers, self._kept_state = Buffers(task.model), _Copies()

    def step(self, batches: Sequence[int]) -> Outcome:
        """Accumulate the gradients of `batches`, average them over all processes, and update."""
        self._buffers.keep()
        outcome = self._step(batches)
        if outcome.problem is not None:
            self._buffers.put_back()
        return outcome

    def _step(self, batches: Sequence[int]) -> Outcome:
        self.optimizer.zero_grad(set_to_none=True)
        losses: list[float] = []
        rows: list[str] = []
        for number in batches:
            problem = self._gradients(number, len(batches), losses, rows)
            if problem is not None:
                return self._refused(problem, batches, rows)
        parameters = list(self._parameters.values())
        self.ranks.mean_gradients(parameters)
        gradients = {n: p.grad for n, p in self._parameters.items() if p.grad is not None}
        total = nn.utils.get_total_norm(gradients.values())
        if not math.isfinite(norm := float(total)):
            tensor, what = culprit(gradients)
            cause = f"gradient norm is {norm}, {tensor}: {what}"
            return self._refused(Problem("not finite", cause, tensor), batches, rows)
        nn.utils.clip_grads_with_norm_(parameters, self.clip_norm, total)
        moments = _moments(self.optimizer)
        self._kept_state.take([*(p.data for p in parameters), *moments])
        self.optimizer.step()
        buffers = self._buffers.named()
        if not all_finite([*parameters, *buffers.values()]):
            tensor, what = culprit({**self._parameters, **buffers})
            self._kept_state.put_back()
            _forget_new_moments(self.optimizer, moments)
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
            rows.extend(map(str, batch.row_ids))
        except REFUSALS as error:
            problem = _misfit(error)
        if (shared := self._agree(problem)) is not None:
            return shared
        assert batch is not None
        # What is random inside the model is a function of the batch's number, as the batch is.
        _seed(self.seed + number, self.device)
        try:
            batch = batch.to(self.device)
            with torch.autocast(
                self.device.type, self.precision, enabled=self.precision != torch.float32
            ):
                loss = self.task.loss(batch)
            if not math.isfinite(value := float(loss.detach())):
                problem = Problem("not finite", f"loss is {value}")
        except REFUSALS as error:
            if not self.contain:
                raise
            problem = _misfit(error)
        if (shared := self._agree(problem)) is not None:
            return shared
        assert loss is not None
        losses.append(value)
        try:
            (loss / share).backward()  # type: ignore[no-untyped-call]
        except REFUSALS as error:
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


REFUSALS: Final = (
    RuntimeError, ValueError, IndexError, MemoryError, DataError, NonFiniteError
)  # fmt: skip
"""What torch and numpy raise when a batch fits neither the model nor the memory, and what a task
itself says of a batch that cannot be used."""


def said(error: Exception) -> str:
    """What an error says, in one line."""
    return (str(error) or type(error).__name__).splitlines()[0]


def _misfit(error: Exception) -> Problem:
    """Why `error` keeps a step from being taken.

    Raises:
        NotImplementedError, RecursionError: RuntimeErrors that no other batch would mend.
    """
    if isinstance(error, NotImplementedError | RecursionError):
        raise error
    text = said(error)
    if isinstance(error, NonFiniteError):
        return Problem("not finite", text)
    memory = isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate memory" in text
    if memory and torch.cuda.is_available():
        torch.cuda.empty_cache()
    return Problem("out of memory" if memory else "does not fit", f"{type(error).__name__}: {text}")


def _bad_values(batch: Batch) -> Problem | None:
    found = find_nonfinite(batch.tensors)
    return None if found is None else Problem("not finite", f"batch, {found}", found.name)


def _seed(number: int, device: torch.device) -> None:
    """Seed what a model on `device` draws from.

    `torch.manual_seed` also seeds devices that are not there, which takes longer than all checks.
    """
    torch.default_generator.manual_seed(number)
    if device.type == "cuda":
        torch.cuda.manual_seed(number)
    elif device.type == "mps":
        torch.mps.manual_seed(number)


class _Copies:
    """Copies of tensors, in memory that is used again at every step."""

    def __init__(self) -> None:
        self._live: list[Tensor] = []
        self._copies: list[Tensor] = []

    def take(self, live: list[Tensor]) -> None:
        """Copy `live`."""
        if live and [t.shape for t in live] == [t.shape for t in self._copies]:
            torch._foreach_copy_(self._copies, live)
        else:
            self._copies = [t.clone() for t in live]
        self._live = live

    def put_back(self) -> None:
        """Let the tensors be what they were when they were copied."""
        for tensor, copy in zip(self._live, self._copies, strict=True):
            tensor.copy_(copy)


class Buffers:
    """The buffers of a model, which a forward pass may change, replace or add."""

    def __init__(self, model: nn.Module) -> None:
        self._owners = {name: module._buffers for name, module in model.named_modules()}
        self._then: list[dict[str, Tensor | None]] = []
        self._copies = _Copies()

    def named(self) -> dict[str, Tensor]:
        """Buffers by module path, as they are now."""
        return {
            f"{owner}.{name}" if owner else name: buffer
            for owner, buffers in self._owners.items()
            for name, buffer in buffers.items()
            if buffer is not None
        }

    def keep(self) -> None:
        """Remember which buffers there are, and what is in them."""
        self._then = [dict(buffers) for buffers in self._owners.values()]
        self._copies.take(list(self.named().values()))

    def put_back(self) -> None:
        """Let the buffers be those that were kept, with what was in them."""
        for buffers, then in zip(self._owners.values(), self._then, strict=True):
            buffers.clear()
            buffers.update(then)
        self._copies.put_back()


def _moments(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    states = optimizer.state.values()
    return [v for state in states for v in state.values() if isinstance(v, Tensor)]


def _forget_new_moments(optimizer: torch.optim.Optimizer, known: list[Tensor]) -> None:
    """A first step creates moments that were not there to be copied: start those over."""
    kept = {id(tensor) for tensor in known}
    for parameter in list(optimizer.state):
        values = optimizer.state[parameter].values()
        if any(isinstance(v, Tensor) and id(v) not in kept for v in values):
            del optimizer.state[parameter]
