"""The whole chain as a user runs it: real swipes -> checkpoint -> bundle -> bench."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest

from android_harness.results import load_results
from exporter.manifest import SwipeSource, load_manifest
from swipe.files import sha256_file
from train.checkpoint import load_checkpoint
from train.released import released

SWIPES = 2000


def _run(folder: Path, module: str, *arguments: str, expect: int = 0) -> str:
    """Run a console script's module in `folder`; returns what it printed."""
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == expect, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_real_swipes_to_a_measured_bundle(shared_data: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "swipes.jsonl"
    with gzip.open(shared_data / "how_we_swipe" / "train.jsonl.gz", "rt") as rows:
        corpus.write_text("".join(islice(rows, SWIPES)) + "{broken\n")

    fitted = _run(
        tmp_path, "train.cli", "fit", "--data", str(corpus), "--steps", "600",
        "--set", "data.dev_share=0.3", "--set", "optimizer.batch_size=128",
        "--set", "evaluation.times=2",
    )  # fmt: skip
    assert "1 rows quarantined" in fitted
    assert "0 skipped as not finite" in fitted
    run = tmp_path / "runs" / "latest"
    assert json.loads((run / "quarantine.jsonl").read_text())["row"] == SWIPES + 1
    assert json.loads((run / "best.json").read_text())["metrics"]["beam"]["strict"]["n"] > 100

    figures = tmp_path / "eval.json"
    _run(tmp_path, "train.cli", "eval", "--json", str(figures))
    assert json.loads(figures.read_text())["beam"]["strict"]["top_k"]["1"] >= 0

    exported = _run(tmp_path, "exporter.cli", "all", "--quantize")
    assert "int8" in exported
    bundle = tmp_path / "bundle"
    manifest = load_manifest(bundle)
    assert [(entry.view, entry.format) for entry in manifest.formats] == [
        (view, name) for view in ("baked", "agnostic") for name in ("onnx", "executorch", "coreml")
    ]
    assert isinstance(manifest.source, SwipeSource)
    assert manifest.source.decoder["beam_width"] == 100
    for entry in manifest.formats:
        assert sum(rung.taken for rung in entry.rungs) == 1
        for rung in entry.rungs:
            if rung.file is not None:
                assert sha256_file(bundle / rung.file) == rung.sha256
        assert entry.taken.verdict.status == "PASS"
        float_rung = entry.rungs[-1].verdict.metrics
        assert float_rung is not None
        assert float_rung["max_abs_delta"] <= 1e-4
        assert float_rung["samples"] > 100

    table = _run(tmp_path, "android_harness.cli", "--blocks", "4")
    for name in ("pytorch eager", "onnx baked fp32", "executorch agnostic fp32"):
        assert name in table
    results = load_results(bundle / "bench.json")
    assert len(results.rows) >= 3
    for row in results.rows:
        assert row.verdict.status == "PASS"
        if row.format == "coreml" and sys.platform != "darwin":
            # The interpreter's time would say nothing about Core ML's.
            assert row.latency is None
            assert row.latency_ns == ()
            continue
        assert [len(samples) for samples in row.latency_ns] == [25] * 4
        assert row.latency is not None
        assert 0 < row.latency.p50_ms <= row.latency.p99_ms

    _a_refused_export_leaves_the_bundle(tmp_path, bundle)
    _an_exchanged_artefact_is_refused(tmp_path, bundle)


@pytest.mark.slow
def test_the_bench_alone_measures_the_released_model(tmp_path: Path) -> None:
    """Nothing was trained, exported or downloaded before."""
    printed = _run(tmp_path, "android_harness.cli", "--blocks", "1")
    assert "exporting it first" in printed
    weights = load_checkpoint(released("base")).weights_sha256
    assert load_manifest(tmp_path / "bundle").source.weights_sha256 == weights


def _a_refused_export_leaves_the_bundle(folder: Path, bundle: Path) -> None:
    before = sha256_file(bundle)
    checkpoint = (folder / "runs" / "latest" / "best.safetensors").read_bytes()
    (folder / "cut.safetensors").write_bytes(checkpoint[: len(checkpoint) // 2])
    _run(folder, "exporter.cli", "all", "--checkpoint", "cut.safetensors", expect=3)
    assert sha256_file(bundle) == before


def _an_exchanged_artefact_is_refused(folder: Path, bundle: Path) -> None:
    onnx = {rung.rung: rung.file for rung in load_manifest(bundle).formats[0].rungs if rung.file}
    artefact = bundle / next(iter(onnx.values()))
    artefact.write_bytes(artefact.read_bytes()[:-1] + b"\0")
    _run(folder, "android_harness.cli", expect=3)
