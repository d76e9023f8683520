"""A verdict's figures as a person reads them: all in the report, a few on screen.

Which there are depends on the model: decisions, decoded text and scores. What was not measured is
a dash.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

HEADINGS: Final = (
    "max abs delta", "decisions agree", "texts agree", "score %", "PyTorch %", "drop",
)  # fmt: skip
"""Of `cells`. The drop is that of the first score, in points, with its statistical bound."""

BRIEF: Final = ("agree", "score", "PyTorch", "drop <")
"""Of `brief_cells`: the first score only, and the bound of its drop."""


def cells(metrics: Mapping[str, Any] | None) -> list[str]:
    """One cell for each of `HEADINGS`."""
    if metrics is None:
        return ["-"] * len(HEADINGS)
    words, cost = metrics["word_agreement"], metrics["cost"]
    return [
        f"{metrics['max_abs_delta']:.1e}",
        _agreement(metrics),
        "-" if words is None else f"{words:.2%}",
        ", ".join(f"{name} {value:.2f}" for name, value in metrics["scores"].items()) or "-",
        _first(metrics["reference_scores"]),
        "-" if cost is None else f"{cost['drop']:+.2f}, below {cost['bound']:.2f}",
    ]


def brief_cells(metrics: Mapping[str, Any] | None) -> list[str]:
    """One cell for each of `BRIEF`."""
    if metrics is None:
        return ["-"] * len(BRIEF)
    cost = metrics["cost"]
    return [
        _agreement(metrics),
        _first(metrics["scores"]),
        _first(metrics["reference_scores"]),
        "-" if cost is None else f"{cost['bound']:.2f}",
    ]


def _agreement(metrics: Mapping[str, Any]) -> str:
    agreement = metrics["agreement"]
    return "-" if agreement is None else f"{agreement['frames']:.2%}"


def _first(scores: Mapping[str, float]) -> str:
    return next((f"{value:.2f}" for value in scores.values()), "-")
