"""Losses that a file records of its own training, wherever they are nested.

A loss is told by its name: "val_loss", "history.0.loss", "best/trainLoss". What only sounds like
one (a loss scale, the name of a loss function, the weight of a term) is none.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from train.finite import ABSURD

Recorded = tuple[str, float]
"""Dotted name and value."""

_LOSS: Final = frozenset({"loss", "losses"})
_ABOUT: Final = frozenset(
    {
        "scale", "scaler", "scaling", "weight", "weights", "coefficient", "fn", "func", "function",
        "type", "name", "kind", "step", "steps", "epoch", "epochs", "iteration", "time", "count",
    }
)  # fmt: skip
_WORDS: Final = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")


def losses(content: Any, name: str = "") -> Iterator[Recorded]:
    """Numbers of a nested structure whose name says that they are losses.

    Text that holds JSON is looked into: safetensors and ONNX metadata know nothing but text.
    """
    if isinstance(content, Mapping):
        for key, value in content.items():
            yield from losses(value, f"{name}.{key}" if name else str(key))
    elif isinstance(content, list | tuple):
        for index, value in enumerate(content):
            yield from losses(value, f"{name}.{index}")
    elif isinstance(content, str) and content.lstrip()[:1] in ("{", "["):
        try:
            nested = json.loads(content)
        except ValueError:
            return
        yield from losses(nested, name)
    elif not isinstance(content, int | float | str) or isinstance(content, bool):
        return
    elif named_like_a_loss(name):
        try:
            yield name, float(content)
        except OverflowError:  # an integer beyond float's range
            yield name, math.inf
        except ValueError:
            return


def named_like_a_loss(name: str) -> bool:
    """Whether a dotted name speaks of the value of a loss."""
    words = [word.lower() for word in _WORDS.findall(name)]
    positions = [index for index, word in enumerate(words) if word in _LOSS]
    return bool(positions) and not _ABOUT.intersection(words[positions[0] :])


def absurd(value: float) -> bool:
    """Whether no trained model has this loss."""
    return not abs(value) <= ABSURD
