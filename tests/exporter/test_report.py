"""The page: whole without a network, and nobody's text is taken for markup."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.manifest import (
    Build,
    FormatEntry,
    Manifest,
    Recipe,
    RungEntry,
    SpeedEntry,
    SwipeSource,
    Verdict,
)
from exporter.report import render as render_text
from exporter.report import write_report
from exporter.report_chart import HEIGHT, WIDTH, Dot, draw
from exporter.report_page import render

HOSTILE = "<script>alert('x')</script>\"&<img src=http://evil onerror=1>"
VOID = {"meta", "circle", "path"}


class _Outline(HTMLParser):
    """Tags met and text seen; an end that closes another tag is an error."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text: list[str] = []
        self._open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def finish(self) -> None:
        assert self._open == []


def _read(page: str) -> _Outline:
    outline = _Outline()
    outline.feed(page)
    outline.finish()
    return outline


def _metrics(drop: float = 0.05) -> dict[str, Any]:
    return {
        "agreement": {"frames": 0.979},
        "scores": {"top1": 84.2 - drop},
        "word_agreement": 0.99,
        "reference_scores": {"top1": 84.2},
        "max_abs_delta": 1e-5,
        "cost": {
            "samples": 2000, "drop": drop, "bound": 0.29, "worst_drop": 0.17,
            "worst_stratum": HOSTILE,
        },
    }  # fmt: skip


def _rung(name: str, status: Any, reasons: tuple[str, ...], metrics: Any) -> RungEntry:
    kept = status != "FAIL"
    return RungEntry(
        rung=name,
        taken=status == "PASS",
        verdict=Verdict(status=status, level="host", reasons=reasons, metrics=metrics),
        file=f"model.{name}.onnx" if kept else None,
        size_bytes=104_206,
        sha256="0" * 64 if kept else None,
        facts={},
        speed=SpeedEntry(ratio=0.7, calls=150),
        float_layers=(),
        seconds=1.5,
    )


def _manifest(*rungs: RungEntry) -> Manifest:
    source = SwipeSource(
        checkpoint_step=5, weights_sha256="a" * 64, contract_id=HOSTILE, contract={},
        parameters=7, trained_on={}, samples=HOSTILE, calibration_samples=3,
        calibration_sha256="d" * 64,
        verification_samples=2000, verification_sha256="b" * 64, lexicon=HOSTILE,
        lexicon_sha256="c" * 64, decoder={}, reference_rounding=0.0,
    )  # fmt: skip
    entry = FormatEntry(format="onnx", view="baked", build=0, rungs=rungs)
    return Manifest(
        builds=(_build("today"), _build("long ago")), source=source, views=(), accuracy_budget=0.5,
        formats=(entry,),
    )  # fmt: skip


def _build(created: str) -> Build:
    return Build(
        created=created, platform="Linux", processor=HOSTILE, processor_flags=("avx2",), threads=1,
        versions={HOSTILE: HOSTILE}, commit=None, uncommitted_changes=None,
        recipe=Recipe(formats=("onnx",), views=("baked",), policy={}, asked={}),
    )  # fmt: skip


REFUSED = _rung("int8", "FAIL", (f"accuracy falls 9.00 points {HOSTILE}",), _metrics(9.0))
TAKEN = _rung("fp32", "PASS", (), _metrics())


def test_hostile_labels_stay_text() -> None:
    page = render(_manifest(REFUSED, TAKEN))
    outline = _read(page)
    assert "script" not in outline.tags
    assert "img" not in outline.tags
    assert not [name for name, _ in outline.attributes if name.startswith("on")]
    text = "".join(outline.text)
    # Data set, lexicon, contract (twice), processor, library, version, reason, worst part of both
    # rungs.
    assert text.count(HOSTILE) == 10


def test_the_page_shows_the_newest_build_and_the_report_all() -> None:
    manifest = _manifest(TAKEN)
    assert "today" in render(manifest)
    assert "long ago" not in render(manifest)
    text = render_text(manifest)
    assert "Build 0: today on Linux" in text
    assert "Build 1: long ago on Linux" in text


def test_it_says_what_was_refused_and_why() -> None:
    text = "".join(_read(render(_manifest(REFUSED, TAKEN))).text)
    assert "onnx baked int8: FAIL: accuracy falls 9.00 points" in text
    assert "Nothing: every rung" in "".join(_read(render(_manifest(TAKEN))).text)


def test_it_needs_no_network(tmp_path: Path) -> None:
    write_report(_manifest(REFUSED, TAKEN), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"report.md", "report.html"}
    outline = _read((tmp_path / "report.html").read_text())
    names = {name for name, _ in outline.attributes}
    assert not names & {"src", "href", "xlink:href", "srcset", "action"}
    assert "link" not in outline.tags
    assert ("name", "viewport") in outline.attributes
    style = re.search(r"<style>(.*?)</style>", (tmp_path / "report.html").read_text(), re.DOTALL)
    assert style is not None
    assert "prefers-color-scheme:dark" in style[1]
    assert "url(" not in style[1]
    assert "@import" not in style[1]


def test_an_artefact_that_was_not_executed_has_no_dot() -> None:
    page = render(_manifest(_rung("fp32", "PASS", (), None)))
    assert "svg" not in _read(page).tags


_DOTS = st.builds(
    Dot,
    label=st.just("onnx baked int8"),
    size_kb=st.floats(0.1, 1e6),
    drop=st.floats(-100, 100),
    bound=st.floats(-100, 100),
    speed=st.none() | st.floats(0.01, 100),
    passed=st.booleans(),
)


@given(st.lists(_DOTS, min_size=1, max_size=8), st.floats(0, 100))
@settings(max_examples=60, deadline=None)
def test_every_dot_lies_inside_the_chart(dots: list[Dot], budget: float) -> None:
    circles = re.findall(r'<circle class="(.*?)" cx="(.*?)" cy="(.*?)"', draw(dots, budget))
    assert len(circles) == len(dots)
    for _, x, y in circles:
        assert 0 <= float(x) <= WIDTH
        assert 0 <= float(y) <= HEIGHT
    assert sum(style == "dot" for style, _, _ in circles) == sum(dot.passed for dot in dots)


def test_less_loss_is_higher_and_smaller_is_further_left() -> None:
    better = Dot("a", 100.0, 0.0, 0.2, None, True)
    worse = Dot("b", 400.0, 0.4, 0.6, 1.5, False)
    found = re.findall(r'<circle class=".*?" cx="(.*?)" cy="(.*?)"', draw([worse, better], 0.5))
    (left, top), (right, bottom) = ((float(x), float(y)) for x, y in found)
    assert left < right
    assert top < bottom
    assert "b ×1.50" in draw([worse], 0.5)
    assert draw([], 0.5) == ""
