"""Going back, stopping with a diagnosis, best among the sane, stopping early; all resumable."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from linear_task import LinearTask, equal, ignore, nan, settings, weights
from torch import Tensor

from swipe.errors import NonFiniteError
from train.loop import fit
from train.progress import Progress
from train.sealed import read_sealed
from train.task import Batch, Score

GUARD = {"max_skips_in_a_row": 2, "max_rollbacks": 2}


def test_the_run_goes_back_to_the_last_evaluation_at_half_the_rate(tmp_path: Path) -> None:
    task = LinearTask(dict.fromkeys((6, 7), nan))
    at: dict[int, list[Tensor]] = {}
    rates: dict[int, float] = {}

    def observe(progress: Progress) -> None:
        at[progress.step] = weights(task)
        rates[progress.step] = progress.learning_rate

    config = settings(guard=GUARD, schedule={"name": "plateau", "warmup_steps": 0, "patience": 9})
    progress = fit(task, config, tmp_path, observe)
    assert (progress.rollbacks, progress.skipped, progress.step) == (1, 2, 12)
    # The evaluation after step 4 is the last good state; steps 5 and 6 are taken back.
    assert not equal(at[6], at[4])
    assert equal(at[8], at[4])
    assert not equal(at[9], at[4]), "and the run goes on from there"
    assert rates[8] == pytest.approx(0.01)
    assert rates[9] == pytest.approx(0.005)
    events = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    (event,) = [row for row in events if "event" in row]
    assert event["event"] == "rollback"
    assert "2 steps in a row" in event["reason"]


def stopped_at(step: int, task: LinearTask, folder: Path) -> dict[str, Tensor]:
    """The moments of a run that was interrupted after `step`."""
    here = Progress()

    def observe(progress: Progress) -> None:
        nonlocal here
        here = progress

    folder.mkdir()
    with pytest.raises(KeyboardInterrupt):
        fit(task, settings(guard=GUARD), folder, observe, stop=lambda: here.step == step)
    _, tensors = read_sealed(folder / "state.safetensors", fix="-")
    return {name: t for name, t in tensors.items() if name.startswith("optimizer.")}


def test_moments_go_back_too(tmp_path: Path) -> None:
    after = stopped_at(8, LinearTask(dict.fromkeys((6, 7), nan)), tmp_path / "back")
    good = stopped_at(4, LinearTask(), tmp_path / "good")
    other = stopped_at(6, LinearTask(), tmp_path / "other")
    assert after.keys() == good.keys()
    assert all(torch.equal(after[name], good[name]) for name in good)
    assert not all(torch.equal(after[name], other[name]) for name in other)


def test_before_the_first_evaluation_the_run_goes_back_to_its_start(tmp_path: Path) -> None:
    task = LinearTask(dict.fromkeys((1, 2), nan))
    start, seen = weights(task), list[bool]()
    fit(task, settings(guard=GUARD), tmp_path, lambda _: seen.append(equal(weights(task), start)))
    assert seen[:4] == [False, False, True, False]


def test_after_the_last_rollback_the_run_stops_with_a_diagnosis(tmp_path: Path) -> None:
    """Steps 3 of every 3 go wrong from step 5 on: back, back, and then no more."""
    bad = {n: nan for n in range(5, 60) if n % 3}
    config = settings(guard=GUARD, length={"steps": 60})
    with pytest.raises(NonFiniteError, match="after 2 rollbacks") as caught:
        fit(LinearTask(bad), config, tmp_path, ignore)
    assert "diagnosis.json" in caught.value.fix
    found = json.loads((tmp_path / "diagnosis.json").read_text())
    assert (found["kind"], found["cause"], found["rollbacks"]) == (
        "not finite",
        "loss is nan",
        2,
    )
    assert found["rows_of_this_step"][0].startswith(f"row-{found['step']}-")
    assert {row["steps"] for row in found["rows_skipped_most"]} == {1}
    assert all(row["gradient_norm"] > 0 for row in found["history"])
    assert found["history"][-1]["learning_rate"] < found["history"][0]["learning_rate"] / 2


def test_the_diagnosis_names_the_first_layer_that_breaks(tmp_path: Path) -> None:
    class Overflowing(LinearTask):
        """The second layer's weights, finite in themselves, overflow from batch 5 on."""

        def batch(self, index: int) -> Batch:
            if index == 5:
                with torch.no_grad():
                    self.model[2].weight.fill_(3e38)  # type: ignore[index]
            return super().batch(index)

    with pytest.raises(NonFiniteError, match="first seen in 2"):
        fit(
            Overflowing(),
            settings(guard={"max_skips_in_a_row": 1, "max_rollbacks": 0}),
            tmp_path,
            ignore,
        )
    assert json.loads((tmp_path / "diagnosis.json").read_text())["layer"] == "2"


