"""Claims of a manifest that contradict each other, without a bundle: each is refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from exporter.manifest import Manifest
from exporter.verification.consistency import contradictions
from exporter.verification.findings import Gate, Outcome

Fields = dict[str, Any]
Edit = Callable[[Fields], object]
SAMPLES = 800
INT8, FP32 = 0, 1


def _figures(**changes: Any) -> Fields:
    """Of 800 swipes; int8 has two words less right than PyTorch."""
    figures = {
        "samples": SAMPLES,
        "max_abs_delta": 0.3,
        "mean_abs_delta": 0.05,
        "agreement": {"frames": 0.98, "decisive": 0.99, "blank_drift": 0.01},
        "greedy_agreement": 0.9,
        "greedy_edits": {"substitutions": 90, "deletions": 0, "insertions": 3, "letters": 4000},
        "word_agreement": 0.995,
        "scores": {"top1": 83.75, "top4": 90.0},
        "reference_scores": {"top1": 84.0, "top4": 90.0},
        "cost": {
            "samples": SAMPLES, "drop": 0.25, "spread": 0.125, "worst_stratum": "", "worst_drop": 0,
            "bound": 0.375,
        },
    }  # fmt: skip
    return figures | changes


def _exact() -> Fields:
    edits = {"substitutions": 0, "deletions": 0, "insertions": 0, "letters": 4000}
    scores = {"top1": 84.0, "top4": 90.0}
    return _figures(
        max_abs_delta=1e-5, mean_abs_delta=1e-6, greedy_agreement=1.0, greedy_edits=edits,
        agreement={"frames": 1.0, "decisive": 1.0, "blank_drift": 0.0}, scores=scores,
        cost=_figures()["cost"] | {"drop": 0.0, "spread": 0.0},
    )  # fmt: skip


def _rung(name: str, size: int, figures: Fields, *, taken: bool) -> Fields:
    return {
        "rung": name,
        "taken": taken,
        "verdict": {"status": "PASS", "level": "host", "reasons": [], "metrics": figures},
        "file": f"model.{name}.onnx",
        "size_bytes": size,
        "sha256": "0" * 64,
        "facts": {"size_bytes": size},
        "seconds": 1.0,
        "speed": {"ratio": 0.5, "calls": 150},
    }


def _fields() -> Fields:
    source = {
        "kind": "swipe", "weights_sha256": "a" * 64, "parameters": 7, "samples": "people",
        "calibration_samples": 100, "calibration_sha256": "b" * 64,
        "verification_samples": SAMPLES, "verification_sha256": "c" * 64,
        "reference_rounding": 1e-5, "checkpoint_step": 5, "contract_id": "d" * 16, "contract": {},
        "trained_on": {}, "lexicon": "words", "lexicon_sha256": "e" * 64, "decoder": {},
    }  # fmt: skip
    asked = {"lexicon": "words", "samples": SAMPLES, "calibration_samples": 100}
    policy = {"quantize": True, "budget": 0.5}
    recipe = {"formats": ["onnx"], "views": ["baked"], "policy": policy, "asked": asked}
    build = {
        "created": "today", "platform": "Linux x86_64", "processor": "-", "processor_flags": [],
        "threads": 1, "versions": {}, "commit": None, "uncommitted_changes": None, "recipe": recipe,
    }  # fmt: skip
    rungs = [
        _rung("int8", 100, _figures(), taken=True), _rung("fp32", 400, _exact(), taken=False)
    ]  # fmt: skip
    entry = {"format": "onnx", "view": "baked", "build": 0, "rungs": rungs}
    return {
        "builds": [build], "source": source, "accuracy_budget": 0.5, "views": [], "formats": [entry]
    }  # fmt: skip


def _as_model(fields: Fields, outputs: str = "ctc", metric: str | None = "exact") -> None:
    """Anyone's model, with the figures that outputs of its kind have."""
    source = fields["source"]
    for key in ("checkpoint_step", "contract_id", "contract", "trained_on", "lexicon",
                "lexicon_sha256", "decoder"):  # fmt: skip
        del source[key]
    source |= {
        "kind": "model", "factory": "mine:made", "weights": "-", "checkpoint_step": None,
        "outputs": outputs, "blank": 0 if outputs == "ctc" else None, "metric": metric,
    }  # fmt: skip
    tensor = {"name": "x", "shape": [1, 2], "dtype": "float32", "meaning": "-"}
    view = {"name": "model", "inputs": [tensor], "output": tensor, "also_tried": []}
    fields["views"], fields["formats"][0]["view"] = [view], "model"
    _recipe(fields).update(views=["model"], asked={"factory": "mine:made"})
    for rung in fields["formats"][0]["rungs"]:
        figures = rung["verdict"]["metrics"]
        figures["word_agreement"] = None
        for scores in (figures["scores"], figures["reference_scores"]):
            top1 = scores["top1"]
            scores.clear()
            if metric is not None:
                scores[metric] = top1
        if metric is None:
            figures["cost"] = None
        if outputs != "ctc":
            figures.update(greedy_agreement=None, greedy_edits=None)
        if outputs == "values":
            figures["agreement"] = None


