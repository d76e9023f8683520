"""How an artefact is built, whatever its format: in silence, and moved into place when whole.

Leaves out everything that knows a format.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

from exporter.formats import Inputs, Lowering
from exporter.formats.axes import spell
from swipe.errors import LoweringError, MissingError, UsageError

OPERATOR_FIX: Final = (
    "write the operator that it names with others, or build the other formats by their own commands"
)
"""What helps when a library cannot lower a model."""
_COLOUR: Final = re.compile(r"\x1b\[[0-9;]*m")


def library(name: str, extra: str) -> Any:
    """Import the module `name`, which the optional dependency `extra` brings.

    Raises:
        MissingError: it cannot be imported; the message says how to install it.
    """
    try:
        with quiet():
            return importlib.import_module(name)
    except ImportError as error:
        raise MissingError(
            f"{name} cannot be imported: {error}", fix=f"pip install 'swipe-export[{extra}]'"
        ) from error


def known_rung(rung: str, rungs: tuple[str, ...], format_name: str) -> None:
    """Refuse a rung that a format does not have.

    Raises:
        UsageError: `rung` is not in `rungs`.
    """
    if rung not in rungs:
        raise UsageError(
            f"{format_name} has no rung {rung!r}", fix=f"choose one of: {', '.join(rungs)}"
        )


def refuse_text(job: Lowering, format_name: str) -> None:
    """Refuse a job that asks for text, in a format without strings.

    Raises:
        UsageError: it does.
    """
    if job.spelling is not None:
        raise UsageError(
            f"{format_name} has no strings, and the model is to write {job.spelling.name!r}",
            fix="export this view with swipe-export onnx",
        )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence prints, progress bars, warnings and logs, also those that C++ writes.

    Exporters report nothing in them that their return value or exception does not say. An
    exception passes through, with the last lines of what was silenced as a note. File descriptors
    1 and 2 are the process's: no other thread should print meanwhile.
    """
    with tempfile.TemporaryFile() as chatter:
        try:
            with _redirected(chatter.fileno()), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
        except BaseException as error:
            chatter.seek(0)
            lines = chatter.read().decode(errors="replace").splitlines()
            if lines:
                error.add_note("silenced output ends with:\n" + "\n".join(lines[-20:]))
            raise


@contextlib.contextmanager
def _redirected(target: int) -> Iterator[None]:
    _flush()
    saved = [os.dup(1), os.dup(2)]
    disabled = logging.root.manager.disable
    os.dup2(target, 1)
    os.dup2(target, 2)
    logging.disable(logging.CRITICAL)
    try:
        with (
            open(os.dup(target), "w", encoding="utf-8", errors="replace") as sink,
            contextlib.redirect_stdout(sink),
            contextlib.redirect_stderr(sink),
        ):
            yield
    finally:
        logging.disable(disabled)
        for descriptor, original in enumerate(saved, start=1):
            os.dup2(original, descriptor)
            os.close(original)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        # None under pythonw-like hosts, closed under some test runners.
        if stream is not None and not stream.closed:
            stream.flush()


@contextlib.contextmanager
def staged(path: Path) -> Iterator[Path]:
    """Give a path in the same folder to write to; move it onto `path` when the block succeeds.

    Works for a file and for a directory (``.mlpackage``). The temporary keeps the suffix, as some
    libraries choose the format by it. When the block raises, `path` is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.stem}-", dir=path.parent) as folder:
        new = Path(folder, f"new{path.suffix}")
        yield new
        if path.is_dir():
            # A directory cannot be replaced in one call: set the old one aside, and put it back
            # if the new one cannot take its place.
            old = Path(folder, f"old{path.suffix}")
            path.rename(old)
            try:
                new.rename(path)
            except OSError:
                old.rename(path)
                raise
        else:
            new.replace(path)


def calibration_calls(job: Lowering) -> list[Inputs]:
    """The calibration set, each call laid out in memory as the runtimes want it.

    Raises:
        LoweringError: it is empty, has other inputs or shapes than the example, or is not finite.
    """
    calls: list[Inputs] = [
        {name: np.ascontiguousarray(v) for name, v in c.items()} for c in job.calibration
    ]
    if not calls:
        raise LoweringError(
            "there are no calibration inputs, and static quantization measures its ranges on them",
            fix="give at least one (128 or more work well) real input",
        )
    wanted = signature(job.example, job)
    for call in calls:
        if signature(call, job) != wanted:
            raise LoweringError(
                f"calibration inputs {signature(call, job)} do not fit the example's {wanted}",
                fix="calibrate on inputs as the model takes them, one call each",
            )
        if not all(np.isfinite(value).all() for value in call.values()):
            raise LoweringError(
                "the calibration inputs hold NaN or Inf, and so would every scale",
                fix="drop the rows that are not finite",
            )
    return calls


def signature(call: Inputs, job: Lowering) -> dict[str, list[int | str]]:
    """Shapes of a call by input; a dynamic dimension is its axis, e.g. ``"T:4..200"``."""
    return {
        name: [
            spell(job.dynamic[name][i]) if i in job.dynamic.get(name, ()) else size
            for i, size in enumerate(value.shape)
        ]
        for name, value in call.items()
    }


def first_line(error: BaseException) -> str:
    """Type and first line of an exception of a library, to be quoted in ours, and of its root.

    Exporters wrap what failed in what to do about any failure; the operator is named at the root.
    """
    root = error
    while root.__cause__ is not None:
        root = root.__cause__
    said = _first_line(error)
    return said if root is error else f"{said}; caused by {_first_line(root)}"


def _first_line(error: BaseException) -> str:
    lines = _COLOUR.sub("", str(error)).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def unusable(path: Path, what: str, error: Exception, command: str) -> LoweringError:
    """The error for an artefact that its library refuses: `what` happened, `command` mends it."""
    return LoweringError(
        f"{path.name} {what}: {first_line(error)}",
        fix=f"export the model again with swipe-export {command}",
    )
