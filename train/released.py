"""Released models, which the commands use until a model was trained here."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from swipe.errors import UsageError
from train.runs import LATEST

RELEASED: Final = ("base", "nano")
_FOLDERS: Final = (
    Path(__file__).parent / "weights",  # in an installed package
    Path(__file__).parents[1] / "models",  # in a checkout
)


def released(name: str = "base") -> Path:
    """Checkpoint file of the released model `name`.

    Raises:
        UsageError: this installation has no such model.
    """
    for folder in _FOLDERS:
        path = folder / f"{name}.safetensors"
        if path.is_file():
            return path
    raise UsageError(
        f"no released model {name!r} in this installation",
        fix="give a checkpoint with --checkpoint, or train one: swipe-train fit",
    )


def default_checkpoint() -> Path:
    """The newest finished run of this folder, or the released base model when there is none.

    Raises:
        UsageError: neither exists.
    """
    return LATEST if LATEST.exists() else released()
