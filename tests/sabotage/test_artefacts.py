"""Sabotaged keyboards, models and bundles against the gates of export and bench.

Artefacts whose weights, metadata or shapes are wrong are in test_artefact_files.py.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from host_bench import bench_host
from torch import Tensor, nn

from android_harness.interleaving import Plan
from exporter.bundle import Request, export
from exporter.evidence import Evidence
from exporter.formats import Lowering
from exporter.ladder import RungRecord, climb
from exporter.manifest import FILE, SEAL, digest_of, load_manifest
from exporter.origins.requests import SwipeRequest
from exporter.policy import Policy
from exporter.subject import Subject
from exporter.targets import Target, find_target
from exporter.views import AGNOSTIC, BAKED, View
from exporter.words import Words
from swipe.decode import BeamDecoder
from swipe.errors import GateError, NonFiniteError
from swipe.features import feature_batch
from swipe.files import sha256_file
from swipe.layout import load_layout
from swipe.lexicon import wordfreq_lexicon
from swipe.synthesis import synthesize
from train.checkpoint import load_checkpoint
from train.evaluate import predict

WORDS = 5000


class PermutedClasses(nn.Module):
    """Every class answers for its neighbour: an alphabet in another order."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, features: Tensor) -> Tensor:
        logits = self.model(features)
        return torch.cat([logits[:, :, 1:26], logits[:, :, :1], logits[:, :, 26:]], dim=2)


class NotFinite(nn.Module):
    """NaN for every swipe that leaves the upper half of the keyboard."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, features: Tensor) -> Tensor:
        depth = features[:, 1:].amax(dim=(1, 2), keepdim=True)
        broken: Tensor = self.model(features) + torch.log(0.5 - depth) * 0.0
        return broken


def _honest(released: Path, view: View) -> tuple[Lowering, Evidence]:
    checkpoint = load_checkpoint(released)
    lexicon = wordfreq_lexicon(WORDS)
    swipes = synthesize(load_layout("qwerty"), lexicon, 150, seed=5).gestures
    features, truths = feature_batch(swipes), [g.word for g in swipes]
    decode = BeamDecoder(lexicon).decode_words
    logits = predict(checkpoint.model(), checkpoint.contract, features)
    job = view.lowering(checkpoint, features[:1], features[:64])
    words = Words(truths, [g.writer for g in swipes], decode)
    return job, view.evidence(checkpoint, features, logits, words)


@pytest.fixture(scope="module")
def honest(released: Path) -> tuple[Lowering, Evidence]:
    """The released model's lowering job, and synthetic swipes to judge it by."""
    return _honest(released, BAKED)


@pytest.fixture(scope="module")
def honest_agnostic(released: Path) -> tuple[Lowering, Evidence]:
    """The same for a keyboard that is passed at run time."""
    return _honest(released, AGNOSTIC)


def _climb(
    target: Target,
    job: Lowering,
    evidence: Evidence,
    folder: Path,
    *,
    quantize: bool,
    view: View = BAKED,
) -> list[RungRecord]:
    subject = Subject(view.name, view.stem, job, evidence)
    return climb(target, subject, folder, Policy(quantize, budget=1.0), lambda line: None)


@pytest.mark.slow
@pytest.mark.parametrize("format_name", ["onnx", "executorch"])
def test_nan_on_some_swipes_only_is_refused(
    honest: tuple[Lowering, Evidence], tmp_path: Path, format_name: str
) -> None:
    """Every stored number is finite; for those that are not see test_artefact_files.py."""
    job, evidence = honest
    broken = replace(job, module=NotFinite(job.module).eval())
    with pytest.raises(GateError, match=f"{format_name} baked fp32 was refused") as caught:
        _climb(find_target(format_name), broken, evidence, tmp_path, quantize=False)
    assert "NaN or Inf" in str(caught.value)
    assert not list(tmp_path.iterdir())


