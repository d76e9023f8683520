"""One question of a preflight, and its answer."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Check:
    """One question and its answer.

    Attributes:
        name: what was asked.
        passed: whether the answer is good.
        detail: what was seen.
        fix: what to do when it is not; empty when it is.
    """

    name: str
    passed: bool
    detail: str
    fix: str = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready fields."""
        return asdict(self)
