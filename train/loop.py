"""The training loop: one function, read top to bottom, that cannot yield a broken model.

A step that cannot be taken is skipped (`train.step`), counted and written down; `train.policy`
says when skipping is not enough. Nothing here knows what is trained: that is the `Task`. The same
lines run alone and in every process of a torchrun (`train.distributed`); the first process writes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import torch

from swipe.errors import GateError, MissingError, NonFiniteError
from train.checkpoint import copy_tensors, save_checkpoint
from train.config import LoopConfig
from train.diagnosis import FILE as DIAGNOSIS
from train.diagnosis import History, write_diagnosis
from train.distributed import ALONE, Ranks
from train.finite import ABSURD
from train.journal import Journal
from train.policy import Decision, decide
from train.progress import Progress
from train.resume import GOOD, load_state, mark_good, save_state
from train.runs import STATE
from train.schedule import learning_rate, stale_evaluations
from train.step import Problem, Stepper
from train.sync_norm import synchronize_norms
from train.task import Task

LOSS_SMOOTHING: Final = 0.98
EXPLOSION: Final = 100.0
"""A gradient norm beyond this many times the clip is an explosion, even though it is clipped."""

Observer = Callable[[Progress], None]


def fit(
    task: Task,
    config: LoopConfig,
    folder: Path,
    observe: Observer,
    *,
    resume: bool = False,
    stop: Callable[[], bool] = lambda: False,
    ranks: Ranks = ALONE,
) -> Progress:
    """Train `task` and leave ``best.safetensors`` and ``last.safetensors`` in `folder`.

    Args:
        task: model, batches, loss, evaluation.
        config: the resolved configuration.
        folder: the run's folder; must exist, and be the same one for all `ranks`.
        observe: called after every step and evaluation.
        resume: continue from ``state.safetensors`` in `folder`, if the run got that far.
        stop: asked after every step; when true, the state is saved and the run ends there.
        ranks: the processes that share the run.

    Raises:
        KeyboardInterrupt: `stop` said so; the run can be resumed.
        NonFiniteError: steps could not be taken because values were not finite, and going back
            did not help; checkpoints stay as they were, ``diagnosis.json`` says why.
        GateError: the same for batches that fit neither the model nor the memory.
    """
    run = _Run(task, config, folder, ranks, resume=resume)
    progress = run.progress
    evaluated = _evaluations(config, progress)
    earlier, started = progress.seconds, time.monotonic()
    saved = started
    try:
        while progress.fraction < 1.0 and not run.stopped_early():
            progress.learning_rate = learning_rate(config, progress)
            run.step()
            now = time.monotonic()
            progress.seconds, interrupted, unsaved = ranks.largest(
                [earlier + now - started, float(stop()), now - saved]
            )
            progress.fraction = _fraction(config, progress)

            due = _evaluations(config, progress)
            if due > evaluated:
                evaluated = due
                good = run.evaluate()
                progress.seconds = ranks.largest([earlier + time.monotonic() - started])[0]
                run.save(good=good)
                saved = time.monotonic()
            elif unsaved > 60.0 * config.record.save_minutes:
                run.save()
                saved = time.monotonic()
            observe(progress)
            if interrupted and progress.fraction < 1.0:
                run.save()
                raise KeyboardInterrupt
    finally:
        run.journal.close()
    return progress


class _Run:
    """One run under way: what the loop's lines above are made of."""

    def __init__(
        self, task: Task, config: LoopConfig, folder: Path, ranks: Ranks, *, resume: bool
    ) -> None:
        torch.set_num_threads(config.threads)
        self.task, self.config, self.folder, self.ranks = task, config, folder, ranks
        self.device = choose_device(config.device, ranks)
        self.progress = Progress(batches_per_step=config.optimizer.accumulate * ranks.world)
        synced = ranks.world > 1 and config.distributed.sync_norm
        if synced:
            synchronize_norms(task.model)
        task.model.to(self.device)
        # A rollback before the first evaluation goes back to where the run began.
        self._initial = copy_tensors(task.model)
        self.optimizer = torch.optim.AdamW(
            task.model.parameters(),
            lr=config.optimizer.learning_rate,
            weight_decay=config.optimizer.weight_decay,
        )
        resume = resume and (folder / STATE).is_file()
        if ranks.first:
            # What an earlier run left must neither be gone back to nor be read as this one's.
            for name in [DIAGNOSIS, *([] if resume else [GOOD])]:
                (folder / name).unlink(missing_ok=True)
        if resume:
            load_state(folder / STATE, task.model, self.optimizer, self.progress)
            # A kill may have come between writing a good state and marking it.
            if ranks.first and self.progress.taken_at_good == self.progress.taken > 0:
                mark_good(folder)
        ranks.require_equal(list(task.model.parameters()), "at the start")
        self.journal = Journal(
            folder if ranks.first else None, config.record, start=self.progress.step
        )
        self._history = History()
        self._stepper = Stepper(
            task,
            self.optimizer,
            config.optimizer.clip_norm,
            seed=config.seed,
            device=self.device,
            precision=getattr(torch, config.precision),
            ranks=ranks,
            contain=not synced,
        )
        self._steps_per_epoch = max(1, task.batches_per_epoch // self.progress.batches_per_step)

    def step(self) -> None:
        """Take one step, or skip it and do what the policy says."""
        progress, recipe = self.progress, self.config.optimizer
        if progress.step % self._steps_per_epoch == 0:
            progress.skipped_in_epoch = 0
        for group in self.optimizer.param_groups:
            group["lr"] = progress.learning_rate
        self.task.model.train()
        first = progress.step * progress.batches_per_step + self.ranks.rank
        numbers = [first + part * self.ranks.world for part in range(recipe.accumulate)]
        outcome = self._stepper.step(numbers)
        progress.samples += outcome.samples
        if outcome.problem is not None:
            progress.skipped += 1
            progress.skipped_in_a_row += 1
            progress.skipped_in_epoch += 1
            self._skipped(outcome.problem)
        else:
            progress.taken += 1
            progress.skipped_in_a_row = 0
            if math.isnan(progress.loss):
                progress.loss = outcome.loss
            else:
                smooth = LOSS_SMOOTHING
                progress.loss = progress.loss * smooth + outcome.loss * (1.0 - smooth)
            progress.gradient_norm = outcome.norm
            self._history.add(progress.step, outcome.loss, outcome.norm, progress.learning_rate)
            if outcome.norm > EXPLOSION * recipe.clip_norm:
                progress.explosions += 1
                self.journal.event(progress.step, "explosion", gradient_norm=outcome.norm)
        progress.step += 1
        self.journal.step(progress)

    def _skipped(self, problem: Problem) -> None:
        """Write a skipped step down; go back or stop when there were too many.

        Raises:
            NonFiniteError, GateError: the run has to stop.
        """
        progress = self.progress
        self.journal.skipped(progress.step, problem)
        decision, reason = decide(self.config.guard, progress, problem, self._steps_per_epoch)
        if decision is Decision.GO_BACK:
            self._go_back(reason)
        elif decision is Decision.STOP:
            found = ""
            if self.ranks.first:
                found = write_diagnosis(
                    self.folder, self.task, self.device, problem, reason, progress, self._history
                )
            # The others wait: torchrun ends rank 0 as soon as one of them has ended.
            found = self.ranks.from_first(found)
            kind = NonFiniteError if problem.kind == "not finite" else GateError
            raise kind(
                f"{reason}; {found}",
                fix=f"see {self.folder / 'skipped.jsonl'} for the rows and "
                f"{self.folder / 'diagnosis.json'} for the history; lower "
                "optimizer.learning_rate, or drop those rows; the last good checkpoint is intact",
            )

    def _go_back(self, reason: str) -> None:
        """Restore the last good weights and moments; the schedule halves the rate from here."""
        progress = self.progress
        good = self.folder / GOOD
        if good.is_file():
            load_state(good, self.task.model, self.optimizer, None)
        else:
            self.task.model.load_state_dict(self._initial)
            self.optimizer.state.clear()
        progress.rollbacks += 1
        progress.skipped_in_a_row = progress.skipped_in_epoch = 0
        # The average of steps that were undone says nothing of the weights that are back.
        progress.loss = math.nan
        progress.taken_at_good = progress.taken
        self.journal.event(progress.step, "rollback", reason=reason)

    def evaluate(self) -> bool:
        """Score the model, write ``last``, and ``best`` when the score is sane and better.

        Returns:
            Whether this is a state to go back to: sane, and not in the middle of skipped steps,
            which going back to it could not mend.
        """
        progress, task = self.progress, self.task
        self.ranks.require_equal(list(task.model.parameters()), f"at step {progress.step}")
        score = self.ranks.from_first(task.evaluate().recorded() if self.ranks.first else None)
        progress.score = score
        # NaN compares false. A loss beyond all bounds makes whatever score it came with a fluke.
        # No loss at all is that of a model that was never trained.
        sane = abs(score.value) <= ABSURD and abs(progress.loss) <= ABSURD
        better = sane and score.value > progress.best
        progress.best = score.value if better else progress.best
        progress.history.append(
            {
                "step": progress.step,
                "loss": progress.loss if math.isfinite(progress.loss) else None,
                "score": score.value if sane else None,
                "summary": score.summary,
            }
        )
        if self.ranks.first:
            checkpoint = task.checkpoint(progress.step, score)
            if better:
                save_checkpoint(checkpoint, self.folder / "best.safetensors")
            save_checkpoint(checkpoint, self.folder / "last.safetensors")
            self.journal.evaluation(progress, task)
        return sane and progress.skipped_in_a_row == 0

    def save(self, *, good: bool = False) -> None:
        """Write the state to resume from; a `good` one is also what a rollback goes back to."""
        if good:
            self.progress.taken_at_good = self.progress.taken
        if self.ranks.first:
            save_state(self.folder, self.task.model, self.optimizer, self.progress)
            if good:
                mark_good(self.folder)

    def stopped_early(self) -> bool:
        """Whether the score has not risen for as long as the configuration allows."""
        patience = self.config.length.patience
        return patience > 0 and stale_evaluations(self.progress.history, every=patience) > 0


def choose_device(name: str, ranks: Ranks = ALONE) -> torch.device:
    """The device that `name` means here; "auto" is a GPU when there is one, else the CPU.

    Raises:
        MissingError: this machine has no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    available = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if not available[name]:
        raise MissingError(f"this machine has no {name} device", fix="use --set device=auto")
    return torch.device(name, ranks.local) if name == "cuda" else torch.device(name)


def _fraction(config: LoopConfig, progress: Progress) -> float:
    if config.length.steps:
        return min(1.0, progress.step / config.length.steps)
    return min(1.0, progress.seconds / (60.0 * config.length.minutes))


def _evaluations(config: LoopConfig, progress: Progress) -> int:
    """How many evaluations there should have been by now."""
    times, steps = config.evaluation.times, config.length.steps
    if steps:  # in integers: 29 / 100 * 100 is less than 29
        return min(times, progress.step * times // steps)
    return math.floor(progress.fraction * times)