class MaskIgnored(nn.Module):
    """Every slot counts as a key."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, features: Tensor, keys: Tensor, mask: Tensor) -> Tensor:
        emissions: Tensor = self.model(features, keys, mask * 0.0 + 1.0)
        return emissions


class MaskReversed(MaskIgnored):
    """1 is taken for an empty slot, as other libraries do."""

    def forward(self, features: Tensor, keys: Tensor, mask: Tensor) -> Tensor:
        emissions: Tensor = self.model(features, keys, 1.0 - mask)
        return emissions


class BlankFirst(MaskIgnored):
    """The blank is class 0, as in other CTC libraries."""

    def forward(self, features: Tensor, keys: Tensor, mask: Tensor) -> Tensor:
        emissions = self.model(features, keys, mask)
        return torch.cat([emissions[:, :, 64:], emissions[:, :, :64]], dim=2)


class KeysIgnored(MaskIgnored):
    """Right for the keyboard it was exported with, and for that one only."""

    def __init__(self, model: nn.Module, keys: Tensor) -> None:
        super().__init__(model)
        self.register_buffer("keys", keys)

    def forward(self, features: Tensor, keys: Tensor, mask: Tensor) -> Tensor:
        emissions: Tensor = self.model(features, self.keys + keys * 0.0, mask)
        return emissions


AGNOSTIC_SABOTAGE: dict[str, tuple[type[MaskIgnored], str]] = {
    "mask ignored": (MaskIgnored, "; qwerty in shuffled slots: max"),
    "mask reversed": (MaskReversed, "refused: max |delta|"),
    "blank first": (BlankFirst, "refused: max |delta|"),
    "keys ignored": (KeysIgnored, "dvorak: max |delta|"),
}


def _sabotaged(job: Lowering, name: str) -> Lowering:
    sabotage, _ = AGNOSTIC_SABOTAGE[name]
    keys = (torch.from_numpy(job.example["layout_keys"]),) if sabotage is KeysIgnored else ()
    return replace(job, module=sabotage(job.module, *keys).eval())


@pytest.mark.slow
@pytest.mark.parametrize("name", AGNOSTIC_SABOTAGE)
@pytest.mark.parametrize("format_name", ["onnx", "executorch"])
def test_a_sabotaged_agnostic_artefact_is_refused(
    honest_agnostic: tuple[Lowering, Evidence], tmp_path: Path, format_name: str, name: str
) -> None:
    job, evidence = honest_agnostic
    broken = _sabotaged(job, name)
    with pytest.raises(GateError, match=f"{format_name} agnostic fp32 was refused") as caught:
        _climb(find_target(format_name), broken, evidence, tmp_path, quantize=False, view=AGNOSTIC)
    assert AGNOSTIC_SABOTAGE[name][1] in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("name", AGNOSTIC_SABOTAGE)
def test_a_sabotaged_agnostic_int8_artefact_falls_back_to_float(
    honest_agnostic: tuple[Lowering, Evidence],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    """Its limits are on frames, not on numbers: every sabotage has to move an argmax."""
    from exporter.formats import onnx

    job, evidence = honest_agnostic
    quantize = onnx.quantize
    monkeypatch.setattr(
        onnx, "quantize", lambda job, path, rung: quantize(_sabotaged(job, name), path, rung)
    )
    *small, fp32 = _climb(
        find_target("onnx"), job, evidence, tmp_path, quantize=True, view=AGNOSTIC
    )
    assert len(small) == 3
    for record in small:
        assert any("per-frame agreement" in reason for reason in record.verdict.reasons)
    assert fp32.taken
    assert [p.name for p in tmp_path.iterdir()] == ["model-agnostic.fp32.onnx"]


def _request(checkpoint: Path, out: Path, *views: View) -> Request:
    return Request(
        (find_target("onnx"),),
        SwipeRequest(
            checkpoint,
            tuple(view.name for view in views or (BAKED,)),
            "synthetic:1500",
            f"wordfreq:{WORDS}",
            200,
        ),
        out,
        Policy(budget=5.0),
    )


def test_a_nan_weight_is_refused_by_export(released: Path, tmp_path: Path) -> None:
    """Even in a file whose own digest agrees: written around the guard, not through it."""
    from safetensors.torch import save_file

    from train.sealed import digest as seal

    checkpoint = load_checkpoint(released)
    tensors = {name: tensor.clone() for name, tensor in checkpoint.tensors.items()}
    tensors["halve.conv.weight"][3, 2, 1] = float("nan")
    record = json.dumps(checkpoint.record(), sort_keys=True)
    digest = seal(record, tensors)
    path = tmp_path / "nan.safetensors"
    save_file(tensors, path, {"record": record, "sha256": digest})
    with pytest.raises(NonFiniteError, match=r"halve\.conv\.weight: 1 NaN"):
        export(_request(path, tmp_path / "bundle"), say=lambda line: None)
    assert not (tmp_path / "bundle").exists()


@pytest.mark.slow
def test_an_artefact_of_another_model_under_a_mended_manifest_fails_the_bench(
    released: Path, honest: tuple[Lowering, Evidence], tmp_path: Path
) -> None:
    bundle = tmp_path / "bundle"
    export(_request(released, bundle, BAKED, AGNOSTIC), say=lambda line: None)
    plan = Plan(loads=1, warmup=1, blocks=1, block_calls=2)
    measured = bench_host(bundle, plan, 1, None, lambda line: None)
    assert not measured.failed
    assert [row.name for row in measured.rows] == [
        "pytorch eager",
        *(f"onnx {view} {rung}" for view in ("baked", "agnostic") for rung in ("int8", "fp32")),
    ]

    job, _ = honest
    impostor = bundle / "model.fp32.onnx"
    find_target("onnx").format().lower(
        replace(job, module=PermutedClasses(job.module).eval()), impostor
    )
    with pytest.raises(GateError, match="is not the artefact"):
        bench_host(bundle, plan, 1, None, lambda line: None)

    manifest = json.loads((bundle / FILE).read_text())
    for rung in manifest["formats"][0]["rungs"]:
        if rung["file"] == impostor.name:
            rung["sha256"] = sha256_file(impostor)
    del manifest[SEAL]
    (bundle / FILE).write_text(json.dumps({**manifest, SEAL: digest_of(manifest)}))
    (failed,) = bench_host(bundle, plan, 1, None, lambda line: None).failed
    assert failed.name == "onnx baked fp32"
    assert "max |delta|" in failed.verdict.reasons[0]


@pytest.mark.slow
@pytest.mark.parametrize("file", ["verification.npz", "checkpoint.safetensors"])
def test_exchanged_swipes_or_weights_are_refused_by_the_bench(
    released: Path, tmp_path: Path, file: str
) -> None:
    bundle = tmp_path / "bundle"
    export(_request(released, bundle), say=lambda line: None)
    path = bundle / file
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    assert load_manifest(bundle)
    with pytest.raises(GateError):
        bench_host(bundle, Plan(blocks=1), 1, None, lambda line: None)
