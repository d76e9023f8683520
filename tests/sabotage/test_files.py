"""Sabotaged artefacts against the export's gates: every kind, in every format it applies to.

`SABOTAGE` is the table. A file that some build of ours has made is altered where it lies and goes
up the ladder as any rung does; the case names the gate by its words. ONNX and ExecuTorch artefacts
run in their own runtimes, Core ML packages off macOS in the reference interpreter.

Elsewhere: another lexicon (tests/exporter/test_gates.py), another checkpoint or other swipes under
a bundle (test_artefacts.py), keyboards (test_artefacts.py), padding that leaks
(tests/exporter/test_proof.py), damage to a published bundle (tests/exporter/test_bundle.py).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from artefact_surgery import (
    altered,
    copy_artefact,
    ready_target,
    replace_bytes,
    truncate,
    weight_scales,
    write_scales,
    write_weights,
)
from torch import Tensor, nn

from exporter.evidence import Evidence
from exporter.formats import Lowering
from exporter.formats.axes import DECLARATION_KEY
from exporter.ladder import RungRecord, Subject, climb
from exporter.parity import Level, Status
from exporter.policy import Policy
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

pytestmark = pytest.mark.slow

SWIPES = 30
FORMATS = {"onnx": "onnx", "executorch": "executorch", "coreml": "coremltools"}
"""Each format, and the library without which its cases are skipped."""

LAYER = "blocks.0.mix"
"""A layer that every format quantizes."""


@dataclass(frozen=True, slots=True, eq=False)
class Honest:
    """The released model's job, synthetic swipes to judge it by, and where artefacts are kept."""

    job: Lowering
    evidence: Evidence
    folder: Path

    def file(self, name: str, rung: str, job: Lowering | None = None, label: str = "honest") -> Path:
        """The artefact of `job` (by default the honest one) on `rung`, built once."""
        target = find_target(name)
        path = self.folder / f"{label}-{rung}{target.suffix}"
        if not path.exists():
            chosen = self.job if job is None else job
            if rung == "fp32":
                target.format().lower(chosen, path)
            else:
                target.format().quantize(chosen, path, rung)
        return path


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


Sabotage = Callable[[Honest, str, Path], None]
"""Puts a sabotaged artefact of the format at the path."""


@dataclass(frozen=True, slots=True)
class Case:
    """One kind of sabotage on one rung.

    Attributes:
        kind: what is wrong.
        rung: the artefact that it is done to.
        sabotage: how.
        says: the words of the gate that has to stop it, by format.
    """

    kind: str
    rung: str
    sabotage: Sabotage
    says: Mapping[str, str]


def everywhere(words: str) -> dict[str, str]:
    return dict.fromkeys(FORMATS, words)


# --- what is wrong with the weights


def head(change: Callable[[Tensor], Tensor]) -> Callable[[nn.Module], None]:
    """A change of the last layer's weight and bias alike, class by class."""

    def apply(module: nn.Module) -> None:
        for name in ("head.weight", "head.bias"):
            parameter = module.get_parameter(name)
            parameter.copy_(change(parameter.clone()))

    return apply


def one_weight(value: float) -> Callable[[nn.Module], None]:
    def apply(module: nn.Module) -> None:
        module.get_parameter("head.weight")[3, 2, 0] = value

    return apply


def permuted_letters(module: nn.Module) -> None:
    """Every letter answers for its neighbour: an alphabet in another order."""
    head(lambda rows: torch.cat([rows[1:26], rows[:1], rows[26:]]))(module)


def blank_first(module: nn.Module) -> None:
    """The blank is class 0, and every letter one further: as in other CTC libraries."""
    head(lambda rows: torch.roll(rows, 1, dims=0))(module)


def constant(module: nn.Module) -> None:
    """The bias alone: the same answer whatever the swipe."""
    module.get_parameter("head.weight").zero_()


def one_bit(module: nn.Module) -> None:
    """A last layer of two values for each class."""
    weight = module.get_parameter("head.weight")
    weight.copy_(weight.sign() * weight.abs().mean(dim=1, keepdim=True))


def swapped_axes(module: nn.Module) -> None:
    """What the first layer reads of x, it reads of y: the host passed (y, x)."""
    weight = module.get_parameter("stem.weight")
    weight.copy_(weight[:, [1, 0, 3, 2, 5, 4, 6]])


