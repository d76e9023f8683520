"""Functions that numba compiles, cached wherever this machine lets them be.

By itself numba caches beside the source or in the user's cache folder, and refuses to compile when
it may write to neither, as in a container whose image is read-only. Then a temporary folder of the
user's own takes their place; without one, each process compiles for itself.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numba

_REFUSAL: Final = "cannot cache function"
"""How numba says that it may write to none of its folders."""


def compiled(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Decorator: compile a function for use in threads, and cache what was compiled.

    Args:
        options: what else `numba.njit` is told.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        cached = numba.njit(cache=True, nogil=True, **options)
        try:
            return cached(function)
        except RuntimeError as error:
            if _REFUSAL not in str(error):
                raise
        folder = own_folder()
        if folder is None:
            return numba.njit(nogil=True, **options)(function)
        # The environment is for child processes, and for numba when it reads it again.
        numba.config.CACHE_DIR = os.environ["NUMBA_CACHE_DIR"] = str(folder)
        return cached(function)

    return decorate


def own_folder() -> Path | None:
    """A temporary folder that only this user can write to; None where there can be none.

    Cached code is run as it is, so that whoever could write it would decide what this user runs.
    """
    try:
        folder = Path(tempfile.gettempdir(), f"swipe-export-numba-{os.getuid()}")
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
    except OSError:
        return None
    alone = not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    mine = stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid()
    return folder if mine and alone else None
