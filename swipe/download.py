"""One file from a web server: resumed where it was cut, and verified before it counts.

Bytes go to ``NAME.part``; ``NAME.part.json`` remembers what the server said of them, so that any
later call can go on. A range is asked for with ``If-Range``: when the file has changed meanwhile,
or the server knows no ranges, the whole file comes and the part is begun anew. What is complete is
compared with the length and the SHA-256 that the server stated (Hugging Face states one for large
files, as ``X-Linked-Etag`` of its redirect).

What it leaves out: which files there are, and where they end up (`swipe.fetch`).
"""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from http.client import HTTPException, HTTPMessage, HTTPResponse
from pathlib import Path
from typing import IO, Any, Final
from urllib.error import HTTPError, URLError
from urllib.request import HTTPRedirectHandler, Request, build_opener

from swipe.errors import DataError, GateError, UsageError
from swipe.files import cannot_write, sha256_file, write_text_atomic

ATTEMPTS: Final = 5
"""Connections in a row that may end without one byte more than any before."""
PAUSE_SECONDS: Final = 1.0
"""Before the second of them; doubled before each further one."""
TIMEOUT_SECONDS: Final = 60.0
_BLOCK: Final = 1 << 20
_TRY_AGAIN: Final = (408, 416, 425, 429, 500, 502, 503, 504)
_GOES_ON: Final = "run the same command again: it goes on where this ended"

Progress = Callable[[int, int | None], None]


@dataclass(frozen=True, slots=True)
class Stated:
    """What a server said of a file.

    Attributes:
        url: where it was asked for, before any redirect.
        size: bytes of the whole file; None when it was not said.
        sha256: its digest; empty when it was not said.
        validator: strong ETag or date of this version; empty when there is none.
    """

    url: str
    size: int | None = None
    sha256: str = ""
    validator: str = ""


class _CutError(Exception):
    """The connection ended early, in a way that another attempt may mend."""


class _Redirects(HTTPRedirectHandler):
    """Follows redirects and keeps the digest that one of them stated."""

    def __init__(self) -> None:
        self.linked = ""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Request | None:
        self.linked = headers.get("X-Linked-Etag") or self.linked
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def download(url: str, part: Path, progress: Progress) -> tuple[Stated, str]:
    """Bring `part` to the whole content of `url`; returns what was stated of it, and its SHA-256.

    Args:
        url: http or https.
        part: the file to fill; what an earlier call left of the same URL is gone on with.
        progress: told how many bytes are there, and of how many if known.

    Raises:
        DataError: the server cannot be reached, refuses, or keeps ending early; the part stays.
        GateError: the content is not what the server stated; the part is removed.
        UsageError: the URL is none, or `part` cannot be written.
    """
    if not url.startswith(("http://", "https://")):
        raise UsageError(f"{url} is no web address", fix="begin it with https:// or http://")
    idle, most = 0, _size(part)
    while True:
        try:
            stated = _attempt(url, part, progress)
            break
        except _CutError as cut:
            idle, most = (0 if _size(part) > most else idle + 1), max(most, _size(part))
            if idle == ATTEMPTS:
                raise DataError(f"{url} cannot be fetched to its end: {cut}", fix=_GOES_ON) from cut
            time.sleep(PAUSE_SECONDS * 2**idle)
    found = sha256_file(part)
    if stated.sha256 and found != stated.sha256:
        forget(part)
        raise GateError(
            f"{url} is damaged: its SHA-256 is {found}, the server states {stated.sha256}",
            fix="run the same command again; if that ends here too, name another --mirror",
        )
    return stated, found


def forget(part: Path) -> None:
    """Remove a part and what was remembered of it."""
    for path in (part, _note(part)):
        path.unlink(missing_ok=True)


