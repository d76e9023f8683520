"""A verdict's figures as a person reads them, the same on screen and in the report.

Which there are depends on the model: decisions, decoded text and scores. What was not measured is
a dash.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

HEADINGS: Final = (
    "max abs delta",
    "decisions agree",
    "texts agree",
    "score %",
    "PyTorch %",
    "drop",
)
"""Of `cells`. The drop is that of the first score, in points, with its statistical bound."""


def cells(metrics: Mapping[str, Any] | None) -> list[str]:
    """One cell for each of `HEADINGS`."""
    if metrics is None:
        return ["-"] * len(HEADINGS)
    agreement, words, cost = (metrics[n] for n in ("agreement", "word_agreement", "cost"))
    return [
        f"{metrics['max_abs_delta']:.1e}",
        "-" if agreement is None else f"{agreement['frames']:.2%}",
        "-" if words is None else f"{words:.2%}",
        _scores(metrics["scores"]),
        _scores(metrics["reference_scores"]),
        "-" if cost is None else f"{cost['drop']:+.2f}, below {cost['bound']:.2f}",
    ]


def _scores(scores: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.2f}" for name, value in scores.items()) or "-"
