"""What a sound manifest claims, as JSON, and how to change it without contradicting itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

Fields = dict[str, Any]
Edit = Callable[[Fields], object]
SAMPLES = 800
INT8, FP32 = 0, 1


def figures(**changes: Any) -> Fields:
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


def exact() -> Fields:
    edits = {"substitutions": 0, "deletions": 0, "insertions": 0, "letters": 4000}
    scores = {"top1": 84.0, "top4": 90.0}
    return figures(
        max_abs_delta=1e-5, mean_abs_delta=1e-6, greedy_agreement=1.0, greedy_edits=edits,
        agreement={"frames": 1.0, "decisive": 1.0, "blank_drift": 0.0}, scores=scores,
        cost=figures()["cost"] | {"drop": 0.0, "spread": 0.0},
    )  # fmt: skip


def rung(name: str, size: int, figures: Fields, *, taken: bool) -> Fields:
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


def claims() -> Fields:
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
        rung("int8", 100, figures(), taken=True), rung("fp32", 400, exact(), taken=False)
    ]  # fmt: skip
    entry = {"format": "onnx", "view": "baked", "build": 0, "rungs": rungs}
    return {
        "builds": [build], "source": source, "accuracy_budget": 0.5, "views": [], "formats": [entry]
    }  # fmt: skip


def as_model(fields: Fields, outputs: str = "ctc", metric: str | None = "exact") -> None:
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
    recipe_of(fields).update(views=["model"], asked={"factory": "mine:made"})
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


def rung_of(fields: Fields, rung: int = INT8) -> Fields:
    found: Fields = fields["formats"][0]["rungs"][rung]
    return found


def verdict_of(fields: Fields, rung: int = INT8) -> Fields:
    found: Fields = rung_of(fields, rung)["verdict"]
    return found


def metrics_of(fields: Fields, rung: int = INT8) -> Fields:
    found: Fields = verdict_of(fields, rung)["metrics"]
    return found


def recipe_of(fields: Fields) -> Fields:
    found: Fields = fields["builds"][0]["recipe"]
    return found


def as_coreml(fields: Fields, level: str, platform: str) -> None:
    fields["builds"][0]["platform"] = platform
    recipe_of(fields)["formats"] = ["coreml"]
    fields["formats"][0]["format"] = "coreml"
    for rung in fields["formats"][0]["rungs"]:
        rung["file"] = rung["file"].replace(".onnx", ".mlpackage")
        rung["verdict"]["level"] = level


def removed(rung: Fields, **verdict: Any) -> None:
    """What becomes of a rung that is not kept."""
    rung.update(taken=False, file=None, sha256=None)
    rung["verdict"].update({"status": "FAIL", "reasons": ["no"]} | verdict)


def fallen_back(fields: Fields) -> None:
    """Every quantized rung was refused, each for something else; float was never timed."""
    rungs = [rung(name, 500, figures(), taken=False) for name in ("int8-weights", "fp16-weights")]
    fields["formats"][0]["rungs"][1:1] = rungs
    worse = figures()["cost"] | {"drop": 1.0, "bound": 1.125}
    scores = {"top1": 83.0, "top4": 90.0}
    removed(rung_of(fields), metrics=figures(scores=scores, cost=worse))
    removed(rungs[0], metrics=None)
    removed(rungs[1], metrics=None, level="structural")
    fields["formats"][0]["rungs"][-1].update(taken=True, speed=None)
    rung_of(fields)["speed"] = None
    recipe_of(fields)["policy"].update(require_faster=True)


def float_alone(fields: Fields) -> None:
    del fields["formats"][0]["rungs"][INT8]
    rung_of(fields).update(taken=True)
    recipe_of(fields)["policy"].update(quantize=False)


def with_a_view_that_spells(fields: Fields) -> None:
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
    recipe_of(fields)["views"].append("text")


def partly_right(fields: Fields) -> None:
    """A metric may give a sample a part of a point."""
    as_model(fields)
    for rung, score in ((INT8, 83.7), (FP32, 83.95)):
        metrics_of(fields, rung)["scores"].update(exact=score)
        metrics_of(fields, rung)["reference_scores"].update(exact=83.95)
