"""A web server in a thread that serves a few files and can be told to misbehave."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

STORE = "/store"
"""Where redirects lead."""


@dataclass
class FileServer:
    """What is served, and how.

    Attributes:
        files: content by path; changed content is another version with another ETag.
        address: of its root, without the last slash.
        cuts: for each coming request, after how many bytes the connection ends; then never.
        ranges: whether it knows the Range header.
        early: by how many bytes the next range begins, and ends, before what was asked for.
        etag: whether it states one.
        stated: SHA-256 that a redirect to the content states, by path, as Hugging Face does.
        headers: added to, or with None taken from, every answer.
        statuses: for each coming request, an error to answer with.
        asked: path and Range header of every request for content.
    """

    files: dict[str, bytes]
    address: str = ""
    cuts: list[int] = field(default_factory=list)
    ranges: bool = True
    early: int = 0
    etag: bool = True
    stated: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str | None] = field(default_factory=dict)
    statuses: list[int] = field(default_factory=list)
    asked: list[tuple[str, str | None]] = field(default_factory=list)


@contextmanager
def serving(files: dict[str, bytes]) -> Iterator[FileServer]:
    """Serve `files` on a free port of this machine."""
    served = FileServer(files)

    class Handler(BaseHTTPRequestHandler):
        disable_nagle_algorithm = True

        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            self.close_connection = True
            name = self.path.removeprefix(STORE).strip("/")
            if name in served.stated and not self.path.startswith(STORE):
                self.send_response(302)
                self.send_header("Location", f"{STORE}/{name}")
                self.send_header("X-Linked-Etag", f'"{served.stated[name]}"')
                self.end_headers()
                return
            served.asked.append((name, self.headers["Range"]))
            if served.statuses:
                self.send_error(served.statuses.pop(0))
            elif name not in served.files:
                self.send_error(404)
            else:
                self.content(served.files[name])

        def content(self, content: bytes) -> None:
            etag = f'"{hashlib.md5(content, usedforsecurity=False).hexdigest()}"'
            known = self.headers["If-Range"] == etag
            start = 0
            if served.ranges and known and self.headers["Range"]:
                start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
            headers: dict[str, str | None] = {
                "Content-Length": str(len(content) - start),
                "Content-Type": "application/octet-stream",
                "ETag": etag if served.etag else None,
            }
            early, served.early = (served.early, 0) if start else (0, served.early)
            end = len(content) - early
            start -= early
            if start:
                headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(content)}"
            self.send_response(206 if start else 200)
            for key, value in (headers | served.headers).items():
                if value is not None:
                    self.send_header(key, value)
            self.end_headers()
            body = content[start:end]
            self.wfile.write(body[: served.cuts.pop(0)] if served.cuts else body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
