"""One chart as hand-written SVG: size against accuracy, with what cannot be ruled out, and speed.

Each artefact is a dot at its size (kB, logarithmic) and the points of accuracy it lost to PyTorch;
a whisker reaches to the loss that cannot be ruled out. A filled dot passed, a hollow one did not.
The number beside a dot is its time over float's. Colours come from the page, dark or light.

What it leaves out: artefacts that were not executed, which have no accuracy; the page lists them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from exporter.html import escape

WIDTH: Final = 640
HEIGHT: Final = 340
LEFT, RIGHT, TOP, BOTTOM = 56, 24, 20, 46
DOT: Final = 6
MARKS: Final = 5
NEAR: Final = 14.0
"""Labels closer than this one above the other, in pixels, are moved apart."""
WIDE: Final = 200.0
"""About the width of a label in pixels."""


@dataclass(frozen=True, slots=True)
class Dot:
    """One artefact.

    Attributes:
        label: what it is.
        size_kb: its size.
        drop: points of accuracy it lost to PyTorch.
        bound: the loss that cannot be ruled out, in points.
        speed: its time over the float artefact's, None when that was not measured.
        passed: whether its verdict is PASS.
    """

    label: str
    size_kb: float
    drop: float
    bound: float
    speed: float | None
    passed: bool


@dataclass(frozen=True, slots=True)
class _Scale:
    """From kB (logarithmic) and points to pixels."""

    low: float
    high: float
    least: float
    most: float

    @classmethod
    def of(cls, dots: Sequence[Dot], budget: float) -> _Scale:
        sizes = [dot.size_kb for dot in dots]
        losses = [budget, 0.1, *(d.bound for d in dots), *(d.drop for d in dots)]
        least = min(0.0, *(dot.drop for dot in dots))
        return cls(min(sizes) / 1.3, max(sizes) * 1.3, 1.15 * least, 1.15 * max(losses))

    def x(self, size_kb: float) -> float:
        share = math.log(size_kb / self.low) / math.log(self.high / self.low)
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def y(self, points: float) -> float:
        share = (points - self.least) / (self.most - self.least)
        return TOP + share * (HEIGHT - TOP - BOTTOM)


def draw(dots: Sequence[Dot], budget: float) -> str:
    """The chart of `dots`, with a line at the `budget` of points; empty when there are none."""
    if not dots:
        return ""
    scale = _Scale.of(dots, budget)
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        'aria-label="size against loss of accuracy, per artefact">',
        *_frame(scale, budget),
    ]
    taken: list[tuple[float, float]] = []
    for dot in sorted(dots, key=lambda d: (d.size_kb, d.drop)):
        at = scale.x(dot.size_kb), scale.y(dot.drop)
        parts.append(_whisker(at, scale.y(max(dot.bound, dot.drop))))
        style = "dot" if dot.passed else "dot open"
        parts.append(f'<circle class="{style}" cx="{at[0]:.1f}" cy="{at[1]:.1f}" r="{DOT}"/>')
        parts.append(_label(dot, at, taken))
    return "\n".join([*parts, "</svg>"])


def _whisker(at: tuple[float, float], to: float) -> str:
    left, top = at
    return f'<path class="whisker" d="M{left:.1f} {top:.1f}V{to:.1f}M{left - 4:.1f} {to:.1f}h8"/>'


def _label(dot: Dot, at: tuple[float, float], taken: list[tuple[float, float]]) -> str:
    """The dot's name and speed beside it, below labels that are there already."""
    left, top = at
    right_half = left > WIDTH / 2
    while any(abs(top - other) < NEAR and abs(left - place) < WIDE for place, other in taken):
        top += NEAR
    taken.append((left, top))
    text = dot.label if dot.speed is None else f"{dot.label} ×{dot.speed:.2f}"
    anchor, shift = ("end", -10) if right_half else ("start", 10)
    return (
        f'<text class="label" x="{left + shift:.1f}" y="{top + 4:.1f}" text-anchor="{anchor}">'
        f"{escape(text)}</text>"
    )


def _frame(scale: _Scale, budget: float) -> list[str]:
    """Axes, their marks, and the budget's line."""
    bottom = HEIGHT - BOTTOM
    parts = [f'<path class="axis" d="M{LEFT} {TOP}V{bottom}H{WIDTH - RIGHT}"/>']
    for number in range(MARKS):
        share = number / (MARKS - 1)
        points = scale.least + share * (scale.most - scale.least)
        parts.append(
            f'<text class="mark" x="{LEFT - 6}" y="{scale.y(points) + 4:.1f}" '
            f'text-anchor="end">{points:.2f}</text>'
        )
        size = scale.low * (scale.high / scale.low) ** share
        parts.append(
            f'<text class="mark" x="{scale.x(size):.1f}" y="{bottom + 16}" '
            f'text-anchor="middle">{size:,.0f}</text>'
        )
    middle = (LEFT + WIDTH - RIGHT) / 2
    line = scale.y(budget)
    return [
        *parts,
        f'<text class="mark" x="{middle:.0f}" y="{HEIGHT - 8}" text-anchor="middle">'
        "kB, less is better</text>",
        f'<text class="mark" x="{LEFT}" y="{TOP - 6}">points of top-1 lost, less is better</text>',
        f'<path class="budget" d="M{LEFT} {line:.1f}H{WIDTH - RIGHT}"/>',
        f'<text class="mark" x="{WIDTH - RIGHT}" y="{line - 4:.1f}" text-anchor="end">'
        f"budget {budget:g}</text>",
    ]