@pytest.mark.parametrize("stop", [5, 6, 7, 8, 10])
def test_an_interrupted_run_that_goes_back_equals_the_uninterrupted_one(
    tmp_path: Path, stop: int
) -> None:
    """Stopped between the good state and the rollback, in the middle of the skips, and after."""
    bad = dict.fromkeys((6, 7), nan)
    whole, parts = LinearTask(bad), LinearTask(bad)
    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    expected = fit(whole, settings(guard=GUARD), tmp_path / "whole", ignore)
    here = Progress()

    def observe(progress: Progress) -> None:
        nonlocal here
        here = progress

    def stopping() -> bool:
        return here.step == stop

    with pytest.raises(KeyboardInterrupt):
        fit(parts, settings(guard=GUARD), tmp_path / "parts", observe, stop=stopping)
    resumed = LinearTask(bad)
    progress = fit(resumed, settings(guard=GUARD), tmp_path / "parts", ignore, resume=True)
    assert equal(weights(resumed), weights(whole))
    for name in ("step", "taken", "skipped", "rollbacks", "samples", "history"):
        assert getattr(progress, name) == getattr(expected, name), name
    for name in ("metrics.jsonl", "skipped.jsonl"):
        one, other = (
            [json.loads(line)["step"] for line in (tmp_path / run / name).read_text().splitlines()]
            for run in ("whole", "parts")
        )
        assert one == other, name


def test_l4_explosions_are_counted_and_written_down(tmp_path: Path) -> None:
    def steep(loss: Tensor) -> Tensor:
        return loss * 1e5

    progress = fit(LinearTask({3: steep, 7: steep}), settings(), tmp_path, ignore)
    assert (progress.explosions, progress.skipped) == (2, 0)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if row.get("event") == "explosion"] == [3, 7]


@pytest.mark.parametrize("scores", [[1.0, 4.9e12, 0.5], [1.0, -4.9e12, 0.5], [1.0, math.nan, 0.5]])
def test_l4_an_absurd_score_is_never_best(tmp_path: Path, scores: list[float]) -> None:
    progress = fit(LinearTask(scores=scores), settings(), tmp_path, ignore)
    assert progress.best == 1.0
    assert progress.history[1]["score"] is None
    record, _ = read_sealed(tmp_path / "best.safetensors", fix="-")
    assert record["step"] == 4


def test_l4_no_score_is_best_while_the_loss_is_absurd(tmp_path: Path) -> None:
    def huge(loss: Tensor) -> Tensor:
        return loss + 4.9e12

    progress = fit(LinearTask({1: huge}), settings(), tmp_path, ignore)
    assert progress.best == -math.inf
    assert not (tmp_path / "best.safetensors").exists()


def test_l4_a_metric_that_is_not_finite_is_recorded_as_none(tmp_path: Path) -> None:
    """It says nothing against the weights, and NaN is no JSON."""

    class NanMetric(LinearTask):
        def evaluate(self) -> Score:
            return replace(super().evaluate(), metrics={"r2": math.nan, "by": [{"a": -math.inf}]})

    fit(NanMetric(), settings(), tmp_path, ignore)
    record, _ = read_sealed(tmp_path / "best.safetensors", fix="-")
    assert record["metrics"] == {"r2": None, "by": [{"a": None}]}


def early(scores: list[float]) -> tuple[LinearTask, Callable[[Path], Progress]]:
    task = LinearTask(scores=scores)
    config = settings(length={"steps": 12, "patience": 2}, evaluation={"times": 6})
    return task, lambda folder: fit(task, config, folder, ignore, resume=True)


def test_a_score_that_no_longer_rises_ends_the_run(tmp_path: Path) -> None:
    task, run = early([1.0, 2.0, 1.5, 1.9, 9.0, 9.0])
    assert run(tmp_path).step == 8
    assert task.evaluated == 4
    # Resuming it does not train on.
    again, run = early([])
    assert run(tmp_path).step == 8
    assert again.evaluated == 0


def test_without_patience_every_evaluation_is_made(tmp_path: Path) -> None:
    task = LinearTask(scores=[3.0, 2.0, 1.0])
    assert fit(task, settings(), tmp_path, ignore).step == 12


def test_a_score_is_the_tasks_own(tmp_path: Path) -> None:
    """The summary of the best evaluation is what a person is shown at the end."""
    seen: list[Score | None] = []
    progress = fit(LinearTask(), settings(), tmp_path, lambda p: seen.append(p.score))
    assert [row["summary"] for row in progress.history] == [
        f"score {row['score']:g}" for row in progress.history
    ]
    assert seen[-1] is not None
