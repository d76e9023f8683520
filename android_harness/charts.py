"""Charts of latency as hand-written SVG: artefacts and devices, rounds, and a long run.

Every artefact has a line of its own with its name beside it, so that nothing overlaps, and a
<title> with its figures and what is wrong with it. A hollow dot is a latency that is not to be
used. Colours come from the page, dark or light.

What is left out: deciding what may be drawn; `android_harness.page` does.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final
from unicodedata import combining, east_asian_width

from exporter.html import escape

WIDTH: Final = 900
LEFT, RIGHT, TOP, BOTTOM = 250, 76, 14, 40
LANE: Final = 22
"""Height of one line of the chart of latencies, in pixels."""
ROUNDS_LANE: Final = 48
COURSE_LANE: Final = 112
DOT: Final = 4.5
SMALL_DOT: Final = 1.8
COLOURS: Final = 6
"""Devices of different colours; the next one has the first one's again, and its name beside it."""
WIDEST_MARKS: Final = 9

STYLE: Final = """
.chart{min-width:44rem}.between{fill:var(--dot);opacity:.4}.line{stroke:var(--dot);fill:none;
stroke-width:1.5}.heat{stroke:var(--bad);fill:none;stroke-width:.8}svg .heat-mark{fill:var(--bad)}
.rule{stroke:var(--line);stroke-dasharray:1 4;fill:none}svg .group{font-weight:600}
.s1{--dot:#b35900}.s2{--dot:#1a7f4b}.s3{--dot:#8e3bb0}.s4{--dot:#a8325e}.s5{--dot:#55636e}
@media(prefers-color-scheme:dark){.s1{--dot:#f0a35e}.s2{--dot:#58c48c}.s3{--dot:#cf94ea}
.s4{--dot:#f08bb0}.s5{--dot:#a3b4c0}}
"""


@dataclass(frozen=True, slots=True)
class Bar:
    """One artefact's latency on one device, in ms.

    Attributes:
        artefact: its name.
        device: how the device is called.
        number: of the device, for its colour.
        p50_ms, p90_ms, p99_ms: percentiles.
        between_ms: the 95 % interval of p50; None where it is not known.
        invalid: why it is not to be used.
    """

    artefact: str
    device: str
    number: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    between_ms: tuple[float, float] | None = None
    invalid: tuple[str, ...] = ()

    @property
    def spoken(self) -> str:
        """All of it in words."""
        between = self.between_ms
        interval = f" ({between[0]:.3f}-{between[1]:.3f})" if between else ""
        return (
            f"{self.artefact}, {self.device}: p50 {self.p50_ms:.3f} ms{interval}, "
            f"p90 {self.p90_ms:.3f} ms, p99 {self.p99_ms:.3f} ms{_spoken_reasons(self.invalid)}"
        )


@dataclass(frozen=True, slots=True)
class Rounds:
    """One artefact's median in every round.

    Attributes:
        artefact: its name.
        medians_ms: at least one.
        invalid: why its latency is not to be used.
    """

    artefact: str
    medians_ms: tuple[float, ...]
    invalid: tuple[str, ...] = ()

    @property
    def ratios(self) -> list[float]:
        """Over the first round."""
        return [median / self.medians_ms[0] for median in self.medians_ms]


@dataclass(frozen=True, slots=True)
class Piece:
    """A moment of a long run: seconds since its start, p50 in ms, degrees if they are known."""

    at_s: float
    p50_ms: float
    temp_c: float | None


@dataclass(frozen=True, slots=True)
class Course:
    """One artefact's long run; at least one piece."""

    artefact: str
    pieces: tuple[Piece, ...]


