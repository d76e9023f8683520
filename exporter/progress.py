"""Progress as it goes: a live line per format on a terminal, plain lines everywhere else.

Workers speak in lines, ``<format> <view> <rung>: <step>``; those move a format's live line, and
verdicts and everything else are printed above it to stay.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.live import Live
from rich.table import Table

from swipe.progress import Say

STEPS = frozenset({"building", "verifying"})
"""Steps that only move a live line; whatever else a rung says is printed."""


@dataclass(frozen=True, slots=True)
class Step:
    """What a format is doing.

    Attributes:
        view: of the artefact.
        rung: of the artefact.
        step: what is done with it.
    """

    view: str
    rung: str
    step: str


def parse_step(line: str, formats: Sequence[str]) -> tuple[str, Step] | None:
    """Format and step that `line` speaks of; None when it is about something else."""
    name, separator, step = line.partition(": ")
    words = name.split(" ")
    if not separator or len(words) != 3 or words[0] not in formats:
        return None
    return words[0], Step(words[1], words[2], step)


class _Board:
    """The live lines; drawn anew several times a second, so that the elapsed time moves."""

    def __init__(self, formats: Sequence[str]) -> None:
        self._started = time.monotonic()
        self._lines: dict[str, tuple[Step, float]] = {}
        self._formats = tuple(formats)
        self._lock = threading.Lock()

    def move(self, name: str, step: Step) -> None:
        with self._lock:
            self._lines[name] = (step, time.monotonic())

    def __rich__(self) -> Table:
        table = Table.grid(padding=(0, 2))
        now = time.monotonic()
        with self._lock:
            lines = dict(self._lines)
        for name in self._formats:
            if name in lines:
                step, since = lines[name]
                seconds = f"{now - since:.0f} s"
                table.add_row(name, step.view, step.rung, step.step.split(";")[0], seconds)
            else:
                table.add_row(name, "", "", "waiting", f"{now - self._started:.0f} s")
        return table


@contextmanager
def showing(people: Console, formats: Sequence[str]) -> Iterator[Say]:
    """Yield what lines of an export of `formats` are told to; any thread may call it."""
    if not people.is_terminal:
        yield people.print
        return
    board = _Board(formats)

    def say(line: str) -> None:
        found = parse_step(line, formats)
        if found is not None:
            board.move(*found)
        if found is None or found[1].step not in STEPS:
            people.print(line)

    with Live(board, console=people, transient=True, refresh_per_second=4):
        yield say
