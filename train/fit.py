"""One training run from configuration to published checkpoint, with what the user sees of it."""

from __future__ import annotations

import copy
import json
import math
import os
import shlex
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from swipe.console import console, errors, tell_next
from swipe.errors import GateError, UsageError
from swipe.files import cannot_write
from swipe.progress import PlainLines
from train import loop
from train.assemble import Assembled, assemble
from train.config import CustomConfig, TrainConfig, load_saved_config, save_config
from train.distributed import Ranks, joined
from train.journal import TENSORBOARD, peak_memory_bytes, tensorboard_is_installed
from train.progress import Progress
from train.runs import CONFIG, RUNS, new_run, old_run, publish_run

Config = TrainConfig | CustomConfig


def start(config: Config | None, name: str, out: Path | None, *, preflight: bool = True) -> Path:
    """Train and publish; returns the run folder.

    Args:
        config: the run's configuration, or None to resume the run in `out` (or the newest).
        name: what to call the run.
        out: the run's folder; None for a dated one.
        preflight: check the task first; a resumed run was checked when it began.

    Raises:
        GateError: the preflight failed, or the run ended without one finite checkpoint.
    """
    with joined() as ranks:
        console.quiet = not ranks.first
        return _start(config, name, out, ranks, preflight)


def check_first(config: Config, out: Path | None, *, as_json: bool = False) -> None:
    """Run the preflight of `config` alone and show it.

    Raises:
        GateError: a check failed.
    """
    console.quiet = as_json
    ready = assemble(config)
    for note in ready.notes:
        console.print(note)
    _preflight(ready, config, out or RUNS, as_json=as_json)


def _preflight(ready: Assembled, config: Config, folder: Path, *, as_json: bool = False) -> None:
    from train.preflight import preflight

    checks = []
    for check in preflight(ready.task, config, folder):
        checks.append(check)
        console.print(
            "✓" if check.passed else "✗", style="green" if check.passed else "red", end=" "
        )
        console.print(f"{check.name}: {check.detail}")
        if check.fix:
            console.print(f"  fix: {check.fix}")
    if as_json:
        print(json.dumps([check.to_dict() for check in checks], indent=2))
    failed = [check.name for check in checks if not check.passed]
    if failed:
        raise GateError(
            f"preflight: {len(failed)} of {len(checks)} checks failed: {'; '.join(failed)}",
            fix="mend them as shown, or train all the same with --no-preflight",
        )


def _start(
    config: Config | None, name: str, out: Path | None, ranks: Ranks, preflight: bool
) -> Path:
    if out is not None and _restarted() and (out / CONFIG).is_file():
        config = None
    resume = config is None
    with _run_folder(name, out, ranks, resume=resume) as folder:
        config = config or load_saved_config(folder / CONFIG)
        return _train(config, folder, ranks, resume=resume, preflight=preflight and not resume)


@contextmanager
def _run_folder(name: str, out: Path | None, ranks: Ranks, *, resume: bool) -> Iterator[Path]:
    """The run's folder on every rank; the first one chooses it, and holds it for all."""
    if not ranks.first:
        yield Path(ranks.from_first(None))
        return
    with old_run(out) if resume else new_run(name, out) as folder:
        yield Path(ranks.from_first(folder))


def _train(config: Config, folder: Path, ranks: Ranks, *, resume: bool, preflight: bool) -> Path:
    ready = assemble(config)
    if resume:
        ready.require_same_data(folder)
    if ranks.first:
        for note in ready.notes:
            console.print(note)
        if preflight:
            _preflight(ready, config, folder)
        _write_down(config, ready, folder)
    _require_shared(folder, ranks)
    with _Display(ready.noun) as display, _finishing_the_step() as interrupted:
        console.print(
            f"model: {count_parameters(ready):,} parameters on "
            f"{loop.choose_device(config.device, ranks)}; run folder: {folder}"
        )
        try:
            progress = loop.fit(
                ready.task,
                config,
                folder,
                display.observe,
                resume=resume,
                stop=lambda: interrupted() or display.lost is not None,
                ranks=ranks,
            )
        except KeyboardInterrupt:
            again = shlex.join(["swipe-train", "fit", "--resume", "--out", str(folder)])
            if display.lost is None:
                console.print(f"saved; continue with: {again}")
                raise
            errors.print(f"standard output: {display.lost.strerror}")
            errors.print(f"saved; continue with: {again}")
            if isinstance(display.lost, BrokenPipeError):
                raise display.lost from None
            raise cannot_write(Path("standard output"), display.lost) from display.lost
    best = folder / "best.safetensors"
    if ranks.first and not best.is_file():
        raise GateError(
            "the run ended without a finite, evaluated checkpoint",
            fix="train longer, or lower optimizer.learning_rate",
        )
    if ranks.first:
        publish_run(folder)
    _summarise(progress, config, ready, folder)
    return folder


def _restarted() -> bool:
    """Whether torchrun started the processes again after a failure, with the first command."""
    return os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"


def count_parameters(ready: Assembled) -> int:
    """Number of trainable values."""
    return sum(p.numel() for p in ready.task.model.parameters() if p.requires_grad)