def _refused(fields: Fields) -> list[tuple[Gate, str]]:
    manifest = Manifest.model_validate_json(json.dumps(fields))
    found = contradictions(manifest)
    return [(f.gate, f.detail) for f in found if f.outcome is Outcome.REFUSED]


def _of(fields: Fields, rung: int = INT8) -> Fields:
    found: Fields = fields["formats"][0]["rungs"][rung]
    return found


def _verdict(fields: Fields, rung: int = INT8) -> Fields:
    found: Fields = _of(fields, rung)["verdict"]
    return found


def _metrics(fields: Fields, rung: int = INT8) -> Fields:
    found: Fields = _verdict(fields, rung)["metrics"]
    return found


def _recipe(fields: Fields) -> Fields:
    found: Fields = fields["builds"][0]["recipe"]
    return found


def _as_coreml(fields: Fields, level: str, platform: str) -> None:
    fields["builds"][0]["platform"] = platform
    _recipe(fields)["formats"] = ["coreml"]
    fields["formats"][0]["format"] = "coreml"
    for rung in fields["formats"][0]["rungs"]:
        rung["file"] = rung["file"].replace(".onnx", ".mlpackage")
        rung["verdict"]["level"] = level


def _removed(rung: Fields, **verdict: Any) -> None:
    """What becomes of a rung that is not kept."""
    rung.update(taken=False, file=None, sha256=None)
    rung["verdict"].update({"status": "FAIL", "reasons": ["no"]} | verdict)


def _fallen_back(fields: Fields) -> None:
    """Every quantized rung was refused, each for something else; float was never timed."""
    rungs = [_rung(name, 500, _figures(), taken=False) for name in ("int8-weights", "fp16-weights")]
    fields["formats"][0]["rungs"][1:1] = rungs
    worse = _figures()["cost"] | {"drop": 1.0, "bound": 1.125}
    scores = {"top1": 83.0, "top4": 90.0}
    _removed(_of(fields), metrics=_figures(scores=scores, cost=worse))
    _removed(rungs[0], metrics=None)
    _removed(rungs[1], metrics=None, level="structural")
    fields["formats"][0]["rungs"][-1].update(taken=True, speed=None)
    _of(fields)["speed"] = None
    _recipe(fields)["policy"].update(require_faster=True)


def _float_alone(fields: Fields) -> None:
    del fields["formats"][0]["rungs"][INT8]
    _of(fields).update(taken=True)
    _recipe(fields)["policy"].update(quantize=False)


