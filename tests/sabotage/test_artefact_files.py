"""Sabotaged artefacts against the export's gates: every kind, in every format it applies to.

`SABOTAGE` in artefact_table.py is the table. Each file goes up the ladder as any rung does, and the
case names the gate by its words. ONNX and ExecuTorch artefacts run in their own runtimes, Core ML
packages off macOS in the reference interpreter.

Elsewhere: calibration that leaks and axes that are fixed (test_evidence.py); another lexicon
(tests/exporter/test_gates.py); another checkpoint or other swipes under a bundle, and keyboards
(test_artefacts.py); padding that leaks (tests/exporter/test_proof.py); damage to a published bundle
(tests/exporter/test_inspection_bundle.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from artefact_surgery import altered, ready_target
from artefact_table import FORMATS, SABOTAGE, Case, Honest, Small, swapped_axes, weights
from torch import nn

from exporter.ladder import RungRecord, climb
from exporter.parity import Status
from exporter.policy import Policy
from exporter.subject import Subject
from exporter.targets import find_target
from exporter.views import BAKED
from exporter.words import Words
from swipe.decode import greedy
from swipe.errors import GateError
from swipe.features import feature_batch
from swipe.layout import load_layout
from swipe.lexicon import wordfreq_lexicon
from swipe.synthesis import synthesize
from train.checkpoint import load_checkpoint
from train.evaluate import predict

SWIPES = 30


@pytest.fixture(scope="module")
def honest(released: Path, tmp_path_factory: pytest.TempPathFactory) -> Honest:
    """What every case starts from; a format's artefacts are built by the first case that asks."""
    checkpoint = load_checkpoint(released)
    swipes = synthesize(load_layout("qwerty"), wordfreq_lexicon(2000), SWIPES, seed=5).gestures
    features = feature_batch(swipes)
    words = Words(
        [swipe.word for swipe in swipes],
        [swipe.writer for swipe in swipes],
        lambda logits: [[text] for text in greedy(logits)],
    )
    logits = predict(checkpoint.model(), checkpoint.contract, features)
    job = BAKED.lowering(checkpoint, features[:1], features[:8])
    evidence = BAKED.evidence(checkpoint, features, logits, words)
    return Honest(job, evidence, tmp_path_factory.mktemp("artefacts"))


CASES = [
    pytest.param(case, name, id=f"{case.kind}-{case.rung}-{name}")
    for name in FORMATS
    for case in SABOTAGE
    if name in case.says
]


def climbed(honest: Honest, name: str, files: Mapping[str, Path], folder: Path) -> list[RungRecord]:
    subject = Subject(BAKED.name, BAKED.stem, honest.job, honest.evidence)
    policy = Policy(quantize="int8" in files, budget=1.0, tune_minutes=0.0)
    return climb(ready_target(name, files), subject, folder, policy, lambda line: None)


@pytest.mark.slow
@pytest.mark.parametrize(("case", "name"), CASES)
def test_the_gate_refuses(honest: Honest, tmp_path: Path, case: Case, name: str) -> None:
    pytest.importorskip(FORMATS[name])
    broken = tmp_path / f"broken{find_target(name).suffix}"
    case.sabotage(honest, name, broken)
    folder = tmp_path / "bundle"
    folder.mkdir()
    if case.rung == "fp32":
        with pytest.raises(GateError, match=f"{name} baked fp32 was refused") as caught:
            climbed(honest, name, {"fp32": broken}, folder)
        assert case.says[name] in str(caught.value)
        assert not list(folder.iterdir())
        return
    files = {"fp32": honest.file(name, "fp32"), case.rung: broken}
    refused, fp32 = climbed(honest, name, files, folder)
    assert refused.verdict.status is Status.FAIL
    assert case.says[name] in "; ".join(refused.verdict.reasons)
    assert not refused.taken
    assert fp32.taken
    assert [path.stem for path in folder.iterdir()] == ["model.fp32"]


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_the_honest_pass_and_too_few_samples_are_unverified(
    honest: Honest, tmp_path: Path, name: str
) -> None:
    """Or else the refusals above say nothing about sabotage."""
    pytest.importorskip(FORMATS[name])
    files = {rung: honest.file(name, rung) for rung in ("fp32", "int8")}
    int8, fp32 = climbed(honest, name, files, tmp_path)
    assert fp32.verdict.status is Status.PASS
    assert fp32.taken
    assert fp32.verdict.level is find_target(name).level
    assert fp32.verdict.level.executed
    assert int8.verdict.status is Status.UNVERIFIED
    assert not int8.taken
    (reason,) = int8.verdict.reasons
    assert f"on {SWIPES} samples" in reason
    assert "cannot be ruled out" in reason


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_an_edited_file_computes_what_the_sabotage_says(
    honest: Honest, tmp_path: Path, name: str
) -> None:
    """The surgery itself: the file with other weights is the module with other weights."""
    pytest.importorskip(FORMATS[name])
    target = find_target(name)
    path = tmp_path / f"swapped{target.suffix}"
    weights(swapped_axes)(honest, name, path)
    features = torch.from_numpy(honest.job.example["features"])
    with torch.no_grad():
        expected = honest.job.module(features.flip(1))
        twin = altered(honest.job.module, swapped_axes)(features)
    assert torch.allclose(twin, expected, atol=1e-4)
    found = target.format().load(path)(features.numpy())
    assert np.abs(found - expected.numpy()).max() < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("name", ["onnx", "coreml"])
def test_a_channel_that_was_never_used_is_no_sabotage(honest: Honest, name: str) -> None:
    """coremltools gives weights of nothing but zeros a scale of 0."""
    pytest.importorskip(FORMATS[name])

    def unused(module: nn.Module) -> None:
        module.get_parameter("layers.2.weight")[3] = 0.0
        module.get_parameter("layers.2.bias")[3] = 0.0

    module = altered(Small(honest.job.module, 32).eval(), unused)
    path = honest.file(name, "int8", replace(honest.job, module=module), "unused")
    assert find_target(name).format().inspect(path)["quantized"]


def test_the_table_is_complete() -> None:
    """At least 15 kinds; each in every format, or the reason for its absence is known."""
    formats_of: dict[str, set[str]] = {}
    for case in SABOTAGE:
        formats_of.setdefault(case.kind, set()).update(case.says)
    print(f"\n{len(formats_of)} kinds of sabotage, {len(CASES)} cases")
    for case in SABOTAGE:
        for name, words in case.says.items():
            print(f"{case.kind:28} {case.rung:5} {name:11} {words!r}")
    assert len(formats_of) >= 15
    partial = {kind for kind, formats in formats_of.items() if formats != set(FORMATS)}
    # The graph is edited, which only ONNX files allow.
    assert partial == {"logits in two levels"}
