"""Fine-tuning: a run that starts from a checkpoint, and the word loss in a run."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from swipe.errors import ConfigError
from swipe.layout import load_layout
from train.checkpoint import load_checkpoint
from train.config import Data, TrainConfig
from train.loop import fit
from train.swipe_data import EARLIER, SwipeData, load_swipe_data
from train.swipe_task import SwipeTask

LAYOUT = load_layout("qwerty")


def settings(**sections: Any) -> TrainConfig:
    fields: dict[str, Any] = {
        "model": {"channels": 8, "dilations": [1, 2]},
        "optimizer": {"batch_size": 32},
        "schedule": {"warmup_steps": 2},
        "length": {"steps": 6},
        "evaluation": {"times": 1, "swipes": 20, "lexicon": "wordfreq:2000", "beam_width": 8},
    }
    return TrainConfig.model_validate({**fields, **sections})


@pytest.fixture(scope="module")
def data() -> SwipeData:
    return load_swipe_data(Data(train="synthetic:500", dev_share=0.3), LAYOUT, seed=0)


@pytest.fixture(scope="module")
def trained(data: SwipeData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("trained") / "run"
    fit(SwipeTask(settings(), data, LAYOUT), settings(), run, lambda _: None)
    return run / "best.safetensors"


def test_a_run_starts_from_the_weights_of_a_checkpoint(data: SwipeData, trained: Path) -> None:
    task = SwipeTask(settings(init=str(trained)), data, LAYOUT)
    tensors = load_checkpoint(trained).tensors
    for name, tensor in task.model.state_dict().items():
        assert torch.equal(tensor, tensors[name]), name


@pytest.mark.slow
def test_the_record_names_what_every_stage_has_seen(
    data: SwipeData, trained: Path, tmp_path: Path
) -> None:
    """The third stage's record holds the second's and the first's."""
    first = load_checkpoint(trained).data
    second = tmp_path / "second"
    begun = settings(init=str(trained))
    fit(SwipeTask(begun, data, LAYOUT), begun, second, lambda _: None)
    then = settings(init=str(second))
    fit(SwipeTask(then, data, LAYOUT), then, tmp_path / "third", lambda _: None)
    assert EARLIER not in first
    assert load_checkpoint(second).data[EARLIER] == [first]
    assert load_checkpoint(tmp_path / "third").data[EARLIER] == [first, first]


def test_a_checkpoint_of_another_architecture_is_refused(data: SwipeData, trained: Path) -> None:
    other = settings(init=str(trained), model={"channels": 16, "dilations": [1, 2]})
    with pytest.raises(ConfigError, match=r"'channels': 8.*'channels': 16"):
        SwipeTask(other, data, LAYOUT)


def test_the_dropout_of_the_checkpoint_may_be_another(data: SwipeData, trained: Path) -> None:
    model = {"channels": 8, "dilations": [1, 2], "dropout": 0.1}
    SwipeTask(settings(init=str(trained), model=model), data, LAYOUT)


def test_the_word_loss_is_refused_on_random_weights(data: SwipeData) -> None:
    with pytest.raises(ConfigError, match="spells already") as caught:
        SwipeTask(settings(words={"share": 0.5}), data, LAYOUT)
    assert "--init" in caught.value.fix


def test_the_loss_holds_the_share_of_the_word_loss(data: SwipeData, trained: Path) -> None:
    losses = {}
    for share in (0.0, 0.5, 1.0):
        asked = settings(init=str(trained), words={"share": share})
        task = SwipeTask(asked, data, LAYOUT)
        losses[share] = float(task.loss(task.batch(0)).detach())
    assert losses[0.5] == pytest.approx((losses[0.0] + losses[1.0]) / 2, rel=1e-5)
    assert losses[0.0] != losses[1.0]


def test_logits_that_are_not_finite_show_in_the_loss_and_are_not_decoded(
    data: SwipeData, trained: Path
) -> None:
    task = SwipeTask(settings(init=str(trained), words={"share": 0.5}), data, LAYOUT)
    with torch.no_grad():
        task.model.query.weight[0, 0] = math.nan
    assert math.isnan(float(task.loss(task.batch(0)).detach()))


@pytest.mark.slow
def test_a_resumed_run_with_the_word_loss_equals_the_uninterrupted_one(
    data: SwipeData, trained: Path, tmp_path: Path
) -> None:
    asked = settings(init=str(trained), words={"share": 0.5, "candidates": 4})
    whole = SwipeTask(asked, data, LAYOUT)
    fit(whole, asked, tmp_path / "whole", lambda _: None)
    steps = iter([False, False, True])
    with pytest.raises(KeyboardInterrupt):
        fit(
            SwipeTask(asked, data, LAYOUT),
            asked,
            tmp_path / "halved",
            lambda _: None,
            stop=lambda: next(steps),
        )
    resumed = SwipeTask(asked, data, LAYOUT)
    fit(resumed, asked, tmp_path / "halved", lambda _: None, resume=True)
    for name, tensor in resumed.model.state_dict().items():
        assert torch.equal(tensor, whole.model.state_dict()[name]), name
