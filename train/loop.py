"""The training loop: one function, read top to bottom, that cannot yield a broken model.

Each step is checked at four places: the batch before the model sees it, the loss, the gradients'
norm, and the parameters and buffers after the update. A step that fails leaves parameters,
buffers and optimizer as they were; it is counted, its rows go to the quarantine file, and it
enters no average. Too many in a row end the run with the cause, the last good checkpoint intact.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn

from swipe.errors import NonFiniteError
from train.checkpoint import save_checkpoint
from train.config import TrainConfig
from train.finite import all_finite, explain, find_nonfinite
from train.progress import Progress
from train.resume import load_state, save_state
from train.task import Batch, Task

LOSS_SMOOTHING: Final = 0.98


Observer = Callable[[Progress], None]


def fit(
    task: Task,
    config: TrainConfig,
    folder: Path,
    observe: Observer,
    *,
    resume: bool = False,
    stop: Callable[[], bool] = lambda: False,
) -> Progress:
    """Train `task` and leave ``best.safetensors`` and ``last.safetensors`` in `folder`.

    Args:
        task: model, batches, loss, evaluation.
        config: the resolved configuration.
        folder: the run's folder; must exist.
        observe: called after every step and evaluation.
        resume: continue from ``state.safetensors`` in `folder`.
        stop: asked after every step; when true, the state is saved and the run ends there.

    Raises:
        KeyboardInterrupt: `stop` said so; the run can be resumed.
        NonFiniteError: too many steps in a row were not finite; checkpoints stay as they were.
    """
    torch.set_num_threads(config.threads)
    model, recipe = task.model, config.optimizer
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
    )
    progress = Progress()
    if resume:
        load_state(folder, model, optimizer, progress)
    buffers = list(model.buffers())
    evaluated = math.floor(progress.fraction * config.evaluation.times)
    in_a_row = 0
    earlier, started = progress.seconds, time.monotonic()

    while progress.fraction < 1.0:
        learning_rate = _learning_rate(config, progress)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate
        model.train()
        torch.manual_seed(config.seed + progress.step)  # dropout, repeatable from any step
        batch = task.batch(progress.step)
        loss, norm, cause = guarded_step(task, batch, optimizer, recipe.clip_norm, buffers)
        if cause is not None:
            progress.skipped += 1
            in_a_row += 1
            _quarantine(folder, progress.step, cause, batch.row_ids)
            if in_a_row >= config.guard.max_skips_in_a_row:
                raise NonFiniteError(
                    f"{in_a_row} steps in a row were not finite; at step {progress.step}: {cause}",
                    fix=f"see {folder / 'skipped.jsonl'} for the rows; lower the learning rate, "
                    "or drop those rows; the last good checkpoint is intact",
                )
        else:
            in_a_row = 0
            blend = 0.0 if math.isnan(progress.loss) else LOSS_SMOOTHING
            progress.loss = (progress.loss * blend if blend else 0.0) + loss * (1.0 - blend)
            progress.gradient_norm = norm
        progress.step += 1
        progress.samples += len(batch.row_ids)
        progress.learning_rate = learning_rate
        progress.seconds = earlier + time.monotonic() - started
        progress.fraction = _fraction(config, progress)

        due = math.floor(progress.fraction * config.evaluation.times)
        if due > evaluated:
            evaluated = due
            _evaluate(task, folder, progress)
            progress.seconds = earlier + time.monotonic() - started
            save_state(folder, model, optimizer, progress)
        observe(progress)
        if stop() and progress.fraction < 1.0:
            save_state(folder, model, optimizer, progress)
            raise KeyboardInterrupt
    return progress


def guarded_step(
    task: Task,
    batch: Batch,
    optimizer: torch.optim.Optimizer,
    clip_norm: float,
    buffers: list[Tensor],
) -> tuple[float, float, str | None]:
    """One update, or none: (loss, gradient norm, None), or NaN, NaN and the cause.

    A skipped step leaves parameters, optimizer and `buffers` (the model's, which the forward pass
    itself changes) bit for bit as they were.
    """
    kept = [b.clone() for b in buffers]
    loss, norm, cause = _step(task, batch, optimizer, clip_norm)
    if cause is not None:
        for buffer, before in zip(buffers, kept, strict=True):
            buffer.copy_(before)
    return loss, norm, cause


def _step(
    task: Task, batch: Batch, optimizer: torch.optim.Optimizer, clip_norm: float
) -> tuple[float, float, str | None]:
    found = find_nonfinite(batch.tensors)
    if found is not None:
        return math.nan, math.nan, f"batch, {found}"
    optimizer.zero_grad(set_to_none=True)
    loss = task.loss(batch)
    if not math.isfinite(value := float(loss.detach())):
        return math.nan, math.nan, f"loss is {value}"
    loss.backward()  # type: ignore[no-untyped-call]
    parameters = list(task.model.parameters())
    gradients = {n: p.grad for n, p in task.model.named_parameters() if p.grad is not None}
    total = nn.utils.get_total_norm(gradients.values())
    if not math.isfinite(norm := float(total)):
        return math.nan, math.nan, f"gradient norm is {norm}, {explain(gradients)}"
    nn.utils.clip_grads_with_norm_(parameters, clip_norm, total)
    before = _snapshot(parameters, optimizer)
    optimizer.step()
    if not all_finite([*parameters, *task.model.buffers()]):
        named = {**dict(task.model.named_parameters()), **dict(task.model.named_buffers())}
        cause = f"update, {explain(named)}"
        _restore(before, optimizer)
        return math.nan, math.nan, cause
    return value, norm, None


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


def _evaluate(task: Task, folder: Path, progress: Progress) -> None:
    """Score the model, write ``last``, and ``best`` when the score is finite and better."""
    score = task.evaluate()
    progress.score = score
    progress.history.append(
        {
            "step": progress.step,
            "loss": _json_number(progress.loss),
            "score": _json_number(score.value),
        }
    )
    checkpoint = task.checkpoint(progress.step, score)
    if math.isfinite(score.value) and score.value > progress.best:
        progress.best = score.value
        save_checkpoint(checkpoint, folder / "best.safetensors")
    save_checkpoint(checkpoint, folder / "last.safetensors")


def _learning_rate(config: TrainConfig, progress: Progress) -> float:
    """Linear warm-up, then cosine to zero over the run's fraction."""
    recipe = config.optimizer
    warm = min(1.0, (progress.step + 1) / max(1, recipe.warmup_steps))
    return recipe.learning_rate * warm * 0.5 * (1.0 + math.cos(math.pi * progress.fraction))


def _fraction(config: TrainConfig, progress: Progress) -> float:
    if config.length.steps:
        return min(1.0, progress.step / config.length.steps)
    return min(1.0, progress.seconds / (60.0 * config.length.minutes))


def _quarantine(folder: Path, step: int, cause: str, row_ids: Iterable[str]) -> None:
    row = {"step": step, "cause": cause, "rows": list(row_ids)}
    with (folder / "skipped.jsonl").open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(row) + "\n")


def _json_number(value: float) -> float | None:
    return value if math.isfinite(value) else None
