"""Every question of the preflight meets the failure it is meant for, and says what to do.

The tasks are real swipe tasks; what is sabotaged is one thing each.
"""

from __future__ import annotations

import math
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest
import torch
from torch import Tensor, nn

from swipe.layout import load_layout
from swipe.lexicon import load_lexicon
from swipe.synthesis import synthesize
from train import schedule
from train.checkpoint import load_checkpoint
from train.config import LoopConfig, TrainConfig
from train.preflight import Check, preflight
from train.progress import Progress
from train.swipe_data import SwipeData
from train.swipe_task import SwipeTask
from train.task import Batch

LAYOUT = load_layout("qwerty")
WORDS = "wordfreq:1000"


def settings(**sections: Any) -> TrainConfig:
    fields: dict[str, Any] = {
        "model": {"channels": 24, "dilations": [1, 2]},
        "optimizer": {"batch_size": 32, "learning_rate": 5e-3},
        "length": {"steps": 200},
        "evaluation": {"times": 1, "swipes": 10, "lexicon": WORDS, "beam_width": 8},
        "device": "cpu",
    }
    return TrainConfig.model_validate({**fields, **sections})


@pytest.fixture(scope="module")
def data() -> SwipeData:
    swipes = synthesize(LAYOUT, load_lexicon(WORDS), 200)
    gestures = list(swipes.gestures)
    return SwipeData(gestures[:160], gestures[160:], 0, (swipes,), {"synthetic": True})


class Asked(NamedTuple):
    """All answers by question, and those that were bad."""

    answers: dict[str, Check]
    failed: list[str]


Ask = Callable[..., Asked]


@pytest.fixture
def ask(data: SwipeData, tmp_path: Path) -> Ask:
    def call(kind: type[SwipeTask] = SwipeTask, config: TrainConfig | None = None) -> Asked:
        config = config or settings()
        answers = {c.name: c for c in preflight(kind(config, data, LAYOUT), config, tmp_path)}
        failed = [name for name, check in answers.items() if not check.passed]
        for check in answers.values():
            assert bool(check.fix) is not check.passed, check
        return Asked(answers, failed)

    return call


def changed(batch: Batch, **tensors: Tensor) -> Batch:
    return Batch({**batch.tensors, **tensors}, batch.row_ids)


def test_an_honest_task_passes_every_question(ask: Ask) -> None:
    answers, failed = ask()
    assert not failed
    assert list(answers) == [
        "learning rate",
        "disk",
        "memory",
        "a batch of real data",
        "labels round-trip through the alphabet",
        "labels fit into the frames",
        "data -> model -> loss",
        "configuration, data and model share one contract",
        "8 samples can be learned by heart",
        "frames differ over time",
        "blank does not dominate",
    ]


def test_the_model_is_left_as_it_was(data: SwipeData, tmp_path: Path) -> None:
    task = SwipeTask(settings(), data, LAYOUT)
    before = {name: t.clone() for name, t in task.model.state_dict().items()}
    list(preflight(task, settings(), tmp_path))
    after = task.model.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert all(p.grad is None for p in task.model.parameters())


def test_l2_a_model_that_pools_over_time_is_found(ask: Ask) -> None:
    class Collapsed(SwipeTask):
        """AdaptiveAvgPool1d(1), then expand: word error rate 100 % for 23 epochs."""

        def logits(self, batch: Batch) -> Tensor:
            logits = super().logits(batch)
            return logits.mean(dim=1, keepdim=True).expand_as(logits)

    answers, failed = ask(Collapsed)
    assert "frames differ over time" in failed
    assert "0.00%" in answers["frames differ over time"].detail
    assert "pooling over time" in answers["frames differ over time"].fix


def test_l2_labels_that_hold_the_blank_are_found(ask: Ask) -> None:
    class PadIsBlank(SwipeTask):
        """Padding counted as label, and padded with the blank's class."""

        def batch(self, index: int) -> Batch:
            batch = super().batch(index)
            targets, lengths = batch.tensors["targets"].clone(), batch.tensors["lengths"]
            targets[torch.arange(targets.shape[1]) >= lengths[:, None]] = 26
            return changed(batch, targets=targets, lengths=lengths.clamp(min=targets.shape[1]))

    answers, failed = ask(PadIsBlank)
    assert "labels round-trip through the alphabet" in failed
    assert "class 26 has no symbol" in answers["labels round-trip through the alphabet"].detail


