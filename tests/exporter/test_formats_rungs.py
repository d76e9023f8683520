"""What every format owes on every rung: named layers, axes that vary, the same bytes, no traces."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from lowered_files import lowered
from lowering_jobs import (
    Masked,
    Recurrent,
    sequence_job,
    sequences,
    strokes,
    traces_of_this_machine,
)
from torch import nn

from exporter.formats import Axis, Format, Lowering
from exporter.formats.axes import DECLARATION_KEY, extreme_calls
from exporter.targets import TARGETS, Target
from exporter.views import BAKED
from swipe.errors import LoweringError, UsageError
from swipe.files import size_bytes
from train.checkpoint import load_checkpoint
from train.models.transformer import CtcTransformer, Encoder

for library in ("onnxruntime", "onnxscript", "executorch", "coremltools"):
    pytest.importorskip(library)

RUNGS = [(target, rung.name) for target in TARGETS for rung in target.rungs]
QUANTIZED = [(target, rung.name) for target in TARGETS for rung in target.rungs if rung.quantized]
NANO = Path(__file__).resolve().parents[2] / "models" / "nano.safetensors"
INNER = {
    "int8": ("mix", "narrow"),
    "int8-weights": ("mix", "narrow"),
    "int8-dynamic": ("mix", "narrow"),
    "fp16-weights": ("mix", "narrow"),
    "fp16": ("project", "mix", "narrow", "head"),
}
TOLERANCES = {"fp32": 1e-5, "fp16": 5e-3, "fp16-weights": 5e-3}
"""Of outputs about 1; what int8 may differ by is in the tests."""


def ids(value: object) -> str:
    return value.name if isinstance(value, Target) else str(value)


each_rung = pytest.mark.parametrize(("target", "rung"), RUNGS, ids=ids)
each_quantized_rung = pytest.mark.parametrize(("target", "rung"), QUANTIZED, ids=ids)
each_format = pytest.mark.parametrize("target", TARGETS, ids=ids)


def build(target: Target, rung: str, job: Lowering, folder: Path) -> Path:
    return lowered(job, folder, target.name, rung)


def content(path: Path) -> dict[str, bytes]:
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    return {str(f.relative_to(path)): f.read_bytes() for f in files if f.is_file()}


def facts_of(target: Target, path: Path) -> Any:
    return target.format().inspect(path)


@pytest.fixture(scope="module")
def job() -> Lowering:
    return sequence_job(Masked())


@pytest.fixture(scope="module")
def built(job: Lowering, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    """Artefacts of the sequence job by format and rung."""
    folder = tmp_path_factory.mktemp("rungs")
    return {(t.name, rung): build(t, rung, job, folder / t.name) for t, rung in RUNGS}


@pytest.mark.slow
@each_rung
def test_an_axis_varies_and_is_declared(
    target: Target, rung: str, job: Lowering, built: dict[tuple[str, str], Path]
) -> None:
    path = built[target.name, rung]
    facts = facts_of(target, path)
    assert list(facts["inputs"].values()) == [[1, 5, "T:4..50"], [1]]
    assert list(facts["outputs"].values()) == [[1, "T:4..50", 9]]
    assert target.format().metadata(path).items() >= job.metadata.items()
    run = target.format().load(path)
    for call in sequences(4, 7, 20, 50):
        with torch.no_grad():
            wanted = job.module(*map(torch.from_numpy, call.values())).numpy()
        delta = np.abs(run(*call.values()) - wanted).max()
        assert delta < TOLERANCES.get(rung, 0.1 * np.ptp(wanted))


class Unsorted(nn.Module):
    """`Masked`, whose inputs are not called in alphabetical order."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Masked()

    def forward(self, rows: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.inner(rows, count)
        return y


@pytest.mark.slow
@each_format
def test_inputs_keep_the_modules_order(target: Target, tmp_path: Path) -> None:
    calls = [dict(zip(("rows", "count"), c.values(), strict=True)) for c in sequences(20, 4, 50)]
    axes = {"rows": {2: Axis("T", 4, 50)}}
    job = Lowering(Unsorted().eval(), calls[0], calls, {"contract_id": "0" * 16}, dynamic=axes)
    path = build(target, "fp32", job, tmp_path)
    assert list(facts_of(target, path)["inputs"].values()) == [[1, 5, "T:4..50"], [1]]
    assert target.format().load(path)(*calls[2].values()).shape == (1, 50, 9)


@pytest.mark.slow
@each_rung
def test_a_rung_is_what_it_is_called(
    target: Target, rung: str, built: dict[tuple[str, str], Path]
) -> None:
    facts = facts_of(target, built[target.name, rung])
    int8, stored = rung.startswith("int8"), facts["weights"]
    assert facts["quantized"] is int8
    assert (facts["quantized_layers"], facts["float_layers"]) == ((2, 2) if int8 else (0, 4))
    # Two layers of 32 x 32 among 2,600 numbers.
    assert (stored.get("int8", 0) >= 2048) is int8
    assert (stored.get("float16", 0) >= 2048) is rung.startswith("fp16")
    assert (stored.get("float32", 0) >= 2048) is (rung == "fp32")
    assert size_bytes(built[target.name, rung]) <= size_bytes(built[target.name, "fp32"])
    if target.name == "onnx":
        assert facts["quantized_activations"] == (2 if rung == "int8" else 0)
    if target.name == "executorch":
        assert facts["dynamic_layers"] == (2 if rung == "int8-dynamic" else 0)


@pytest.mark.slow
@each_rung
def test_two_builds_are_the_same_bytes_and_hold_no_trace(
    target: Target, rung: str, built: dict[tuple[str, str], Path], tmp_path: Path
) -> None:
    # Another module: nothing remembered of the first one.
    again = build(target, rung, sequence_job(Masked()), tmp_path)
    assert content(again) == content(built[target.name, rung])
    for data in content(again).values():
        assert traces_of_this_machine(data) == []


@pytest.mark.slow
@each_quantized_rung
def test_layers_are_named_by_their_module_in_order(
    target: Target, rung: str, job: Lowering
) -> None:
    form = target.format()
    assert form.layers(job, rung) == INNER[rung]
    kept = dataclasses.replace(job, float_layers=frozenset({"mix"}))
    assert form.layers(kept, rung) == tuple(name for name in INNER[rung] if name != "mix")


@pytest.mark.slow
@each_quantized_rung
def test_a_layer_is_kept_float(
    target: Target, rung: str, job: Lowering, built: dict[tuple[str, str], Path], tmp_path: Path
) -> None:
    kept = dataclasses.replace(job, float_layers=frozenset({"narrow"}))
    path = build(target, rung, kept, tmp_path)
    before, after = facts_of(target, built[target.name, rung]), facts_of(target, path)
    small = "float16" if rung.startswith("fp16") else "int8"
    assert 1024 <= before["weights"][small] - after["weights"].get(small, 0) < 1024 + 200
    (call,) = sequences(20)
    with torch.no_grad():
        wanted = job.module(*map(torch.from_numpy, call.values())).numpy()
    assert np.abs(target.format().load(path)(*call.values()) - wanted).max() < 0.1 * np.ptp(wanted)


@pytest.mark.slow
@each_quantized_rung
def test_an_unknown_layer_is_named(
    target: Target, rung: str, job: Lowering, tmp_path: Path
) -> None:
    wrong = dataclasses.replace(job, float_layers=frozenset({"narrow", "tail"}))
    for refused in (
        lambda: target.format().layers(wrong, rung),
        lambda: build(target, rung, wrong, tmp_path),
    ):
        with pytest.raises(UsageError, match="no layer 'tail'") as caught:
            refused()
        assert "mix" in str(caught.value.fix)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@each_format
def test_every_layer_kept_float_leaves_nothing_to_quantize(
    target: Target, job: Lowering, tmp_path: Path
) -> None:
    kept = dataclasses.replace(job, float_layers=frozenset({"project", "mix", "narrow", "head"}))
    for rung in (rung for found, rung in QUANTIZED if found is target):
        assert target.format().layers(kept, rung) == ()
        with pytest.raises(LoweringError, match=f"{rung} quantization changed nothing"):
            build(target, rung, kept, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@each_format
def test_an_axis_that_torch_would_fix_is_named(target: Target, tmp_path: Path) -> None:
    with pytest.raises(LoweringError, match="cannot keep T dynamic") as caught:
        target.format().lower(sequence_job(Recurrent()), tmp_path / f"model{target.suffix}")
    assert "pad and mask" in str(caught.value.fix)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@each_format
def test_a_declaration_that_the_file_does_not_keep_is_refused(
    target: Target, job: Lowering, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As if the artefact said T:4..60 and was built for T:4..50, or for the name S."""
    import exporter.formats.axes as axes

    lie = "S:4..50" if target.name == "onnx" else "T:4..60"
    spell = axes.json.dumps
    monkeypatch.setattr(axes.json, "dumps", lambda *a, **k: spell(*a, **k).replace("T:4..50", lie))
    with pytest.raises(LoweringError, match="declares"):
        target.format().lower(job, tmp_path / f"model{target.suffix}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_two_axes_are_one_too_many_for_xnnpack(tmp_path: Path) -> None:
    executorch = next(target for target in TARGETS if target.name == "executorch")
    batch = Axis("batch", 1, 8)
    job = Lowering(
        nn.Conv1d(5, 8, 3, padding=1).eval(),
        {"features": np.zeros((2, 5, 20), np.float32)},
        [{"features": np.zeros((b, 5, t), np.float32)} for b, t in ((1, 4), (8, 50))],
        {"a": "b"},
        dynamic={"features": {0: batch, 2: Axis("T", 4, 50)}},
    )
    with pytest.raises(LoweringError, match="cannot keep batch, T dynamic"):
        executorch.format().lower(job, tmp_path / "model.pte")


@pytest.mark.slow
@pytest.mark.parametrize("rung", ["fp32", "int8"])
def test_attention_over_any_length_in_onnx(rung: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    onnx = TARGETS[0]
    job = sequence_job(CtcTransformer(5, 9, Encoder(24, 1, 2, 48)))
    run = onnx.format().load(build(onnx, rung, job, tmp_path))
    for call in sequences(4, 20, 50):
        with torch.no_grad():
            wanted = job.module(*map(torch.from_numpy, call.values())).numpy()
        assert np.abs(run(*call.values()) - wanted).max() < TOLERANCES.get(rung, 0.1)


@pytest.mark.parametrize(
    ("dynamic", "named"),
    [
        ({"features": {2: Axis("T", 21, 50)}}, "has 20 along it"),
        ({"features": {3: Axis("T", 4, 50)}}, "no dimension 3"),
        ({"frames": {0: Axis("T", 4, 50)}}, "'frames'"),
        ({"features": {2: Axis("a b", 4, 50)}}, "letters"),
        (
            {"features": {2: Axis("T", 4, 50)}, "lengths": {0: Axis("T", 1, 50)}},
            "elsewhere it is T:4..50",
        ),
    ],
)
@each_format
def test_axes_that_do_not_fit_the_example_are_refused(
    target: Target, dynamic: Any, named: str, job: Lowering, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=named):
        target.format().lower(dataclasses.replace(job, dynamic=dynamic), tmp_path / "model")


def test_the_shortest_and_the_longest_calls_are_tried(job: Lowering) -> None:
    assert [call["features"].shape[2] for call in extreme_calls(job)] == [20, 4, 50]


@pytest.mark.slow
def test_a_static_artefact_declares_nothing(tmp_path: Path) -> None:
    job = dataclasses.replace(sequence_job(Masked()), dynamic={})
    path = build(TARGETS[0], "fp32", job, tmp_path)
    assert DECLARATION_KEY not in TARGETS[0].format().metadata(path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "rung"),
    # It has no linear layer.
    [(t, rung) for t, rung in QUANTIZED if rung != "int8-dynamic"],
    ids=ids,
)
def test_nano_agrees_with_torch_when_quantized(target: Target, rung: str, tmp_path: Path) -> None:
    swipes = strokes(48, seed=6)
    job = BAKED.lowering(load_checkpoint(NANO), swipes[:1], swipes[:40])
    path = build(target, rung, job, tmp_path)
    run = cast(Format, target.format()).load(path)
    outputs = np.concatenate([run(row[None]) for row in swipes[40:]])
    with torch.no_grad():
        wanted = np.concatenate(
            [job.module(torch.from_numpy(row[None])).numpy() for row in swipes[40:]]
        )
    limit = {"fp16": 0.2, "fp16-weights": 0.1}.get(rung, 0.15 * np.ptp(wanted))
    assert np.abs(outputs - wanted).max() < limit
    assert size_bytes(path) < 0.65 * NANO.stat().st_size


@pytest.mark.slow
def test_a_weight_that_float16_cannot_hold_is_named(tmp_path: Path) -> None:
    module = Masked()
    with torch.no_grad():
        module.mix.weight[0, 0] = 1e5
    with pytest.raises(LoweringError, match="float16 ends at 65504"):
        build(TARGETS[0], "fp16-weights", sequence_job(module), tmp_path)


@pytest.mark.slow
def test_a_changed_weight_is_not_taken_for_the_remembered_one(tmp_path: Path) -> None:
    job = sequence_job(Masked())
    first = content(build(TARGETS[0], "int8", job, tmp_path))
    with torch.no_grad():
        job.module.get_parameter("mix.weight").mul_(2)
    assert content(build(TARGETS[0], "int8", job, tmp_path)) != first
