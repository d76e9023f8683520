"""Bundles: one verdict for the whole folder, and the part that spoils it is named."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from exporter.inspection import BUNDLE
from exporter.manifest import (
    FILE,
    SEAL,
    FormatEntry,
    Manifest,
    RungEntry,
    SwipeSource,
    Verdict,
    digest_of,
    load_manifest,
)
from swipe.files import sha256_file, size_bytes
from train.checkpoint import load_checkpoint
from train.cleaning import plan_removals
from train.inspection.kinds import find_checkpoints, inspect_file, known_kinds
from train.inspection.verdict import Inspection

onnx = pytest.importorskip("onnx")

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The entry points of pyproject.toml, installed; returns the folder to put on a path."""
    points = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    info = tmp_path / "site" / "swipe_export-0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: swipe-export\nVersion: 0\n")
    (info / "entry_points.txt").write_text(
        "".join(
            f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in names.items())
            for group, names in points.items()
        )
    )
    monkeypatch.setattr(sys, "path", [str(info.parent), *sys.path])
    known_kinds.cache_clear()
    yield info.parent
    known_kinds.cache_clear()


def _onnx(path: Path, weight: float) -> None:
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["y"])],
        "main",
        [helper.make_tensor_value_info("x", kind, [2])],
        [helper.make_tensor_value_info("y", kind, [2])],
        [helper.make_tensor("w", kind, [2], [1.0, weight])],
    )
    opsets = [helper.make_opsetid("", 14)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=7), path)


def _rung(path: Path, *, taken: bool) -> RungEntry:
    return RungEntry(
        rung=path.stem,
        taken=taken,
        verdict=Verdict(status="PASS", level="host", reasons=(), metrics=None),
        file=path.name,
        size_bytes=size_bytes(path),
        sha256=sha256_file(path),
        facts={},
        seconds=1.0,
    )


def _write_manifest(folder: Path) -> None:
    checkpoint = load_checkpoint(folder / "checkpoint.safetensors")
    formats = {
        "onnx": [_rung(folder / "int8.onnx", taken=True), _rung(folder / "fp32.onnx", taken=False)],
        "executorch": [_rung(folder / "fp32.pte", taken=True)],
        "coreml": [_rung(folder / "fp16.mlpackage", taken=True)],
    }
    Manifest(
        builds=(),
        source=SwipeSource(
            checkpoint_step=checkpoint.step,
            weights_sha256=checkpoint.weights_sha256,
            contract_id=checkpoint.contract.contract_id,
            contract={},
            parameters=1,
            trained_on={},
            samples="synthetic",
            calibration_samples=1,
            calibration_sha256="-",
            verification_samples=1,
            verification_sha256=sha256_file(folder / "verification.npz"),
            lexicon="wordfreq",
            lexicon_sha256="-",
            decoder={},
            reference_rounding=0.0,
        ),
        accuracy_budget=1.0,
        views=(),
        formats=tuple(
            FormatEntry(format=name, view="baked", build=0, rungs=tuple(rungs))
            for name, rungs in formats.items()
        ),
    ).save(folder)


@pytest.fixture
def bundle(tmp_path: Path, released: Path) -> Path:
    """A bundle of the released checkpoint, its artefacts stand-ins of a few bytes."""
    folder = tmp_path / "work" / "bundle"
    folder.mkdir(parents=True)
    shutil.copyfile(released, folder / "checkpoint.safetensors")
    np.savez(folder / "verification.npz", features=np.zeros(3))
    _onnx(folder / "int8.onnx", 2.0)
    _onnx(folder / "fp32.onnx", 3.0)
    (folder / "fp32.pte").write_bytes(b"program")
    (folder / "fp16.mlpackage" / "Data").mkdir(parents=True)
    (folder / "fp16.mlpackage" / "Data" / "weights.bin").write_bytes(b"weights")
    (folder / "report.md").write_text("report")
    _write_manifest(folder)
    return folder


def test_a_sound_bundle_is_valid_as_one_thing(bundle: Path) -> None:
    found = inspect_file(bundle, stats=True)
    assert (found.verdict, found.warnings) == ("VALID", ())
    assert found.tensors == 67
    assert found.sha256 == load_manifest(bundle).source.weights_sha256
    names = {row.name for row in found.stats}
    assert {"checkpoint.safetensors: query.weight", "int8.onnx: w"} <= names
    assert find_checkpoints(bundle.parent) == [bundle]
    assert find_checkpoints(bundle) == [bundle]


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


DAMAGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "torn artefact": (
        lambda b: (b / "fp32.pte").write_bytes(b"prog"),
        "fp32.pte: 4 bytes, and manifest.json says 7",
    ),
    "flipped artefact": (
        lambda b: _flip(b / "fp32.pte"), "fp32.pte: its hash is not the one in manifest.json"
    ),
    "flipped inside a folder": (
        lambda b: _flip(b / "fp16.mlpackage" / "Data" / "weights.bin"),
        "fp16.mlpackage: its hash is not the one in manifest.json",
    ),
    "emptied folder": (
        lambda b: shutil.rmtree(b / "fp16.mlpackage" / "Data"),
        "fp16.mlpackage: 0 bytes, and manifest.json says 7",
    ),
    "absent artefact": (lambda b: (b / "fp32.onnx").unlink(), "fp32.onnx: it is not there"),
    "absent checkpoint": (
        lambda b: (b / "checkpoint.safetensors").unlink(),
        "checkpoint.safetensors: it is not there",
    ),
    "flipped checkpoint": (
        lambda b: _flip(b / "checkpoint.safetensors"),
        "checkpoint.safetensors: it was altered after it was written",
    ),
    "flipped swipes": (
        lambda b: _flip(b / "verification.npz"),
        "verification.npz: its hash is not the one in manifest.json",
    ),
    "torn manifest": (
        lambda b: (b / FILE).write_text((b / FILE).read_text()[:300]),
        "is not a manifest this version can read",
    ),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_invalid_and_names_the_part(bundle: Path, damage: str) -> None:
    harm, reason = DAMAGES[damage]
    harm(bundle)
    found = inspect_file(bundle)
    assert found.verdict == "INVALID"
    assert any(reason in r for r in found.reasons), found.reasons


def test_an_artefact_that_was_nan_when_it_was_hashed_is_invalid(bundle: Path) -> None:
    """A hash proves that a file is unaltered, not that it was ever any good."""
    _onnx(bundle / "int8.onnx", float("nan"))
    _write_manifest(bundle)
    assert inspect_file(bundle).reasons == (
        "int8.onnx: not finite: w: 1 NaN and 0 Inf of 2 values",
    )


def test_weights_of_another_model_are_invalid(bundle: Path) -> None:
    path = bundle / "checkpoint.safetensors"
    save_file({n: t + 1 if t.is_floating_point() else t for n, t in load_file(path).items()}, path)
    (reason,) = inspect_file(bundle).reasons
    assert reason == "checkpoint.safetensors: not the weights that manifest.json speaks of"


def _edit(bundle: Path, edit: Callable[[dict[str, Any]], None]) -> Inspection:
    fields = json.loads((bundle / FILE).read_text())
    del fields[SEAL]
    edit(fields)
    (bundle / FILE).write_text(json.dumps({**fields, SEAL: digest_of(fields)}))
    return inspect_file(bundle)


def test_a_manifest_that_points_out_of_the_bundle_is_invalid(bundle: Path) -> None:
    (bundle.parent / "secret.onnx").write_bytes(b"-")

    def point_out(fields: dict[str, Any]) -> None:
        fields["formats"][0]["rungs"][1]["file"] = "../secret.onnx"

    assert "../secret.onnx: lies outside the bundle" in _edit(bundle, point_out).reasons


def test_a_manifest_without_anything_to_ship_is_invalid(bundle: Path) -> None:
    def nothing(fields: dict[str, Any]) -> None:
        fields["formats"][0]["rungs"][0]["taken"] = False

    assert _edit(bundle, nothing).reasons == (
        "manifest.json: onnx baked has 0 artefacts to ship, not one",
    )


def test_a_failed_artefact_that_is_to_be_shipped_is_invalid(bundle: Path) -> None:
    def failed(fields: dict[str, Any]) -> None:
        fields["formats"][1]["rungs"][0]["verdict"]["status"] = "FAIL"

    assert "although its verdict is FAIL" in _edit(bundle, failed).reasons[0]


def test_files_that_the_manifest_does_not_name_are_mentioned(bundle: Path) -> None:
    save_file({"w": torch.ones(2)}, bundle / "mine.safetensors")
    found = inspect_file(bundle)
    assert found.valid
    assert found.warnings == ("manifest.json does not speak of mine.safetensors",)


def test_without_onnx_a_bundle_is_unchecked_unless_something_else_is_wrong(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    found = inspect_file(bundle)
    assert (found.verdict, found.missing) == ("UNCHECKED", True)
    assert "int8.onnx: onnx cannot be imported" in found.unchecked
    assert found.mend == "pip install 'swipe-export[onnx]'"
    _flip(bundle / "fp32.pte")
    assert inspect_file(bundle).verdict == "INVALID"


def test_clean_leaves_a_broken_bundle_whole(bundle: Path) -> None:
    _flip(bundle / "checkpoint.safetensors")
    (bundle.parent / "torn.safetensors").write_bytes(b"torn")
    plan = plan_removals(bundle.parent)
    assert [f.path.name for f in plan.removals] == ["torn.safetensors"]
    (left,) = plan.left
    assert left.path == bundle
    assert "INVALID: checkpoint.safetensors: it was altered" in left.reason


def test_a_manifest_of_somebody_else_makes_no_bundle(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text('{"name": "a web page"}')
    save_file({"w": torch.ones(2)}, tmp_path / "w.safetensors")
    assert not BUNDLE.claims(tmp_path)
    assert find_checkpoints(tmp_path) == [tmp_path / "w.safetensors"]


@pytest.mark.slow
def test_the_command_finds_bundles_and_loose_files(bundle: Path, registered: Path) -> None:
    _onnx(bundle.parent / "loose.onnx", float("nan"))
    paths = [str(registered), str(ROOT)]
    code = f"import sys; sys.path[:0] = {paths}; from train.cli import main; main()"
    command = [sys.executable, "-P", "-c", code, "check", "--json", "--all", str(bundle.parent)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 3, done.stderr
    rows = {Path(row["path"]).name: row["verdict"] for row in json.loads(done.stdout)}
    assert rows == {"bundle": "VALID", "loose.onnx": "INVALID"}
