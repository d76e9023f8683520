"""The plan: every rung has a fate, and every exclusion a reason."""

from __future__ import annotations

import importlib.util
import itertools
import json
from pathlib import Path

import pytest

from exporter import cli
from exporter.plan import Fate, exit_code, plan, total_seconds
from exporter.policy import Policy
from exporter.targets import TARGETS, find_target
from exporter.views import AGNOSTIC, BAKED, TEXT
from swipe.errors import ExitCode

VIEWS = (BAKED, AGNOSTIC)


def _hide(monkeypatch: pytest.MonkeyPatch, library: str) -> None:
    present = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name == library else present(name)
    )


def test_every_rung_has_a_row_and_every_exclusion_a_reason() -> None:
    for policy in (Policy(), Policy(quantize=False)):
        rows = plan(TARGETS, VIEWS, policy, {})
        expected = {(t.name, v.name, r.name) for t in TARGETS for v in VIEWS for r in t.rungs}
        assert {(row.format, row.view, row.rung) for row in rows} == expected
        assert len(rows) == len(expected)
        for row in rows:
            assert bool(row.reason) == (row.fate is not Fate.TRIED)
            assert bool(row.level) == (row.fate is not Fate.EXCLUDED)
        assert exit_code(rows) is ExitCode.OK


def test_no_quantize_excludes_by_its_name() -> None:
    rows = plan([find_target("onnx")], VIEWS[:1], Policy(quantize=False), {})
    fates = {row.rung: (row.fate, row.reason) for row in rows}
    assert fates.pop("fp32") == (Fate.TRIED, "")
    assert set(fates.values()) == {(Fate.EXCLUDED, "--no-quantize")}


def test_later_rungs_depend_on_the_one_before() -> None:
    rows = plan([find_target("coreml")], VIEWS[:1], Policy(), {})
    assert [row.fate for row in rows[:2]] == [Fate.TRIED, Fate.TRIED]
    for before, row in itertools.pairwise(rows[1:]):
        assert (row.fate, row.reason) == (Fate.FALLBACK, f"only when {before.rung} is refused")


def test_a_missing_library_excludes_with_its_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    _hide(monkeypatch, "coremltools")
    rows = plan(TARGETS, VIEWS, Policy(), {})
    bad = [row for row in rows if row.fate is Fate.EXCLUDED]
    assert {row.format for row in bad} == {"coreml"}
    assert "not installed: coremltools" in bad[0].reason
    assert "swipe-export[coreml]" in bad[0].reason
    assert exit_code(rows) is ExitCode.MISSING


def test_what_cannot_be_executed_here_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    (row, *_) = plan([find_target("coreml")], VIEWS[:1], Policy(), {})
    assert row.level in ("structural", "reference")
    assert "darwin only" in row.level_reason
    (row, *_) = plan([find_target("onnx")], VIEWS[:1], Policy(), {})
    assert (row.level, row.level_reason) == ("host", "")


def test_the_estimate_is_the_median_of_what_is_known() -> None:
    target = find_target("onnx")
    first = target.rungs[0].name
    known = {("onnx", "baked", "fp32"): [10.0, 2.0, 3.0]}
    rows = plan([target], VIEWS[:1], Policy(), known)
    assert [row.seconds for row in rows][:2] == [3.0, None]
    assert total_seconds(rows) is None
    rows = plan([target], VIEWS[:1], Policy(), {**known, ("onnx", "baked", first): [4.0]})
    assert total_seconds(rows) == 7.0


def test_the_command_gives_machines_one_object(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SWIPE_EXPORT_CACHE", str(tmp_path))
    assert cli.app(args=["plan", "onnx", "--json"], standalone_mode=False) == 0
    captured = capsys.readouterr()
    told = json.loads(captured.out)
    assert told["verb"] == "plan"
    assert {row["format"] for row in told["rows"]} == {"onnx"}
    assert captured.err.rstrip().endswith("next: swipe-export onnx --quantize")
    assert cli.app(args=["plan", "onnx", "--view", "baked"], standalone_mode=False) == 0
    said = capsys.readouterr().out
    assert said.rstrip().endswith("next: swipe-export onnx --view baked --quantize")
    _hide(monkeypatch, "onnxruntime")
    assert cli.app(args=["plan", "onnx"], standalone_mode=False) == ExitCode.MISSING
    assert "not installed: onnxruntime" in capsys.readouterr().out


def test_a_view_that_a_format_cannot_have_is_excluded_with_its_reason_and_no_error() -> None:
    rows = plan([find_target("executorch")], (BAKED, TEXT), Policy(), {})
    text = [row for row in rows if row.view == "text"]
    assert len(text) == len(find_target("executorch").rungs)
    assert {row.fate for row in text} == {Fate.EXCLUDED}
    assert {row.reason for row in text} == {
        "executorch has no text view: only ONNX has strings in its graphs"
    }
    assert exit_code(rows) is ExitCode.OK


def test_what_a_view_needs_besides_its_format_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda n: None if n == "onnxruntime_extensions" else find(n)
    )
    rows = plan([find_target("onnx")], (BAKED, TEXT), Policy(), {})
    reasons = {row.view: row.reason for row in rows if row.rung == "fp32"}
    assert reasons == {
        "baked": "",
        "text": "not installed: onnxruntime_extensions; pip install 'swipe-export[text]'",
    }
    assert exit_code(rows) is ExitCode.MISSING
