"""Progress of long work: a live line on a terminal, a plain line now and then everywhere else.

What works for long takes a `Say` and tells it what it is doing; it does not know who looks on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.text import Text

from swipe.console import console

T = TypeVar("T")

Say = Callable[[str], None]
"""Told, in a line each time, what is going on."""

PLAIN_LINE_SECONDS = 15.0
REPORT_EVERY = 256


class PlainLines:
    """What is printed where no line can be redrawn: one line every few seconds, in a log too."""

    def __init__(self, people: Console = console) -> None:
        self._people = people
        self._printed = time.monotonic()
        self.wanted = not people.file.isatty()

    def offer(self, line: str) -> None:
        """Print `line` if it is time for one; what is over sooner needs none."""
        now = time.monotonic()
        if self.wanted and now - self._printed > PLAIN_LINE_SECONDS:
            self._printed = now
            self._people.print(line)


@contextmanager
def telling(people: Console = console) -> Iterator[Say]:
    """Yield what is told what is going on; the newest line stands beside a spinner."""
    lines = PlainLines(people)
    if lines.wanted:
        yield lines.offer
        return
    with people.status("") as status:
        # A plain string would be read as markup, and names of files may hold brackets.
        yield lambda line: status.update(Text(line))


@contextmanager
def counting(what: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """Yield a function to be told how many `what` are done, of `total` where that is known."""
    lines = PlainLines()
    columns = [SpinnerColumn(), TextColumn("{task.fields[line]}")]
    ahead = [BarColumn(), TimeRemainingColumn()] if total else []
    bar = Progress(*columns, *ahead, console=console, disable=lines.wanted)
    task = bar.add_task(what, total=total, line="")
    started = time.monotonic()

    def show(done: int) -> None:
        of = f" of {total:,}" if total else ""
        rate = done / max(time.monotonic() - started, 1e-9)
        line = f"{done:,}{of} {what}, {rate:,.0f}/s"
        bar.update(task, completed=done, line=line)
        lines.offer(line)

    with bar:
        yield show


@contextmanager
def receiving() -> Iterator[Callable[[str, int, int | None], None]]:
    """Yield a function to be told of which file how many bytes are here, and of how many if known.

    A live line per file on a terminal.
    """
    lines = PlainLines()
    name = TextColumn("{task.description}", markup=False)
    columns = [name, BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()]
    bar = Progress(*columns, console=console, disable=lines.wanted)
    tasks: dict[str, TaskID] = {}

    def show(name: str, done: int, total: int | None) -> None:
        if name not in tasks:
            tasks[name] = bar.add_task(name, total=total)
            # What an earlier attempt left counts as done, and not into the speed.
            bar.reset(tasks[name], total=total, completed=done)
        bar.update(tasks[name], completed=done, total=total)
        of = f" of {total / 1e6:,.1f}" if total else ""
        lines.offer(f"{name}: {done / 1e6:,.1f}{of} MB")

    with bar:
        yield show


def reporting(items: Iterable[T], say: Callable[[int], None]) -> Iterator[T]:
    """Pass `items` on, and tell `say` now and then how many there were."""
    number = 0
    for number, item in enumerate(items, start=1):
        if number % REPORT_EVERY == 0:
            say(number)
        yield item
    say(number)
