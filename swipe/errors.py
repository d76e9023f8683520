"""Every error a user can meet, and the exit code each one ends a command with.

The tree::

    SwipeError
    ├── UsageError            2  the command line or a file named on it is wrong
    │   ├── ConfigError       2  a configuration value is missing, unknown or out of range
    │   └── DataError         2  a data set, layout or lexicon cannot be used
    ├── GateError             3  a check refused to let something pass
    │   ├── NonFiniteError    3  NaN or Inf in a batch, gradient, parameter or output
    │   ├── CheckpointError   3  a checkpoint is damaged, foreign or not finite
    │   ├── LoweringError     3  a format could not be built or executed
    │   └── ParityError       3  an artefact disagrees with PyTorch
    └── MissingError          5  a library or program is not on this machine

Each error says what happened and, in ``fix``, how to mend it.
"""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """What a finished command tells the shell."""

    OK = 0
    BUG = 1
    USAGE = 2
    GATE_FAILED = 3
    UNVERIFIED = 4
    MISSING = 5


class SwipeError(Exception):
    """Base of all expected errors: one line for the user, and the mend in ``fix``."""

    exit_code: ExitCode = ExitCode.BUG

    def __init__(self, message: str, *, fix: str) -> None:
        super().__init__(message)
        self.fix = fix


class UsageError(SwipeError):
    """The command line, or a file named on it, is wrong."""

    exit_code = ExitCode.USAGE


class ConfigError(UsageError):
    """A configuration value is missing, unknown or out of range."""


class DataError(UsageError):
    """A data set, layout or lexicon cannot be used."""


class GateError(SwipeError):
    """A check refused to let something pass."""

    exit_code = ExitCode.GATE_FAILED


class NonFiniteError(GateError):
    """NaN or Inf where only finite numbers may be."""


class CheckpointError(GateError):
    """A checkpoint is damaged, foreign or not finite."""


class LoweringError(GateError):
    """A format could not be built, loaded or executed."""


class ParityError(GateError):
    """An artefact disagrees with PyTorch beyond its limits."""


class MissingError(SwipeError):
    """A library or program is not installed on this machine."""

    exit_code = ExitCode.MISSING
