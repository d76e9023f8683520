"""The training loop on a tiny task: what runs, what is skipped, what is kept, what is resumed."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from swipe.errors import CheckpointError, ExitCode, NonFiniteError
from swipe.layout import load_layout
from train import loop
from train.checkpoint import Checkpoint, load_checkpoint
from train.config import TrainConfig
from train.loop import LOSS_SMOOTHING, fit
from train.models import TcnSpec
from train.progress import Progress
from train.sealed import read_sealed, write_sealed
from train.task import Batch, Score

ROWS = 16
STATE = "state.safetensors"
KINDS = ["batch NaN", "batch Inf", "loss NaN", "loss Inf", "gradient Inf", "gradient NaN"]


class TinyTask:
    """Least squares with BatchNorm and dropout; steps named in `sabotage` go wrong.

    Everything random is a function of the step, as `train.task` demands.
    """

    def __init__(
        self, sabotage: Mapping[int, str] | None = None, scores: Sequence[float] | None = None
    ) -> None:
        torch.manual_seed(0)
        self.model: nn.Module = nn.Sequential(
            nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 1)
        )
        self.sabotage = dict(sabotage or {})
        self.scores = scores
        self.step = -1
        self.evaluated = 0
        self.losses: dict[int, float] = {}

    batches_per_epoch = 1000

    def batch(self, step: int) -> Batch:
        self.step = step
        x = torch.randn(ROWS, 3, generator=torch.Generator().manual_seed(1000 + step))
        y = x.sum(dim=1, keepdim=True)
        kind = self.sabotage.get(step, "")
        if kind.startswith("batch"):
            x[5, 1] = float(kind.split()[1])
        return Batch({"x": x, "y": y}, [f"row-{step}-{i}" for i in range(ROWS)])

    def loss(self, batch: Batch) -> Tensor:
        loss = nn.functional.mse_loss(self.model(batch.tensors["x"]), batch.tensors["y"])
        kind = self.sabotage.get(self.step, "")
        if kind.startswith("loss"):
            return loss + float(kind.split()[1])
        if kind.startswith("gradient"):
            weight = self.model[4].weight  # type: ignore[index]
            zero = (weight - weight.detach())[0, 0]  # type: ignore[operator, index]
            # The root of zero is zero, and its slope is not a number one can step along.
            loss = loss + (zero.sqrt() if kind.endswith("Inf") else (zero * zero).sqrt())
        self.losses[self.step] = float(loss.detach())
        return loss

    def evaluate(self) -> Score:
        self.evaluated += 1
        self.model.eval()
        with torch.inference_mode():
            x = torch.randn(50, 3, generator=torch.Generator().manual_seed(1))
            error = float(((self.model(x) - x.sum(dim=1, keepdim=True)) ** 2).mean())
        value = -error if self.scores is None else self.scores[self.evaluated - 1]
        return Score(value, {"evaluation": self.evaluated}, f"error {error:.3f}")

    def checkpoint(self, step: int, score: Score) -> Checkpoint:
        tensors = {name: t.detach().clone() for name, t in self.model.state_dict().items()}
        contract = load_layout("qwerty").contract()
        return Checkpoint(TcnSpec(channels=4), contract, tensors, step, score.metrics, {})


class SpyAdamW(torch.optim.AdamW):
    """AdamW that a test can look into; `explode_at` names updates that overflow."""

    last: SpyAdamW
    explode_at: tuple[int, ...] = ()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.rates: list[float] = []
        self.updates: list[list[float]] = []
        type(self).last = self

    def step(self, closure: Any = None) -> Any:
        rate = self.param_groups[0]["lr"]
        if len(self.rates) in self.explode_at:
            self.param_groups[0]["lr"] = 1e37
        self.rates.append(rate)
        return super().step(closure)


@pytest.fixture
def spy(monkeypatch: pytest.MonkeyPatch) -> type[SpyAdamW]:
    class Spy(SpyAdamW):
        pass

    monkeypatch.setattr(torch.optim, "AdamW", Spy)
    return Spy


def settings(
    steps: int = 12, times: int = 3, max_skips: int = 20, warmup: int = 4, rate: float = 0.01
) -> TrainConfig:
    return TrainConfig.model_validate(
        {
            "optimizer": {"learning_rate": rate, "batch_size": ROWS},
            "schedule": {"warmup_steps": warmup},
            "length": {"steps": steps},
            "evaluation": {"times": times},
            "guard": {"max_skips_in_a_row": max_skips, "max_skip_share": 1, "max_rollbacks": 0},
            "record": {"tensorboard": False},
        }
    )


def ignore(progress: Progress) -> None:
    """An observer that does not look."""


def weights(task: TinyTask) -> dict[str, Tensor]:
    return {name: t.detach().clone() for name, t in task.model.state_dict().items()}


def differing(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> list[str]:
    """Names of the tensors that are not bit for bit the same."""
    assert a.keys() == b.keys()
    return [name for name in a if not torch.equal(a[name], b[name])]


def skipped_rows(folder: Path) -> list[dict[str, Any]]:
    file = folder / "skipped.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


# Steps and learning rate.


@pytest.mark.parametrize(("steps", "times"), [(1, 1), (7, 3), (12, 12), (5, 9), (20, 1)])
def test_the_asked_number_of_steps_is_run(tmp_path: Path, steps: int, times: int) -> None:
    task = TinyTask()
    progress = fit(task, settings(steps, times), tmp_path, ignore)
    assert progress.step == steps
    assert progress.fraction == 1.0
    assert progress.samples == steps * ROWS
    assert progress.skipped == 0
    assert sorted(task.losses) == list(range(steps))
    assert not skipped_rows(tmp_path)
    assert task.evaluated == min(times, steps)
    assert [row["step"] for row in progress.history][-1] == steps


def test_the_observer_sees_every_step(tmp_path: Path) -> None:
    seen: list[int] = []
    fit(TinyTask(), settings(), tmp_path, lambda p: seen.append(p.step))
    assert seen == list(range(1, 13))


def test_training_by_the_clock_ends_and_is_evaluated(tmp_path: Path) -> None:
    config = TrainConfig.model_validate({"length": {"minutes": 0.002}, "evaluation": {"times": 2}})
    progress = fit(TinyTask(), config, tmp_path, ignore)
    assert progress.fraction == 1.0
    assert progress.step > 1
    assert 0.12 <= progress.seconds < 5
    assert load_checkpoint(tmp_path / "last.safetensors").step == progress.step


def test_the_model_learns(tmp_path: Path) -> None:
    task = TinyTask()
    progress = fit(task, settings(steps=150, times=2, rate=0.03), tmp_path, ignore)
    scores = [row["score"] for row in progress.history]
    assert scores[-1] > -0.5
    assert progress.loss < task.losses[0]


def test_the_learning_rate_warms_up_then_follows_a_cosine(
    tmp_path: Path, spy: type[SpyAdamW]
) -> None:
    shown: list[float] = []
    config = settings(steps=200, warmup=10, rate=0.01)
    fit(TinyTask(), config, tmp_path, lambda p: shown.append(p.learning_rate))
    expected = [
        0.01 * min(1.0, (step + 1) / 10) * 0.5 * (1.0 + math.cos(math.pi * step / 200))
        for step in range(200)
    ]
    # Recorded inside optimizer.step: the rate is set before the update that uses it.
    assert spy.last.rates == pytest.approx(expected)
    assert shown == pytest.approx(expected)
    assert spy.last.rates[0] == pytest.approx(0.001)
    assert max(spy.last.rates) <= 0.01
    assert spy.last.rates[-1] < 1e-4


def test_no_warm_up_starts_at_the_full_rate(tmp_path: Path, spy: type[SpyAdamW]) -> None:
    fit(TinyTask(), settings(warmup=0), tmp_path, ignore)
    assert spy.last.rates[0] == pytest.approx(0.01)


def test_equal_seeds_give_equal_models(tmp_path: Path) -> None:
    tasks = [TinyTask(), TinyTask()]
    for task in tasks:
        fit(task, settings(), tmp_path, ignore)
    assert not differing(weights(tasks[0]), weights(tasks[1]))


# Skipped steps.


class Watch:
    """Compares what a step found with what it left, when the step was skipped."""

    def __init__(self, task: TinyTask, spy: type[SpyAdamW]) -> None:
        self.skips: list[int] = []
        self.changed: list[str] = []
        self._task, self._spy = task, spy
        self._before: dict[str, Tensor] = {}
        self._skipped, self._loss = 0, math.nan
        draw: Callable[[int], Batch] = task.batch

        def batch(step: int) -> Batch:
            self._before = self._everything()
            return draw(step)

        task.batch = batch  # type: ignore[method-assign]

    def _everything(self) -> dict[str, Tensor]:
        found = weights(self._task)
        for index, state in enumerate(self._spy.last.state.values()):
            found |= {f"moment.{index}.{k}": v.clone() for k, v in state.items()}
        return found

    def observe(self, progress: Progress) -> None:
        if progress.skipped > self._skipped:
            self.skips.append(progress.step - 1)
            after = self._everything()
            if after.keys() != self._before.keys():
                self.changed += sorted(after.keys() ^ self._before.keys())
            else:
                self.changed += differing(self._before, after)
            assert progress.loss == self._loss or math.isnan(self._loss)
        self._skipped, self._loss = progress.skipped, progress.loss


def float_changes(changed: list[str]) -> list[str]:
    return [name for name in changed if not name.endswith("num_batches_tracked")]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("at", [0, 5])
def test_a_bad_step_is_skipped_and_leaves_everything_as_it_was(
    tmp_path: Path, spy: type[SpyAdamW], kind: str, at: int
) -> None:
    task = TinyTask({at: kind, at + 1: kind})
    watch = Watch(task, spy)
    progress = fit(task, settings(), tmp_path, watch.observe)
    assert watch.skips == [at, at + 1]
    assert not float_changes(watch.changed)
    assert (progress.step, progress.skipped) == (12, 2)


@pytest.mark.parametrize("at", [0, 5])
def test_an_update_that_overflows_is_taken_back(
    tmp_path: Path, spy: type[SpyAdamW], at: int
) -> None:
    task = TinyTask()
    watch = Watch(task, spy)
    spy.explode_at = (at, at + 1)
    progress = fit(task, settings(), tmp_path, watch.observe)
    assert watch.skips == [at, at + 1]
    assert not float_changes(watch.changed)
    assert progress.skipped == 2
    assert all(torch.isfinite(t).all() for t in weights(task).values())


@pytest.mark.parametrize("kind", KINDS)
def test_a_bad_step_leaves_the_batch_counters_as_they_were(
    tmp_path: Path, spy: type[SpyAdamW], kind: str
) -> None:
    task = TinyTask({5: kind})
    watch = Watch(task, spy)
    fit(task, settings(), tmp_path, watch.observe)
    assert watch.skips == [5]
    assert not watch.changed


@pytest.mark.parametrize(
    ("kind", "cause"),
    [
        ("batch NaN", "batch, x: 1 NaN and 0 Inf"),
        ("batch Inf", "batch, x: 0 NaN and 1 Inf"),
        ("loss NaN", "loss is nan"),
        ("loss Inf", "loss is inf"),
        ("gradient Inf", "4.weight: 0 NaN and 1 Inf"),
        ("gradient NaN", "4.weight: 1 NaN and 0 Inf"),
    ],
)
def test_skipped_rows_are_written_down_with_the_cause(
    tmp_path: Path, kind: str, cause: str
) -> None:
    fit(TinyTask({3: kind, 7: kind}), settings(), tmp_path, ignore)
    rows = skipped_rows(tmp_path)
    assert [row["step"] for row in rows] == [3, 7]
    assert rows[1]["rows"] == [f"row-7-{i}" for i in range(ROWS)]
    for row in rows:
        assert cause in row["cause"]


def test_an_overflowing_update_is_written_down_with_the_tensor(
    tmp_path: Path, spy: type[SpyAdamW]
) -> None:
    spy.explode_at = (3,)
    fit(TinyTask(), settings(), tmp_path, ignore)
    (row,) = skipped_rows(tmp_path)
    assert row["step"] == 3
    assert row["cause"].startswith("update, ")
    assert "None" not in row["cause"], "the cause names no tensor"


def test_a_gradient_whose_norm_overflows_is_written_down_with_the_tensor(tmp_path: Path) -> None:
    class Steep(TinyTask):
        def loss(self, batch: Batch) -> Tensor:
            weight = self.model[0].weight  # type: ignore[index]
            scale = 1e38 if self.step == 3 else 0.0
            return super().loss(batch) + ((weight - weight.detach()) * scale).sum()  # type: ignore[operator]

    progress = fit(Steep(), settings(), tmp_path, ignore)
    (row,) = skipped_rows(tmp_path)
    assert (row["step"], progress.skipped) == (3, 1)
    assert "None" not in row["cause"], "the cause names no tensor"


def test_skipped_steps_never_enter_the_loss_average(tmp_path: Path) -> None:
    task = TinyTask({0: "loss NaN", 4: "gradient Inf", 5: "loss Inf", 9: "batch NaN"})
    shown: list[float] = []
    fit(task, settings(), tmp_path, lambda p: shown.append(p.loss))
    assert math.isnan(shown[0]), "no loss is no number, and never 0"
    average = math.nan
    for step in range(12):
        if step not in task.sabotage:
            loss = task.losses[step]
            average = (
                loss
                if math.isnan(average)
                else LOSS_SMOOTHING * average + (1.0 - LOSS_SMOOTHING) * loss
            )
            assert shown[step] == pytest.approx(average)
        elif step:
            assert shown[step] == shown[step - 1]


def test_the_gradient_norm_shown_is_of_a_finite_step(tmp_path: Path) -> None:
    norms: list[float] = []
    fit(
        TinyTask({5: "gradient Inf"}), settings(), tmp_path, lambda p: norms.append(p.gradient_norm)
    )
    assert all(math.isfinite(norm) for norm in norms)
    assert norms[5] == norms[4]


# Too many.


def test_too_many_skips_in_a_row_end_the_run_with_the_cause(tmp_path: Path) -> None:
    task = TinyTask(dict.fromkeys(range(8, 12), "gradient Inf"))
    with pytest.raises(NonFiniteError, match=r"3 steps in a row .* at step 10") as caught:
        fit(task, settings(max_skips=3), tmp_path, ignore)
    assert caught.value.exit_code == ExitCode.GATE_FAILED == 3
    assert "4.weight" in str(caught.value)
    assert "skipped.jsonl" in caught.value.fix
    assert [row["step"] for row in skipped_rows(tmp_path)] == [8, 9, 10]
    for name in ("best", "last"):
        loaded = load_checkpoint(tmp_path / f"{name}.safetensors")
        assert loaded.step in (4, 8)
        assert all(torch.isfinite(t).all() for t in loaded.tensors.values())


def test_an_update_that_always_overflows_ends_the_run(tmp_path: Path, spy: type[SpyAdamW]) -> None:
    spy.explode_at = tuple(range(6, 100))
    task = TinyTask()
    with pytest.raises(NonFiniteError, match="5 steps in a row"):
        fit(task, settings(max_skips=5), tmp_path, ignore)
    assert load_checkpoint(tmp_path).step in (4, 8)
    assert all(torch.isfinite(t).all() for t in weights(task).values())


def test_skips_that_are_not_in_a_row_do_not_end_the_run(tmp_path: Path) -> None:
    task = TinyTask(dict.fromkeys([0, 1, 3, 4, 6, 7, 9, 10], "loss NaN"))
    progress = fit(task, settings(max_skips=3), tmp_path, ignore)
    assert (progress.step, progress.skipped) == (12, 8)


def test_a_run_of_nothing_but_skips_leaves_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteError):
        fit(TinyTask(dict.fromkeys(range(12), "loss NaN")), settings(max_skips=2), tmp_path, ignore)
    assert not list(tmp_path.glob("*.safetensors"))


# Best and last.


@pytest.mark.parametrize(
    ("scores", "best"),
    [
        ([1.0, 2.0, 3.0], 12),
        ([1.0, 3.0, 2.0], 8),
        ([3.0, 3.0, 3.0], 4),
        ([-5.0, -7.0, -6.0], 4),
    ],
)
def test_best_is_the_first_highest_score(tmp_path: Path, scores: list[float], best: int) -> None:
    progress = fit(TinyTask(scores=scores), settings(), tmp_path, ignore)
    assert load_checkpoint(tmp_path / "best.safetensors").step == best
    assert load_checkpoint(tmp_path / "last.safetensors").step == 12
    assert progress.best == max(scores)


@pytest.mark.parametrize(
    ("scores", "best"),
    [
        ([1.0, math.nan, 0.5], 4),
        ([math.nan, 1.0, 0.5], 8),
        ([1.0, math.inf, 2.0], 12),
        ([-math.inf, -3.0, math.nan], 8),
    ],
)
def test_a_score_that_is_not_finite_is_never_best(
    tmp_path: Path, scores: list[float], best: int
) -> None:
    progress = fit(TinyTask(scores=scores), settings(), tmp_path, ignore)
    assert load_checkpoint(tmp_path / "best.safetensors").step == best
    assert load_checkpoint(tmp_path / "last.safetensors").step == 12
    assert math.isfinite(progress.best)


def test_without_a_finite_score_there_is_no_best(tmp_path: Path) -> None:
    fit(TinyTask(scores=[math.nan] * 3), settings(), tmp_path, ignore)
    assert not (tmp_path / "best.safetensors").exists()
    assert load_checkpoint(tmp_path / "last.safetensors").step == 12


def test_a_checkpoint_holds_the_weights_of_its_step(tmp_path: Path) -> None:
    task, at_eight = TinyTask(scores=[1.0, 3.0, 2.0]), dict[str, Tensor]()

    def observe(progress: Progress) -> None:
        if progress.step == 8:
            at_eight.update(weights(task))

    fit(task, settings(), tmp_path, observe)
    assert not differing(dict(load_checkpoint(tmp_path).tensors), at_eight)
    last = load_checkpoint(tmp_path / "last.safetensors")
    assert not differing(dict(last.tensors), weights(task))


# Resume.


class Stopped(Exception):  # noqa: N818 - a person at the keyboard, not an error
    """Ctrl-C, as a test can press it."""


def stop_at(step: int) -> Callable[[Progress], None]:
    def observe(progress: Progress) -> None:
        if progress.step == step:
            raise Stopped

    return observe


SABOTAGE = {2: "loss NaN", 6: "gradient Inf", 10: "batch NaN"}


def comparable(progress: Progress) -> dict[str, Any]:
    names = ("step", "fraction", "loss", "skipped", "samples", "gradient_norm", "best", "history")
    return {name: getattr(progress, name) for name in names}


@pytest.mark.parametrize("stops", [[4], [8], [4, 8], [6], [11], [12]])
def test_a_resumed_run_equals_the_uninterrupted_one_bit_for_bit(
    tmp_path: Path, spy: type[SpyAdamW], stops: list[int]
) -> None:
    """Stopped right after an evaluation, or between two, when the steps since are repeated."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir()
    parts.mkdir()
    task = TinyTask(SABOTAGE)
    expected = fit(task, settings(), whole, ignore)
    moments = copy.deepcopy(spy.last.state_dict()["state"])

    for number, stop in enumerate(stops):
        with pytest.raises(Stopped):
            fit(TinyTask(SABOTAGE), settings(), parts, stop_at(stop), resume=number > 0)
    resumed = TinyTask(SABOTAGE)
    # A different start: everything must come from the state, nothing from the seed.
    with torch.no_grad():
        for parameter in resumed.model.parameters():
            parameter.add_(1.0)
    progress = fit(resumed, settings(), parts, ignore, resume=True)

    names = comparable(expected)
    if stops == [12]:  # no step was left, so the last norm was not seen again
        names.pop("gradient_norm")
    assert {k: v for k, v in comparable(progress).items() if k in names} == names
    assert not differing(weights(task), weights(resumed))
    for index, state in moments.items():
        assert not differing(state, spy.last.state_dict()["state"][index]), index
    for name in ("best", "last"):
        a, b = (load_checkpoint(f / f"{name}.safetensors") for f in (whole, parts))
        assert a.step == b.step
        assert a.weights_sha256 == b.weights_sha256


