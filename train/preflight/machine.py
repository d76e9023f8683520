"""What can be known without training: the learning rate's course, the disk, the memory."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Final

from torch import nn

from train.config import LoopConfig
from train.preflight.check import Check
from train.schedule import trace

BARS: Final = "▁▂▃▄▅▆▇█"
WIDTH: Final = 24
FILES: Final = 10
"""Weights' worth of disk: best, last, state and its predecessor hold the weights once or thrice."""
COPIES: Final = 8
"""Weights' worth of memory: weights, gradients, two moments, and what a step keeps to go back."""
SPARE: Final = 256 * 2**20


def check_schedule(config: LoopConfig) -> Check:
    """The rate must start low when there is a warm-up, reach its peak, and stay positive."""
    name = "learning rate"
    rates = [rate for _, rate in trace(config)]
    peak = max(rates)
    wanted = config.optimizer.learning_rate
    shown = "".join(
        BARS[min(len(BARS) - 1, int(rates[i * len(rates) // WIDTH] / wanted * (len(BARS) - 1)))]
        for i in range(WIDTH)
        if math.isfinite(rates[i * len(rates) // WIDTH])
    )
    seen = f"{shown} {rates[0]:.1e} -> {peak:.1e} -> {rates[-1]:.1e}"
    if not all(math.isfinite(rate) and rate >= 0 for rate in rates) or not peak > 0:
        return Check(name, False, seen, "mend the schedule: a rate is negative or not finite")
    if not 0.5 * wanted <= peak <= wanted * (1 + 1e-9):
        return Check(
            name,
            False,
            f"{seen}; optimizer.learning_rate is {wanted:.1e}",
            "shorten schedule.warmup_steps, or train longer: the run ends before its peak",
        )
    warm = config.schedule.warmup_steps
    first = wanted / max(1, warm) if config.schedule.name != "one-cycle" else wanted / 20
    if not rates[0] <= first * (1 + 1e-9):
        return Check(
            name,
            False,
            f"{seen}; a warm-up would start at {first:.1e}",
            "the schedule is a step ahead: ask it before the optimizer's step, for that step",
        )
    return Check(name, True, seen)


def check_disk(model: nn.Module, folder: Path) -> Check:
    """Is there room for the checkpoints of a run?"""
    existing = next(p for p in (folder.resolve(), *folder.resolve().parents) if p.exists())
    free = shutil.disk_usage(existing).free
    return _room("disk", free, FILES * _bytes(model), f"free some space at {existing}")


def check_memory(model: nn.Module) -> Check:
    """Is there room for the weights, their gradients and moments, on the host?"""
    import psutil

    free = int(psutil.virtual_memory().available)
    return _room("memory", free, COPIES * _bytes(model), "end other programs, or use less channels")


def _room(name: str, free: int, needed: int, fix: str) -> Check:
    needed += SPARE
    passed = free >= needed
    seen = f"{free / 2**20:,.0f} MiB free, {needed / 2**20:,.0f} needed at least"
    return Check(name, passed, seen, "" if passed else fix)


def _bytes(model: nn.Module) -> int:
    return sum(t.numel() * t.element_size() for t in model.state_dict().values())
