"""The sync service: what ``adb push`` and ``adb pull`` speak.

Requests are four letters, a length and a path; a pushed or pulled file comes as DATA blocks, ended
by DONE. A request that cannot be met is answered by FAIL and the reason.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Final

from standin.faults import Faults
from standin.wire import HungUpError, Stream

_BLOCK: Final = 64 * 1024


class Sync:
    """One sync stream.

    Args:
        stream: what it talks through.
        faults: what goes wrong.
        pushed: told the path of every file that came.
    """

    def __init__(self, stream: Stream, faults: Faults, pushed: Callable[[str], None]) -> None:
        self.stream, self.faults, self._pushed = stream, faults, pushed

    def run(self) -> None:
        """Answer requests until the caller quits."""
        answers = {
            b"STAT": self._stat,
            b"LIST": self._list,
            b"RECV": self._send,
            b"SEND": self._take,
        }
        while True:
            request, length = self._head()
            argument = self.stream.read(length).decode(errors="surrogateescape")
            if request not in answers:
                break
            answers[request](argument)
        self.stream.close()

    def _head(self) -> tuple[bytes, int]:
        name, number = struct.unpack("<4sI", self.stream.read(8))
        return name, number

    def _answer(self, name: bytes, *numbers: int, data: bytes = b"") -> None:
        self.stream.write(name + struct.pack(f"<{len(numbers)}I", *numbers) + data)

    def _fail(self, reason: str) -> None:
        self._answer(b"FAIL", len(reason), data=reason.encode())

    def _stat(self, path: str) -> None:
        try:
            found = os.lstat(path)
        except OSError:
            self._answer(b"STAT", 0, 0, 0)
        else:
            self._answer(b"STAT", found.st_mode, found.st_size, int(found.st_mtime))

    def _list(self, path: str) -> None:
        for entry in sorted(Path(path).iterdir()) if Path(path).is_dir() else ():
            found, name = entry.lstat(), os.fsencode(entry.name)
            numbers = (found.st_mode, found.st_size, int(found.st_mtime), len(name))
            self._answer(b"DENT", *numbers, data=name)
        self._answer(b"DONE", 0, 0, 0, 0)

    def _send(self, path: str) -> None:
        """The caller pulls."""
        gone = 0
        try:
            with Path(path).open("rb") as file:
                while block := file.read(_BLOCK):
                    self._answer(b"DATA", len(block), data=block)
                    gone += len(block)
                    self._maybe_drop(gone, self.faults.drop_after_pulled)
            self._answer(b"DONE", 0)
        except OSError as error:
            self._fail(os.strerror(error.errno or 0))

    def _take(self, argument: str) -> None:
        """The caller pushes to "path,mode"."""
        path, _, mode = argument.rpartition(",")
        self._pushed(path)
        try:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            with Path(path).open("wb") as file:
                time_s, full = self._receive_into(file, path)
        except OSError as error:
            self._drain()
            self._fail(f"couldn't create file: {os.strerror(error.errno or 0)}")
            return
        if full:
            self._fail("write failed: No space left on device")
            return
        Path(path).chmod(int(mode) & 0o777)
        os.utime(path, (time_s, time_s))
        self._answer(b"OKAY", 0)

    def _receive_into(self, file: IO[bytes], path: str) -> tuple[int, bool]:
        """The file's time, and whether the disk is full."""
        corrupt = self.faults.corrupt is not None and self.faults.corrupt in path
        arrived, full = 0, False
        while True:
            name, number = self._head()
            if name == b"DONE":
                return number, full
            block = self.stream.read(number)
            if corrupt:
                block, corrupt = bytes([block[0] ^ 1]) + block[1:], False
            arrived += number
            full = full or (self.faults.full_after is not None and arrived > self.faults.full_after)
            if not full:
                file.write(block)
            if self.faults.bytes_per_s is not None:
                time.sleep(number / self.faults.bytes_per_s)
            self._maybe_drop(arrived, self.faults.drop_after_pushed)

    def _drain(self) -> None:
        """Let the rest of a push go by."""
        while True:
            name, number = self._head()
            if name == b"DONE":
                return
            self.stream.read(number)

    def _maybe_drop(self, bytes_so_far: int, limit: int | None) -> None:
        if limit is not None and bytes_so_far >= limit:
            self.stream.connection.drop()
            raise HungUpError
