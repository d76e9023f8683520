"""The EEG example: what is clamped, what is learned, and that no score is a fluke (L4)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from torch import Tensor

from examples.eeg import model as module
from examples.eeg.data import ACTIVE, ARTEFACT, Head
from examples.eeg.model import CLAMP, EegTransformer, build
from examples.eeg.task import EegTask, figures
from swipe.errors import NonFiniteError
from train.assemble import assemble
from train.checkpoint import load_weights
from train.config import CustomConfig, load_config
from train.loop import fit
from train.preflight import preflight
from train.task import Batch, Drawable

CONFIG = Path(module.__file__).with_name("config.toml")


def small(**settings: object) -> tuple[CustomConfig, EegTask]:
    """A small task, and the example's own configuration for it."""
    overrides = {
        "options.recordings": 640, "options.held_out": 60, "options.sensors": 12,
        "options.regions": 6, "options.samples": 32, "options.width": 32, "options.depth": 1,
        "optimizer.batch_size": 32, "length.steps": 12, "record.tensorboard": False, **settings,
    }  # fmt: skip
    config = cast(CustomConfig, load_config(str(CONFIG), overrides))
    return config, cast(EegTask, assemble(config).task)


def test_recordings_are_functions_of_their_number() -> None:
    signals, activity = Head(3, 12, 6, 32).recording(7)
    again, _ = Head(3, 12, 6, 32).recording(7)
    assert np.array_equal(signals, again)
    assert signals.shape == (12, 32)
    assert (activity > 0).sum() == ACTIVE
    assert not np.array_equal(signals, Head(4, 12, 6, 32).recording(7)[0])


def test_batches_are_functions_of_their_number() -> None:
    (_, one), (_, other) = small(), small()
    one.batch(3)
    for name, tensor in one.batch(25).tensors.items():
        assert torch.equal(tensor, other.batch(25).tensors[name])
    rows = [row for number in range(20) for row in one.batch(number).row_ids]
    assert len(set(rows)) == 640, "an epoch shows every recording once"


def test_an_artefact_is_no_larger_to_the_model_than_the_clamp() -> None:
    torch.manual_seed(0)
    model = build(4, 3, width=16, depth=1).eval()
    popped, clamped = torch.zeros(1, 4, 32), torch.zeros(1, 4, 32)
    popped[0, 2, 9], clamped[0, 2, 9] = ARTEFACT, CLAMP
    with torch.inference_mode():
        assert torch.equal(model(popped), model(clamped))
        assert not torch.equal(model(popped), model(torch.zeros(1, 4, 32)))


def test_l4_a_score_lies_within_bounds_whatever_the_model_says(tmp_path: Path) -> None:
    config, task = small(**{"optimizer.learning_rate": 100.0})
    with torch.no_grad():
        task.model.head.bias.fill_(4.9e12)
    assert 0.0 <= task.evaluate().value <= 100.0
    progress = fit(task, config, tmp_path, lambda _: None)
    # The loss is absurd, so nothing of it may become the best.
    assert progress.loss > 1e6
    assert not (tmp_path / "best.safetensors").exists()


@pytest.mark.parametrize("weight", [1e12, 1e30, 3e38, float("nan")])
def test_l4_every_figure_is_finite_and_bounded_whatever_the_model_says(weight: float) -> None:
    """An infinite figure would end the run, since no checkpoint may hold one."""
    _, task = small()
    with torch.no_grad():
        task.model.head.weight.fill_(weight)
    metrics = task.evaluate().metrics
    assert 0.0 <= metrics["located"] <= 100.0
    assert -1.0 <= metrics["r2"] <= 1.0
    assert -1.0 <= metrics["correlation"] <= 1.0


def test_the_figures_of_known_answers() -> None:
    truths = torch.eye(4)
    perfect = {"located": 100.0, "r2": 1.0, "correlation": 1.0}
    assert figures(truths, truths) == pytest.approx(perfect)
    doubled = figures(2.0 * truths, truths)
    assert (doubled["located"], doubled["correlation"]) == (100.0, pytest.approx(1.0))
    assert doubled["r2"] < 0.0
    constant = figures(torch.full((4, 4), 0.25), truths)
    assert (constant["r2"], constant["correlation"]) == (0.0, 0.0)
    broken = truths.clone()
    broken[1] = float("nan")
    assert figures(broken, truths) == {"located": 75.0, "r2": -1.0, "correlation": 0.0}


