"""Verification: what holds, what cannot be told here, exit codes and tolerances."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.manifest import FILE, SEAL, SwipeSource, digest_of, load_manifest
from exporter.origins import swipe as origin
from exporter.verification import Finding, Gate, Outcome, exit_code, verify
from exporter.verification.consistency import leaves
from exporter.verification.execution import ANOTHER_KIND, SAME_KIND, differences
from exporter.verification.findings import judged, unknown
from exporter.views import VIEWS
from swipe.errors import ExitCode, GateError, MissingError, UsageError


def _outcomes(findings: list[Finding], gate: Gate) -> set[Outcome]:
    return {finding.outcome for finding in findings if finding.gate is gate}


@pytest.mark.slow
def test_a_sound_bundle_is_verified_and_what_is_not_looked_at_is_said(published: Path) -> None:
    findings = verify(published, deep=True, lexicon=None, say=lambda line: None)
    assert [f for f in findings if f.outcome is Outcome.REFUSED] == []
    assert exit_code(findings) is ExitCode.OK
    cannot = {f.gate for f in findings if f.outcome is Outcome.CANNOT}
    assert cannot == {Gate.CALIBRATION, Gate.BUILD}
    assert {f.gate for f in findings} == set(Gate) - {Gate.SIGNED}  # nobody gave a key
    shallow = verify(published, deep=False, lexicon=None, say=lambda line: None)
    assert _outcomes(shallow, Gate.EXECUTION) == {Outcome.CANNOT}
    assert exit_code(shallow) is ExitCode.OK


@pytest.mark.slow
def test_every_view_is_verified_and_executed_again(published_all: Path) -> None:
    findings = verify(published_all, deep=True, lexicon=None, say=lambda line: None)
    assert [f for f in findings if f.outcome is Outcome.REFUSED] == []
    executed = {f.about for f in findings if f.gate is Gate.EXECUTION}
    assert executed == {f"{view.stem}.fp32.onnx" for view in VIEWS}
    assert exit_code(findings) is ExitCode.OK


@pytest.mark.slow
def test_a_missing_library_or_lexicon_leaves_a_bundle_unverified(
    published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from exporter.formats import onnx

    def absent(*_: object) -> None:
        raise MissingError("onnx cannot be imported", fix="install it")

    monkeypatch.setattr(onnx, "inspect", absent)
    findings = verify(published, deep=False, lexicon=None, say=lambda line: None)
    assert _outcomes(findings, Gate.FACTS) == _outcomes(findings, Gate.SIGNATURE)
    assert _outcomes(findings, Gate.FACTS) == {Outcome.CANNOT}
    assert exit_code(findings) is ExitCode.UNVERIFIED
    monkeypatch.undo()
    monkeypatch.setattr(origin, "load_lexicon", absent)
    findings = verify(published, deep=True, lexicon=None, say=lambda line: None)
    assert _outcomes(findings, Gate.EXECUTION) == {Outcome.CANNOT}
    assert exit_code(findings) is ExitCode.UNVERIFIED


@pytest.mark.slow
def test_another_lexicon_is_refused_where_it_was_named(published: Path) -> None:
    findings = verify(published, deep=True, lexicon="wordfreq:50", say=lambda line: None)
    assert _outcomes(findings, Gate.LEXICON) == {Outcome.REFUSED}
    assert _outcomes(findings, Gate.EXECUTION) == {Outcome.CANNOT}


@pytest.mark.slow
def test_the_command_prints_a_table_and_says_how_it_ended(published: Path, tmp_path: Path) -> None:
    bundle = shutil.copytree(published, tmp_path / "bundle")

    def run(*arguments: str) -> tuple[int, str]:
        command = [sys.executable, "-m", "exporter.cli", "verify", *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout

    code, said = run()
    assert code == ExitCode.OK
    assert "CANNOT BE RECOMPUTED" in said
    assert "next: swipe-export verify bundle --deep" in said
    (bundle / "model.fp32.onnx").unlink()
    code, said = run("bundle")
    assert code == ExitCode.GATE_FAILED
    assert "files: REFUSED: model.fp32.onnx is not there" in said
    assert run("nowhere")[0] == ExitCode.USAGE


def test_exit_codes() -> None:
    fine = judged(Gate.HASH, "a", [])
    bad = judged(Gate.HASH, "a", ["other bytes"])
    aside = unknown(Gate.BUILD, "", "not here", matters=False)
    grave = unknown(Gate.EXECUTION, "a", "no Mac", matters=True)
    assert exit_code([fine, aside]) is ExitCode.OK
    assert exit_code([fine, grave, aside]) is ExitCode.UNVERIFIED
    assert exit_code([grave, bad, fine]) is ExitCode.GATE_FAILED
    assert exit_code([]) is ExitCode.UNVERIFIED


FIGURES: dict[str, Any] = {
    "samples": 200,
    "max_abs_delta": 2.0,
    "agreement": {"frames": 0.97, "blank_drift": 0.0},
    "greedy_edits": {"substitutions": 14, "letters": 1133},
    "word_agreement": 0.985,
    "scores": {"top1": 95.0},
    "cost": {"samples": 200, "drop": -0.5, "bound": 1.5, "worst_stratum": "all"},
}


def _moved(name: str, by: float) -> dict[str, Any]:
    figures = json.loads(json.dumps(FIGURES))
    group, _, leaf = name.partition(".")
    if leaf:
        figures[group][leaf] += by
    else:
        figures[group] += by
    return dict(figures)


@pytest.mark.parametrize("tolerance", [SAME_KIND, ANOTHER_KIND])
@pytest.mark.parametrize("name", [name for name, _ in leaves(FIGURES)])
def test_a_figure_may_move_as_far_as_is_stated_and_no_further(name: str, tolerance: Any) -> None:
    recorded = dict(leaves(FIGURES))[name]
    allowed = tolerance.allows(name, recorded, 200)
    assert differences(FIGURES, FIGURES, tolerance) == []
    assert differences(FIGURES, _moved(name, 0.99 * allowed), tolerance) == []
    (reason,) = differences(FIGURES, _moved(name, 1.01 * allowed + 1), tolerance)
    assert reason.startswith(name)
    assert any(
        reason.startswith(name)
        for reason in differences(FIGURES, _moved(name, float("nan")), tolerance)
    )


def test_figures_that_one_side_lacks_differ() -> None:
    fewer = {key: value for key, value in FIGURES.items() if key != "scores"}
    assert len(differences(FIGURES, fewer, ANOTHER_KIND)) == 1
    assert len(differences(fewer, FIGURES, ANOTHER_KIND)) == 1


RECORDS = st.dictionaries(
    st.text(max_size=4),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=4)
        | st.floats(allow_nan=False, allow_infinity=False),
        lambda inner: st.lists(inner, max_size=2),
        max_leaves=4,
    ),
    max_size=4,
)  # fmt: skip


@given(RECORDS, st.text(max_size=4))
def test_the_hash_survives_writing_and_reading_and_sees_every_edit(
    record: dict[str, Any], key: str
) -> None:
    written = json.loads(json.dumps(record, indent=2))
    assert digest_of(written) == digest_of(record)
    assert digest_of(dict(reversed(record.items()))) == digest_of(record)
    assert digest_of({**record, key: ["never generated, as it is too long"]}) != digest_of(record)


@pytest.mark.slow
def test_an_edited_manifest_is_loaded_by_nobody(published: Path, tmp_path: Path) -> None:
    fields = json.loads((published / FILE).read_text())
    for change in ({"views": []}, {SEAL: None}, {SEAL: "0" * 64}):
        (tmp_path / FILE).write_text(json.dumps(fields | change))
        with pytest.raises(GateError, match="was edited"):
            load_manifest(tmp_path)
    (tmp_path / FILE).write_text(json.dumps(fields))
    assert load_manifest(tmp_path) == load_manifest(published)


@pytest.mark.slow
def test_a_lexicon_is_found_by_its_name(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    bundle = tmp_path / "bundles" / "bundle"
    bundle.mkdir(parents=True)
    source = load_manifest(published).source
    assert isinstance(source, SwipeSource)
    words = "the 9\nof 5\ncat 3\n"
    (tmp_path / "elsewhere.txt").write_text(words)
    digest = origin.load_lexicon("elsewhere.txt").sha256
    named = source.model_copy(update={"lexicon": "words.txt", "lexicon_sha256": digest})
    with pytest.raises(UsageError, match=r"words\.txt.* is not here") as caught:
        origin.open_lexicon(bundle, named, None)
    assert "--lexicon" in caught.value.fix
    assert origin.open_lexicon(bundle, named, "elsewhere.txt").sha256 == digest
    (bundle.parent / "words.txt").write_text(words)
    assert origin.open_lexicon(bundle, named, None).sha256 == digest
    (tmp_path / "words.txt").write_text("another 1\n")
    with pytest.raises(GateError, match="not the one the bundle was judged with"):
        origin.open_lexicon(bundle, named, None)


@pytest.mark.parametrize(
    ("name", "recorded", "most"),
    [
        ("samples", 500, 0),
        ("cost.samples", 500, 0),
        ("greedy_edits.letters", 3000, 0),
        ("max_abs_delta", 0.5, 0.0501),
        ("mean_abs_delta", 0.0, 0.0001),
        ("greedy_edits.deletions", 30, 10),
        ("cost.drop", 0.25, 0.2),
        ("cost.spread", 0.25, 0.8),
        ("cost.bound", 0.25, 0.8),
        ("scores.top1", 84.0, 0.2),
        ("reference_scores.top4", 84.0, 0.2),
        ("word_agreement", 0.9, 0.002),
        ("agreement.frames", 0.9, 0.002),
    ],
)
def test_a_figure_may_differ_by_as_much_as_its_kind_allows_and_no_more(
    name: str, recorded: float, most: float
) -> None:
    """On 500 swipes; numbers of samples and letters are what they are."""

    def figures(value: float) -> dict[str, Any]:
        group, _, leaf = name.partition(".")
        found: dict[str, Any] = {"samples": 500}
        return found | {group: {leaf: value} if leaf else value}

    for sign in (1, -1):
        within, beyond = recorded + sign * most * 0.999, recorded + sign * (most * 1.01 + 1e-9)
        assert differences(figures(recorded), figures(within), SAME_KIND) == []
        (reason,) = differences(figures(recorded), figures(beyond), SAME_KIND)
        assert reason.startswith(f"{name} is ")
