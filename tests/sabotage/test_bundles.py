"""Bundles altered in every way we could think of: each is refused, and by the gate meant for it.

Each edit of the manifest is tried as it is, which its hash over itself gives away, and hashed again
as a forger would, when the edit itself has to contradict something.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from exporter.manifest import FILE, PAGE, REPORT, SEAL, digest_of, read_manifest
from exporter.report import write_report
from exporter.targets import find_target
from exporter.verification import Finding, Gate, Outcome, verify
from exporter.views import BAKED, TEXT
from swipe.errors import GateError
from swipe.files import sha256_file, size_bytes
from train.checkpoint import load_checkpoint

pytestmark = pytest.mark.slow
Edit = Callable[[dict[str, Any]], object]


@pytest.fixture
def bundle(published: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(published, tmp_path / "bundle"))


def _verify(bundle: Path, *, deep: bool = False, lexicon: str | None = None) -> list[Finding]:
    return verify(bundle, deep=deep, lexicon=lexicon, say=lambda line: None)


def _refused(bundle: Path, *, deep: bool = False) -> set[Gate]:
    return {f.gate for f in _verify(bundle, deep=deep) if f.outcome is Outcome.REFUSED}


def _edit(bundle: Path, edit: Edit, *, hashed_again: bool) -> None:
    fields = json.loads((bundle / FILE).read_text())
    seal = fields.pop(SEAL)
    edit(fields)
    fields[SEAL] = digest_of(fields) if hashed_again else seal
    (bundle / FILE).write_text(json.dumps(fields, indent=2))
    if hashed_again:
        with contextlib.suppress(GateError, KeyError):  # what cannot be reported is refused as well
            write_report(read_manifest(bundle)[0], bundle)


def _rung(fields: dict[str, Any], entry: int = 0) -> dict[str, Any]:
    rung: dict[str, Any] = fields["formats"][entry]["rungs"][0]
    return rung


def _unexecuted(rung: dict[str, Any]) -> None:
    rung["verdict"] = {
        "status": "UNVERIFIED", "level": "structural", "reasons": ["lost"], "metrics": None,
    }  # fmt: skip


def _figures(fields: dict[str, Any]) -> dict[str, Any]:
    figures: dict[str, Any] = _rung(fields)["verdict"]["metrics"]
    return figures


def _without_agreement(fields: dict[str, Any]) -> None:
    missing = ("agreement", "greedy_agreement", "greedy_edits", "word_agreement")
    for figures in _all_figures(fields):
        figures.update(dict.fromkeys(missing))


def _without_top4(fields: dict[str, Any]) -> None:
    for figures in _all_figures(fields):
        del figures["scores"]["top4"], figures["reference_scores"]["top4"]


def _all_figures(fields: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Those of every rung: where all are edited alike, none tells of another."""
    for entry in fields["formats"]:
        for rung in entry["rungs"]:
            yield rung["verdict"]["metrics"]


def _failed(fields: dict[str, Any]) -> dict[str, Any]:
    """A verdict that no limit contradicts."""
    _rung(fields)["verdict"].update(status="FAIL", reasons=["it is bad"])
    return fields


def _worse(rung: dict[str, Any], points: float) -> None:
    metrics = rung["verdict"]["metrics"]
    metrics["scores"]["top1"] -= points
    metrics["cost"]["drop"] += points