@pytest.mark.parametrize("shape", [(2, 11, 32), (2, 12, 4), (12, 32)])
def test_signals_of_another_shape_are_refused_with_both(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected signals \[B, 12, T >= 8\], got \[") as caught:
        build(12, 6, width=32, depth=1)(torch.zeros(shape))
    assert str(list(shape)) in str(caught.value)


def test_l4_a_run_that_explodes_keeps_the_weights_from_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, task = small(
        **{"length.steps": 20, "guard.max_skips_in_a_row": 3, "guard.max_rollbacks": 1}
    )
    measure, seen = EegTask.loss, 0

    def loss(self: EegTask, batch: Batch) -> Tensor:
        nonlocal seen
        seen += 1
        return measure(self, batch) * (1e38 if seen > 7 else 1.0) ** 2

    monkeypatch.setattr(EegTask, "loss", loss)
    with pytest.raises(NonFiniteError, match="steps in a row could not be taken"):
        fit(task, config, tmp_path, lambda _: None)
    best, last = build(12, 6, width=32, depth=1), build(12, 6, width=32, depth=1)
    assert load_weights(tmp_path / "best.safetensors", best)["step"] == 5
    load_weights(tmp_path / "last.safetensors", last)
    # Evaluated again after going back: the same weights, written down once more.
    for good, tensor in zip(best.state_dict().values(), last.state_dict().values(), strict=True):
        assert torch.isfinite(good).all()
        assert torch.equal(good, tensor)


def test_the_samples_can_be_drawn() -> None:
    pytest.importorskip("matplotlib")
    _, task = small()
    assert isinstance(task, Drawable)
    assert len(task.figure().axes) == 6


def test_l3_batches_that_do_not_fit_cost_one_step_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, task = small()
    honest = EegTask.batch

    def batch(self: EegTask, index: int) -> Batch:
        made = honest(self, index)
        if index == 4:
            return Batch({**made.tensors, "signals": torch.zeros(32, 5, 32)}, made.row_ids)
        if index == 7:
            raise MemoryError("too many recordings")
        return made

    monkeypatch.setattr(EegTask, "batch", batch)
    progress = fit(task, config, tmp_path, lambda _: None)
    assert (progress.step, progress.skipped) == (12, 2)
    rows = [json.loads(line) for line in (tmp_path / "skipped.jsonl").read_text().splitlines()]
    assert [(row["step"], row["kind"]) for row in rows] == [
        (4, "does not fit"),
        (7, "out of memory"),
    ]
    assert len(rows[0]["rows"]) == 32


def test_a_checkpoint_is_loaded_into_the_module_that_it_names(tmp_path: Path) -> None:
    config, task = small()
    fit(task, config, tmp_path, lambda _: None)
    model = build(12, 6, width=32, depth=1)
    record = load_weights(tmp_path / "last.safetensors", model)
    assert record["factory"] == "examples.eeg.model:build"
    assert EegTransformer(**record["options"], heads=4).state_dict().keys() == (
        model.state_dict().keys()
    )
    x = task.batch(0).tensors["signals"]
    task.model.eval()
    with torch.inference_mode():
        assert torch.equal(model.eval()(x), task.model(x))


def test_the_preflight_of_the_example_passes(tmp_path: Path) -> None:
    config, task = small()
    failed = [check for check in preflight(task, config, tmp_path) if not check.passed]
    assert not failed


@pytest.mark.slow
def test_the_example_learns_far_beyond_chance(tmp_path: Path) -> None:
    config = cast(CustomConfig, load_config(str(CONFIG), {"length.steps": 150}))
    progress = fit(assemble(config).task, config, tmp_path, lambda _: None)
    assert progress.best > 60.0, "of 100; chance is 3"
