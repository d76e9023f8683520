"""Where runs begin, end and change: evaluations counted, nothing taken over from other runs."""

from __future__ import annotations

import errno
import math
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from watched_task import (
    RememberingAdamW,
    Sabotage,
    Stopped,
    WatchedTask,
    adamw,
    differing,
    everything,
    ignore,
    nan,
    settings,
    stop_at,
)

from swipe.errors import UsageError
from train.loop import fit
from train.progress import Progress
from train.sealed import read_sealed

__all__ = ["adamw"]


@pytest.mark.parametrize(
    ("steps", "times", "expected"),
    [(49, 49, 49), (100, 100, 100), (57, 19, 19), (29, 58, 29), (100, 7, 7), (6, 4, 4)],
)
def test_as_many_evaluations_are_made_as_were_asked_for(
    tmp_path: Path, steps: int, times: int, expected: int
) -> None:
    """29/100 * 100 is 28.999999999999996, and no reason to leave one out."""
    config = settings(length={"steps": steps}, evaluation={"times": times})
    progress = fit(WatchedTask(), config, tmp_path, ignore)
    at = [row["step"] for row in progress.history]
    assert at == [-(-number * steps // times) for number in range(1, times + 1)][-expected:] or (
        times > steps and at == list(range(1, steps + 1))
    )
    assert len(at) == expected


@pytest.mark.parametrize("stop", [28, 29, 30])
def test_a_resumed_run_evaluates_when_the_uninterrupted_one_does(tmp_path: Path, stop: int) -> None:
    config = settings(length={"steps": 50}, evaluation={"times": 50})
    with pytest.raises(Stopped):
        fit(WatchedTask(), config, tmp_path, stop_at(stop))
    progress = fit(WatchedTask(), config, tmp_path, ignore, resume=True)
    assert [row["step"] for row in progress.history] == list(range(1, 51))


GUARD = {"max_skips_in_a_row": 2}
NANS: dict[int, Sabotage] = dict.fromkeys((2, 3), nan)


def test_a_run_never_goes_back_to_the_state_of_another_one(
    tmp_path: Path, adamw: type[RememberingAdamW]
) -> None:
    """A folder may hold the states of an earlier run that is not gone on with."""
    earlier = WatchedTask()
    with torch.no_grad():
        earlier.model[0].weight.fill_(7.0)  # type: ignore[index, operator]
    fit(earlier, settings(), tmp_path, ignore)
    (tmp_path / "fresh").mkdir()
    seen: list[dict[str, Tensor]] = []
    for folder in (tmp_path, tmp_path / "fresh"):
        task = WatchedTask(NANS)
        fit(task, settings(guard=GUARD), folder, ignore)
        seen.append(everything(task, adamw.last))
    assert not differing(*seen)


def huge(loss: Tensor) -> Tensor:
    return loss + 1e12


def test_l4_after_going_back_the_loss_of_what_was_undone_forbids_no_best(tmp_path: Path) -> None:
    """The average would stay absurd for hundreds of steps, and every score would count as none."""
    plan: dict[int, Sabotage] = {5: huge, 6: nan, 7: nan}
    shown: dict[int, float] = {}

    def observe(progress: Progress) -> None:
        shown[progress.step] = progress.loss

    progress = fit(
        WatchedTask(plan, scores=[1.0, 2.0, 3.0]), settings(guard=GUARD), tmp_path, observe
    )
    assert progress.rollbacks == 1
    assert shown[6] > 1e9
    assert math.isnan(shown[8]), "no step was taken since"
    assert 0 < shown[9] < 100
    assert progress.best == 3.0
    assert read_sealed(tmp_path / "best.safetensors", fix="-")[0]["step"] == 12


def test_l4_without_going_back_an_absurd_loss_forbids_the_best(tmp_path: Path) -> None:
    task = WatchedTask({5: huge}, scores=[1.0, 2.0, 3.0])
    assert fit(task, settings(), tmp_path, ignore).best == 1.0


@pytest.mark.parametrize("kind", [np.float32, torch.tensor], ids=["numpy", "torch"])
def test_a_score_may_be_of_any_number_type(tmp_path: Path, kind: type) -> None:
    task = WatchedTask(scores=[kind(0.25), kind(0.5), kind(0.125)])
    progress = fit(task, settings(), tmp_path, ignore)
    assert (type(progress.best), progress.best) == (float, 0.5)
    resumed = fit(WatchedTask(), settings(), tmp_path, ignore, resume=True)
    assert [row["score"] for row in resumed.history] == [0.25, 0.5, 0.125]


def test_a_diagnosis_does_not_outlive_its_reason(tmp_path: Path) -> None:
    """A run that was mended and went on to the end has nothing to be diagnosed."""
    (tmp_path / "diagnosis.json").write_text("{}")
    fit(WatchedTask(), settings(), tmp_path, ignore, resume=True)
    assert not (tmp_path / "diagnosis.json").exists()


def test_l4_a_model_that_was_never_trained_is_no_best(tmp_path: Path) -> None:
    """Every step skipped, and not enough of them to stop: its score is that of the seed."""
    task = WatchedTask(dict.fromkeys(range(12), nan))
    progress = fit(task, settings(), tmp_path, ignore)
    assert (progress.taken, progress.skipped) == (0, 12)
    assert progress.best == -math.inf
    assert [row["score"] for row in progress.history] == [None] * 3
    assert not (tmp_path / "best.safetensors").exists()


@pytest.mark.parametrize("code", [errno.EPERM, errno.ENOTSUP, errno.EXDEV, errno.EMLINK])
def test_a_file_system_without_hard_links_is_no_reason_to_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, adamw: type[RememberingAdamW], code: int
) -> None:
    """Mounted drives and memory cards have none: the last good state is copied there."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    plan: dict[int, Sabotage] = dict.fromkeys((6, 7), nan)
    seen: list[dict[str, Tensor]] = []
    for name in ("linked", "copied"):
        (tmp_path / name).mkdir()
        if name == "copied":
            monkeypatch.setattr(os, "link", refuse)
        task = WatchedTask(plan)
        assert fit(task, settings(guard=GUARD), tmp_path / name, ignore).rollbacks == 1
        seen.append(everything(task, adamw.last))
    assert not differing(*seen)
    assert not list((tmp_path / "copied").glob(".*"))
    good, state = (tmp_path / "copied" / f"{n}.safetensors" for n in ("good", "state"))
    assert good.read_bytes() == state.read_bytes()
    assert not good.samefile(state)


def test_a_full_disk_under_the_good_state_is_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "link", full)
    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(UsageError, match=r"cannot write .*good\.safetensors: No space left"):
        fit(WatchedTask(), settings(), tmp_path, ignore)
    assert not list(tmp_path.glob(".*"))
