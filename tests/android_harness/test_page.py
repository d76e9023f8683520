"""The page of results: every figure in place, nothing hostile, nothing from a network."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recorded_runs import EMULATED, PHONE, results, row
from typer.testing import CliRunner

from android_harness.charts import (
    WIDTH,
    Bar,
    Course,
    Piece,
    Rounds,
    draw_courses,
    draw_latency,
    draw_rounds,
)
from android_harness.cli import app
from android_harness.devices import Facts, Thermal
from android_harness.page import render
from android_harness.results import DeviceReport, Results, Row, Slice, load_results
from android_harness.runners.record import Engine
from exporter.html import escape
from swipe.errors import ExitCode, GateError, UsageError

HOSTILE = "<script>alert('x')</script>\"&<img src=http://evil onerror=1>]]>\x00\x1b"
KNOWN_TAGS = {
    "body", "h1", "h2", "h3", "p", "ul", "li", "div", "table", "tr", "th", "td", "span", "code",
    "details", "summary", "svg", "g", "title", "text", "path", "rect", "circle",
}  # fmt: skip
KNOWN_ATTRIBUTES = {
    "class", "viewBox", "role", "aria-label", "d", "x", "y", "width", "height", "cx", "cy", "r",
    "text-anchor",
}  # fmt: skip
OTHER = replace(PHONE, serial="0B2C", model="Pixel 7")


def _body(page: str) -> ElementTree.Element:
    """What the page shows; no part of it may be anything but well-formed."""
    found = re.search(r"<body>.*</body>", page, re.DOTALL)
    assert found is not None
    return ElementTree.fromstring(found[0])


def _svg(chart: str) -> ElementTree.Element:
    found = ElementTree.fromstring(chart).find("svg")
    assert found is not None
    return found


def _text(element: ElementTree.Element) -> str:
    return "".join(element.itertext())


def _as_parsed(text: str) -> str:
    """What a parser of XML gives back for it."""
    kept = re.sub("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]", "\ufffd", text)
    return kept.replace("\r\n", "\n").replace("\r", "\n")


def _device(*rows: Row, facts: Facts = PHONE, **changes: Any) -> DeviceReport:
    return DeviceReport(**({"facts": facts, "rows": rows, "skipped": {}} | changes))


def _classes(element: ElementTree.Element, tag: str) -> list[str]:
    return [found.get("class", "") for found in element.iter(tag)]


def _slices(*pieces: tuple[float, float, int | None]) -> tuple[Slice, ...]:
    return tuple(
        Slice(at_s=at, p50_ms=p50, p90_ms=p50, temp_mc=temp, khz_max=None)
        for at, p50, temp in pieces
    )


def _hostile(text: str) -> Results:
    """Results whose every text from elsewhere is `text`."""
    timed = row(
        invalid=(text,), engine=Engine(name="onnxruntime", version=text, backend=text)
    ).model_copy(update={"name": text})
    facts = Facts(
        "android", text, text, text, sdk=35, android=True, soc=text, build=text, governors=(text,)
    )
    report = _device(
        timed,
        facts=facts,
        thermal=(Thermal(zones_mc={text: 40_000}), Thermal()),
        throttled=(text,),
        skipped={text: text},
        elsewhere=(text,),
        sustained={text: _slices((0, 1, 40_000), (5, 1, 41_000))},
    )
    emulated = _device(timed, facts=replace(facts, emulated=text))
    return results(
        created=text, versions={text: text}, identity={text: text}, weights_sha256=text,
        samples=text, lexicon={text: text}, cpus=text, ep=text, lost={text: text},
        devices=(report, emulated),
    )  # fmt: skip


@given(st.text(max_size=12) | st.just(HOSTILE) | st.sampled_from(["</svg>", "&lt;", "--><b>", ""]))
@settings(max_examples=60, deadline=None)
def test_other_peoples_text_stays_text(text: str) -> None:
    body = _body(render([_hostile(text)]))
    assert {element.tag for element in body.iter()} <= KNOWN_TAGS
    assert {name for element in body.iter() for name in element.attrib} <= KNOWN_ATTRIBUTES
    facts = {tuple(map(_text, r)) for r in body.iter("tr")}
    if text:
        said = _as_parsed(text)
        assert {(name, said) for name in ("chip", "system", "governors", "throttled")} <= facts


def test_hostile_text_is_shown_everywhere() -> None:
    page = render([_hostile(HOSTILE)])
    assert "<script" not in page
    assert "<img" not in page
    assert _text(_body(page)).count(_as_parsed(HOSTILE)) > 50


def test_what_no_page_may_hold_is_replaced() -> None:
    assert escape("a\x00\ud800\ufffe<&\"'\t\n") == "a\ufffd\ufffd\ufffd&lt;&amp;&quot;&#x27;\t\n"


def test_it_needs_no_network_and_no_script() -> None:
    page = render([results(row())])
    style = re.search(r"<style>(.*?)</style>", page, re.DOTALL)
    assert style is not None
    assert "prefers-color-scheme:dark" in style[1]
    assert not re.search(r"url\(|@import", style[1])
    assert not re.search(r"<script|<link|src=|href=", page)
    assert "nan" not in _text(_body(page))


def test_devices_stand_side_by_side() -> None:
    slow = tuple(tuple(2 * ns for ns in r) for r in ((10_000, 10_100),) * 4)
    page = render(
        [results(row()), results(devices=(_device(row(rounds=slow), facts=OTHER),))],
    )
    body = _body(page)
    chart = next(body.iter("svg"))
    dots = {str(g.get("class")): g.find("circle") for g in chart.iter("g")}
    assert set(dots) == {"s0", "s1"}
    first, second = (float(str(dot.get("cx"))) for dot in dots.values() if dot is not None)
    assert first < second
    shown = [_text(t) for t in chart.iter("text") if t.get("class") != "mark"]
    assert shown == ["onnx baked int8", "Pixel 9", "0.010", "Pixel 7", "0.020"]
    assert ["onnx baked int8", "0.010", "0.020"] in [[_text(c) for c in r] for r in body.iter("tr")]


def test_two_devices_of_a_kind_are_told_apart() -> None:
    body = _body(render([results(row()), results(row(), weights_sha256="1" * 64)]))
    assert [_text(h) for h in body.iter("h2")] == [
        "Latency", "Pixel 9 #1", "Pixel 9 #2", "Where it comes from",
    ]  # fmt: skip
    assert "different weights" in _text(body)
    assert "different weights" not in _text(_body(render([results(row()), results(row())])))


def test_emulated_latency_is_not_drawn_beside_that_of_hardware() -> None:
    emulated = _device(row(), facts=EMULATED)
    body = _body(render([results(devices=(_device(row()), emulated))]))
    assert _classes(next(body.iter("svg")), "g") == ["s0"]
    assert "Not in the chart: qemu: emulated" in _text(body)
    alone = _body(render([results(devices=(emulated,))]))
    assert "No latency was measured on hardware." in _text(alone)
    assert not [s for s in alone.iter("svg") if s.get("aria-label") == "latency of every artefact"]
    assert "budget" in _classes(body, "path")
    assert "budget" not in _classes(alone, "path"), "nobody judges an emulator's drift"


def test_a_latency_that_is_not_to_be_used_is_hollow_and_says_why() -> None:
    rows = (row(), row("onnx baked fp32", invalid=("started hot: battery at 45.0 C",)))
    body = _body(render([results(*rows)]))
    (good, bad) = next(body.iter("svg")).iter("g")
    assert _classes(good, "circle") == ["dot"]
    assert _classes(bad, "circle") == ["dot open"]
    assert "INVALID" not in _text(good)
    assert "INVALID: started hot: battery at 45.0 C" in str(bad.findtext("title"))
    assert "latency INVALID: started hot" in _text(next(body.iter("ul")))


def test_it_says_what_was_refused_and_why() -> None:
    body = _body(render([results(row(), row("onnx baked fp32", status="FAIL"))]))
    assert [_text(line) for line in body.iter("li")] == ["Pixel 9, onnx baked fp32: FAIL: missed"]
    assert sorted(filter(None, _classes(body, "span"))) == ["FAIL", "PASS"]


@pytest.mark.parametrize(
    "measured",
    [
        [],
        [results(devices=(), lost={"0A": "gone"})],
        [results()],
        [results(row(rounds=(), load_ms=(), first_ms=()))],
        [results(row(rounds=((10_000,),)))],
    ],
    ids=["nothing", "lost", "no rows", "no latency", "one call"],
)
def test_little_is_shown_as_little(measured: list[Results]) -> None:
    text = _text(_body(render(measured)))
    assert "nan" not in text
    assert ("No latency was measured" in text) != any(
        r.latency for found in measured for r in found.rows
    )
    assert ("0A: LOST, nothing was measured: gone" in text) == any(r.lost for r in measured)


@pytest.mark.parametrize("rounds", [2, 3])
def test_drift_is_shown_from_three_rounds_on(rounds: int) -> None:
    body = _body(render([results(row(rounds=((10_000, 10_100),) * rounds))]))
    assert ("Drift over the rounds" in _text(body)) == (rounds >= 3)
    assert _classes(body, "path").count("line") == (1 if rounds >= 3 else 0)


def test_a_long_run_is_drawn_with_its_temperature_where_it_is_known() -> None:
    pieces = _slices(
        (0, 1, 40_000), (5, 1, 41_000), (10, 1, None), (15, 2, 45_000), (20, 2, 46_000)
    )
    cold = _slices((0, 1, None), (5, 1, None))
    warm = _body(render([results(devices=(_device(row(), sustained={"a": pieces, "b": cold}),))]))
    assert _classes(warm, "path").count("heat") == 2, "the line ends where readings do"
    assert "46.2 °C" in _text(warm)
    assert len(list(warm.iter("details"))) == 1
    none = _body(render([results(devices=(_device(row(), sustained={"b": cold}),))]))
    assert "heat" not in _classes(none, "path")
    assert "A long run" in _text(none)
    assert "temperature" not in _text(none)
    assert "A long run" not in _text(_body(render([results(row())])))


IMPOSSIBLE = [math.nan, math.inf, 0.0, -1.0, 1e12]


@pytest.mark.parametrize("figure", IMPOSSIBLE)
@pytest.mark.parametrize("name", ["p50_ms", "p90_ms", "p99_ms"])
def test_an_impossible_latency_is_refused(name: str, figure: float) -> None:
    good = row()
    assert good.latency is not None
    bad = good.model_copy(update={"latency": replace(good.latency, **{name: figure})})
    with pytest.raises(GateError, match="onnx baked int8: a latency of"):
        render([results(bad)])


@pytest.mark.parametrize("figure", IMPOSSIBLE)
def test_an_impossible_interval_or_piece_is_refused(figure: float) -> None:
    good = row()
    assert good.latency is not None
    interval = ((figure, 0.01), (0.01, 0.01), (0.01, 0.01))
    wide = good.model_copy(update={"latency": replace(good.latency, intervals_ms=interval)})
    with pytest.raises(GateError, match="a latency of"):
        render([results(wide)])
    with pytest.raises(GateError, match="a latency of"):
        render([results(devices=(_device(sustained={"a": _slices((0, figure, None))}),))])


@pytest.mark.parametrize("samples", [(), (0, 10_000)], ids=["none", "a clock that was not read"])
def test_an_impossible_round_is_refused(samples: tuple[int, ...]) -> None:
    rounds = ((10_000,), (10_000,), samples)
    with pytest.raises(GateError, match="a latency of 0 ms"):
        render([results(row().model_copy(update={"latency_ns": rounds}))])


_MS = st.floats(1e-6, 1e9)


@st.composite
def _bars(draw: st.DrawFn) -> Bar:
    low, p50, high, p90, p99 = sorted(draw(st.tuples(*[_MS] * 5)))
    return Bar(
        artefact=draw(st.sampled_from(["a", "b", "c" * 99])),
        device=draw(st.sampled_from(["Pixel 9", "W" * 99])),
        number=draw(st.integers(0, 9)),
        p50_ms=p50,
        p90_ms=p90,
        p99_ms=p99,
        between_ms=draw(st.none() | st.just((low, high))),
        invalid=draw(st.sampled_from([(), ("hot",)])),
    )


def _inside(svg: ElementTree.Element) -> None:
    """Every mark lies in the picture, and no two marks of the axis on each other."""
    height = float(str(svg.get("viewBox")).split()[-1])
    for dot in svg.iter("circle"):
        assert 0 <= float(str(dot.get("cx"))) <= WIDTH
        assert 0 <= float(str(dot.get("cy"))) <= height
    for text in svg.iter("text"):
        assert 0 <= float(str(text.get("x"))) <= WIDTH
        assert 0 <= float(str(text.get("y"))) <= height
    marks = [
        (float(str(text.get("x"))), _text(text))
        for text in svg.iter("text")
        if text.get("class") == "mark" and text.get("text-anchor") == "middle"
    ][:-1]
    for (left, first), (right, second) in pairwise(marks):
        assert right - left > 3.5 * (len(first) + len(second))


@given(st.lists(_bars(), min_size=1, max_size=8))
@settings(max_examples=80, deadline=None)
def test_every_bar_lies_inside_the_chart(bars: list[Bar]) -> None:
    svg = _svg(draw_latency(bars))
    _inside(svg)
    assert len(_classes(svg, "circle")) == len(bars)
    assert _classes(svg, "circle").count("dot open") == sum(bool(bar.invalid) for bar in bars)
    for group in svg.iter("g"):
        drawn = re.findall(r"[MH]([0-9.]+)", str(next(group.iter("path")).get("d")))
        p50, p99, p90, also_p99 = map(float, drawn)
        assert p50 <= p90 <= p99 == also_p99
        for band in group.iter("rect"):
            left, wide = float(str(band.get("x"))), float(str(band.get("width")))
            assert left <= p50 <= left + wide


@given(st.lists(st.lists(_MS, min_size=1, max_size=30), min_size=1, max_size=4))
@settings(max_examples=40, deadline=None)
def test_every_round_lies_inside_the_chart(rounds: list[list[float]]) -> None:
    svg = _svg(draw_rounds([Rounds("a", tuple(medians)) for medians in rounds], 1.1))
    _inside(svg)
    assert len(_classes(svg, "circle")) == sum(map(len, rounds))


@given(
    st.lists(
        st.lists(
            st.builds(Piece, st.floats(0, 1e5), _MS, st.none() | st.floats(-40, 200)),
            min_size=1,
            max_size=9,
        ),
        min_size=1,
        max_size=4,
    )
)
@settings(max_examples=60, deadline=None)
def test_every_piece_lies_inside_the_chart(courses: list[list[Piece]]) -> None:
    svg = _svg(draw_courses([Course("a", tuple(pieces)) for pieces in courses]))
    _inside(svg)
    assert len(_classes(svg, "circle")) == sum(map(len, courses))


def test_no_chart_of_nothing() -> None:
    assert draw_latency([]) == draw_rounds([], None) == draw_courses([]) == ""


def test_the_command_writes_it_and_prints_as_before(tmp_path: Path) -> None:
    file, page = tmp_path / "bench.json", tmp_path / "phones.html"
    results(row()).save(file)
    plain = CliRunner().invoke(app, ["report", str(file)])
    done = CliRunner().invoke(app, ["report", str(file), "--html", str(page)])
    assert (plain.exit_code, done.exit_code) == (0, 0), (done.output, done.exception)
    assert done.output == f"{plain.output}page: {page}\n"
    assert page.read_text(encoding="utf-8") == render([load_results(file)])
    assert {path.name for path in tmp_path.iterdir()} == {"bench.json", "phones.html"}


def test_an_earlier_page_survives_what_cannot_be_drawn(tmp_path: Path) -> None:
    file, page = tmp_path / "bench.json", tmp_path / "phones.html"
    page.write_text("earlier")
    found = results(row())
    damaged = row().model_copy(update={"latency_ns": ((0,),)})
    found.model_copy(update={"devices": (_device(damaged),)}).save(file)
    done = CliRunner().invoke(app, ["report", str(file), "--html", str(page)])
    assert isinstance(done.exception, GateError)
    assert page.read_text() == "earlier"
    found.save(file)
    done = CliRunner().invoke(app, ["report", str(file), "--html", str(file / "page.html")])
    assert isinstance(done.exception, UsageError)


@pytest.mark.slow
def test_what_was_really_measured_is_on_the_page(published: Path, tmp_path: Path) -> None:
    file, page = tmp_path / "bench.json", tmp_path / "bench.html"
    brief = ("--rounds", "3", "--calls", "5")
    done = CliRunner().invoke(app, ["run", str(published), "--json", str(file), *brief])
    assert done.exit_code == ExitCode.OK, (done.output, done.exception)
    done = CliRunner().invoke(app, ["report", str(file), "--html", str(page)])
    assert done.exit_code == ExitCode.OK, (done.output, done.exception)
    body = _body(page.read_text(encoding="utf-8"))
    measured = load_results(file)
    latency, drift = body.iter("svg")
    shown = [_text(text) for text in latency.iter("text")]
    for found in measured.rows:
        assert found.latency is not None
        assert found.name in shown
        assert f"{found.latency.p50_ms:.3f}" in shown
    assert len(_classes(drift, "circle")) == 3 * len(measured.rows)
    assert measured.weights_sha256 in _text(body)
