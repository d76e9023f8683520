"""Results that need not be worked out twice: a folder of entries, found by what shaped them.

An entry is a folder ``<key>/`` with ``entry.json`` (a payload, the hash of each file, a checksum
over both) and the files. It appears in one rename, goes in one, and is proven whenever it is used:
the copy that a caller gets is hashed, and an entry that does not fit its hashes is deleted and
counts as absent. So a cache may be shared by exports that run at once, cut off, or cleared at any
time.

What shapes an outcome is `exporter.fingerprint`'s; what is kept of one is `exporter.memory`'s.
What it leaves out: protection against somebody who forges entries on purpose. Whoever can write the
user's cache folder can write the bundle as well.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from swipe.files import sha256_file, size_bytes
from swipe.progress import Say

FOLDER_VARIABLE: Final = "SWIPE_EXPORT_CACHE"
ENTRY: Final = "entry.json"
LAYOUT: Final = "v1"
LIMIT_BYTES: Final = 2_000_000_000
_UNFINISHED: Final = ".new-"
ABANDONED_SECONDS: Final = 3600.0
"""An unfinished entry that nobody has touched for so long was left by a process that was killed."""


def default_folder() -> Path:
    """``$SWIPE_EXPORT_CACHE``, or ``swipe-export`` in the user's cache folder."""
    if named := os.environ.get(FOLDER_VARIABLE):
        return Path(named).expanduser().resolve()
    root = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(root).expanduser().resolve() / "swipe-export"


def key_of(parts: Mapping[str, Any]) -> str:
    """The key of what `parts`, all JSON types, determine."""
    return hashlib.sha256(_canonical(parts)).hexdigest()


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _checksum(key: str, payload: Any, files: Mapping[str, str]) -> str:
    return hashlib.sha256(_canonical([key, payload, files])).hexdigest()


def _read(entry: Path) -> tuple[Any, dict[str, str]]:
    """Payload and file hashes of an entry, proven.

    Raises:
        OSError: it cannot be read; FileNotFoundError: there is none.
        ValueError: it is damaged.
    """
    record = json.loads((entry / ENTRY).read_bytes())
    try:
        payload, files = record["payload"], dict(record["files"])
        sound = record["sha256"] == _checksum(entry.name, payload, files)
    except (KeyError, TypeError):
        sound = False
    if not sound:
        raise ValueError(f"{ENTRY} was altered")
    return payload, files


@dataclass(frozen=True, slots=True)
class Contents:
    """How much a cache holds.

    Attributes:
        entries: how many results.
        size_bytes: of all of them.
    """

    entries: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Cache:
    """Entries under `folder`, the least recently used ones dropped beyond `limit_bytes`.

    Attributes:
        folder: where they are; created when the first is kept.
        say: told when an entry was damaged, or could not be kept.
        limit_bytes: total size to stay within.
    """

    folder: Path
    say: Say
    limit_bytes: int = LIMIT_BYTES

    @property
    def _root(self) -> Path:
        return self.folder / LAYOUT

    def recall(self, key: str, into: Path) -> Any | None:
        """The payload under `key`, its files copied into `into`; None when there is no sound one.

        Files that were in `into` under the same names are replaced only by proven copies.
        """
        entry = self._root / key
        try:
            found = _read(entry)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            self._drop(entry, str(error))
            return None
        payload, files = found
        with tempfile.TemporaryDirectory(prefix=".recall-", dir=into) as scratch:
            for name, sha256 in files.items():
                copied = Path(scratch, name)
                try:
                    copy(entry / name, copied)
                except OSError as error:
                    if entry.exists():  # otherwise another process dropped it just now
                        self._drop(entry, f"{name} cannot be read: {error}")
                    return None
                if sha256_file(copied) != sha256:
                    self._drop(entry, f"{name} was altered")
                    return None
            for name in files:
                remove(into / name)
                Path(scratch, name).rename(into / name)
        # Another process may drop it at any moment; the copies are whole all the same.
        with contextlib.suppress(OSError):
            os.utime(entry)
        return payload

    def _drop(self, entry: Path, why: str) -> None:
        self.say(f"cache: a damaged entry is dropped and rebuilt ({why})")
        _discard(entry)

    def keep(self, key: str, payload: Any, files: Sequence[Path] = ()) -> None:
        """Keep `payload`, all JSON types, and copies of `files` under `key`.

        A cache that cannot be written is said, and is no reason to fail: nothing depends on it.
        """
        new: Path | None = None
        try:
            self._root.mkdir(parents=True, exist_ok=True)
            new = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=self._root))
            for file in files:
                copy(file, new / file.name)
            hashes = {file.name: sha256_file(new / file.name) for file in files}
            checksum = _checksum(key, payload, hashes)
            record = {"key": key, "payload": payload, "files": hashes, "sha256": checksum}
            (new / ENTRY).write_text(json.dumps(record))
            entry = self._root / key
            try:
                new.rename(entry)
            except OSError as error:
                # Another export may have kept the same result a moment ago.
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
            self._shrink(spare=entry)
        except OSError as error:
            self.say(f"cache: this result is not kept: {error}")
        finally:
            if new is not None:
                shutil.rmtree(new, ignore_errors=True)

    def _entries(self) -> Iterator[tuple[float, int, Path]]:
        """When each entry was last used, its size, and where it is."""
        try:
            paths = list(self._root.iterdir())
        except OSError:
            return  # there is none, or none that could be used
        for path in paths:
            try:
                yield path.stat().st_mtime, size_bytes(path), path
            except FileNotFoundError:
                continue  # dropped by another process meanwhile

    def _shrink(self, spare: Path) -> None:
        """Drop what was left unfinished, and the least recently used entries beyond the limit."""
        total = 0
        entries = sorted(self._entries(), reverse=True)
        for used, size, path in entries:
            if path.name.startswith(_UNFINISHED):
                if entries[0][0] - used > ABANDONED_SECONDS:
                    shutil.rmtree(path, ignore_errors=True)
                continue
            total += size
            if total > self.limit_bytes and path != spare:
                _discard(path)

    def payloads(self) -> Iterator[Any]:
        """The payload of every sound entry, in no order; files are not looked at."""
        for _, _, path in self._entries():
            try:
                payload, _ = _read(path)
            except (OSError, ValueError):
                continue  # whoever recalls it is told; a listing shows what is sound
            yield payload

    def contents(self) -> Contents:
        """How much there is."""
        sizes = [size for _, size, path in self._entries() if not path.name.startswith(".")]
        return Contents(len(sizes), sum(sizes))

    def clear(self) -> Contents:
        """Drop everything; returns what there was."""
        before = self.contents()
        shutil.rmtree(self._root, ignore_errors=True)
        return before


def _discard(entry: Path) -> None:
    """Take `entry` away in one rename, so that nobody finds half of it; then delete it."""
    discarded = entry.with_name(f"{_UNFINISHED}{uuid.uuid4().hex}")
    with contextlib.suppress(OSError):  # another process was faster, or it is not ours to remove
        entry.rename(discarded)
    shutil.rmtree(discarded, ignore_errors=True)


def copy(source: Path, target: Path) -> None:
    """Copy a file, or a folder with all it holds."""
    duplicate: Callable[[Path, Path], object] = (
        shutil.copytree if source.is_dir() else shutil.copyfile
    )
    duplicate(source, target)


def remove(path: Path) -> None:
    """Remove a file, or a folder with all it holds, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
