"""Whether a path leads to a file or a folder, asked so that a refusal is an error with its mend.

`Path.is_file` and `Path.is_dir` answer False for what is not there, and raise for what the
operating system will not say: a name too long for it, or a folder above that may not be entered.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

from swipe.errors import DataError


def is_file(path: Path) -> bool:
    """Whether `path` is a file, or a link to one.

    Raises:
        DataError: the operating system will not say.
    """
    return _asked(Path.is_file, path)


def is_folder(path: Path) -> bool:
    """Whether `path` is a folder, or a link to one.

    Raises:
        DataError: the operating system will not say.
    """
    return _asked(Path.is_dir, path)


def _asked(question: Callable[[Path], bool], path: Path) -> bool:
    try:
        return question(path)
    except OSError as error:
        fix = "check the permissions of the folders it lies in"
        if error.errno == errno.ENAMETOOLONG:
            fix = "check the path: one of its names is too long to be a file's"
        raise DataError(
            f"{path} cannot be looked at: {error.strerror or error}", fix=fix
        ) from error
