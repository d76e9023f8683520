"""What is good, what is best, and when: the corners of evaluations, rollbacks and resumption."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from linear_task import LinearTask, settings
from torch import Tensor

from train.loop import fit
from train.progress import Progress

GUARD = {"max_skips_in_a_row": 2, "max_rollbacks": 2}


def nan(loss: Tensor) -> Tensor:
    return loss * math.nan


def huge(loss: Tensor) -> Tensor:
    return loss + 4.9e12


def ignore(progress: Progress) -> None:
    """An observer that does not look."""


def weights(task: LinearTask) -> list[Tensor]:
    return [p.detach().clone() for p in task.model.parameters()]


def equal(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def course(task: LinearTask) -> tuple[dict[int, list[Tensor]], Callable[[Progress], None]]:
    """The weights after each step, and the observer that collects them."""
    seen: dict[int, list[Tensor]] = {}

    def observe(progress: Progress) -> None:
        seen[progress.step] = weights(task)

    return seen, observe


@pytest.mark.parametrize("times", [49, 98, 7])
def test_evaluations_are_as_many_as_asked_for(tmp_path: Path, times: int) -> None:
    """1 / 49 * 49 is less than 1."""
    task = LinearTask()
    progress = fit(
        task, settings(length={"steps": 98}, evaluation={"times": times}), tmp_path, ignore
    )
    assert task.evaluated == times
    assert [row["step"] for row in progress.history] == list(range(98 // times, 99, 98 // times))


@pytest.mark.parametrize("score", [4.9e12, math.nan, -math.inf])
def test_l4_a_state_whose_score_is_not_sane_is_nothing_to_go_back_to(
    tmp_path: Path, score: float
) -> None:
    """The evaluation after step 8 is of a diverged model: the one after step 4 is the last good."""
    task = LinearTask(dict.fromkeys((9, 10), nan), scores=[1.0, score, 2.0])
    seen, observe = course(task)
    progress = fit(task, settings(guard=GUARD), tmp_path, observe)
    assert progress.rollbacks == 1
    assert not equal(seen[8], seen[4])
    assert equal(seen[11], seen[4])


def test_what_a_run_went_back_from_is_not_held_against_it(tmp_path: Path) -> None:
    """An absurd loss stays in the average for hundreds of steps; its weights are gone."""
    plan = {5: huge, 6: nan, 7: nan}
    progress = fit(
        LinearTask(plan, scores=[1.0, 2.0, 3.0]), settings(guard=GUARD), tmp_path, ignore
    )
    assert progress.rollbacks == 1
    assert progress.loss < 100
    assert progress.best == 3.0


def test_l0_a_model_that_never_took_a_step_is_not_best(tmp_path: Path) -> None:
    progress = fit(
        LinearTask(dict.fromkeys(range(3), nan)),
        settings(length={"steps": 3}, evaluation={"times": 1}),
        tmp_path,
        ignore,
    )
    assert (progress.taken, progress.skipped) == (0, 3)
    assert progress.best == -math.inf
    assert not (tmp_path / "best.safetensors").exists()


@pytest.mark.parametrize("stop", [2, 3, 4])
def test_going_back_to_the_start_survives_an_interruption(tmp_path: Path, stop: int) -> None:
    """Before the first evaluation there is no good state in a file."""
    plan = dict.fromkeys((1, 2), nan)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir()
    parts.mkdir()
    expected = LinearTask(plan)
    fit(expected, settings(guard=GUARD), whole, ignore)
    last = Progress()

    def observe(progress: Progress) -> None:
        nonlocal last
        last = progress

    with pytest.raises(KeyboardInterrupt):
        fit(
            LinearTask(plan),
            settings(guard=GUARD),
            parts,
            observe,
            stop=lambda: last.step == stop,
        )
    resumed = LinearTask(plan)
    assert fit(resumed, settings(guard=GUARD), parts, ignore, resume=True).rollbacks == 1
    assert equal(weights(resumed), weights(expected))


def test_starting_over_does_not_go_back_into_an_earlier_run(tmp_path: Path) -> None:
    """Its state was lost, its good state was left."""
    fit(LinearTask(), settings(), tmp_path, ignore)
    (tmp_path / "state.safetensors").unlink()
    task = LinearTask(dict.fromkeys((1, 2), nan))
    start, (seen, observe) = weights(task), course(task)
    fit(task, settings(guard=GUARD), tmp_path, observe, resume=True)
    assert equal(seen[3], start)


def test_a_diagnosis_is_of_this_run(tmp_path: Path) -> None:
    (tmp_path / "diagnosis.json").write_text("{}")
    fit(LinearTask(), settings(), tmp_path, ignore)
    assert not (tmp_path / "diagnosis.json").exists()


def test_a_streak_of_skips_around_an_evaluation_goes_back_to_the_one_before(
    tmp_path: Path,
) -> None:
    """The evaluation after step 8 is of the very weights that no step can be taken from."""
    task = LinearTask(dict.fromkeys((7, 8), nan))
    seen, observe = course(task)
    progress = fit(task, settings(guard=GUARD), tmp_path, observe)
    assert progress.rollbacks == 1
    assert not equal(seen[8], seen[4])
    assert equal(seen[9], seen[4])