def test_l2_a_model_that_says_nothing_but_blank_is_found(ask: Ask) -> None:
    class OnlyBlank(SwipeTask):
        """Trained well, and then read with the blank's score far above all others."""

        def logits(self, batch: Batch) -> Tensor:
            logits = super().logits(batch)
            reading = not torch.is_grad_enabled()
            return logits + 1e3 * nn.functional.one_hot(torch.tensor(26), 27) * reading

    answers, failed = ask(OnlyBlank)
    assert failed == ["blank does not dominate"]
    assert answers["blank does not dominate"].detail.startswith("0 frames say a symbol")


def test_l1_an_infeasible_word_is_counted(ask: Ask) -> None:
    class Infeasible(SwipeTask):
        def batch(self, index: int) -> Batch:
            batch = super().batch(index)
            targets = torch.zeros(32, 20, dtype=torch.long)
            targets[:, : batch.tensors["targets"].shape[1]] = batch.tensors["targets"][:, :20]
            targets[3], lengths = 0, batch.tensors["lengths"].clone()
            lengths[3] = 20  # twenty times "a" takes 39 frames
            return changed(batch, targets=targets, lengths=lengths)

    answers, failed = ask(Infeasible)
    assert "labels fit into the frames" in failed
    assert answers["labels fit into the frames"].detail.startswith("5 of 160 need more frames")


def test_l1_a_width_that_is_not_produced_is_shown_with_layer_and_shapes(ask: Ask) -> None:
    """37 was declared and 35 produced."""

    class Narrow(SwipeTask):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            self.model.stem.conv = nn.Conv1d(37, 24, 5, padding=2)  # type: ignore[assignment, union-attr]

    answers, failed = ask(Narrow)
    assert failed == ["data -> model -> loss"]
    detail = answers["data -> model -> loss"].detail
    assert "stem.conv: Conv1d(37, 24" in detail
    assert "got [32, 7, 64]" in detail
    assert "one configuration value" in answers["data -> model -> loss"].fix


def test_another_contract_is_found(ask: Ask) -> None:
    class Long(SwipeTask):
        """128 points where 64 were agreed on: the model takes them without a word."""

        def batch(self, index: int) -> Batch:
            batch = super().batch(index)
            features = batch.tensors["features"].repeat_interleave(2, dim=2)
            return changed(batch, features=features)

    answers, failed = ask(Long)
    assert "configuration, data and model share one contract" in failed
    detail = answers["configuration, data and model share one contract"].detail
    assert len(set(detail.split())) > 5, "the ids differ"


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_l0_a_number_that_is_not_finite_in_the_data_is_found(ask: Ask, bad: float) -> None:
    class OneBadNumber(SwipeTask):
        def batch(self, index: int) -> Batch:
            batch = super().batch(index)
            batch.tensors["features"][7, 1, 9] = bad
            return batch

    answers, failed = ask(OneBadNumber)
    assert failed == ["a batch of real data"]
    assert "features: " in answers["a batch of real data"].detail


def test_batches_that_cannot_be_repeated_are_found(ask: Ask) -> None:
    class Restless(SwipeTask):
        def batch(self, index: int) -> Batch:
            batch = super().batch(index)
            return changed(batch, features=batch.tensors["features"] + 1e-3 * torch.rand(()))

    answers, failed = ask(Restless)
    assert failed == ["a batch of real data"]
    assert "drawn twice, it differs" in answers["a batch of real data"].detail


def test_l0_a_loss_that_is_nan_is_found(ask: Ask) -> None:
    class NanLoss(SwipeTask):
        def loss(self, batch: Batch) -> Tensor:
            return super().loss(batch) * math.nan

    assert ask(NanLoss).failed == ["data -> model -> loss"]


def test_l4_a_gradient_that_is_not_finite_is_found_with_its_tensor(ask: Ask) -> None:
    class InfiniteSlope(SwipeTask):
        def loss(self, batch: Batch) -> Tensor:
            zero = (self.model.blank - self.model.blank.detach()).sum()
            return super().loss(batch) + zero.sqrt()

    answers, failed = ask(InfiniteSlope)
    assert failed == ["data -> model -> loss"]
    assert "gradient of blank: " in answers["data -> model -> loss"].detail