def doubled_features(module: nn.Module) -> None:
    """The model as it answers features in another unit, but for the outermost frames."""
    weight, bias = module.get_parameter("stem.weight"), module.get_parameter("stem.bias")
    # Positions p enter as 2p - 1, so 2p enters as twice that, plus 1.
    bias.add_(weight[:, :2].sum(dim=(1, 2)))
    weight.mul_(2.0)


def one_layer_off(module: nn.Module) -> None:
    """5 % in one layer: what another version of the weights would be."""
    module.get_parameter(f"{LAYER}.weight").mul_(1.05)


def weights(change: Callable[[nn.Module], None], rung: str = "fp32") -> Sabotage:
    def sabotage(honest: Honest, name: str, path: Path) -> None:
        copy_artefact(honest.file(name, rung), path)
        write_weights(path, honest.job.module, change)

    return sabotage


def zero_scales(count: int) -> Sabotage:
    """The first `count` channels of one layer have a scale of 0."""

    def zeroed(scales: Any) -> Any:
        return np.where(np.arange(len(scales)) < count, 0, scales)

    def sabotage(honest: Honest, name: str, path: Path) -> None:
        copy_artefact(honest.file(name, "int8"), path)
        weight = honest.job.module.get_parameter(f"{LAYER}.weight").detach().numpy()
        write_scales(path, weight_scales(weight), zeroed)

    return sabotage


# --- what is wrong with the file


def text(old: Callable[[Mapping[str, str]], str], new: str) -> Sabotage:
    """Another text in the metadata, of the same length."""

    def sabotage(honest: Honest, name: str, path: Path) -> None:
        copy_artefact(honest.file(name, "fp32"), path)
        replace_bytes(path, old(honest.job.metadata).encode(), new.encode())

    return sabotage


def torn(share: float) -> Sabotage:
    def sabotage(honest: Honest, name: str, path: Path) -> None:
        copy_artefact(honest.file(name, "fp32"), path)
        truncate(path, share)

    return sabotage


def float_as_int8(honest: Honest, name: str, path: Path) -> None:
    """Nothing was quantized, whatever the file is called."""
    copy_artefact(honest.file(name, "fp32"), path)


def two_level_logits(honest: Honest, name: str, path: Path) -> None:
    """The tail is quantized too, with a step that leaves two values."""
    import onnx

    model = onnx.load(honest.file(name, "int8"))
    graph, tail = model.graph, model.graph.node[-1]
    assert tail.output[0] == "logits"
    tail.output[0] = "whole"
    step = np.array(np.abs(np.stack(honest.evidence.reference.outputs)).max(), np.float32)
    arrays = {"tail_scale": step, "tail_zero_point": np.array(0, np.int8)}
    graph.initializer.extend(onnx.numpy_helper.from_array(v, k) for k, v in arrays.items())
    graph.node.extend(
        onnx.helper.make_node(kind, [source, *arrays], [result], name=result)
        for kind, source, result in (
            ("QuantizeLinear", "whole", "rounded"), ("DequantizeLinear", "rounded", "logits")
        )
    )  # fmt: skip
    onnx.save(model, path)


# --- what is wrong with the shapes


class Small(nn.Module):
    """The model without its blocks: quick to lower, and right in nothing but its shapes."""

    def __init__(self, model: nn.Module, frames: int) -> None:
        super().__init__()
        names = ("kinematics", "stem", "halve", "head")
        self.layers = nn.Sequential(*(model.get_submodule(name) for name in names))
        self.frames = frames

    def forward(self, features: Tensor) -> Tensor:
        logits: Tensor = self.layers(features).transpose(1, 2)
        return logits[:, : self.frames] if self.frames < 32 else logits


def fewer_frames(honest: Honest, name: str, path: Path) -> None:
    """30 of 32 frames."""
    job = replace(honest.job, module=Small(honest.job.module, 30).eval())
    copy_artefact(honest.file(name, "fp32", job, "fewer frames"), path)


def static(honest: Honest, name: str, metadata: Mapping[str, str], label: str) -> Path:
    """An artefact that takes swipes of 60 points, and no others."""
    example = {"features": np.ascontiguousarray(honest.job.example["features"][:, :, :60])}
    small = Small(honest.job.module, 32).eval()
    job = replace(honest.job, module=small, example=example, metadata=metadata)
    return honest.file(name, "fp32", job, label)


