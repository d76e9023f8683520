"""Bundles: published whole or not at all, and refused when altered."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from exporter.bundle import Request, export
from exporter.cache import default_folder
from exporter.formats import onnx as onnx_format
from exporter.manifest import BENCH, FILE, load_manifest, require_unaltered
from exporter.origins.requests import SwipeRequest
from exporter.policy import Policy
from exporter.targets import find_target, require_libraries
from exporter.verification import Outcome, verify
from exporter.views import AGNOSTIC, BAKED, POINTS, View, find_view
from swipe.errors import GateError, MissingError, UsageError
from swipe.files import sha256_file


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, released: Path) -> Path:
    """An ONNX bundle of the released nano model, judged on synthetic swipes."""
    out = tmp_path_factory.mktemp("bundles") / "bundle"
    export(_request(released, out), say=lambda line: None)
    return out


def _request(checkpoint: Path, out: Path, *views: View) -> Request:
    return Request(
        targets=(find_target("onnx"),),
        model=SwipeRequest(
            checkpoint,
            tuple(view.name for view in views or (BAKED,)),
            data="synthetic:1500",
            lexicon="wordfreq:20000",
            samples=300,
        ),
        out=out,
        policy=Policy(budget=5.0),
    )


def _quick(checkpoint: Path, out: Path, *views: View) -> Request:
    """Float ONNX, judged as the bundle `published` is."""
    names = tuple(view.name for view in views or (BAKED,))
    model = SwipeRequest(checkpoint, names, "synthetic:600", "wordfreq:5000", 100)
    policy = Policy(quantize=False)
    return Request((find_target("onnx"),), model, out, policy, default_folder())


@pytest.mark.slow
def test_a_bundle_holds_what_its_manifest_says(bundle: Path) -> None:
    manifest = load_manifest(bundle)
    (entry,) = manifest.formats
    assert entry.taken.rung == "int8"
    assert entry.taken.verdict.status == "PASS"
    files = {rung.file for rung in entry.rungs} | {
        FILE, "report.md", "report.html", "checkpoint.safetensors", "verification.npz",
    }  # fmt: skip
    assert {p.name for p in bundle.iterdir()} == files
    assert "synthetic" in (bundle / "report.md").read_text()
    assert manifest.builds[0].versions["onnx"]
    for rung in entry.rungs:
        require_unaltered(bundle, rung)


@pytest.mark.slow
def test_an_artefact_that_changed_is_refused(bundle: Path) -> None:
    rung = load_manifest(bundle).formats[0].rungs[0]
    path = bundle / str(rung.file)
    original = path.read_bytes()
    path.write_bytes(original + b" ")
    try:
        with pytest.raises(GateError, match="is not the artefact"):
            require_unaltered(bundle, rung)
    finally:
        path.write_bytes(original)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"schema_name": "swipe-export/bundle/99"}, "has schema"),
        ({"formats": "all of them"}, "not a manifest"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_a_manifest_of_another_shape_is_refused(
    bundle: Path, tmp_path: Path, change: dict[str, object], reason: str
) -> None:
    fields = json.loads((bundle / FILE).read_text())
    (tmp_path / FILE).write_text(json.dumps(fields | change))
    with pytest.raises(GateError, match=reason):
        load_manifest(tmp_path)


@pytest.mark.slow
def test_the_same_model_exports_to_the_same_bytes(
    bundle: Path, tmp_path: Path, released: Path
) -> None:
    again = export(_request(released, tmp_path / "again"), say=lambda line: None)
    first = load_manifest(bundle)
    assert [r.sha256 for r in again.formats[0].rungs] == [r.sha256 for r in first.formats[0].rungs]


@pytest.mark.slow
def test_a_refused_export_leaves_the_earlier_bundle(bundle: Path, tmp_path: Path) -> None:
    before = sha256_file(bundle)
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes((bundle / "checkpoint.safetensors").read_bytes()[:-10])
    with pytest.raises(GateError):
        export(_request(damaged, bundle), say=lambda line: None)
    assert sha256_file(bundle) == before
    assert [p.name for p in bundle.parent.iterdir()] == [bundle.name]


def test_a_folder_that_is_no_bundle_is_never_replaced(tmp_path: Path, released: Path) -> None:
    precious = tmp_path / "photos"
    precious.mkdir()
    (precious / "cat.jpg").write_text("meow")
    with pytest.raises(UsageError, match="is not a bundle"):
        export(_request(released, precious), say=lambda line: None)
    assert (precious / "cat.jpg").read_text() == "meow"


@pytest.mark.parametrize("text", ['{"name": "a web app", "icons": []}', "", "no JSON"])
def test_a_folder_whose_manifest_is_of_something_else_is_never_replaced(
    tmp_path: Path, released: Path, text: str
) -> None:
    webapp = tmp_path / "webapp"
    webapp.mkdir()
    (webapp / FILE).write_text(text)
    (webapp / "index.html").write_text("<p>")
    with pytest.raises(UsageError, match="is not a bundle"):
        export(_quick(released, webapp), say=lambda line: None)
    assert {path.name for path in webapp.iterdir()} == {FILE, "index.html"}
    assert [path.name for path in tmp_path.iterdir()] == ["webapp"]


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["", "cut off", "no artefact"])
def test_measurements_outlive_another_export(
    published: Path, tmp_path: Path, released: Path, damage: str
) -> None:
    out = tmp_path / "bundle"
    shutil.copytree(published, out)
    (out / BENCH).write_text("an hour on a phone")
    if damage == "cut off":
        (out / FILE).write_text((out / FILE).read_text()[:200])
    elif damage:
        (out / "model.fp32.onnx").unlink()
    export(_quick(released, out), say=lambda line: None)
    assert (out / BENCH).read_text() == "an hour on a phone"
    load_manifest(out)


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path, released: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot write"):
        export(_request(released, tmp_path / "file" / "bundle"), say=lambda line: None)


def test_no_bundle_says_how_to_build_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no bundle") as caught:
        load_manifest(tmp_path)
    assert "swipe-export all" in caught.value.fix


def test_a_missing_library_is_named_before_anything_is_built(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    present = __import__("importlib.util").util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name == "coremltools" else present(name)
    )
    with pytest.raises(MissingError, match="not installed: coremltools") as caught:
        require_libraries(tuple(find_target(n) for n in ("onnx", "coreml")))
    assert "swipe-export[coreml]" in caught.value.fix
    assert "swipe-export onnx" in caught.value.fix


@pytest.mark.slow
def test_a_view_is_added_to_the_bundle_and_described(
    bundle: Path, tmp_path: Path, released: Path
) -> None:
    out = tmp_path / "bundle"
    shutil.copytree(bundle, out)
    manifest = export(_request(released, out, AGNOSTIC), say=lambda line: None)
    assert load_manifest(out) == manifest
    assert {entry.view for entry in manifest.formats} == {"baked", "agnostic"}
    files = [str(entry.taken.file) for entry in manifest.formats]
    assert sorted(files) == ["model-agnostic.int8.onnx", "model.int8.onnx"]
    described = {view.name: view for view in manifest.views}["agnostic"]
    assert [(tensor.name, tensor.shape) for tensor in described.inputs] == [
        ("features", (1, 2, 64)), ("layout_keys", (1, 64, 2)), ("layout_mask", (1, 64)),
    ]  # fmt: skip
    assert (described.output.name, described.output.shape) == ("log_emissions", (1, 32, 65))
    assert "1 = the slot holds a key" in (out / "report.md").read_text()
    embedded = onnx_format.metadata(out / "model-agnostic.int8.onnx")
    assert {"contract_id": embedded["contract_id"]} == manifest.source.identity
    assert embedded["layout_mask"] == described.inputs[2].meaning


@pytest.mark.slow
def test_a_missing_artefact_drops_what_was_there_and_leaves_nothing_of_it(
    published: Path, tmp_path: Path, released: Path
) -> None:
    out = tmp_path / "bundle"
    shutil.copytree(published, out)
    (out / "model-agnostic.fp32.onnx").unlink()
    said: list[str] = []
    manifest = export(_quick(released, out, POINTS), said.append)
    assert [entry.view for entry in manifest.formats] == ["points"]
    dropped = [line for line in said if line.startswith("not kept of the earlier bundle")]
    assert [line.split(": ")[1] for line in dropped] == ["onnx baked", "onnx agnostic"]
    assert "model-agnostic.fp32.onnx is not the artefact" in dropped[0]
    findings = verify(out, deep=False, lexicon=None, say=lambda line: None)
    assert [found for found in findings if found.outcome is Outcome.REFUSED] == []


def test_an_unknown_view_names_the_known_ones() -> None:
    with pytest.raises(UsageError) as caught:
        find_view("baked-in")
    assert "baked, agnostic" in caught.value.fix


def test_an_unknown_format_names_the_known_ones() -> None:
    with pytest.raises(UsageError) as caught:
        find_target("tflite")
    assert "executorch" in caught.value.fix
