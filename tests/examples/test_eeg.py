"""The EEG example: what is clamped, what is learned, and that no score is a fluke (L4)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch

from examples.eeg import model as module
from examples.eeg.data import ACTIVE, ARTEFACT, Head
from examples.eeg.model import CLAMP, EegTransformer, build
from examples.eeg.task import EegTask
from train.assemble import assemble
from train.checkpoint import load_weights
from train.config import CustomConfig, load_config
from train.loop import fit
from train.preflight import preflight
from train.task import Batch

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
