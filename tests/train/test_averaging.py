"""Averaging a run: the weights are the mean, the statistics are measured, the parts are proven."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from swipe.errors import CheckpointError, UsageError
from train.assemble import assemble
from train.averaging import AFTER, average_run
from train.checkpoint import load_checkpoint
from train.config import TrainConfig, save_config
from train.loop import fit
from train.runs import CONFIG

pytestmark = pytest.mark.slow

FIELDS: dict[str, Any] = {
    "data": {"train": "synthetic:400", "dev_share": 0.3},
    "model": {"channels": 8, "dilations": [1, 2]},
    "optimizer": {"batch_size": 32},
    "length": {"steps": 6},
    "evaluation": {"times": 1, "swipes": 20, "lexicon": "wordfreq:2000", "beam_width": 8},
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run whose best checkpoint is an earlier one than its last."""
    config = TrainConfig.model_validate(FIELDS)
    fit(assemble(config).task, config, tmp_path, lambda _: None)
    early = TrainConfig.model_validate({**FIELDS, "length": {"steps": 3}})
    fit(assemble(early).task, early, tmp_path / "early", lambda _: None)
    for kind in (".safetensors", ".json"):
        (tmp_path / "early" / f"best{kind}").rename(tmp_path / f"best{kind}")
    save_config(config, tmp_path / CONFIG)
    return tmp_path


def test_the_weights_are_the_mean_and_the_statistics_are_not(run: Path) -> None:
    path, score = average_run(run)
    best, last = load_checkpoint(run), load_checkpoint(run / "last.safetensors")
    averaged = load_checkpoint(path)
    assert (best.step, last.step, averaged.step) == (3, 6, 6)
    assert averaged.metrics["beam"] == score.metrics["beam"]
    for name, tensor in averaged.tensors.items():
        mean = (best.tensors[name] + last.tensors[name]) / 2
        if "running" in name:
            assert not torch.allclose(tensor, mean), name
        elif tensor.is_floating_point():
            assert torch.equal(tensor, mean), name


def test_the_statistics_are_those_of_training_batches(run: Path) -> None:
    averaged = load_checkpoint(average_run(run)[0])
    task = assemble(TrainConfig.model_validate(FIELDS)).task
    task.model.load_state_dict(dict(averaged.tensors))
    seen = []
    stem = task.model.get_submodule("stem.conv")
    stem.register_forward_hook(lambda _m, _i, output: seen.append(output.mean(dim=(0, 2))))
    with torch.no_grad():
        for number in range(60):
            task.loss(task.batch(AFTER + number))
    expected = torch.stack(seen).mean(dim=0)
    torch.testing.assert_close(averaged.tensors["stem.norm.running_mean"], expected)


def test_a_run_whose_best_is_its_last_has_nothing_to_average(run: Path) -> None:
    (run / "best.safetensors").write_bytes((run / "last.safetensors").read_bytes())
    with pytest.raises(UsageError, match="nothing to average"):
        average_run(run)


def test_a_folder_without_a_finished_run_is_refused(run: Path, tmp_path: Path) -> None:
    (run / "last.safetensors").unlink()
    with pytest.raises(UsageError, match=r"has no last\.safetensors"):
        average_run(run)


def test_a_damaged_checkpoint_is_refused_and_nothing_is_written(run: Path) -> None:
    data = bytearray((run / "last.safetensors").read_bytes())
    data[-1] ^= 1
    (run / "last.safetensors").write_bytes(bytes(data))
    with pytest.raises(CheckpointError, match="altered"):
        average_run(run)
    assert not (run / "averaged.safetensors").exists()
