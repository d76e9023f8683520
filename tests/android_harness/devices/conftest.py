"""What the tests of devices share: a look at the processes of this machine."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest


@pytest.fixture
def children() -> Callable[[], list[str]]:
    """The command lines of the adb clients that this process started, and that still are."""

    def look() -> list[str]:
        clients = [child for child in psutil.Process().children() if child.name() == "adb"]
        return [" ".join(child.cmdline()) for child in clients]

    return look


@pytest.fixture
def processes() -> Callable[..., list[int]]:
    """Programs of this machine whose command line holds a text, and which have a name."""

    def look(text: str, name: str | None = None) -> list[int]:
        found = []
        for process in psutil.process_iter():
            try:
                if text in " ".join(process.cmdline()) and name in (None, process.name()):
                    found.append(process.pid)
            except psutil.Error:
                continue  # it ended meanwhile
        return found

    return look


@pytest.fixture
def eventually() -> Callable[[Callable[[], bool]], None]:
    """Wait until something holds, a minute at most."""

    def wait(holds: Callable[[], bool]) -> None:
        end = time.monotonic() + 60
        while not holds():
            assert time.monotonic() < end
            time.sleep(0.05)

    return wait


@pytest.fixture
def host() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start another process that uses the harness: code and arguments; killed at the end."""
    started: list[subprocess.Popen[str]] = []

    def start(code: str, *arguments: str | Path) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()
