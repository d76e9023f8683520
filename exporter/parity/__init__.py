"""Parity: does an artefact still say what PyTorch says? Numpy only, fail-closed.

Nothing here repairs, drops or averages away a bad value: NaN, Inf, a missing or misshapen output
and zero samples are failures before any metric is computed, and every limit is written
``not (value <= limit)`` so that NaN fails it.

What it leaves out: running anything. It compares outputs, words and scores that others produced.
"""

from exporter.parity.comparison import Answers, Metrics, Population, compare, measure
from exporter.parity.cost import Cost, accuracy_cost
from exporter.parity.outputs import Kind, Reading, disagreements
from exporter.parity.verdict import Level, Limits, Status, Verdict, refused, unverified

__all__ = [
    "Answers",
    "Cost",
    "Kind",
    "Level",
    "Limits",
    "Metrics",
    "Population",
    "Reading",
    "Status",
    "Verdict",
    "accuracy_cost",
    "compare",
    "disagreements",
    "measure",
    "refused",
    "unverified",
]
