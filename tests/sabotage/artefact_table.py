"""The table of sabotaged artefacts: what is done to which rung, and the words of the gate.

The files are those that the exporter builds for the released model, altered where they lie
(`artefact_surgery`); only another shape has to be lowered, from a small model.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from artefact_surgery import (
    copy_artefact,
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
from exporter.targets import find_target

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

    def file(
        self, name: str, rung: str, job: Lowering | None = None, label: str = "honest"
    ) -> Path:
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
    tail.name = tail.output[0] = "whole"
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
    """Built for 60 points, and declared for 8 to 64 afterwards: `lower` would refuse it."""
    shapes = {
        "inputs": {"features": [1, 2, "N:8..64"]}, "outputs": {"logits": [1, "N//2:4..32", 27]}
    }  # fmt: skip
    disguised = DECLARATION_KEY[:-1] + "_"
    metadata = {**honest.job.metadata, disguised: json.dumps(shapes)}
    copy_artefact(static(honest, name, metadata, "baked axis"), path)
    replace_bytes(path, disguised.encode(), DECLARATION_KEY.encode())


NUMBERS, FRAMES = everywhere("max |delta|"), everywhere("per-frame agreement")
NOT_FINITE = everywhere("holds NaN or Inf")
SCALE = "scale that is not above 0"
UNREADABLE = everywhere("cannot be read")
NOTHING = UNREADABLE | {"onnx": "it imports opsets {}"}
FLOAT_TAIL = dict.fromkeys(("onnx", "executorch"), "per-frame agreement")
"""On int8 rungs; Core ML quantizes the first and the last layer too."""

SABOTAGE = (
    Case("NaN weight", "fp32", weights(one_weight(float("nan"))), NOT_FINITE),
    Case("NaN weight", "int8", weights(one_weight(float("nan")), "int8"),
         dict.fromkeys(FLOAT_TAIL, "holds NaN or Inf")),
    Case("Inf weight", "fp32", weights(one_weight(float("inf"))), NOT_FINITE),
    Case("all scales of a layer zero", "int8", zero_scales(48), everywhere(SCALE)),
    Case("one scale zero", "int8", zero_scales(1), everywhere(SCALE)),
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
    Case("empty file", "fp32", torn(0.0), NOTHING),
    Case("float called int8", "int8", float_as_int8, everywhere("bytes, the float artefact has")),
)  # fmt: skip