@dataclass(frozen=True, slots=True)
class _Scale:
    """From a figure between `low` and `high` to a pixel between `start` and `stop`."""

    low: float
    high: float
    start: float
    stop: float

    @classmethod
    def around(cls, figures: Iterable[float], start: float, stop: float, least: float) -> _Scale:
        """Over all `figures` and some space, at least `least` from end to end."""
        found = list(figures)
        middle, half = (min(found) + max(found)) / 2, 0.54 * (max(found) - min(found))
        half = max(half, least / 2)
        return cls(middle - half, middle + half, start, stop)

    def at(self, figure: float) -> float:
        share = (figure - self.low) / (self.high - self.low)
        return self.start + share * (self.stop - self.start)


def draw_latency(bars: Sequence[Bar]) -> str:
    """Bars of one artefact below each other, on a logarithmic axis; empty without any."""
    if not bars:
        return ""
    several = len({bar.device for bar in bars}) > 1
    names = list(dict.fromkeys(bar.artefact for bar in bars))
    groups = groupby(sorted(bars, key=lambda bar: names.index(bar.artefact)), _artefact)
    figures = [f for bar in bars for f in (bar.p50_ms, bar.p99_ms, *(bar.between_ms or ()))]
    logs = map(math.log10, figures)
    scale = _Scale.around(logs, LEFT, WIDTH - RIGHT, math.log10(2))
    parts, y = [], TOP + LANE / 2
    for name, group in groups:
        if several:
            parts.append(_text(0, y + 4, _clip(name, WIDTH - RIGHT), "group"))
            y += LANE
        for bar in group:
            label = f"{bar.device}" if several else bar.artefact
            parts += _bar(bar, label, 14 if several else 0, y, scale)
            y += LANE
        y += LANE / 3 if several else 0
    bottom = y - LANE / 2 + 4
    marks = [(scale.at(math.log10(mark)), f"{mark:g}") for mark in _log_marks(scale)]
    axis = _floor(marks, bottom, "ms per call, logarithmic, less is better", rules=True)
    return _svg("latency of every artefact", bottom + BOTTOM, [*axis, *parts])


def draw_rounds(lines: Sequence[Rounds], limit: float | None) -> str:
    """Medians over the first round's, one lane per artefact, all to one scale; empty without any.

    Args:
        lines: the artefacts.
        limit: the ratio above which the last round counts as slowed down; None: nothing does.
    """
    if not lines:
        return ""
    count = max(len(line.medians_ms) for line in lines)
    across = _Scale(1, max(count, 2), LEFT, WIDTH - RIGHT)
    ratios = [1.0, limit or 1.0, *(ratio for line in lines for ratio in line.ratios)]
    parts: list[str] = []
    for number, line in enumerate(lines):
        top = TOP + number * ROUNDS_LANE
        up = _Scale.around(ratios, top + ROUNDS_LANE - 6, top + 6, 0.3)
        parts += _rounds(line, across, up, limit)
    marks = [(across.at(mark), f"{mark}") for mark in _whole_marks(count)]
    bottom = TOP + len(lines) * ROUNDS_LANE
    axis = _floor(marks, bottom, "round, in the order of time", rules=False)
    return _svg("median of every round over the first", bottom + BOTTOM, [*axis, *parts])


def draw_courses(courses: Sequence[Course]) -> str:
    """p50 over time, one lane and one scale per artefact, and its temperature; empty without any.

    A scale spans at least a fifth of what it shows, so that noise does not look like a mountain.
    """
    if not courses:
        return ""
    # An axis of a second at least: one piece alone begins at 0.
    longest = max(1.0, *(piece.at_s for course in courses for piece in course.pieces))
    across = _Scale(0, longest, LEFT, WIDTH - RIGHT)
    parts = [
        part
        for number, course in enumerate(courses)
        for part in _course(course, across, TOP + number * COURSE_LANE)
    ]
    marks = [(across.at(mark), f"{mark:g}") for mark in _round_marks(longest)]
    bottom = TOP + len(courses) * COURSE_LANE
    axis = _floor(marks, bottom, "seconds of a run without a pause", rules=True)
    return _svg("p50 over time", bottom + BOTTOM, [*axis, *parts])


def _artefact(bar: Bar) -> str:
    return bar.artefact


