"""A program of this machine, run to its end: nothing of it stays, whatever ends the wait.

A tethered one gets a pipe as stdin whose other end is this process' alone: nobody writes to it, and
it ends with this process, also when that is killed. A program that watches its stdin thus knows
when nobody waits for it any more; adb carries the end of its stdin to the device.

What it leaves out: programs that run on a device and ignore their stdin; see `folder`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from android_harness.devices import Completed

_running: Final[set[subprocess.Popen[bytes]]] = set()


def end_programs() -> None:
    """Kill what `run` waits for in any thread: only the first one is told of an interrupt."""
    for process in tuple(_running):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def run(argv: Sequence[str | Path], timeout_s: float, *, tether: bool = False) -> Completed:
    """Run a program to its end and take what it printed.

    Args:
        argv: the program and its arguments.
        timeout_s: after this long it is killed, with all that it started in its session.
        tether: keep its stdin open as long as this process lives; otherwise stdin is empty.

    Returns:
        Its exit status, negative for a signal, and both streams; bytes that are no UTF-8 are
        replaced.

    Raises:
        OSError: it cannot be started.
        subprocess.TimeoutExpired: it did not end in time.
    """
    stdin, ours = os.pipe() if tether else (os.open(os.devnull, os.O_RDONLY), None)
    process: subprocess.Popen[bytes] | None = None
    try:
        with _interrupts_deferred():
            process = subprocess.Popen(
                argv,
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
            _running.add(process)
        stdout, stderr = process.communicate(timeout=timeout_s)
    except BaseException:
        if process is not None:
            with process, suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        raise
    finally:
        if process is not None:
            _running.discard(process)
        os.close(stdin)
        if ours is not None:
            os.close(ours)
    return Completed(
        process.returncode, stdout.decode(errors="replace"), stderr.decode(errors="replace")
    )


@contextmanager
def _interrupts_deferred() -> Iterator[None]:
    """Hold an interrupt back until the end: one that comes while a program is being started would
    leave nobody who knows of it. Other threads than the first get none."""
    earlier = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or earlier is None:
        yield
        return
    came: list[int] = []
    signal.signal(signal.SIGINT, lambda number, frame: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, earlier)
        if came:
            signal.raise_signal(signal.SIGINT)