def stopped_run(folder: Path) -> Path:
    """A run stopped after its first evaluation; the path of its state."""
    with pytest.raises(Stopped):
        fit(TinyTask(), settings(), folder, stop_at(4))
    return folder / STATE


def resumption(folder: Path) -> str:
    """How resuming ended: "resumed", or the name of the exception."""
    try:
        fit(TinyTask(), settings(), folder, ignore, resume=True)
    except Exception as error:  # noqa: BLE001 - which exception it is, is what the tests ask
        return type(error).__name__
    return "resumed"


def test_resuming_without_a_state_starts_over(tmp_path: Path) -> None:
    """A run that was killed before it saved anything has nothing to lose."""
    progress = fit(TinyTask(), settings(), tmp_path, ignore, resume=True)
    assert progress.step == 12


@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_state_is_refused(tmp_path: Path, share: float) -> None:
    state = stopped_run(tmp_path)
    whole = state.read_bytes()
    state.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(CheckpointError, match=r"state\.safetensors") as caught:
        fit(TinyTask(), settings(), tmp_path, ignore, resume=True)
    assert caught.value.exit_code == ExitCode.GATE_FAILED


def test_a_flipped_bit_in_the_weights_or_moments_of_a_state_is_refused(tmp_path: Path) -> None:
    state = stopped_run(tmp_path)
    whole = state.read_bytes()
    start = 8 + int.from_bytes(whole[:8], "little")
    ends: dict[str, list[int]] = {}
    for position in range(start, len(whole), max(1, (len(whole) - start) // 40)):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << position % 8
        state.write_bytes(damaged)
        ends.setdefault(resumption(tmp_path), []).append(position)
    assert ends.keys() <= {"CheckpointError", "NonFiniteError"}, ends


def test_a_flipped_bit_in_the_header_of_a_state_is_refused(tmp_path: Path) -> None:
    state = stopped_run(tmp_path)
    whole = state.read_bytes()
    ends: dict[str, list[int]] = {}
    for position in range(0, 8 + int.from_bytes(whole[:8], "little"), 17):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << position % 3
        state.write_bytes(damaged)
        ends.setdefault(resumption(tmp_path), []).append(position)
    assert ends.keys() <= {"CheckpointError", "NonFiniteError"}, ends


@pytest.mark.parametrize("missing", ["step", "loss", "best", "history"])
def test_a_state_without_a_counter_is_refused(tmp_path: Path, missing: str) -> None:
    state = stopped_run(tmp_path)
    counters, tensors = read_sealed(state, fix="-")
    del counters[missing]
    write_sealed(state, tensors, counters, fix="-")
    with pytest.raises(CheckpointError):
        fit(TinyTask(), settings(), tmp_path, ignore, resume=True)


@pytest.mark.parametrize("name", ["model.0.weight", "optimizer.0.exp_avg"])
def test_a_state_that_is_not_finite_is_refused(tmp_path: Path, name: str) -> None:
    state = stopped_run(tmp_path)
    tensors, data = load_file(state), state.read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    tensors[name][0, 0] = float("nan")
    save_file(tensors, state, header["__metadata__"])
    with pytest.raises(NonFiniteError, match=name):
        fit(TinyTask(), settings(), tmp_path, ignore, resume=True)


def test_the_state_of_another_model_is_refused(tmp_path: Path) -> None:
    stopped_run(tmp_path)
    task = TinyTask()
    task.model = nn.Linear(3, 1)
    with pytest.raises(CheckpointError, match="cannot be resumed from"):
        fit(task, settings(), tmp_path, ignore, resume=True)


def test_the_state_is_written_only_when_it_is_finite(tmp_path: Path) -> None:
    state = stopped_run(tmp_path)
    before = state.read_bytes()
    task = TinyTask()
    task.model.register_buffer("planted", torch.tensor([math.nan]))
    optimizer = torch.optim.AdamW(task.model.parameters())
    with pytest.raises(NonFiniteError, match=r"model\.planted"):
        loop.save_state(tmp_path, task.model, optimizer, Progress())
    assert state.read_bytes() == before