EDITS: dict[str, tuple[Edit, set[Gate]]] = {
    "verdict FAIL, and shipped": (
        lambda m: _rung(m)["verdict"].update(status="FAIL", reasons=["it is bad"]),
        {Gate.RUNGS},
    ),
    "verdict without its reasons": (
        lambda m: _rung(m)["verdict"].update(status="UNVERIFIED"),
        {Gate.VERDICTS},
    ),
    "never executed": (lambda m: _unexecuted(_rung(m)), {Gate.VERDICTS}),
    "PASS without figures": (
        lambda m: _rung(m)["verdict"].update(metrics=None),
        {Gate.VERDICTS},
    ),
    "executed on a phone": (lambda m: _rung(m)["verdict"].update(level="device"), {Gate.VERDICTS}),
    "PASS at the structural level": (
        lambda m: _rung(m)["verdict"].update(level="structural"),
        {Gate.VERDICTS},
    ),
    "PASS above its limits": (
        lambda m: _rung(m)["verdict"]["metrics"].update(max_abs_delta=0.5),
        {Gate.VERDICTS},
    ),
    "PASS with a NaN figure": (
        lambda m: _rung(m)["verdict"]["metrics"].update(max_abs_delta=float("nan")),
        {Gate.VERDICTS, Gate.FIGURES},
    ),
    "rung renamed": (
        lambda m: _rung(m).update(rung="int8"),
        {Gate.RUNGS, Gate.VERDICTS, Gate.FACTS},
    ),
    "rung of another version": (lambda m: _rung(m).update(rung="int2"), {Gate.RUNGS}),
    "nothing to ship": (
        lambda m: _rung(m).update(taken=False),
        {Gate.RUNGS, Gate.REPORT},
    ),
    "a bound that does not follow": (
        lambda m: _rung(m)["verdict"]["metrics"]["cost"].update(bound=0.01),
        {Gate.FIGURES},
    ),
    "figures torn out": (
        lambda m: _rung(m)["verdict"]["metrics"].pop("max_abs_delta"),
        {Gate.FIGURES, Gate.REPORT},
    ),
    "a spread that is NaN": (
        lambda m: _rung(m)["verdict"]["metrics"]["cost"].update(spread=float("nan")),
        {Gate.VERDICTS, Gate.FIGURES},
    ),
    "the same entry twice": (lambda m: m["formats"].append(m["formats"][0]), {Gate.RUNGS}),
    "of a build that is not there": (lambda m: m["formats"][0].update(build=4), {Gate.RUNGS}),
    "size": (lambda m: _rung(m).update(size_bytes=1000), {Gate.RUNGS, Gate.SIZE}),
    "size, twice": (
        lambda m: (_rung(m).update(size_bytes=9), _rung(m)["facts"].update(size_bytes=9)),
        {Gate.SIZE, Gate.FACTS},
    ),
    "minimum runtime": (
        lambda m: _rung(m)["facts"].update(minimum_runtime={"onnxruntime": "1.2"}),
        {Gate.FACTS},
    ),
    "accuracy": (
        lambda m: _rung(m)["verdict"]["metrics"]["scores"].update(top1=99.25),
        {Gate.FIGURES},
    ),
    "accuracy of PyTorch in one place": (
        lambda m: _rung(m)["verdict"]["metrics"]["reference_scores"].update(top4=3.0),
        {Gate.FIGURES},
    ),
    "agreement above all": (
        lambda m: _rung(m)["verdict"]["metrics"].update(word_agreement=1.01),
        {Gate.FIGURES},
    ),
    "no word of agreement": (_without_agreement, {Gate.FIGURES}),
    "agreement of more than all decisions": (
        lambda m: _figures(m)["agreement"].update(frames=7.0, decisive=9.0),
        {Gate.FIGURES},
    ),
    "more blanks than frames": (
        lambda m: _figures(_failed(m))["agreement"].update(blank_drift=-3.0),
        {Gate.FIGURES, Gate.RUNGS},
    ),
    "closer than equal": (lambda m: _figures(m).update(max_abs_delta=-1.0), {Gate.FIGURES}),
    "closer than equal on average": (
        lambda m: _figures(m).update(mean_abs_delta=-1e-9),
        {Gate.FIGURES},
    ),
    "a mean above the largest": (
        lambda m: _figures(m).update(mean_abs_delta=0.25),
        {Gate.FIGURES},
    ),
    "fewer edits than none": (
        lambda m: _figures(m)["greedy_edits"].update(substitutions=-2),
        {Gate.FIGURES},
    ),
    "edits of equal strings": (
        lambda m: _figures(m)["greedy_edits"].update(substitutions=3),
        {Gate.FIGURES},
    ),
    "without a score": (_without_top4, {Gate.FIGURES}),
    "a rounding error that excuses everything": (
        lambda m: m["source"].update(reference_rounding=1e9),
        {Gate.FIGURES},
    ),
    "a rounding error below none": (
        lambda m: m["source"].update(reference_rounding=-1e-5),
        {Gate.FIGURES},
    ),
    "judged on fewer swipes": (
        lambda m: _rung(m)["verdict"]["metrics"].update(samples=99),
        {Gate.FIGURES},
    ),
    "contract id": (lambda m: m["source"].update(contract_id="0" * 16), {Gate.CONTRACT}),
    "contract": (lambda m: m["source"]["contract"].update(layout="dvorak"), {Gate.CONTRACT}),
    "an input's shape": (
        lambda m: m["views"][0]["inputs"][0].update(shape=[1, 2, 65]),
        {Gate.VIEWS},
    ),
    "weights": (lambda m: m["source"].update(weights_sha256="0" * 64), {Gate.WEIGHTS}),
    "steps": (lambda m: m["source"].update(checkpoint_step=1), {Gate.CHECKPOINT}),
    "training data": (lambda m: m["source"]["trained_on"].update(train="x"), {Gate.CHECKPOINT}),
    "budget": (lambda m: m.update(accuracy_budget=50.0), {Gate.RECIPE}),
    "quantized after all": (
        lambda m: m["builds"][0]["recipe"]["policy"].update(quantise=True),
        {Gate.RECIPE},
    ),
    "decoder": (lambda m: m["source"]["decoder"].update(lam=9.0), {Gate.DECODER}),
    "number of swipes": (
        lambda m: m["source"].update(verification_samples=50),
        {Gate.SWIPES, Gate.FIGURES},
    ),
}


