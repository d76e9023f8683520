"""Regressions are found, noise is not one, and what cannot be compared is said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from recorded_runs import EMULATED, PHONE, results, row
from typer.testing import CliRunner

from android_harness.cli import app
from android_harness.diff import Tolerance, compare_results
from android_harness.results import DeviceReport, Results, load_results
from exporter.manifest import Verdict
from swipe.errors import GateError, ParityError, UsageError

CALM = ((10_000, 10_100, 10_200),) * 4
SLOW = ((13_000, 13_100, 13_200),) * 4


def test_two_runs_of_the_same_have_no_regression() -> None:
    found = compare_results(results(row()), results(row()), Tolerance())
    assert not found.regressions
    assert {change.figure for change in found.changes} == {"p50 ms", "p90 ms"}
    assert found.apart == ()


@pytest.mark.parametrize(
    ("later", "figure"),
    [
        ({"rounds": SLOW}, "p50 ms"),
        ({"score": 83.0}, "top1"),
        ({"size_bytes": 120_000}, "kB"),
        ({"status": "FAIL"}, "verdict"),
    ],
    ids=["latency", "score", "size", "verdict"],
)
def test_what_got_worse_is_found(later: dict[str, Any], figure: str) -> None:
    before, after = results(row(rounds=CALM)), results(row(**({"rounds": CALM} | later)))
    found = compare_results(before, after, Tolerance())
    assert figure in {change.figure for change in found.regressions}
    back = compare_results(after, before, Tolerance())
    assert not back.regressions, "the other way round it got better"


@pytest.mark.parametrize(
    ("old", "new", "worse"),
    [
        ("PASS", "UNVERIFIED", True),
        ("UNVERIFIED", "FAIL", True),
        ("FAIL", "UNVERIFIED", False),
        ("UNVERIFIED", "PASS", False),
    ],
)
def test_a_verdict_is_worse_than_a_better_one_only(old: str, new: str, worse: bool) -> None:
    found = compare_results(results(row(status=old)), results(row(status=new)), Tolerance())
    (change,) = (change for change in found.changes if change.figure == "verdict")
    assert change.worse == worse


def test_rounds_that_differ_as_much_explain_a_difference() -> None:
    noisy = tuple((n, n + 100, n + 200) for n in (10_000, 14_000, 9_000, 13_000))
    found = compare_results(results(row(rounds=noisy)), results(row(rounds=SLOW)), Tolerance())
    assert "p50 ms" not in {change.figure for change in found.regressions}


def test_latency_that_is_compared_without_knowing_its_noise_is_said() -> None:
    once = results(row(rounds=SLOW[:1]))
    for before, after in ((results(row(rounds=CALM)), once), (once, results(row(rounds=CALM)))):
        found = compare_results(before, after, Tolerance())
        assert any("tolerance alone, fewer than 3 rounds" in line for line in found.apart)


def test_not_a_number_is_a_regression() -> None:
    found = compare_results(results(row()), results(row(score=float("nan"))), Tolerance())
    assert [change.figure for change in found.regressions] == ["top1"]


@pytest.mark.parametrize(
    ("later", "worse"),
    [
        ({"size_bytes": 105_000}, []),
        ({"size_bytes": 105_001}, ["kB"]),
        ({"score": 83.75}, []),
        ({"score": 83.74}, ["top1"]),
    ],
)
def test_what_is_as_much_worse_as_tolerated_is_a_change_and_no_regression(
    later: dict[str, Any], worse: list[str]
) -> None:
    found = compare_results(results(row()), results(row(**later)), Tolerance())
    assert [change.figure for change in found.regressions] == worse
    assert len(found.changes) == 3


def test_an_artefact_without_figures_is_compared_by_its_verdict() -> None:
    """One that was refused before anything could be compared has neither score nor latency."""
    verdict = Verdict(status="FAIL", level="device", reasons=("no",), metrics=None)
    refused = results(row(rounds=(), verdict=verdict))
    worse = compare_results(results(row()), refused, Tolerance())
    assert [(c.figure, c.worse) for c in worse.changes] == [("verdict", True)]
    better = compare_results(refused, results(row()), Tolerance())
    assert [(c.figure, c.worse) for c in better.changes] == [("verdict", False)]
    for found in (worse, better):
        assert found.apart == (
            "Pixel 9, onnx baked int8: latency not compared, it was not measured",
        )


def test_a_score_that_is_gone_is_a_regression() -> None:
    old, new = row(), row()
    assert new.verdict.metrics is not None
    new.verdict.metrics["scores"] = {"top4": 90.0}
    found = compare_results(results(old), results(new), Tolerance())
    assert [(c.figure, c.old, c.new) for c in found.regressions] == [("top1", "84.00", "none")]


def test_an_artefact_that_is_no_longer_measured_is_a_regression() -> None:
    other = row("executorch baked int8")
    found = compare_results(results(row(), other), results(row()), Tolerance())
    assert [(c.row, c.figure) for c in found.regressions] == [(other.name, "measured")]


def test_an_artefact_that_was_not_measured_before_is_said() -> None:
    other = row("executorch baked int8", status="FAIL")
    found = compare_results(results(row()), results(row(), other), Tolerance())
    assert found.apart == ("Pixel 9, executorch baked int8: not in the earlier results",)
    assert found.compared == 1


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (results(row(), facts=EMULATED), results(row(rounds=SLOW), facts=EMULATED), "emulator"),
        (results(row()), results(row(rounds=SLOW, invalid=("started hot",))), "started hot"),
        (results(row()), results(row(rounds=SLOW), threads=4), "threads was 1 and is 4"),
        (results(row()), results(row(rounds=SLOW), facts=EMULATED), "not in the later results"),
        (results(row()), results(row(rounds=SLOW), cpus="4-7"), "cpus was None and is 4-7"),
    ],
    ids=["emulated", "invalid", "threads", "device", "cpus"],
)
def test_what_cannot_be_compared_is_said(old: Any, new: Any, reason: str) -> None:
    found = compare_results(old, new, Tolerance())
    assert not found.regressions
    assert any(reason in line for line in found.apart)


def test_scores_on_other_samples_are_not_compared() -> None:
    new = results(row(score=10.0), verification_sha256="1" * 64)
    found = compare_results(results(row()), new, Tolerance())
    assert not found.regressions
    assert any("other samples" in line for line in found.apart)


def test_scores_of_another_lexicon_are_not_compared() -> None:
    new = results(row(score=10.0), lexicon={"name": "other", "sha256": "1" * 64})
    found = compare_results(results(row()), new, Tolerance())
    assert not found.regressions
    assert any("another lexicon" in line for line in found.apart)


def _phones(*phones: tuple[str, tuple[tuple[int, ...], ...]]) -> Results:
    reports = (
        DeviceReport(facts=replace(PHONE, serial=serial), rows=(row(rounds=rounds),), skipped={})
        for serial, rounds in phones
    )
    return results(devices=tuple(reports))


def test_of_two_phones_of_one_model_each_is_compared_with_itself() -> None:
    old = _phones(("A", CALM), ("B", SLOW))
    assert not compare_results(old, _phones(("B", SLOW), ("A", CALM)), Tolerance()).regressions
    worse = compare_results(old, _phones(("B", SLOW), ("A", SLOW)), Tolerance())
    assert {change.figure for change in worse.regressions} == {"p50 ms", "p90 ms"}
    assert worse.apart == ()
    # Another one of the same model will do; the one too many is said.
    found = compare_results(_phones(("A", CALM)), _phones(("C", SLOW), ("D", CALM)), Tolerance())
    assert found.regressions
    assert found.apart == ("Pixel 9: not in the earlier results",)


def test_a_phone_that_was_found_again_leaves_another_one_like_it_to_the_next() -> None:
    old, new = _phones(("A", CALM), ("B", SLOW)), _phones(("A", CALM), ("C", SLOW))
    found = compare_results(old, new, Tolerance())
    assert not found.regressions
    assert (found.compared, found.apart) == (2, ())


def test_two_machines_with_other_processors_are_not_one() -> None:
    one, other = (replace(PHONE, kind="host", soc=name) for name in ("fast", "slow"))
    found = compare_results(
        results(row(), facts=one), results(row(rounds=SLOW), facts=other), Tolerance()
    )
    assert found.changes == ()
    assert len(found.apart) == 2


def test_the_verb_fails_on_a_regression_and_on_nothing_to_compare(tmp_path: Path) -> None:
    old, new, far = tmp_path / "old.json", tmp_path / "new.json", tmp_path / "far.json"
    results(row()).save(old)
    results(row(rounds=SLOW)).save(new)
    results(row(), facts=EMULATED).save(far)
    runner = CliRunner()
    assert runner.invoke(app, ["diff", str(old), str(old)]).exit_code == 0
    worse = runner.invoke(app, ["diff", str(old), str(new)])
    assert isinstance(worse.exception, ParityError)
    assert "onnx baked int8 (p50 ms)" in str(worse.exception)
    assert "WORSE" in worse.output
    nothing = runner.invoke(app, ["diff", str(old), str(far)])
    assert isinstance(nothing.exception, ParityError)
    assert "nothing could be compared" in str(nothing.exception)
    results(row(), threads=4).save(far)
    equal = runner.invoke(app, ["diff", str(old), str(far)])
    assert equal.exit_code == 0, "verdict, size and score were compared, and are equal"
    assert "latency not compared" in equal.output
    fine = runner.invoke(app, ["diff", str(old), str(new), "--latency", "50"])
    assert fine.exit_code == 0


def test_results_that_are_absent_cut_or_foreign_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    with pytest.raises(UsageError, match="no results"):
        load_results(path)
    results(row()).save(path)
    whole = path.read_text()
    assert load_results(path) == results(row())
    for damaged in (whole[:-20], "[]", whole.replace("bench/4", "bench/3"), ""):
        path.write_text(damaged)
        with pytest.raises(GateError, match="not results of this version"):
            load_results(path)


def test_devices_stand_side_by_side_and_an_emulators_latency_in_brackets(tmp_path: Path) -> None:
    phone, emulated = tmp_path / "phone.json", tmp_path / "emulated.json"
    results(row(invalid=("started hot",))).save(phone)
    results(row(), facts=EMULATED).save(emulated)
    printed = CliRunner().invoke(app, ["report", str(phone), str(emulated)]).output
    (line,) = [
        line
        for line in printed[printed.index("p50 ms by device") :].splitlines()
        if line.strip().startswith("onnx baked int8")
    ]
    assert line.split()[-3:] == ["0.010", "!", "(0.010)"]
    assert "EMULATED" in printed
    assert "INVALID: started hot" in printed