def _bar(bar: Bar, label: str, indent: int, y: float, scale: _Scale) -> Iterator[str]:
    """p50 as a dot on the bar of its interval, a short mark at p90 and a long one at p99."""
    p50, p90, p99 = (scale.at(math.log10(f)) for f in (bar.p50_ms, bar.p90_ms, bar.p99_ms))
    yield f'<g class="s{bar.number % COLOURS}"><title>{escape(bar.spoken)}</title>'
    yield _text(indent, y + 4, _clip(label, LEFT - 12 - indent), "name")
    yield (
        f'<path class="whisker" d="M{p50:.1f} {y:.1f}H{p99:.1f}'
        f'M{p90:.1f} {y - 3:.1f}v6M{p99:.1f} {y - 6:.1f}v12"/>'
    )
    if bar.between_ms:
        low, high = (scale.at(math.log10(figure)) for figure in bar.between_ms)
        yield (
            f'<rect class="between" x="{low - 1:.1f}" y="{y - 8:.1f}" '
            f'width="{high - low + 2:.1f}" height="16"/>'
        )
    yield _dot(p50, y, bar.invalid)
    yield from _figure(f"{bar.p50_ms:.3f}", y + 4, bar.invalid)
    yield "</g>"


def _rounds(line: Rounds, across: _Scale, up: _Scale, limit: float | None) -> Iterator[str]:
    middle = (up.start + up.stop) / 2 + 4
    last = f"{line.artefact}: the last round took {line.ratios[-1]:.2f} times the first"
    yield f"<g><title>{escape(last + _spoken_reasons(line.invalid))}</title>"
    yield _text(0, middle, _clip(line.artefact, LEFT - 12), "name")
    yield from _figure(f"×{line.ratios[-1]:.2f}", middle, line.invalid)
    for style, ratio in (("axis", 1.0), ("budget", limit)):
        if ratio is not None:
            yield f'<path class="{style}" d="M{LEFT} {up.at(ratio):.1f}H{WIDTH - RIGHT}"/>'
    points = [(across.at(n), up.at(ratio)) for n, ratio in enumerate(line.ratios, start=1)]
    yield _line(points, "line")
    for number, (point, median) in enumerate(zip(points, line.medians_ms, strict=True), start=1):
        yield f"<g><title>{escape(line.artefact)}, round {number}: {median:.3f} ms</title>"
        yield _dot(*point, line.invalid)
        yield "</g>"
    yield "</g>"


def _course(course: Course, across: _Scale, top: float) -> Iterator[str]:
    floor, ceiling = top + COURSE_LANE - 22, top + 10
    times = [piece.p50_ms for piece in course.pieces]
    up = _Scale.around(times, floor, ceiling, 0.2 * min(times))
    first, last = times[0], times[-1]
    spoken = f"{course.artefact}: p50 {first:.3f} ms at first, {last:.3f} ms at last"
    yield f"<g><title>{escape(spoken)}</title>"
    yield f'<path class="axis" d="M{LEFT} {ceiling}V{floor}H{WIDTH - RIGHT}"/>'
    middle = (floor + ceiling) / 2 + 4
    yield _text(0, middle, _clip(course.artefact, LEFT - 76), "name")
    for place in (ceiling, floor):
        figure = up.low if place == floor else up.high
        yield _text(LEFT - 6, place + 4, f"{figure:.3f} ms", "mark", "end")
    yield from _heat(course, across, floor, ceiling)
    points = [(across.at(piece.at_s), up.at(piece.p50_ms)) for piece in course.pieces]
    yield _line(points, "line")
    for point in points:
        yield _dot(*point, radius=SMALL_DOT)
    yield "</g>"