def _attempt(url: str, part: Path, progress: Progress) -> Stated:
    """One connection: from where the part ends to the end of the file."""
    earlier = _earlier(url, part)
    have = _size(part)
    if earlier is not None and have == earlier.size:
        return earlier
    headers = {"User-Agent": "swipe-data", "Accept-Encoding": "identity"}
    if earlier is not None:
        headers |= {"Range": f"bytes={have}-", "If-Range": earlier.validator}
    redirects = _Redirects()
    with _open(Request(url, headers=headers), redirects, part) as response:
        offset, size = _extent(response, have, part)
        stated = Stated(url, size, _sha256(redirects, response), _validator(response))
        if size is None and not (stated.sha256 or response.headers.get("Transfer-Encoding")):
            raise DataError(
                f"{url} does not say how long it is, so a cut could not be told from its end",
                fix="name another --mirror",
            )
        _require_space(part, (size or 0) - offset)
        write_text_atomic(_note(part), json.dumps(asdict(stated)) + "\n")
        done = _receive(response, part, offset, size, progress)
    if size is not None and done != size:
        raise _CutError(f"it ended after {done:,} of {size:,} bytes")
    return stated


def _open(request: Request, redirects: _Redirects, part: Path) -> HTTPResponse:
    url = request.full_url
    try:
        response: HTTPResponse = build_opener(redirects).open(request, timeout=TIMEOUT_SECONDS)
    except HTTPError as error:
        error.close()
        if error.code == 416:  # the part is longer than the file is now
            forget(part)
        if error.code in _TRY_AGAIN:
            raise _CutError(f"it answers {error.code} {error.reason}") from error
        raise DataError(
            f"{url} answers {error.code} {error.reason}",
            fix="see whether the corpus has moved, or check --mirror",
        ) from error
    except URLError as error:
        if isinstance(error.reason, ConnectionResetError):
            raise _CutError(str(error.reason)) from error
        raise DataError(
            f"cannot reach {request.host}: {error.reason}",
            fix="check the network (a proxy is named by https_proxy), name a --mirror, or run this "
            "command where there is a network and copy the folder",
        ) from error
    except (HTTPException, OSError) as error:
        raise _CutError(str(error) or type(error).__name__) from error
    if response.headers.get_content_type() == "text/html":
        response.close()
        raise DataError(
            f"{url} answers with a web page and not with the file",
            fix="look at it in a browser: a network may ask for a login, or the corpus has moved",
        )
    return response


def _extent(response: HTTPResponse, have: int, part: Path) -> tuple[int, int | None]:
    """Where in the file the response's body begins, and how long the file is if that was said."""
    if response.status != 206:
        length = response.headers.get("Content-Length")
        return 0, int(length) if length else None
    stated = response.headers.get("Content-Range", "")
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", stated)
    if found is None or int(found[1]) != have:
        forget(part)
        raise _CutError(f"asked for what follows {have:,} bytes, it sends {stated!r}")
    return have, int(found[2])


def _receive(
    response: HTTPResponse, part: Path, offset: int, size: int | None, progress: Progress
) -> int:
    """Write the body behind the first `offset` bytes; returns how many there are then."""
    done = offset
    try:
        with part.open("r+b" if offset else "wb") as file:
            file.seek(offset)
            progress(done, size)
            while block := _read(response):
                file.write(block)
                done += len(block)
                progress(done, size)
    except OSError as error:
        raise cannot_write(part, error) from error
    return done


def _read(response: HTTPResponse) -> bytes:
    try:
        return response.read(_BLOCK)
    except (HTTPException, OSError) as error:
        raise _CutError(str(error) or type(error).__name__) from error


def _require_space(part: Path, needed: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if needed > free:
        raise UsageError(
            f"{part.parent} has {free / 1e6:,.0f} MB free, and {needed / 1e6:,.0f} MB are to come",
            fix="make room, or choose another place with --out; what is there already is kept",
        )


def _sha256(redirects: _Redirects, response: HTTPResponse) -> str:
    linked = response.headers.get("X-Linked-Etag") or redirects.linked
    found = re.fullmatch(r'"?([0-9a-f]{64})"?', linked)
    return found[1] if found else ""


def _validator(response: HTTPResponse) -> str:
    etag = response.headers.get("ETag", "")
    return etag if etag.startswith('"') else response.headers.get("Last-Modified", "")


def _earlier(url: str, part: Path) -> Stated | None:
    """What was stated when `part` was begun; None when it cannot be gone on with."""
    try:
        fields: dict[str, Any] = json.loads(_note(part).read_bytes())
        stated = Stated(**fields)
    except (OSError, ValueError, TypeError):
        return None
    usable = stated.url == url and bool(stated.validator) and _size(part) <= (stated.size or 0)
    return stated if usable and _size(part) else None


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _note(part: Path) -> Path:
    return part.with_name(part.name + ".json")