def fewer_points(honest: Honest, name: str, path: Path) -> None:
    """Swipes of 60 points where the contract says 64."""
    copy_artefact(static(honest, name, honest.job.metadata, "fewer points"), path)


def baked_axis(honest: Honest, name: str, path: Path) -> None:
    """Declared for 8 to 64 points, and built for 60."""
    shapes = {
        "inputs": {"features": [1, 2, "N:8..64"]}, "outputs": {"logits": [1, "N//2:4..32", 27]}
    }  # fmt: skip
    metadata = {**honest.job.metadata, DECLARATION_KEY: json.dumps(shapes)}
    copy_artefact(static(honest, name, metadata, "baked axis"), path)


NUMBERS, FRAMES = everywhere("max |delta|"), everywhere("per-frame agreement")
NOT_FINITE = everywhere("holds NaN or Inf") | {"executorch": "outputs are NaN or Inf"}
UNREADABLE = everywhere("cannot be read")
FLOAT_TAIL = {name: "per-frame agreement" for name in ("onnx", "executorch")}
"""On int8 rungs; Core ML quantizes the first and the last layer too."""

SABOTAGE = (
    Case("NaN weight", "fp32", weights(one_weight(float("nan"))), NOT_FINITE),
    Case("NaN weight", "int8", weights(one_weight(float("nan")), "int8"),
         {"onnx": "holds NaN or Inf", "executorch": "outputs are NaN or Inf"}),
    Case("Inf weight", "fp32", weights(one_weight(float("inf"))), NOT_FINITE),
    Case("all scales of a layer zero", "int8", zero_scales(48), everywhere("scale")),
    Case("one scale zero", "int8", zero_scales(1), everywhere("scale")),
    Case("permuted letters", "fp32", weights(permuted_letters), NUMBERS),
    Case("permuted letters", "int8", weights(permuted_letters, "int8"), FLOAT_TAIL),
    Case("blank off by one", "fp32", weights(blank_first), everywhere("share of blank frames")),
    Case("blank off by one", "int8", weights(blank_first, "int8"), FLOAT_TAIL),
    Case("constant output", "fp32", weights(constant), FRAMES),
    Case("constant output", "int8", weights(constant, "int8"), FLOAT_TAIL),
    Case("swapped x and y", "fp32", weights(swapped_axes), NUMBERS),
    Case("swapped x and y", "int8", weights(swapped_axes, "int8"), FLOAT_TAIL),
    Case("features times 2", "fp32", weights(doubled_features), NUMBERS),
    Case("features times 2", "int8", weights(doubled_features, "int8"), FLOAT_TAIL),
    Case("one layer 5 % off", "fp32", weights(one_layer_off), NUMBERS),
    Case("last layer in one bit", "fp32", weights(one_bit), NUMBERS),
    Case("last layer in one bit", "int8", weights(one_bit, "int8"), FLOAT_TAIL),
    Case("logits in two levels", "int8", two_level_logits, {"onnx": "per-frame agreement"}),
    Case("30 of 32 frames", "fp32", fewer_frames, everywhere("its outputs are")),
    Case("60 of 64 points", "fp32", fewer_points, everywhere("its inputs are")),
    Case("axis baked in", "fp32", baked_axis, everywhere("declares")),
    Case("another contract", "fp32",
         text(lambda entries: entries["contract_id"], "0123456789abcdef"),
         everywhere("carries contract_id '0123456789abcdef'")),
    Case("another alphabet", "fp32",
         text(lambda entries: "abcdefghijklmnopqrstuvwxyz", "zyxwvutsrqponmlkjihgfedcba"),
         everywhere("carries contract '")),
    Case("another checkpoint", "fp32",
         text(lambda entries: entries["weights_sha256"], "0" * 64),
         everywhere("carries weights_sha256 '000")),
    Case("half of the file", "fp32", torn(0.5), UNREADABLE),
    Case("empty file", "fp32", torn(0.0), UNREADABLE),
    Case("float called int8", "int8", float_as_int8, everywhere("bytes, the float artefact has")),
)  # fmt: skip

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
    assert fp32.verdict.level is (find_target(name).level)
    assert fp32.verdict.level >= Level.HOST or name == "coreml"
    assert int8.verdict.status is Status.UNVERIFIED
    assert not int8.taken
    (reason,) = int8.verdict.reasons
    assert f"on {SWIPES} samples" in reason
    assert "cannot be ruled out" in reason


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