def _write_down(config: Config, ready: Assembled, folder: Path) -> None:
    """Show what the run is made of, and keep it in the run folder."""
    for number, corpus in enumerate(ready.corpora):
        if corpus.rejected:
            quarantine = folder / f"quarantine{number or ''}.jsonl"
            corpus.write_quarantine(quarantine)
            console.print(f"rejected rows and reasons: {quarantine}")
    save_config(config, folder / CONFIG)
    ready.keep_hashes(folder)
    if not config.record.tensorboard or tensorboard_is_installed():
        return
    console.print("TensorBoard is not installed: figures go to metrics.jsonl only")


def _require_shared(folder: Path, ranks: Ranks) -> None:
    """Prove that all processes see the run folder: they go back to the states in it.

    Raises:
        UsageError: some do not.
    """
    ranks.from_first(None)  # the others are here before the first one has written anything
    if ranks.any(not (folder / CONFIG).is_file()):
        raise UsageError(
            f"not every process sees the run folder {folder}",
            fix="choose an --out that all machines share",
        )


def _summarise(progress: Progress, config: Config, ready: Assembled, folder: Path) -> None:
    synthetic = " (synthetic swipes)" if ready.synthetic else ""
    best = next((r["summary"] for r in progress.history if r["score"] == progress.best), "-")
    console.print(
        f"{progress.step:,} steps, {progress.skipped} skipped as not finite or unfit, "
        f"{progress.rollbacks} rollbacks, {progress.explosions} gradient explosions, "
        f"{progress.samples / max(progress.seconds, 1e-9):,.0f} {ready.noun}/s, "
        f"peak memory {peak_memory_bytes() / 2**20:,.0f} MiB"
    )
    console.print(f"best: {best}{synthetic}")
    if config.record.tensorboard and tensorboard_is_installed():
        console.print(
            f"curves: {shlex.join(['tensorboard', '--logdir', str(folder / TENSORBOARD)])}"
        )
    console.print(f"checkpoint: {folder / 'best.safetensors'}")
    if isinstance(config, TrainConfig):
        tell_next("swipe-export", "all", "--quantize")


@contextmanager
def _finishing_the_step() -> Iterator[Callable[[], bool]]:
    """Let Ctrl-C (or SIGTERM) end the run after the step under way; a second one ends it at once.

    An interrupt in the middle of an update would leave weights of two different steps.
    """
    asked = False

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked = True
        for name, handler in earlier.items():
            signal.signal(name, handler)

    earlier = {name: signal.signal(name, ask) for name in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: asked
    finally:
        for name, handler in earlier.items():
            signal.signal(name, handler)


class _Display:
    """A progress bar on a terminal, a plain line every few seconds elsewhere.

    Attributes:
        lost: why nothing can be shown any more: the reader has left, or the disk is full.
    """

    def __init__(self, noun: str) -> None:
        self.lost: OSError | None = None
        self._noun = noun
        self._lines = PlainLines()
        self._bar = Bar(
            TextColumn("step {task.fields[step]}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn(f"loss {{task.fields[loss]}} · {{task.fields[rate]}} {noun}/s"),
            TextColumn("{task.fields[skipped]}"),
            TimeRemainingColumn(),
            console=console,
            disable=self._lines.wanted,
        )
        self._task = self._bar.add_task("fit", total=1.0, step="0", loss="-", rate="-", skipped="")
        self._started = time.monotonic()
        self._samples = 0
        self._last = Progress()

    def __enter__(self) -> _Display:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def observe(self, progress: Progress) -> None:
        """Show where the run stands; an output that is lost is no reason to lose the run."""
        try:
            self._show(progress)
        except OSError as error:
            self.lost = error
            console.quiet = True

    def _show(self, progress: Progress) -> None:
        if self._last.step == 0:  # a resumed run starts with samples that were not seen just now
            self._samples = progress.samples
        elapsed = max(time.monotonic() - self._started, 1e-9)
        rate = f"{(progress.samples - self._samples) / elapsed:,.0f}"
        loss = "-" if math.isnan(progress.loss) else f"{progress.loss:.3f}"
        skipped = f"{progress.skipped} skipped ({progress.skipped_share:.2%})"
        self._bar.update(
            self._task,
            completed=progress.fraction,
            step=f"{progress.step:,}",
            loss=loss,
            rate=rate,
            skipped=skipped,
        )
        if progress.rollbacks > self._last.rollbacks and self._last.step:
            console.print(
                f"step {progress.step:,}: too many steps could not be taken; went back to the "
                f"last good state, the learning rate is half of what it was"
            )
        if progress.explosions > self._last.explosions == 0 and self._last.step:
            console.print(
                f"step {progress.step:,}: gradient norm {progress.gradient_norm:.1e}, beyond "
                f"{loop.EXPLOSION:g} times the clip; further ones are counted in metrics.jsonl"
            )
        if progress.score is not None and progress.history[-1]["step"] == progress.step:
            console.print(f"step {progress.step:,}: {progress.score.summary}")
        self._lines.offer(
            f"step {progress.step:,} ({progress.fraction:.0%}): loss {loss}, "
            f"learning rate {progress.learning_rate:.1e}, {rate} {self._noun}/s, {skipped}"
        )
        self._last = copy.copy(progress)
