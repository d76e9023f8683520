"""The shell service: a command's streams, its exit status, and what adbd does when the link goes.

With ``shell_v2`` the streams travel apart, in packets of a kind and a length, and the exit status
comes last. Without it both come as one, with a terminal's line ends, and the status is lost.
"""

from __future__ import annotations

import contextlib
import os
import signal
import struct
import subprocess
import threading
from pathlib import Path
from typing import IO, Final

from standin.faults import Faults
from standin.wire import HungUpError, Stream

STDIN, STDOUT, STDERR, EXIT, CLOSE_STDIN = range(5)
_HEAD: Final = "<BI"
_NOISE: Final = b"WARNING: linker: \xff\xfe unused DT entry\nswipe\n0:0\n"


class Shell:
    """One command.

    Args:
        stream: what it talks through.
        command: for ``/bin/sh``.
        packets: whether the caller speaks ``shell_v2``.
        faults: what goes wrong.
        environment: of the command.
        folder: where it starts.
    """

    def __init__(
        self,
        stream: Stream,
        command: str,
        packets: bool,
        faults: Faults,
        environment: dict[str, str],
        folder: Path,
    ) -> None:
        self.stream, self.packets, self.faults = stream, packets, faults
        cut = faults.cut_command is not None and faults.cut_command in command
        self._room = faults.cut_after if cut else None
        self._sending = threading.Lock()
        self.process = subprocess.Popen(
            ["/bin/sh", "-c", command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if packets else subprocess.STDOUT,
            cwd=folder,
            env=environment,
            start_new_session=True,
            bufsize=0,
        )
        self._timer: threading.Timer | None = None
        if faults.drop_in_command is not None and faults.drop_in_command in command:
            self._timer = threading.Timer(faults.drop_after_s, stream.connection.drop)
            self._timer.start()

    def run(self) -> None:
        """Carry the streams until the command ends; a timer that would drop the link is stopped."""
        with self.process as process:
            feeder = threading.Thread(target=self._feed, daemon=True)
            feeder.start()
            pumps = [
                threading.Thread(target=self._pump, args=output, daemon=True)
                for output in ((process.stdout, STDOUT), (process.stderr, STDERR))
                if output[0] is not None
            ]
            for pump in pumps:
                pump.start()
            for pump in pumps:
                pump.join()
            code = process.wait()
            if self._timer is not None:
                self._timer.cancel()
            self._finish(0 if self._room is not None else code if code >= 0 else 128 - code)
            feeder.join()

    def _finish(self, status: int) -> None:
        try:
            if self.faults.junk:
                self._send(STDOUT, _NOISE)
            self._send(EXIT, bytes([status]))
        finally:
            self.stream.close()

    def kill(self) -> None:
        """End it and all that it started."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return

    def _feed(self) -> None:
        """Carry the caller's stdin; when the caller is gone, do what adbd does: hang up."""
        if self.process.stdin is None:
            raise AssertionError("it has a pipe")
        with self.process.stdin as stdin:
            try:
                while True:
                    kind, data = self._receive()
                    if kind == CLOSE_STDIN:
                        stdin.close()
                    elif kind == STDIN and not stdin.closed:
                        stdin.write(data)
            except (HungUpError, BrokenPipeError):
                if self.process.poll() is None:
                    self.process.send_signal(signal.SIGHUP)

    def _receive(self) -> tuple[int, bytes]:
        if not self.packets:
            return STDIN, self.stream.read_some()
        kind, length = struct.unpack(_HEAD, self.stream.read(struct.calcsize(_HEAD)))
        return kind, self.stream.read(length)

    def _pump(self, output: IO[bytes], kind: int) -> None:
        """Carry one of its outputs; it is closed when the caller is gone."""
        with output, contextlib.suppress(HungUpError):
            if self.faults.junk and kind == STDOUT:
                self._send(STDOUT, _NOISE)
            while data := output.read(65536):
                if self._room is not None:
                    data, self._room = data[: self._room], max(0, self._room - len(data))
                self._send(kind, data)

    def _send(self, kind: int, data: bytes) -> None:
        with self._sending:
            if self.packets:
                self.stream.write(struct.pack(_HEAD, kind, len(data)) + data)
            elif kind != EXIT:
                self.stream.write(data.replace(b"\n", b"\r\n"))
