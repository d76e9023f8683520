"""Does a real batch fit the model, and can the model learn at all?"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch import Tensor, nn

from train.config import LoopConfig
from train.finite import all_finite, culprit, find_nonfinite
from train.preflight.check import Check
from train.step import REFUSALS, Buffers, said
from train.task import Batch, Contracted, Task

STEPS: Final = 200
SECONDS: Final = 12.0
"""Of learning by heart: with the rest, a preflight stays below half a minute."""
ENOUGH: Final = 0.02
"""Learning by heart ends when the loss is this share of what it was."""
AT_LEAST: Final = 0.1
"""It has failed when the loss is not even this share of what it was. A CTC model that has only
learned to say blank stays at about a fifth."""

MEND: Final = "mend the data code, or the data"


def check_batch(task: Task) -> tuple[Batch | None, Check]:
    """Draw batch 0 twice: it must be finite, consistent, and the same both times."""
    name = "a batch of real data"
    try:
        batch, again = task.batch(0), task.batch(0)
    except REFUSALS as error:
        return None, Check(name, False, f"batch 0 cannot be made: {said(error)}", MEND)
    shapes = ", ".join(f"{n} {list(t.shape)}" for n, t in batch.tensors.items())
    counts = {(*t.shape, 0)[0] for t in batch.tensors.values()} | {len(batch.row_ids)}
    if len(counts) != 1 or not counts.pop():
        return None, Check(
            name,
            False,
            f"{shapes} and {len(batch.row_ids)} row ids",
            "let the first axis of every tensor count the same samples, at least one",
        )
    found = find_nonfinite(batch.tensors)
    if found is not None:
        return None, Check(name, False, f"{shapes}; {found}", "clean the data: NaN and Inf spread")
    if not all(torch.equal(t, again.tensors[n]) for n, t in batch.tensors.items()):
        return None, Check(
            name,
            False,
            f"{shapes}; drawn twice, it differs",
            "let everything random be a function of the seed and the batch's number, or no "
            "interrupted run can be resumed",
        )
    return batch, Check(name, True, shapes)


def check_forward(task: Task, batch: Batch, config: LoopConfig) -> Check:
    """Data -> model -> loss -> gradients, with the layer and the shapes when one does not fit."""
    name = "data -> model -> loss"
    constants = {**dict(task.model.named_parameters()), **dict(task.model.named_buffers())}
    if not all_finite(constants.values()):
        tensor, what = culprit(constants)
        return Check(
            name,
            False,
            f"{tensor}: {what}, before the first step",
            "no step would be taken: use a bool mask, or make -inf where it is needed",
        )
    task.model.train()
    with _tracing(task.model) as inside:
        try:
            loss = task.loss(batch)
            value = float(loss.detach())
            loss.backward()  # type: ignore[no-untyped-call]
        except REFUSALS as error:
            return Check(
                name,
                False,
                f"{inside() or 'the loss'}: {said(error)}",
                "let data and model take their shapes from one configuration value",
            )
    if not math.isfinite(value):
        return Check(name, False, f"loss is {value}", "look for a log or division of zero")
    gradients = {n: p.grad for n, p in task.model.named_parameters() if p.grad is not None}
    if not gradients:
        return Check(name, False, "no parameter gets a gradient", "check requires_grad, detach()")
    if not all_finite(gradients.values()):
        tensor, what = culprit(gradients)
        return Check(name, False, f"gradient of {tensor}: {what}", "clamp the input, or init lower")
    norm = float(nn.utils.get_total_norm(gradients.values()))
    idle = [n for n, p in task.model.named_parameters() if p.requires_grad and p.grad is None]
    left = f"; no gradient for {', '.join(idle[:3])}" if idle else ""
    return Check(
        name,
        True,
        f"loss {value:.3f}, gradient norm {norm:.2g} (clip {config.optimizer.clip_norm:g}){left}",
    )


def learn_by_heart(task: Task, batch: Batch, config: LoopConfig) -> Check:
    """Train on a few samples until the model knows them; it is left in that state."""
    rate = config.optimizer.learning_rate
    optimizer = torch.optim.AdamW(task.model.parameters(), lr=rate, weight_decay=0.0)
    name = f"{len(batch.row_ids)} samples can be learned by heart"
    task.model.train()
    losses: list[float] = []
    started = time.monotonic()
    while len(losses) < STEPS and time.monotonic() - started < SECONDS:
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, (len(losses) + 1) / 20)
        torch.manual_seed(config.seed + len(losses))
        optimizer.zero_grad(set_to_none=True)
        try:
            loss = task.loss(batch)
            losses.append(float(loss.detach()))
            if not math.isfinite(losses[-1]) or _fell_to(ENOUGH, losses):
                break
            loss.backward()  # type: ignore[no-untyped-call]
        except REFUSALS as error:
            cause = f"they are refused: {said(error)}"
            return Check(name, False, cause, "let model and loss take a batch of any size")
        nn.utils.clip_grad_norm_(task.model.parameters(), config.optimizer.clip_norm)
        optimizer.step()
    seen = f"loss {losses[0]:.3f} -> {losses[-1]:.3f} in {len(losses)} steps"
    if _fell_to(AT_LEAST, losses):
        return Check(name, True, seen)
    if len(losses) < STEPS and math.isfinite(losses[-1]):
        return Check(
            name,
            False,
            f"{seen}, and then {SECONDS:g} s were used up",
            "too slow here to be told: ask on a faster device, or of a smaller model",
        )
    return Check(
        name,
        False,
        seen,
        "try a lower optimizer.learning_rate and no dropout; if that does not help, look whether "
        "labels and samples belong together",
    )


def _fell_to(share: float, losses: list[float]) -> bool:
    """Whether a loss fell to `share` of what it was; one that began below zero, as far as that."""
    fallen = losses[0] - losses[-1]
    return fallen > 0 and fallen >= (1.0 - share) * abs(losses[0])


def check_contracts(task: Contracted, batch: Batch) -> Check:
    ids = dict(task.contract_ids(batch))
    shown = ", ".join(f"{name} {value}" for name, value in ids.items())
    agree = len(set(ids.values())) == 1
    return Check(
        "configuration, data and model share one contract",
        agree,
        shown,
        "" if agree else "prepare the data again for this layout, or configure the one it is for",
    )


@contextmanager
def restoring(model: nn.Module) -> Iterator[None]:
    """Put parameters, buffers and mode back when done."""
    kept = [(p, p.detach().clone()) for p in model.parameters()]
    buffers = Buffers(model)
    buffers.keep()
    training = model.training
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, value in kept:
                parameter.copy_(value)
            buffers.put_back()
        model.zero_grad(set_to_none=True)
        model.train(training)


@contextmanager
def _tracing(model: nn.Module) -> Iterator[Callable[[], str]]:
    """A function that says which module was entered last and not left, and with what shapes."""
    entered: list[str] = []

    def enter(name: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            shapes = " and ".join(str(list(i.shape)) for i in inputs if isinstance(i, Tensor))
            entered.append(f"{name}: {type(module).__name__}({module.extra_repr()}) got {shapes}")

        return hook

    def leave(*_: Any) -> None:
        entered.pop()

    hooks = []
    for name, module in model.named_modules():
        hooks += [
            module.register_forward_pre_hook(enter(name or "the model")),
            module.register_forward_hook(leave),
        ]
    try:
        yield lambda: entered[-1] if entered else ""
    finally:
        for handle in hooks:
            handle.remove()