@pytest.mark.parametrize("how", ["frozen", "detached", "foreign labels"])
def test_a_model_that_cannot_learn_is_found(ask: Ask, how: str) -> None:
    class Unable(SwipeTask):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            for name, parameter in self.model.named_parameters():
                parameter.requires_grad_(how != "frozen" or name == "blank")

        def loss(self, batch: Batch) -> Tensor:
            loss = super().loss(batch)
            if how == "detached":
                return loss.detach() + 0 * self.model.blank.sum()
            if how == "foreign labels":  # another label at every look
                targets = torch.randint(0, 26, batch.tensors["targets"].shape)
                return super().loss(changed(batch, targets=targets))
            return loss

    answers, failed = ask(Unable)
    assert "8 samples can be learned by heart" in failed
    assert "->" in answers["8 samples can be learned by heart"].detail


def test_l1_a_schedule_that_is_a_step_ahead_is_found(
    ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What stepping a scheduler before the optimizer does to the first step."""
    honest = schedule.learning_rate

    def ahead(config: LoopConfig, progress: Progress) -> float:
        progress = Progress(step=progress.step + 1, fraction=progress.fraction)
        return honest(config, progress)

    monkeypatch.setattr(schedule, "learning_rate", ahead)
    answers, failed = ask()
    assert failed == ["learning rate"]
    assert "a step ahead" in answers["learning rate"].fix


@pytest.mark.parametrize("rate", [math.nan, -1e-3, 0.0, 1e-5, 1.0])
def test_a_schedule_that_is_no_such_thing_is_found(
    ask: Ask, monkeypatch: pytest.MonkeyPatch, rate: float
) -> None:
    monkeypatch.setattr(schedule, "learning_rate", lambda *_: rate)
    assert ask().failed == ["learning rate"]


def test_a_full_disk_and_a_full_memory_are_found(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    class Free(NamedTuple):
        free: int = 1000
        available: int = 1000

    monkeypatch.setattr(shutil, "disk_usage", lambda _: Free())
    monkeypatch.setattr(psutil, "virtual_memory", Free)
    assert ask().failed == ["disk", "memory"]


FIT = [sys.executable, "-m", "train.cli", "fit", "--data", "synthetic:300", "--steps", "5"]
FAST = ["--set", "evaluation.swipes=10", "--set", f"evaluation.lexicon={WORDS}",
        "--set", "data.dev_share=0.3", "--set", "record.tensorboard=false"]  # fmt: skip


@pytest.mark.slow
def test_a_run_with_and_without_preflight_is_the_same(tmp_path: Path) -> None:
    for name, option in (("with", "--preflight"), ("without", "--no-preflight")):
        command = [*FIT, *FAST, "--out", name, option]
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    one, other = (load_checkpoint(tmp_path / n / "last.safetensors") for n in ("with", "without"))
    assert one.weights_sha256 == other.weights_sha256


@pytest.mark.slow
def test_a_run_that_fails_its_preflight_writes_nothing_and_says_how_to_go_on(
    tmp_path: Path,
) -> None:
    command = [*FIT, *FAST, "--out", "run", "--set", "optimizer.learning_rate=1e-7"]
    done = subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, text=True)
    assert done.returncode == 3
    assert "learned by heart" in done.stderr
    assert "--no-preflight" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_dry_run_shows_the_settings_and_writes_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [*FIT, *FAST, "--dry-run"], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    assert '"batch_size": 256' in done.stdout
    assert "✓ frames differ over time" in done.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_sound_task_on_the_real_corpus_passes(tmp_path: Path, shared_data: Path) -> None:
    from train.assemble import assemble
    from train.config import load_config

    corpus = shared_data / "how_we_swipe"
    config = load_config(
        "base",
        {
            "data.train": str(corpus / "train.jsonl.gz"),
            "data.dev": str(corpus / "dev.jsonl.gz"),
            "evaluation.lexicon": WORDS,
        },
    )
    checks = preflight(assemble(config).task, config, tmp_path)
    assert not [check for check in checks if not check.passed]
