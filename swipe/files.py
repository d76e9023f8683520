"""Atomic files and folders: a reader sees the old content or the new, never a part.

Content goes to a temporary sibling, is flushed to disk, and replaces the target in one rename (a
folder: in two, the earlier one put back when the second fails). A full disk, a missing folder or a
read-only one becomes one clear error, and what was there before stays. Links stay links: what they
name is replaced. Devices and pipes cannot be replaced without being lost, so they are written into.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from swipe.errors import UsageError

FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
"""Errors that only writing can end in, and that name no file."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside the file that `path` names; on success it becomes that file.

    Raises:
        UsageError: `path` is a folder, or its own cannot be created or written; the earlier file
            is untouched.
    """
    temporary: Path | None = None
    try:
        target = _replaceable(path)
        folder = target.parent if target is not None else None
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=folder)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        if target is None:
            _pour(temporary, path)
        else:
            _honour_umask(temporary, 0o666)
            _flush(temporary)
            os.replace(temporary, target)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


@contextmanager
def replacing_folder(out: Path, *, ours: Callable[[Path], bool], kind: str) -> Iterator[Path]:
    """Yield an empty folder beside `out`; on success it becomes `out`, replacing an earlier one.

    Args:
        out: the folder to publish.
        ours: tells a folder of ours, which may be replaced, from any other by what lies in it.
        kind: what such a folder is called, e.g. "bundle".

    Raises:
        UsageError: `out` is a file or a folder of something else, or it cannot be written; it is
            untouched. What the block itself cannot read or write elsewhere is not translated.
    """
    if out.exists() and not (out.is_dir() and (ours(out) or not any(out.iterdir()))):
        raise UsageError(
            f"{out} exists and is not a {kind}",
            fix="choose another place for it, or empty that folder",
        )
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        target = out.resolve()  # a link stays one, and the folder is built on the disk it names
        folder = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    except OSError as error:
        raise cannot_write(out, error) from error
    try:
        try:
            yield folder
        except OSError as error:
            if error.errno in FULL or str(folder) in str(error.filename):
                raise cannot_write(out, error) from error
            raise
        try:
            for file in folder.rglob("*"):
                if file.is_file():
                    _flush(file)
            _honour_umask(folder, 0o777)
            _publish(folder, target)
        except OSError as error:
            raise cannot_write(out, error) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _publish(folder: Path, out: Path) -> None:
    """Put `folder` in the place of `out`; if that fails, put the old one back."""
    old = folder.with_name(folder.name + "-old")
    try:
        if out.exists():
            out.rename(old)
        folder.rename(out)
    finally:  # an interrupt too must not leave the place empty
        if old.exists() and not out.exists():
            old.rename(out)
        shutil.rmtree(old, ignore_errors=True)


def _replaceable(path: Path) -> Path | None:
    """The file that `path` names, its folder created; None of a device, a pipe or a socket.

    Raises:
        OSError: it is a folder, or its own cannot be created.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if path.exists() and not path.is_file():
        return None
    target = Path(os.path.realpath(path))
    target.parent.mkdir(parents=True, exist_ok=True)
    return target


def _pour(source: Path, path: Path) -> None:
    """Write all of `source` into the device or pipe `path`, which is never created here."""
    with source.open("rb") as content, open(os.open(path, os.O_WRONLY), "wb") as stream:
        shutil.copyfileobj(content, stream)


def _honour_umask(path: Path, mode: int) -> None:
    """Temporary files are born private; what is published is read by other users."""
    umask = os.umask(0)
    os.umask(umask)
    path.chmod(mode & ~umask)


def _flush(path: Path) -> None:
    with path.open("rb+") as stream:
        os.fsync(stream.fileno())


def cannot_write(path: Path, error: OSError) -> UsageError:
    """What a user is told when the operating system refuses to write `path`."""
    return UsageError(
        f"cannot write {path}: {error.strerror or error}",
        fix="choose a writable place with enough free space",
    )


def require_writable(path: Path) -> None:
    """Check now that `path` can be replaced later, when there is something to lose.

    Raises:
        UsageError: it is a folder, its own folder cannot be created or written, or it is a device
            or a pipe that takes nothing.
    """
    try:
        target = _replaceable(path)
        if target is not None:
            with tempfile.TemporaryFile(dir=target.parent):
                pass
        elif not os.access(path, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise cannot_write(path, error) from error


def write_bytes_atomic(path: Path, data: bytes) -> None:
    """Replace `path` by `data`."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_text_atomic(path: Path, text: str) -> None:
    """Replace `path` by `text` in UTF-8."""
    write_bytes_atomic(path, text.encode())


def sha256_file(path: Path) -> str:
    """SHA-256 of a file, or of a folder's files by sorted relative path and content."""
    digest = hashlib.sha256()
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    for file in files:
        if file != path:
            digest.update(file.relative_to(path).as_posix().encode() + b"\0")
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def cannot_read(path: Path, error: OSError) -> UsageError:
    """What a user is told when the operating system refuses to read `path`."""
    return UsageError(
        f"{path} cannot be read: {error.strerror or error}", fix="make it readable to this user"
    )


def hash_of(path: Path) -> str:
    """`sha256_file`, for a file that a user named or may have locked away.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        return sha256_file(path)
    except OSError as error:
        raise cannot_read(path, error) from error


def size_bytes(path: Path) -> int:
    """Size of a file, or of all files under a folder."""
    if path.is_file():
        return path.stat().st_size
    return sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
