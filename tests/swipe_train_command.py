"""``swipe-train`` run inside the tests' own process: see the fixture of that name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Done:
    """A finished command."""

    code: int
    out: str
    err: str


SwipeTrain = Callable[..., Done]