def _with_a_view_that_spells(fields: Fields) -> None:
    """Its words are those it spells, so PyTorch's scores are others than with a lexicon."""
    tensor = {"name": "x", "shape": [1, 2], "dtype": "float32", "meaning": "-"}
    view = {"name": "baked", "inputs": [tensor], "output": tensor, "also_tried": []}
    fields["views"] = [view, view | {"name": "text", "text": tensor}]
    entry = json.loads(json.dumps(fields["formats"][0])) | {"view": "text"}
    for rung in entry["rungs"]:
        rung["file"] = rung["file"].replace("model", "model-text")
        figures = rung["verdict"]["metrics"]
        for scores in (figures["scores"], figures["reference_scores"]):
            scores["top1"] -= 20
    fields["formats"].append(entry)
    _recipe(fields)["views"].append("text")


def _partly_right(fields: Fields) -> None:
    """A metric may give a sample a part of a point."""
    _as_model(fields)
    for rung, score in ((INT8, 83.7), (FP32, 83.95)):
        _metrics(fields, rung)["scores"].update(exact=score)
        _metrics(fields, rung)["reference_scores"].update(exact=83.95)


SOUND: dict[str, Edit] = {
    "fallen back to float": _fallen_back,
    "float alone": _float_alone,
    "a view that spells": _with_a_view_that_spells,
    "anyone's, right in part": _partly_right,
    "anyone's values, as float": lambda m: (_as_model(m, "values", None), _float_alone(m)),
    "slower, and nobody asked": lambda m: _of(m).update(speed={"ratio": 2.0, "calls": 150}),
    "as far off everywhere": lambda m: _metrics(m).update(mean_abs_delta=0.3 * (1 + 5e-7)),
    "all top-4 right": lambda m: [
        _metrics(m, rung)[side].update(top4=100.0)
        for rung in (INT8, FP32) for side in ("scores", "reference_scores")
    ],
    "as it is": lambda m: None,
    "at every limit": lambda m: (
        _metrics(m)["agreement"].update(frames=0.9, decisive=0.97, blank_drift=-0.02),
        _metrics(m)["cost"].update(spread=0.25, bound=0.5),
        _metrics(m, FP32).update(max_abs_delta=1e-4),
    ),
    "no rounding": lambda m: m["source"].update(reference_rounding=0.0),
    "much rounding": lambda m: m["source"].update(reference_rounding=1e-2),
    "faster as required": lambda m: _recipe(m)["policy"].update(require_faster=True),
    "anyone's": _as_model,
    "anyone's classes": lambda m: _as_model(m, "classes"),
    "anyone's, scored by nothing": lambda m: _as_model(m, "classes", None),
    "anyone's with large outputs": lambda m: (
        _as_model(m), m["source"].update(reference_rounding=5.0)
    ),
    "Core ML interpreted": lambda m: _as_coreml(m, "reference", "Linux x86_64"),
    "Core ML executed": lambda m: _as_coreml(m, "host", "Darwin arm64"),
    "int8 refused": lambda m: (
        _of(m).update(taken=False, file=None, sha256=None),
        _verdict(m).update(status="FAIL", level="structural", reasons=["no"], metrics=None),
        _of(m, FP32).update(taken=True),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SOUND)
def test_a_manifest_that_says_one_thing_is_not_refused(name: str) -> None:
    fields = _fields()
    SOUND[name](fields)
    assert _refused(fields) == []


EDITS: dict[str, tuple[Edit, Gate, str]] = {
    "a rung twice": (
        lambda m: m["formats"][0]["rungs"].insert(0, _of(m)), Gate.RUNGS,
        "its rungs are ['int8', 'int8', 'fp32']",
    ),
    "float above the budget of float": (
        lambda m: (
            _metrics(m, FP32)["scores"].update(top1=83.75),
            _metrics(m, FP32)["cost"].update(drop=0.25),
        ),
        Gate.VERDICTS,
        "PASS although accuracy falls 0.25 points, the budget is 0.10",
    ),
    "a figure torn out": (
        lambda m: _metrics(m).pop("max_abs_delta"), Gate.FIGURES, "max_abs_delta: Field required"
    ),
    "a figure that is no number": (
        lambda m: _metrics(m)["cost"].update(worst_drop=float("nan")), Gate.FIGURES,
        "cost.worst_drop is nan",
    ),
    "a figure beyond every number": (
        lambda m: _metrics(m)["greedy_edits"].update(substitutions=10**400), Gate.FIGURES,
        "greedy_edits.substitutions is inf",
    ),
    "a score of PyTorch of no whole swipes": (
        lambda m: [
            _metrics(m, rung)["reference_scores"].update(top4=90.01) for rung in (INT8, FP32)
        ],
        Gate.FIGURES,
        "PyTorch's top4 0.9001",
    ),
    "no first score of PyTorch": (
        lambda m: [_metrics(m, rung)["reference_scores"].pop("top1") for rung in (INT8, FP32)],
        Gate.FIGURES,
        "PyTorch's scores are ['top4']",
    ),
    "a share just below whole swipes": (
        lambda m: _metrics(m).update(word_agreement=0.9949), Gate.FIGURES, "is no share of 800"
    ),
    "a share below none": (
        lambda m: _metrics(m).update(word_agreement=-0.25), Gate.FIGURES, "is no share of 800"
    ),
    "a bound above what follows": (
        lambda m: _metrics(m)["cost"].update(bound=0.4), Gate.FIGURES, "the bound of its cost is"
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
        lambda m: _of(m).update(rung="fp16"), Gate.RUNGS, "its rungs are ['fp16', 'fp32']"
    ),
    "no rungs": (
        lambda m: m["formats"][0].update(rungs=[]), Gate.RUNGS, "its last rung is not fp32"
    ),
    "the baseline first": (
        lambda m: m["formats"][0]["rungs"].reverse(), Gate.RUNGS, "its last rung is not fp32"
    ),
    "nothing to ship": (
        lambda m: _of(m).update(taken=False), Gate.RUNGS, "0 artefacts are to be shipped"
    ),
    "two to ship": (
        lambda m: _of(m, FP32).update(taken=True), Gate.RUNGS, "2 artefacts are to be shipped"
    ),
    "a file that is not there to ship": (
        lambda m: _of(m).update(file=None, sha256=None), Gate.RUNGS, "1 artefacts are to be shipped"
    ),
    "quantized unasked": (
        lambda m: _recipe(m)["policy"].update(quantize=False), Gate.RUNGS, "quantized rungs were"
    ),
    "no smaller than float": (
        lambda m: _of(m).update(size_bytes=400, facts={"size_bytes": 400}),
        Gate.RUNGS,
        "int8 is to be shipped, and is no smaller than fp32",
    ),
    "FAIL and shipped": (
        lambda m: _verdict(m).update(status="FAIL", reasons=["no"]),
        Gate.RUNGS,
        "int8: it is to be shipped although its verdict is FAIL; int8: its verdict is FAIL, and "
        "its file was kept",
    ),
    "FAIL and kept": (
        lambda m: _verdict(m, FP32).update(status="FAIL", reasons=["no"]),
        Gate.RUNGS,
        "fp32: its verdict is FAIL, and its file was kept",
    ),
    "a file without a hash": (
        lambda m: _of(m).update(sha256=None), Gate.RUNGS, "int8: it has a file without a hash"
    ),
    "a hash without a file": (
        lambda m: _of(m, FP32).update(file=None), Gate.RUNGS, "fp32: it has a file without a hash"
    ),
    "a file of another rung": (
        lambda m: _of(m).update(file="model.int4.onnx"), Gate.RUNGS, "int8: its file is model.int4"
    ),
    "two sizes": (
        lambda m: _of(m).update(size_bytes=101), Gate.RUNGS, "int8: 101 bytes, and 100 among its"
    ),
    "PASS with a reason": (
        lambda m: _verdict(m).update(reasons=["but"]), Gate.VERDICTS, "PASS with a reason"
    ),
    "UNVERIFIED without a reason": (
        lambda m: _verdict(m).update(status="UNVERIFIED"), Gate.VERDICTS,
        "UNVERIFIED without a reason",
    ),
    "executed on a phone": (
        lambda m: _verdict(m).update(level="device"), Gate.VERDICTS, "no export executes at level"
    ),
    "Core ML executed on Linux": (
        lambda m: (_as_coreml(m, "reference", "Linux x86_64"), _verdict(m).update(level="host")),
        Gate.VERDICTS,
        "level host on Linux x86_64, where coreml cannot be executed",
    ),
    "Core ML interpreted on macOS": (
        lambda m: (_as_coreml(m, "host", "Darwin arm64"), _verdict(m).update(level="reference")),
        Gate.VERDICTS,
        "level reference on Darwin arm64, where coreml is not interpreted",
    ),
    "ONNX interpreted": (
        lambda m: _verdict(m).update(level="reference"), Gate.VERDICTS, "onnx is not interpreted"
    ),
    "PASS without execution": (
        lambda m: _verdict(m).update(level="structural", metrics=None),
        Gate.VERDICTS,
        "PASS with level structural: what was not executed has no figures",
    ),
    "figures without execution": (
        lambda m: _verdict(m).update(status="UNVERIFIED", reasons=["-"], level="structural"),
        Gate.VERDICTS,
        "UNVERIFIED with level structural: what was not executed has no figures",
    ),
    "not executed where it can be": (
        lambda m: _verdict(m).update(
            status="UNVERIFIED", reasons=["-"], level="structural", metrics=None
        ),
        Gate.VERDICTS,
        "not executed on Linux x86_64, where onnx can be",
    ),
    "not interpreted where it can be": (
        lambda m: (
            _as_coreml(m, "reference", "Linux x86_64"),
            _verdict(m).update(
                status="UNVERIFIED", reasons=["-"], level="structural", metrics=None
            ),
        ),
        Gate.VERDICTS,
        "not executed on Linux x86_64, where coreml can be",
    ),
    "executed without figures": (
        lambda m: _verdict(m).update(status="UNVERIFIED", reasons=["-"], metrics=None),
        Gate.VERDICTS,
        "UNVERIFIED at level host without figures",
    ),
    "PASS below the agreement": (
        lambda m: _metrics(m)["agreement"].update(frames=0.89), Gate.VERDICTS, "PASS although per-"
    ),
    "PASS below the sure agreement": (
        lambda m: _metrics(m)["agreement"].update(decisive=0.96), Gate.VERDICTS, "is sure 96.00%"
    ),
    "PASS with blanks that vanish": (
        lambda m: _metrics(m)["agreement"].update(blank_drift=-0.03), Gate.VERDICTS, "by -3.00%"
    ),
    "PASS above the difference": (
        lambda m: _metrics(m, FP32).update(max_abs_delta=1.1e-4), Gate.VERDICTS, "max |delta|"
    ),
    "PASS above the budget": (
        lambda m: (
            _metrics(m)["scores"].update(top1=83.0),
            _metrics(m)["cost"].update(drop=1.0, bound=1.125),
        ),
        Gate.VERDICTS,
        "PASS although accuracy falls 1.00 points, the budget is 0.50",
    ),
    "PASS with a loss that is not ruled out": (
        lambda m: _metrics(m)["cost"].update(spread=0.5, bound=0.75),
        Gate.VERDICTS,
        "0.75 cannot be ruled out",
    ),
    "PASS of values that nothing scores": (
        lambda m: _as_model(m, "values", None), Gate.VERDICTS, "values that no metric scores"
    ),
    "figures of other samples": (
        lambda m: _metrics(m).update(samples=799), Gate.FIGURES, "of 799 samples, the bundle was"
    ),
    "a mean above the largest": (
        lambda m: _metrics(m).update(mean_abs_delta=0.31), Gate.FIGURES, "their mean 0.31"
    ),
    "a negative mean": (
        lambda m: _metrics(m).update(mean_abs_delta=-0.1), Gate.FIGURES, "their mean -0.1"
    ),
    "more than all frames": (
        lambda m: _metrics(m)["agreement"].update(frames=1.01), Gate.FIGURES, "are no shares"
    ),
    "more than all sure frames": (
        lambda m: _metrics(m)["agreement"].update(decisive=1.01), Gate.FIGURES, "are no shares"
    ),
    "no words of agreement": (
        lambda m: _metrics(m).update(word_agreement=None), Gate.FIGURES, "word_agreement is not"
    ),
    "no strings of agreement": (
        lambda m: _metrics(m).update(greedy_agreement=None, greedy_edits=None), Gate.FIGURES,
        "greedy_agreement is not there; greedy_edits is not there",
    ),
    "classes with strings": (
        lambda m: (
            _as_model(m, "classes"),
            _metrics(m).update(greedy_agreement=0.9),
        ),
        Gate.FIGURES,
        "greedy_agreement is there, and outputs have none",
    ),
    "a share of no whole swipes": (
        lambda m: _metrics(m).update(word_agreement=0.9951), Gate.FIGURES, "is no share of 800"
    ),
    "a share above all": (
        lambda m: _metrics(m).update(word_agreement=1.005), Gate.FIGURES, "is no share of 800"
    ),
    "a score of no whole swipes": (
        lambda m: _metrics(m)["scores"].update(top4=90.01), Gate.FIGURES, "top4 0.9001"
    ),
    "a score above all": (
        lambda m: (_as_model(m), _metrics(m)["scores"].update(exact=101.0),
                   _metrics(m)["cost"].update(drop=-17.0)),
        Gate.FIGURES,
        "exact 1.01 is no score",
    ),
    "another score": (
        lambda m: _metrics(m)["scores"].update(top2=50.0), Gate.FIGURES, "scores are ['top1', 'top2"
    ),
    "fewer edits than none": (
        lambda m: _metrics(m)["greedy_edits"].update(deletions=-1), Gate.FIGURES, "greedy_edits are"
    ),
    "edits of no letters": (
        lambda m: _metrics(m)["greedy_edits"].update(letters=0), Gate.FIGURES, "greedy_edits are"
    ),
    "edits of equal strings": (
        lambda m: _metrics(m).update(greedy_agreement=1.0), Gate.FIGURES, "93 letters differ"
    ),
    "other strings without an edit": (
        lambda m: _metrics(m)["greedy_edits"].update(substitutions=0, insertions=0), Gate.FIGURES,
        "0 letters differ, and 0.9 of strings are equal",
    ),
    "a cost of other samples": (
        lambda m: _metrics(m)["cost"].update(samples=801), Gate.FIGURES, "its cost is of other"
    ),
    "a drop that does not follow": (
        lambda m: _metrics(m)["cost"].update(drop=0.125, bound=0.375), Gate.FIGURES,
        "accuracy falls 0.125 points, 0.25 by its scores",
    ),
    "a bound that does not follow": (
        lambda m: _metrics(m)["cost"].update(bound=0.3), Gate.FIGURES, "the bound of its cost is"
    ),
    "PyTorch otherwise from rung to rung": (
        lambda m: (_metrics(m)["reference_scores"].update(top4=89.5)), Gate.FIGURES,
        "PyTorch's own scores differ from rung to rung",
    ),
    "rounding that excuses anything": (
        lambda m: m["source"].update(reference_rounding=0.011), Gate.FIGURES, "none is above 0.01"
    ),
    "rounding below none": (
        lambda m: m["source"].update(reference_rounding=-1e-9), Gate.FIGURES, "none is above 0.01"
    ),
    "a format that was not built": (
        lambda m: _recipe(m).update(formats=["coreml"]), Gate.RECIPE, "its build made"
    ),
    "a view that was not built": (
        lambda m: _recipe(m).update(views=["agnostic"]), Gate.RECIPE, "its build made"
    ),
    "another budget": (
        lambda m: _recipe(m)["policy"].update(budget=0.4), Gate.RECIPE, "a budget of 0.4, and 0.5"
    ),
    "a policy of another version": (
        lambda m: _recipe(m)["policy"].update(brave=True), Gate.RECIPE, "none of this version"
    ),
    "another lexicon asked for": (
        lambda m: _recipe(m)["asked"].update(lexicon="mine"), Gate.RECIPE, "lexicon mine, and words"
    ),
    "fewer swipes asked for": (
        lambda m: _recipe(m)["asked"].update(samples=799), Gate.RECIPE, "verified on 800 of 799"
    ),
    "no number of swipes asked for": (
        lambda m: _recipe(m)["asked"].update(calibration_samples=None), Gate.RECIPE,
        "calibrated on 100 of None",
    ),
    "calibrated on nothing": (
        lambda m: m["source"].update(calibration_samples=0), Gate.RECIPE, "calibrated on 0 of 100"
    ),
    "another factory asked for": (
        lambda m: (_as_model(m), _recipe(m).update(asked={"factory": "other:made"})), Gate.RECIPE,
        "factory other:made, and mine:made",
    ),
    "slower where faster was required": (
        lambda m: (
            _recipe(m)["policy"].update(require_faster=True),
            _of(m).update(speed={"ratio": 1.0, "calls": 150}),
        ),
        Gate.RECIPE,
        "int8 is to be shipped, and is not known to be faster",
    ),
    "of unknown speed where faster was required": (
        lambda m: (_recipe(m)["policy"].update(require_faster=True), _of(m).update(speed=None)),
        Gate.RECIPE,
        "int8 is to be shipped, and is not known to be faster",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", EDITS)
def test_a_claim_that_another_contradicts_is_refused_and_nothing_else_is(name: str) -> None:
    edit, gate, says = EDITS[name]
    fields = _fields()
    edit(fields)
    refused = _refused(fields)
    assert says in "; ".join(detail for found, detail in refused if found is gate)
    assert {found for found, _ in refused} == {gate}


IMPOSSIBLE: dict[str, tuple[Edit, str, str]] = {
    "no cost": (
        lambda m: _metrics(m).update(cost=None), "PASS without a cost", "cost is not there"
    ),
    "a cost of nothing": (
        lambda m: _metrics(m)["cost"].update(samples=0), "PASS although its cost", "of other scores"
    ),
    "a spread that is no number": (
        lambda m: _metrics(m)["cost"].update(spread=float("nan")), "PASS although its cost",
        "cost.spread is nan",
    ),
    "anyone's model without the cost of its metric": (
        lambda m: (_as_model(m), _metrics(m).update(cost=None)), "PASS without a cost",
        "cost is not there",
    ),
    "fewer frames than none": (
        lambda m: _metrics(m)["agreement"].update(frames=-0.5), "per-frame", "are no shares"
    ),
    "fewer sure frames than none": (
        lambda m: _metrics(m)["agreement"].update(decisive=-0.5), "is sure", "are no shares"
    ),
    "more blanks than frames": (
        lambda m: _metrics(m)["agreement"].update(blank_drift=1.01), "by +101.00%", "no difference"
    ),
    "fewer blanks than none": (
        lambda m: _metrics(m)["agreement"].update(blank_drift=-1.01), "by -101.00%", "no difference"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_a_pass_by_impossible_figures_is_refused_as_both(name: str) -> None:
    edit, verdict, figures = IMPOSSIBLE[name]
    fields = _fields()
    edit(fields)
    refused = dict(_refused(fields))
    assert set(refused) == {Gate.VERDICTS, Gate.FIGURES}
    assert verdict in refused[Gate.VERDICTS]
    assert figures in refused[Gate.FIGURES]


@pytest.mark.parametrize("samples", [0, -1])
def test_a_bundle_that_was_judged_by_nothing_is_refused(samples: int) -> None:
    """Figures of no samples agree with each other, and no share or bound can be made of them."""
    fields = _fields()
    fields["source"]["verification_samples"] = samples
    for rung in (INT8, FP32):
        _metrics(fields, rung).update(samples=samples)
        _metrics(fields, rung)["cost"].update(samples=samples)
    gates = {gate for gate, _ in _refused(fields)}
    assert gates == {Gate.VERDICTS, Gate.FIGURES, Gate.RECIPE}