@pytest.mark.parametrize("name", EDITS)
def test_an_edited_manifest_is_refused(bundle: Path, name: str) -> None:
    edit, gates = EDITS[name]
    original = (bundle / FILE).read_bytes()
    _edit(bundle, edit, hashed_again=True)
    assert _refused(bundle) == gates
    (bundle / FILE).write_bytes(original)
    _edit(bundle, edit, hashed_again=False)
    assert Gate.SEAL in _refused(bundle)


def test_an_edit_that_nothing_contradicts_is_noticed_by_the_hash(bundle: Path) -> None:
    _edit(bundle, lambda m: m["source"].update(calibration_sha256="0" * 64), hashed_again=False)
    assert _refused(bundle) == {Gate.SEAL}


def test_figures_that_fit_each_other_are_refused_by_execution(bundle: Path) -> None:
    """Four points worse than it is, everywhere: nothing but running it tells."""

    def edit(fields: dict[str, Any]) -> None:
        _worse(_rung(fields), 4.0)
        _rung(fields)["verdict"].update(status="UNVERIFIED", reasons=["who knows"])

    _edit(bundle, edit, hashed_again=True)
    assert _refused(bundle) == {Gate.FIGURES}  # its bound does not follow

    def follow(fields: dict[str, Any]) -> None:
        cost = _rung(fields)["verdict"]["metrics"]["cost"]
        cost["bound"] = cost["drop"] + cost["spread"]

    _edit(bundle, follow, hashed_again=True)
    assert _refused(bundle) == set()
    assert _refused(bundle, deep=True) == {Gate.EXECUTION}


def test_a_later_schema_is_refused_by_name(bundle: Path) -> None:
    fields = json.loads((bundle / FILE).read_text())
    later = fields | {"schema_name": "swipe-export/bundle/99", "surprise": 1}
    (bundle / FILE).write_text(json.dumps(later))
    (finding,) = _verify(bundle)
    assert (finding.gate, finding.outcome) == (Gate.SCHEMA, Outcome.REFUSED)
    assert "swipe-export/bundle/99" in finding.detail


@pytest.mark.parametrize("text", ["", "[]", '{"schema_name": ', "null"])
def test_what_is_no_manifest_is_refused(bundle: Path, text: str) -> None:
    (bundle / FILE).write_text(text)
    (finding,) = _verify(bundle)
    assert (finding.gate, finding.outcome) == (Gate.SCHEMA, Outcome.REFUSED)


