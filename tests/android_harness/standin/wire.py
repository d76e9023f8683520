"""adb's packets and streams: a connection carries many streams, each acknowledged packet by packet.

A packet is six little-endian words (command, two arguments, length, check sum, inverted command)
and the payload. What it leaves out: what a stream is for; see `shell` and `sync`.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import queue
import socket
import struct
import threading
from collections.abc import Callable
from typing import Final

CNXN, AUTH, OPEN, OKAY, CLSE, WRTE = (
    int.from_bytes(word, "little")
    for word in (b"CNXN", b"AUTH", b"OPEN", b"OKAY", b"CLSE", b"WRTE")
)
VERSION: Final = 0x01000001
"""From this version on nobody looks at check sums."""
MOST_BYTES: Final = 256 * 1024
_TOKEN, _SIGNATURE, _PUBLIC_KEY = 1, 2, 3


class HungUpError(Exception):
    """The other side is gone."""


class Stream:
    """One stream of a connection, as seen from the device."""

    def __init__(self, connection: Connection, here: int, there: int) -> None:
        self.connection = connection
        self.here, self.there = here, there
        self.open = True
        self._incoming: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._acknowledged = threading.Semaphore(0)
        self._rest = b""

    def write(self, data: bytes) -> None:
        """Send `data`, and wait until every packet of it is acknowledged."""
        for start in range(0, len(data), self.connection.most_bytes):
            if not self.open:
                raise HungUpError
            piece = data[start : start + self.connection.most_bytes]
            self.connection.send(WRTE, self.here, self.there, piece)
            self._acknowledged.acquire()
            if not self.open:
                raise HungUpError

    def read_some(self) -> bytes:
        """The next bytes, as they come."""
        if self._rest:
            data, self._rest = self._rest, b""
            return data
        arrived = self._incoming.get()
        if arrived is None:
            raise HungUpError
        return arrived

    def read(self, size: int) -> bytes:
        """Exactly `size` bytes."""
        data = b""
        while len(data) < size:
            data += self.read_some()
        self._rest = data[size:] + self._rest
        return data[:size]

    def close(self) -> None:
        """Tell the other side that it is over."""
        try:
            if self.open:
                self.connection.send(CLSE, self.here, self.there)
        finally:
            self.hang_up()

    def take(self, data: bytes) -> None:
        """A packet came."""
        self._incoming.put(data)
        self.connection.send(OKAY, self.here, self.there)

    def acknowledge(self) -> None:
        """A packet arrived there."""
        self._acknowledged.release()

    def hang_up(self) -> None:
        """The other side is gone, or we are."""
        self.open = False
        self._incoming.put(None)
        self._acknowledged.release()


class Connection:
    """One adb server's connection.

    Args:
        link: its socket.
        banner: what the device says it is; None: it never says.
        authorized: whether it accepts the server.
        serve: handles a stream for a service such as "shell,v2,raw:ls"; it closes the stream.
    """

    def __init__(
        self,
        link: socket.socket,
        banner: bytes | None,
        authorized: bool,
        serve: Callable[[Stream, str], None],
    ) -> None:
        self.link = link
        self.most_bytes = MOST_BYTES
        self._banner, self._authorized, self._serve = banner, authorized, serve
        self._streams: dict[int, Stream] = {}
        self._numbers = itertools.count(1)
        self._sending = threading.Lock()

    def send(self, command: int, first: int, second: int, data: bytes = b"") -> None:
        """Send one packet."""
        head = struct.pack(
            "<6I", command, first, second, len(data), sum(data) & 0xFFFFFFFF, command ^ 0xFFFFFFFF
        )
        try:
            with self._sending:
                self.link.sendall(head + data)
        except OSError as error:
            raise HungUpError from error

    def drop(self) -> None:
        """Cut the link, as a pulled cable does."""
        with contextlib.suppress(OSError):
            self.link.shutdown(socket.SHUT_RDWR)

    def run(self) -> None:
        """Handle packets until the link is cut."""
        try:
            while True:
                command, first, second, length, _, inverted = struct.unpack(
                    "<6I", self._receive(24)
                )
                if inverted != command ^ 0xFFFFFFFF:
                    raise HungUpError
                self._handle(command, first, second, self._receive(length))
        except HungUpError:
            pass
        finally:
            for stream in list(self._streams.values()):
                stream.hang_up()
            self.link.close()

    def _handle(self, command: int, first: int, second: int, data: bytes) -> None:
        stream = self._streams.get(second)
        if command == CNXN:
            self.most_bytes = min(second, MOST_BYTES)
            if self._banner is not None and self._authorized:
                self.send(CNXN, VERSION, MOST_BYTES, self._banner)
            elif self._banner is not None:
                self.send(AUTH, _TOKEN, 0, os.urandom(20))
        elif command == AUTH and first == _SIGNATURE:
            self.send(AUTH, _TOKEN, 0, os.urandom(20))
        elif command == AUTH and first == _PUBLIC_KEY:
            pass  # the question on the screen is never answered
        elif command == OPEN:
            self._open(first, data.rstrip(b"\0").decode(errors="replace"))
        elif stream is not None and command == OKAY:
            stream.acknowledge()
        elif stream is not None and command == WRTE:
            stream.take(data)
        elif stream is not None and command == CLSE:
            del self._streams[second]
            stream.hang_up()

    def _open(self, there: int, service: str) -> None:
        stream = Stream(self, next(self._numbers), there)
        self._streams[stream.here] = stream
        threading.Thread(target=self._attend, args=(stream, service), daemon=True).start()

    def _attend(self, stream: Stream, service: str) -> None:
        try:
            self._serve(stream, service)
        except HungUpError:
            stream.hang_up()

    def _receive(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            try:
                piece = self.link.recv(size - len(data))
            except OSError as error:
                raise HungUpError from error
            if not piece:
                raise HungUpError
            data += piece
        return bytes(data)