def _heat(course: Course, across: _Scale, floor: float, ceiling: float) -> Iterator[str]:
    """The temperature with a scale of its own on the right; a line ends where readings do."""
    known = [piece.temp_c for piece in course.pieces if piece.temp_c is not None]
    if not known:
        return
    up = _Scale.around(known, floor, ceiling, 4.0)
    for read, run in groupby(course.pieces, lambda piece: piece.temp_c is not None):
        if read:
            points = [(across.at(p.at_s), up.at(p.temp_c)) for p in run if p.temp_c is not None]
            yield _line(points, "heat")
    for place, figure in ((ceiling, up.high), (floor, up.low)):
        yield _text(WIDTH - RIGHT + 6, place + 4, f"{figure:.1f} °C", "heat-mark")


def _figure(text: str, y: float, invalid: Sequence[str]) -> Iterator[str]:
    """On the right, figures below each other, with a mark if it is not to be used."""
    yield _text(WIDTH - 10, y, text, "figure", "end")
    if invalid:
        yield _text(WIDTH, y, "!", "figure", "end")


def _spoken_reasons(invalid: Sequence[str]) -> str:
    return f"; INVALID: {'; '.join(invalid)}" if invalid else ""


def _svg(label: str, height: float, parts: Iterable[str]) -> str:
    head = f'viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{escape(label)}"'
    return "\n".join([f'<div class="wide"><svg class="chart" {head}>', *parts, "</svg></div>"])


def _floor(
    marks: Iterable[tuple[float, str]], bottom: float, label: str, *, rules: bool
) -> Iterator[str]:
    """The axis below, its marks and what it is of; thin lines up from the marks if asked for."""
    yield f'<path class="axis" d="M{LEFT} {bottom:.1f}H{WIDTH - RIGHT}"/>'
    for x, text in marks:
        if rules:
            yield f'<path class="rule" d="M{x:.1f} {TOP}V{bottom:.1f}"/>'
        yield _text(x, bottom + 16, text, "mark", "middle")
    yield _text((LEFT + WIDTH - RIGHT) / 2, bottom + 34, label, "mark", "middle")


def _dot(x: float, y: float, invalid: Sequence[str] = (), radius: float = DOT) -> str:
    style = "dot open" if invalid else "dot"
    return f'<circle class="{style}" cx="{x:.1f}" cy="{y:.1f}" r="{radius}"/>'


def _line(points: Sequence[tuple[float, float]], style: str) -> str:
    return f'<path class="{style}" d="M{"L".join(f"{x:.1f} {y:.1f}" for x, y in points)}"/>'


def _text(x: float, y: float, text: str, style: str, anchor: str = "start") -> str:
    return (
        f'<text class="{style}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">'
        f"{escape(text)}</text>"
    )


def _clip(text: str, pixels: float) -> str:
    """`text`, cut to about `pixels`; a letter is about 6.5 wide, one of Chinese twice that."""
    width = 0.0
    for number, letter in enumerate(text):
        width += 0 if combining(letter) else 13 if east_asian_width(letter) in "WF" else 6.5
        if width > pixels:
            return text[: max(number - 1, 1)] + "…"
    return text


def _log_marks(scale: _Scale) -> list[float]:
    """Round figures of a logarithmic scale: tens where there are many, else finer."""
    low, high = scale.low, scale.high
    marks: list[float] = []
    for steps in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 8)):
        powers = range(math.floor(low), math.ceil(high))
        all_marks = (step * 10.0**power for power in powers for step in steps)
        marks = [mark for mark in all_marks if low <= math.log10(mark) <= high]
        if len(marks) >= 4:
            break
    return marks[:: math.ceil(len(marks) / WIDEST_MARKS) or 1]


def _whole_marks(count: int) -> range:
    """Numbers from 1 to `count`, not all where there are many."""
    return range(1, count + 1, math.ceil(count / WIDEST_MARKS))


def _round_marks(longest: float) -> list[float]:
    """Round figures from 0 to `longest`."""
    power = 10.0 ** math.floor(math.log10(longest))
    step = next(power * s for s in (0.2, 0.5, 1, 2) if longest / (power * s) < WIDEST_MARKS)
    return [number * step for number in range(math.floor(longest / step) + 1)]