def _mend(bundle: Path, name: str) -> None:
    """Let the manifest speak of the file called `name` as it is now."""
    path = bundle / name
    facts = json.loads(json.dumps(find_target("onnx").format().inspect(path)))

    def edit(fields: dict[str, Any]) -> None:
        for entry in fields["formats"]:
            for rung in entry["rungs"]:
                if rung["file"] == name:
                    rung.update(sha256=sha256_file(path), size_bytes=size_bytes(path), facts=facts)

    _edit(bundle, edit, hashed_again=True)


BAKED_FILE, AGNOSTIC_FILE = "model.fp32.onnx", "model-agnostic.fp32.onnx"


def test_artefacts_of_two_views_exchanged(bundle: Path) -> None:
    (bundle / BAKED_FILE).rename(bundle / "aside")
    (bundle / AGNOSTIC_FILE).rename(bundle / BAKED_FILE)
    (bundle / "aside").rename(bundle / AGNOSTIC_FILE)
    gates = {Gate.HASH, Gate.SIZE, Gate.METADATA, Gate.FACTS, Gate.SIGNATURE}
    assert _refused(bundle) == gates
    _mend(bundle, BAKED_FILE)
    _mend(bundle, AGNOSTIC_FILE)
    assert _refused(bundle) == {Gate.METADATA, Gate.SIGNATURE}


def test_an_artefact_whose_text_is_called_otherwise(published_all: Path, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(published_all, tmp_path / "bundle"))
    path = bundle / f"{TEXT.stem}.fp32.onnx"
    model = onnx.load(path)
    (writer,) = [node for node in model.graph.node if list(node.output) == ["text"]]
    writer.output[0] = model.graph.output[0].name = "word"
    path.write_bytes(model.SerializeToString(deterministic=True))
    _mend(bundle, path.name)
    assert _refused(bundle) == {Gate.SIGNATURE}


def test_the_artefact_of_another_model(bundle: Path, released: Path) -> None:
    base = load_checkpoint(released.with_name("base.safetensors"))
    with np.load(bundle / "verification.npz") as swipes:
        example = swipes["features"][:1]
    find_target("onnx").format().lower(BAKED.lowering(base, example, example), bundle / BAKED_FILE)
    assert {Gate.HASH, Gate.SIZE, Gate.METADATA} <= _refused(bundle)
    _mend(bundle, BAKED_FILE)
    assert _refused(bundle) == {Gate.METADATA}


def test_the_checkpoint_of_another_model(bundle: Path, released: Path) -> None:
    shutil.copyfile(released.with_name("base.safetensors"), bundle / "checkpoint.safetensors")
    gates = {Gate.CHECKPOINT, Gate.WEIGHTS, Gate.METADATA}
    assert _refused(bundle) == gates
    _edit(
        bundle,
        lambda m: m["source"].update(
            weights_sha256=load_checkpoint(bundle / "checkpoint.safetensors").weights_sha256
        ),
        hashed_again=True,
    )
    assert _refused(bundle) == {Gate.CHECKPOINT, Gate.METADATA}


def test_a_stale_artefact_that_claims_the_right_weights(bundle: Path) -> None:
    path = bundle / BAKED_FILE
    model = onnx.load(path)
    largest = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    values = onnx.numpy_helper.to_array(largest)
    largest.CopyFrom(onnx.numpy_helper.from_array(values * np.float32(0.5), largest.name))
    path.write_bytes(model.SerializeToString(deterministic=True))
    assert _refused(bundle) == {Gate.HASH}
    _mend(bundle, BAKED_FILE)
    assert _refused(bundle) == set()
    findings = _verify(bundle, deep=True)
    (refused,) = [f for f in findings if f.outcome is Outcome.REFUSED]
    assert (refused.gate, refused.about) == (Gate.EXECUTION, BAKED_FILE)
    assert refused.detail.startswith("FAIL")


