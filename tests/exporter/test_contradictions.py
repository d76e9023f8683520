"""Claims of a manifest that contradict each other, without a bundle: each is refused by name."""

from __future__ import annotations

import json

import pytest
from claimed_manifests import (
    FP32,
    INT8,
    Edit,
    Fields,
    as_coreml,
    as_model,
    claims,
    fallen_back,
    float_alone,
    metrics_of,
    partly_right,
    recipe_of,
    rung_of,
    verdict_of,
    with_a_view_that_spells,
)

from exporter.manifest import Manifest
from exporter.verification.consistency import contradictions
from exporter.verification.findings import Gate, Outcome


def _refused(fields: Fields) -> list[tuple[Gate, str]]:
    manifest = Manifest.model_validate_json(json.dumps(fields))
    found = contradictions(manifest)
    return [(f.gate, f.detail) for f in found if f.outcome is Outcome.REFUSED]


SOUND: dict[str, Edit] = {
    "fallen back to float": fallen_back,
    "float alone": float_alone,
    "a view that spells": with_a_view_that_spells,
    "anyone's, right in part": partly_right,
    "anyone's values, as float": lambda m: (as_model(m, "values", None), float_alone(m)),
    "slower, and nobody asked": lambda m: rung_of(m).update(speed={"ratio": 2.0, "calls": 150}),
    "as far off everywhere": lambda m: metrics_of(m).update(mean_abs_delta=0.3 * (1 + 5e-7)),
    "all top-4 right": lambda m: [
        metrics_of(m, rung)[side].update(top4=100.0)
        for rung in (INT8, FP32) for side in ("scores", "reference_scores")
    ],
    "as it is": lambda m: None,
    "at every limit": lambda m: (
        metrics_of(m)["agreement"].update(frames=0.9, decisive=0.97, blank_drift=-0.02),
        metrics_of(m)["cost"].update(spread=0.25, bound=0.5),
        metrics_of(m, FP32).update(max_abs_delta=1e-4),
    ),
    "no rounding": lambda m: m["source"].update(reference_rounding=0.0),
    "much rounding": lambda m: m["source"].update(reference_rounding=1e-2),
    "faster as required": lambda m: recipe_of(m)["policy"].update(require_faster=True),
    "anyone's": as_model,
    "anyone's classes": lambda m: as_model(m, "classes"),
    "anyone's, scored by nothing": lambda m: as_model(m, "classes", None),
    "anyone's with large outputs": lambda m: (
        as_model(m), m["source"].update(reference_rounding=5.0)
    ),
    "Core ML interpreted": lambda m: as_coreml(m, "reference", "Linux x86_64"),
    "Core ML executed": lambda m: as_coreml(m, "host", "Darwin arm64"),
    "int8 refused": lambda m: (
        rung_of(m).update(taken=False, file=None, sha256=None),
        verdict_of(m).update(status="FAIL", level="structural", reasons=["no"], metrics=None),
        rung_of(m, FP32).update(taken=True),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SOUND)
def test_a_manifest_that_says_one_thing_is_not_refused(name: str) -> None:
    fields = claims()
    SOUND[name](fields)
    assert _refused(fields) == []


EDITS: dict[str, tuple[Edit, Gate, str]] = {
    "a rung twice": (
        lambda m: m["formats"][0]["rungs"].insert(0, rung_of(m)), Gate.RUNGS,
        "its rungs are ['int8', 'int8', 'fp32']",
    ),
    "float above the budget of float": (
        lambda m: (
            metrics_of(m, FP32)["scores"].update(top1=83.75),
            metrics_of(m, FP32)["cost"].update(drop=0.25),
        ),
        Gate.VERDICTS,
        "PASS although accuracy falls 0.25 points, the budget is 0.10",
    ),
    "a figure torn out": (
        lambda m: metrics_of(m).pop("max_abs_delta"), Gate.FIGURES, "max_abs_delta: Field required"
    ),
    "a figure that is no number": (
        lambda m: metrics_of(m)["cost"].update(worst_drop=float("nan")), Gate.FIGURES,
        "cost.worst_drop is nan",
    ),
    "a figure beyond every number": (
        lambda m: metrics_of(m)["greedy_edits"].update(substitutions=10**400), Gate.FIGURES,
        "greedy_edits.substitutions is inf",
    ),
    "a score of PyTorch of no whole swipes": (
        lambda m: [
            metrics_of(m, rung)["reference_scores"].update(top4=90.01) for rung in (INT8, FP32)
        ],
        Gate.FIGURES,
        "PyTorch's top4 0.9001",
    ),
    "no first score of PyTorch": (
        lambda m: [metrics_of(m, rung)["reference_scores"].pop("top1") for rung in (INT8, FP32)],
        Gate.FIGURES,
        "PyTorch's scores are ['top4']",
    ),
    "a share just below whole swipes": (
        lambda m: metrics_of(m).update(word_agreement=0.9949), Gate.FIGURES, "is no share of 800"
    ),
    "a share below none": (
        lambda m: metrics_of(m).update(word_agreement=-0.25), Gate.FIGURES, "is no share of 800"
    ),
    "a bound above what follows": (
        lambda m: metrics_of(m)["cost"].update(bound=0.4), Gate.FIGURES, "the bound of its cost is"
    ),
    "nothing in it": (lambda m: m.update(formats=[]), Gate.RUNGS, "it ships no artefact"),
    "a format that is none": (
        lambda m: m["formats"][0].update(format="tflite"), Gate.RUNGS, "no format 'tflite'"
    ),
    "a view that is none": (
        lambda m: m["formats"][0].update(view="sideways"), Gate.RUNGS, "sideways"
    ),
    "the entry twice": (
        lambda m: m["formats"].append(m["formats"][0]),
        Gate.RUNGS,
        "onnx baked is there 2 times; model.int8.onnx is there 2 times; model.fp32.onnx is there 2",
    ),
    "a build too late": (
        lambda m: m["formats"][0].update(build=1), Gate.RUNGS, "onnx baked is of build 1"
    ),
    "a build before the first": (
        lambda m: m["formats"][0].update(build=-1), Gate.RUNGS, "onnx baked is of build -1"
    ),
    "a rung of another format": (
        lambda m: rung_of(m).update(rung="fp16"), Gate.RUNGS, "its rungs are ['fp16', 'fp32']"
    ),
    "no rungs": (
        lambda m: m["formats"][0].update(rungs=[]), Gate.RUNGS, "its last rung is not fp32"
    ),
    "the baseline first": (
        lambda m: m["formats"][0]["rungs"].reverse(), Gate.RUNGS, "its last rung is not fp32"
    ),
    "nothing to ship": (
        lambda m: rung_of(m).update(taken=False), Gate.RUNGS, "0 artefacts are to be shipped"
    ),
    "two to ship": (
        lambda m: rung_of(m, FP32).update(taken=True), Gate.RUNGS, "2 artefacts are to be shipped"
    ),
    "a file that is not there to ship": (
        lambda m: rung_of(m).update(file=None, sha256=None),
        Gate.RUNGS, "1 artefacts are to be shipped"
    ),
    "quantized unasked": (
        lambda m: recipe_of(m)["policy"].update(quantize=False), Gate.RUNGS, "quantized rungs were"
    ),
    "no smaller than float": (
        lambda m: rung_of(m).update(size_bytes=400, facts={"size_bytes": 400}),
        Gate.RUNGS,
        "int8 is to be shipped, and is no smaller than fp32",
    ),
    "FAIL and shipped": (
        lambda m: verdict_of(m).update(status="FAIL", reasons=["no"]),
        Gate.RUNGS,
        "int8: it is to be shipped although its verdict is FAIL; int8: its verdict is FAIL, and "
        "its file was kept",
    ),
    "FAIL and kept": (
        lambda m: verdict_of(m, FP32).update(status="FAIL", reasons=["no"]),
        Gate.RUNGS,
        "fp32: its verdict is FAIL, and its file was kept",
    ),
    "a file without a hash": (
        lambda m: rung_of(m).update(sha256=None), Gate.RUNGS, "int8: it has a file without a hash"
    ),
    "a hash without a file": (
        lambda m: rung_of(m, FP32).update(file=None),
        Gate.RUNGS, "fp32: it has a file without a hash"
    ),
    "a file of another rung": (
        lambda m: rung_of(m).update(file="model.int4.onnx"),
        Gate.RUNGS, "int8: its file is model.int4"
    ),
    "two sizes": (
        lambda m: rung_of(m).update(size_bytes=101),
        Gate.RUNGS, "int8: 101 bytes, and 100 among its"
    ),
    "PASS with a reason": (
        lambda m: verdict_of(m).update(reasons=["but"]), Gate.VERDICTS, "PASS with a reason"
    ),
    "UNVERIFIED without a reason": (
        lambda m: verdict_of(m).update(status="UNVERIFIED"), Gate.VERDICTS,
        "UNVERIFIED without a reason",
    ),
    "executed on a phone": (
        lambda m: verdict_of(m).update(level="device"), Gate.VERDICTS, "no export executes at level"
    ),
    "Core ML executed on Linux": (
        lambda m: (as_coreml(m, "reference", "Linux x86_64"), verdict_of(m).update(level="host")),
        Gate.VERDICTS,
        "level host on Linux x86_64, where coreml cannot be executed",
    ),
    "Core ML interpreted on macOS": (
        lambda m: (as_coreml(m, "host", "Darwin arm64"), verdict_of(m).update(level="reference")),
        Gate.VERDICTS,
        "level reference on Darwin arm64, where coreml is not interpreted",
    ),
    "ONNX interpreted": (
        lambda m: verdict_of(m).update(level="reference"), Gate.VERDICTS, "onnx is not interpreted"
    ),
    "PASS without execution": (
        lambda m: verdict_of(m).update(level="structural", metrics=None),
        Gate.VERDICTS,
        "PASS with level structural: what was not executed has no figures",
    ),
    "figures without execution": (
        lambda m: verdict_of(m).update(status="UNVERIFIED", reasons=["-"], level="structural"),
        Gate.VERDICTS,
        "UNVERIFIED with level structural: what was not executed has no figures",
    ),
    "not executed where it can be": (
        lambda m: verdict_of(m).update(
            status="UNVERIFIED", reasons=["-"], level="structural", metrics=None
        ),
        Gate.VERDICTS,
        "not executed on Linux x86_64, where onnx can be",
    ),
    "not interpreted where it can be": (
        lambda m: (
            as_coreml(m, "reference", "Linux x86_64"),
            verdict_of(m).update(
                status="UNVERIFIED", reasons=["-"], level="structural", metrics=None
            ),
        ),
        Gate.VERDICTS,
        "not executed on Linux x86_64, where coreml can be",
    ),
    "executed without figures": (
        lambda m: verdict_of(m).update(status="UNVERIFIED", reasons=["-"], metrics=None),
        Gate.VERDICTS,
        "UNVERIFIED at level host without figures",
    ),
    "PASS below the agreement": (
        lambda m: metrics_of(m)["agreement"].update(frames=0.89),
        Gate.VERDICTS, "PASS although per-"
    ),
    "PASS below the sure agreement": (
        lambda m: metrics_of(m)["agreement"].update(decisive=0.96), Gate.VERDICTS, "is sure 96.00%"
    ),
    "PASS with blanks that vanish": (
        lambda m: metrics_of(m)["agreement"].update(blank_drift=-0.03), Gate.VERDICTS, "by -3.00%"
    ),
    "PASS above the difference": (
        lambda m: metrics_of(m, FP32).update(max_abs_delta=1.1e-4), Gate.VERDICTS, "max |delta|"
    ),
    "PASS above the budget": (
        lambda m: (
            metrics_of(m)["scores"].update(top1=83.0),
            metrics_of(m)["cost"].update(drop=1.0, bound=1.125),
        ),
        Gate.VERDICTS,
        "PASS although accuracy falls 1.00 points, the budget is 0.50",
    ),
    "PASS with a loss that is not ruled out": (
        lambda m: metrics_of(m)["cost"].update(spread=0.5, bound=0.75),
        Gate.VERDICTS,
        "0.75 cannot be ruled out",
    ),
    "PASS of values that nothing scores": (
        lambda m: as_model(m, "values", None), Gate.VERDICTS, "values that no metric scores"
    ),
    "figures of other samples": (
        lambda m: metrics_of(m).update(samples=799), Gate.FIGURES, "of 799 samples, the bundle was"
    ),
    "a mean above the largest": (
        lambda m: metrics_of(m).update(mean_abs_delta=0.31), Gate.FIGURES, "their mean 0.31"
    ),
    "a negative mean": (
        lambda m: metrics_of(m).update(mean_abs_delta=-0.1), Gate.FIGURES, "their mean -0.1"
    ),
    "more than all frames": (
        lambda m: metrics_of(m)["agreement"].update(frames=1.01), Gate.FIGURES, "are no shares"
    ),
    "more than all sure frames": (
        lambda m: metrics_of(m)["agreement"].update(decisive=1.01), Gate.FIGURES, "are no shares"
    ),
    "no words of agreement": (
        lambda m: metrics_of(m).update(word_agreement=None), Gate.FIGURES, "word_agreement is not"
    ),
    "no strings of agreement": (
        lambda m: metrics_of(m).update(greedy_agreement=None, greedy_edits=None), Gate.FIGURES,
        "greedy_agreement is not there; greedy_edits is not there",
    ),
    "classes with strings": (
        lambda m: (
            as_model(m, "classes"),
            metrics_of(m).update(greedy_agreement=0.9),
        ),
        Gate.FIGURES,
        "greedy_agreement is there, and outputs have none",
    ),
    "a share of no whole swipes": (
        lambda m: metrics_of(m).update(word_agreement=0.9951), Gate.FIGURES, "is no share of 800"
    ),
    "a share above all": (
        lambda m: metrics_of(m).update(word_agreement=1.005), Gate.FIGURES, "is no share of 800"
    ),
    "a score of no whole swipes": (
        lambda m: metrics_of(m)["scores"].update(top4=90.01), Gate.FIGURES, "top4 0.9001"
    ),
    "a score above all": (
        lambda m: (as_model(m), metrics_of(m)["scores"].update(exact=101.0),
                   metrics_of(m)["cost"].update(drop=-17.0)),
        Gate.FIGURES,
        "exact 1.01 is no score",
    ),
    "another score": (
        lambda m: metrics_of(m)["scores"].update(top2=50.0),
        Gate.FIGURES, "scores are ['top1', 'top2"
    ),
    "fewer edits than none": (
        lambda m: metrics_of(m)["greedy_edits"].update(deletions=-1),
        Gate.FIGURES, "greedy_edits are"
    ),
    "edits of no letters": (
        lambda m: metrics_of(m)["greedy_edits"].update(letters=0), Gate.FIGURES, "greedy_edits are"
    ),
    "edits of equal strings": (
        lambda m: metrics_of(m).update(greedy_agreement=1.0), Gate.FIGURES, "93 letters differ"
    ),
    "other strings without an edit": (
        lambda m: metrics_of(m)["greedy_edits"].update(substitutions=0, insertions=0), Gate.FIGURES,
        "0 letters differ, and 0.9 of strings are equal",
    ),
    "a cost of other samples": (
        lambda m: metrics_of(m)["cost"].update(samples=801), Gate.FIGURES, "its cost is of other"
    ),
    "a drop that does not follow": (
        lambda m: metrics_of(m)["cost"].update(drop=0.125, bound=0.375), Gate.FIGURES,
        "accuracy falls 0.125 points, 0.25 by its scores",
    ),
    "a bound that does not follow": (
        lambda m: metrics_of(m)["cost"].update(bound=0.3), Gate.FIGURES, "the bound of its cost is"
    ),
    "PyTorch otherwise from rung to rung": (
        lambda m: (metrics_of(m)["reference_scores"].update(top4=89.5)), Gate.FIGURES,
        "PyTorch's own scores differ from rung to rung",
    ),
    "rounding that excuses anything": (
        lambda m: m["source"].update(reference_rounding=0.011), Gate.FIGURES, "none is above 0.01"
    ),
    "rounding below none": (
        lambda m: m["source"].update(reference_rounding=-1e-9), Gate.FIGURES, "none is above 0.01"
    ),
    "a format that was not built": (
        lambda m: recipe_of(m).update(formats=["coreml"]), Gate.RECIPE, "its build made"
    ),
    "a view that was not built": (
        lambda m: recipe_of(m).update(views=["agnostic"]), Gate.RECIPE, "its build made"
    ),
    "another budget": (
        lambda m: recipe_of(m)["policy"].update(budget=0.4), Gate.RECIPE, "a budget of 0.4, and 0.5"
    ),
    "a policy of another version": (
        lambda m: recipe_of(m)["policy"].update(brave=True), Gate.RECIPE, "none of this version"
    ),
    "another lexicon asked for": (
        lambda m: recipe_of(m)["asked"].update(lexicon="mine"),
        Gate.RECIPE, "lexicon mine, and words"
    ),
    "fewer swipes asked for": (
        lambda m: recipe_of(m)["asked"].update(samples=799), Gate.RECIPE, "verified on 800 of 799"
    ),
    "no number of swipes asked for": (
        lambda m: recipe_of(m)["asked"].update(calibration_samples=None), Gate.RECIPE,
        "calibrated on 100 of None",
    ),
    "calibrated on nothing": (
        lambda m: m["source"].update(calibration_samples=0), Gate.RECIPE, "calibrated on 0 of 100"
    ),
    "another factory asked for": (
        lambda m: (as_model(m), recipe_of(m).update(asked={"factory": "other:made"})), Gate.RECIPE,
        "factory other:made, and mine:made",
    ),
    "slower where faster was required": (
        lambda m: (
            recipe_of(m)["policy"].update(require_faster=True),
            rung_of(m).update(speed={"ratio": 1.0, "calls": 150}),
        ),
        Gate.RECIPE,
        "int8 is to be shipped, and is not known to be faster",
    ),
    "of unknown speed where faster was required": (
        lambda m: (
            recipe_of(m)["policy"].update(require_faster=True),
            rung_of(m).update(speed=None),
        ),
        Gate.RECIPE,
        "int8 is to be shipped, and is not known to be faster",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", EDITS)
def test_a_claim_that_another_contradicts_is_refused_and_nothing_else_is(name: str) -> None:
    edit, gate, says = EDITS[name]
    fields = claims()
    edit(fields)
    refused = _refused(fields)
    assert says in "; ".join(detail for found, detail in refused if found is gate)
    assert {found for found, _ in refused} == {gate}


IMPOSSIBLE: dict[str, tuple[Edit, str, str]] = {
    "no cost": (
        lambda m: metrics_of(m).update(cost=None), "PASS without a cost", "cost is not there"
    ),
    "a cost of nothing": (
        lambda m: metrics_of(m)["cost"].update(samples=0),
        "PASS although its cost", "of other scores"
    ),
    "a spread that is no number": (
        lambda m: metrics_of(m)["cost"].update(spread=float("nan")), "PASS although its cost",
        "cost.spread is nan",
    ),
    "anyone's model without the cost of its metric": (
        lambda m: (as_model(m), metrics_of(m).update(cost=None)), "PASS without a cost",
        "cost is not there",
    ),
    "fewer frames than none": (
        lambda m: metrics_of(m)["agreement"].update(frames=-0.5), "per-frame", "are no shares"
    ),
    "fewer sure frames than none": (
        lambda m: metrics_of(m)["agreement"].update(decisive=-0.5), "is sure", "are no shares"
    ),
    "more blanks than frames": (
        lambda m: metrics_of(m)["agreement"].update(blank_drift=1.01),
        "by +101.00%", "no difference"
    ),
    "fewer blanks than none": (
        lambda m: metrics_of(m)["agreement"].update(blank_drift=-1.01),
        "by -101.00%", "no difference"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_a_pass_by_impossible_figures_is_refused_as_both(name: str) -> None:
    edit, verdict, figures = IMPOSSIBLE[name]
    fields = claims()
    edit(fields)
    refused = dict(_refused(fields))
    assert set(refused) == {Gate.VERDICTS, Gate.FIGURES}
    assert verdict in refused[Gate.VERDICTS]
    assert figures in refused[Gate.FIGURES]


@pytest.mark.parametrize("samples", [0, -1])
def test_a_bundle_that_was_judged_by_nothing_is_refused(samples: int) -> None:
    """Figures of no samples agree with each other, and no share or bound can be made of them."""
    fields = claims()
    fields["source"]["verification_samples"] = samples
    for rung in (INT8, FP32):
        metrics_of(fields, rung).update(samples=samples)
        metrics_of(fields, rung)["cost"].update(samples=samples)
    gates = {gate for gate, _ in _refused(fields)}
    assert gates == {Gate.VERDICTS, Gate.FIGURES, Gate.RECIPE}
