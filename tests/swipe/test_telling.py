"""Progress: plain lines now and then where it is logged, a live line where someone looks on."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from swipe import progress
from swipe.progress import PlainLines, counting, reporting, telling

ERASE_LINE = "\x1b[2K"


class Terminal(io.StringIO):
    """A file that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def every_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PLAIN_LINE_SECONDS", -1.0)


def people(file: io.StringIO) -> Console:
    """The console of those who read `file`."""
    return Console(file=file, force_terminal=file.isatty(), width=80)


def test_a_log_gets_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines come a second apart: one in sixteen is printed, and none of short work."""
    clock = iter(range(100))
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(clock)))
    log = io.StringIO()
    with telling(people(log)) as say:
        for number in range(15):
            say(f"step {number}")
        assert log.getvalue() == ""
        for number in range(15, 40):
            say(f"step {number}")
    assert log.getvalue().split("\n") == ["step 15", "step 31", ""]


@pytest.mark.usefixtures("every_line")
def test_a_terminal_gets_a_live_line_and_no_plain_ones() -> None:
    terminal = Terminal()
    assert not PlainLines(people(terminal)).wanted
    with telling(people(terminal)) as say:
        say("measuring bundle[/old], round 3 of 20")
    shown = terminal.getvalue()
    assert "measuring bundle[/old], round 3 of 20" in shown
    assert not any(line.startswith("measuring") for line in shown.splitlines())
    assert shown.endswith(ERASE_LINE)


@pytest.mark.usefixtures("every_line")
def test_what_is_counted_is_told_with_its_total(capsys: pytest.CaptureFixture[str]) -> None:
    """Every `REPORT_EVERY` items and at the end; the items are passed on."""
    items = range(progress.REPORT_EVERY * 2 + 3)
    with counting("swipes", len(items)) as say:
        assert list(reporting(items, say)) == list(items)
    told = [line.split(" swipes")[0] for line in capsys.readouterr().out.splitlines()]
    assert told == ["256 of 515", "512 of 515", "515 of 515"]