@pytest.mark.parametrize("name", [BAKED_FILE, AGNOSTIC_FILE])
def test_a_truncated_artefact(bundle: Path, name: str) -> None:
    path = bundle / name
    path.write_bytes(path.read_bytes()[:-100])
    gates = {Gate.HASH, Gate.SIZE, Gate.METADATA, Gate.FACTS, Gate.SIGNATURE}
    assert _refused(bundle) == gates


def test_files_that_are_missing_or_too_many(bundle: Path) -> None:
    (bundle / "notes.txt").write_text("mine")
    assert _refused(bundle) == {Gate.FILES}
    (bundle / "notes.txt").unlink()
    (bundle / "bench.json").write_text("{}")  # swipe-bench writes it there
    assert _refused(bundle) == set()
    (bundle / BAKED_FILE).rename(bundle.parent / BAKED_FILE)
    assert _refused(bundle) == {Gate.FILES}
    (bundle / BAKED_FILE).symlink_to(bundle.parent / BAKED_FILE)
    assert _refused(bundle) == {Gate.FILES}


def test_an_artefact_outside_of_the_bundle(bundle: Path) -> None:
    (bundle / BAKED_FILE).rename(bundle.parent / BAKED_FILE)
    _edit(bundle, lambda m: _rung(m).update(file=f"../{BAKED_FILE}"), hashed_again=True)
    assert _refused(bundle) == {Gate.FILES, Gate.RUNGS}


def test_an_altered_report(bundle: Path) -> None:
    text = (bundle / REPORT).read_text()
    (bundle / REPORT).write_text(text.replace("PASS", "PERFECT"))
    assert _refused(bundle) == {Gate.REPORT}
    (bundle / REPORT).write_text(text)
    assert _refused(bundle) == set()
    page = (bundle / PAGE).read_text()
    (bundle / PAGE).write_text(page.replace("PASS", "PERFECT"))
    assert _refused(bundle) == {Gate.REPORT}


def test_an_altered_checkpoint(bundle: Path) -> None:
    path = bundle / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    assert _refused(bundle) == {Gate.CHECKPOINT}


def test_a_checkpoint_with_a_nan(bundle: Path) -> None:
    """In a file whose own digest agrees: written around the guard, not through it."""
    from safetensors.torch import save_file

    from train.sealed import digest as seal

    path = bundle / "checkpoint.safetensors"
    checkpoint = load_checkpoint(path)
    tensors = {name: tensor.clone() for name, tensor in checkpoint.tensors.items()}
    tensors["halve.conv.weight"][3, 2, 1] = float("nan")
    record = json.dumps(checkpoint.record(), sort_keys=True)
    save_file(tensors, path, {"record": record, "sha256": seal(record, tensors)})
    (refused,) = [f for f in _verify(bundle) if f.outcome is Outcome.REFUSED]
    assert refused.gate is Gate.CHECKPOINT
    assert "halve.conv.weight: 1 NaN" in refused.detail


def test_altered_verification_swipes(bundle: Path) -> None:
    path = bundle / "verification.npz"
    with np.load(path) as swipes:
        arrays = dict(swipes)
    arrays["words"] = arrays["words"][::-1]
    np.savez_compressed(path, **arrays)
    assert _refused(bundle) == {Gate.SWIPES}


def test_the_bench_refuses_an_edited_manifest_and_a_foreign_artefact(bundle: Path) -> None:
    from host_bench import bench_host

    from android_harness.interleaving import Plan

    plan = Plan(loads=1, warmup=1, blocks=1, block_calls=1)
    model = onnx.load(bundle / BAKED_FILE)
    for entry in model.metadata_props:
        if entry.key == "contract_id":
            entry.value = "0" * 16
    (bundle / BAKED_FILE).write_bytes(model.SerializeToString(deterministic=True))
    _mend(bundle, BAKED_FILE)
    with pytest.raises(GateError, match="carries contract_id '0000000000000000'"):
        bench_host(bundle, plan, 1, None, lambda line: None)
    _edit(bundle, lambda m: m["builds"][0].update(created="yesterday"), hashed_again=False)
    with pytest.raises(GateError, match="was edited"):
        bench_host(bundle, plan, 1, None, lambda line: None)
