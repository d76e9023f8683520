"""One training run from configuration to published checkpoint, with what the user sees of it."""

from __future__ import annotations

import math
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from swipe.console import console
from swipe.errors import GateError
from swipe.layout import load_layout
from train import loop
from train.config import TrainConfig, load_saved_config, save_config
from train.progress import Progress
from train.runs import CONFIG, find_run, new_run, publish_run
from train.swipe_data import load_swipe_data
from train.swipe_task import SwipeTask

PLAIN_LINE_SECONDS = 15.0


def start(config: TrainConfig | None, name: str, out: Path | None) -> Path:
    """Train and publish; returns the run folder.

    Args:
        config: the run's configuration, or None to resume the run in `out` (or the newest).
        name: what to call the run.
        out: the run's folder; None for a dated one.

    Raises:
        GateError: the run ended without one finite, evaluated checkpoint.
    """
    resume = config is None
    folder = find_run(out) if config is None else new_run(name, out)
    if config is None:
        config = load_saved_config(folder / CONFIG)
    layout = load_layout(config.data.layout)
    data = load_swipe_data(config.data, layout, config.seed)
    task = SwipeTask(config, data, layout)
    for number, corpus in enumerate(data.corpora):
        console.print(corpus.summary())
        if corpus.rejected:
            quarantine = folder / f"quarantine{number or ''}.jsonl"
            corpus.write_quarantine(quarantine)
            console.print(f"  rejected rows and reasons: {quarantine}")
    console.print(
        f"training on {len(data.train):,} swipes ({data.filtered:,} left out: they miss a letter "
        f"of their word), choosing on {len(data.dev):,} of other writers"
    )
    save_config(config, folder / CONFIG)
    with _Display() as display, _finishing_the_step() as interrupted:
        console.print(f"model: {task.parameters_count:,} parameters; run folder: {folder}")
        try:
            progress = loop.fit(
                task, config, folder, display.observe, resume=resume, stop=interrupted
            )
        except KeyboardInterrupt:
            console.print(f"saved; continue with: swipe-train fit --resume --out {folder}")
            raise
    best = folder / "best.safetensors"
    if not best.is_file():
        raise GateError(
            "the run ended without a finite, evaluated checkpoint",
            fix="train longer, or lower optimizer.learning_rate",
        )
    publish_run(folder)
    console.print(
        f"{progress.step:,} steps, {progress.skipped} skipped as not finite, "
        f"{progress.samples / max(progress.seconds, 1e-9):,.0f} swipes/s, "
        f"best dev top-1 {progress.best:.1f} %"
        + (" (synthetic swipes)" if data.source["synthetic"] else "")
    )
    console.print(f"checkpoint: {best}\nnext: swipe-export all --quantize")
    return folder


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
    """A progress bar on a terminal, a plain line every few seconds elsewhere."""

    def __init__(self) -> None:
        self._bar = Bar(
            TextColumn("step {task.fields[step]}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("loss {task.fields[loss]} · {task.fields[rate]} swipes/s"),
            TextColumn("{task.fields[skipped]} skipped"),
            TimeRemainingColumn(),
            console=console,
            disable=not sys.stdout.isatty(),
        )
        self._task = self._bar.add_task("fit", total=1.0, step="0", loss="-", rate="-", skipped="0")
        self._started = self._printed = time.monotonic()
        self._samples = 0
        self._step = 0

    def __enter__(self) -> _Display:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def observe(self, progress: Progress) -> None:
        """Show where the run stands."""
        if self._step == 0:  # a resumed run starts with samples that were not seen just now
            self._samples, self._step = progress.samples, progress.step
        elapsed = max(time.monotonic() - self._started, 1e-9)
        rate = f"{(progress.samples - self._samples) / elapsed:,.0f}"
        loss = "-" if math.isnan(progress.loss) else f"{progress.loss:.3f}"
        self._bar.update(
            self._task,
            completed=progress.fraction,
            step=f"{progress.step:,}",
            loss=loss,
            rate=rate,
            skipped=str(progress.skipped),
        )
        if progress.score is not None and progress.history[-1]["step"] == progress.step:
            console.print(f"step {progress.step:,}: {progress.score.summary}")
        if self._bar.disable and time.monotonic() - self._printed > PLAIN_LINE_SECONDS:
            self._printed = time.monotonic()
            console.print(
                f"step {progress.step:,} ({progress.fraction:.0%}): loss {loss}, "
                f"learning rate {progress.learning_rate:.1e}, {rate} swipes/s, "
                f"{progress.skipped} skipped"
            )
