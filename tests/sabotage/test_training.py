"""Sabotaged training, end to end: each failure of shared/design/lessons.md is met and refused.

The runs are real ones (swipes, network, CTC, files, command line) on a small scale; what is
sabotaged is one number, one row, one bit or one system call.
"""

from __future__ import annotations

import errno
import json
import math
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from swipe_train_command import SwipeTrain
from torch import Tensor

from swipe.errors import NonFiniteError, UsageError
from swipe.layout import load_layout
from swipe.lexicon import load_lexicon
from swipe.sources import read_corpus, write_jsonl
from swipe.synthesis import synthesize
from train import assemble as assemble_module
from train import fit as fit_module
from train.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from train.config import TrainConfig
from train.progress import Progress
from train.swipe_data import SwipeData
from train.swipe_task import SwipeTask
from train.task import Batch, Score

pytestmark = pytest.mark.slow

LAYOUT = load_layout("qwerty")
WORDS = "wordfreq:2000"
STEPS = 12
SMALL = [
    "--steps", str(STEPS), "--out", "run", "--no-preflight",
    "--set", "evaluation.times=3", "--set", "evaluation.swipes=20",
    "--set", "evaluation.beam_width=8", "--set", f"evaluation.lexicon={WORDS}",
    "--set", "data.dev_share=0.3", "--set", "model.channels=8",
    "--set", "optimizer.batch_size=32", "--set", "schedule.warmup_steps=2",
]  # fmt: skip


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """400 good swipes of 8 writers as a file that rows can be added to."""
    path = tmp_path / "swipes.jsonl"
    write_jsonl(synthesize(LAYOUT, load_lexicon(WORDS), 400).gestures, path)
    return path


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of a sound checkpoint."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("honest")
    config = TrainConfig.model_validate(
        {"model": {"channels": 8}, "length": {"steps": 1}, "evaluation": {"lexicon": WORDS}}
    )
    swipes = synthesize(LAYOUT, load_lexicon(WORDS), 60)
    data = SwipeData(
        list(swipes.gestures), list(swipes.gestures), 0, (swipes,), {"train": "synthetic:400"}
    )
    task = SwipeTask(config, data, LAYOUT)
    save_checkpoint(task.checkpoint(1, Score(0.0, {}, "")), folder / "best.safetensors")
    return (folder / "best.safetensors").read_bytes()


def sabotage(monkeypatch: pytest.MonkeyPatch, kind: type[SwipeTask]) -> None:
    """Let ``swipe-train fit`` train `kind` instead of the honest task."""
    monkeypatch.setattr(assemble_module, "SwipeTask", kind)


class Counted(SwipeTask):
    """A task that knows which step it is at."""

    step = -1

    def batch(self, step: int) -> Batch:
        self.step = step
        return super().batch(step)


def all_sound(folder: Path) -> list[str]:
    """Names of the checkpoints in `folder`, each loaded and proven finite."""
    names = [
        p.name for p in sorted(folder.glob("*.safetensors")) if p.stem not in ("state", "good")
    ]
    for name in names:
        load_checkpoint(folder / name).model()
    return names


def skipped(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "skipped.jsonl").read_text().splitlines()]


# L0: "NaN loss at step 64851", and the epoch printed "Train Loss: 0.0000".


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_l0_a_loss_that_turns_nan_once_is_skipped_and_shown(
    tmp_path: Path, swipe_train: SwipeTrain, monkeypatch: pytest.MonkeyPatch, bad: float
) -> None:
    class NanLoss(Counted):
        def loss(self, batch: Batch) -> Tensor:
            return super().loss(batch) * (bad if self.step in (5, 6) else 1.0)

    sabotage(monkeypatch, NanLoss)
    seen: list[Progress] = []
    show = fit_module._Display.observe
    monkeypatch.setattr(
        fit_module._Display, "observe", lambda self, p: (seen.append(p), show(self, p))
    )
    done = swipe_train("fit", "--data", "synthetic:400", *SMALL)
    assert done.code == 0, done.err
    assert f"{STEPS} steps, 2 skipped as not finite or unfit" in done.out
    assert [row["step"] for row in skipped(tmp_path / "run")] == [5, 6]
    assert all(len(row["rows"]) == 32 for row in skipped(tmp_path / "run"))
    assert all_sound(tmp_path / "run") == ["best.safetensors", "last.safetensors"]
    assert seen[-1].skipped == 2
    assert all(row["loss"] > 0.1 for row in seen[-1].history), "averaged in as zero"


def test_l0_a_loss_that_stays_nan_ends_the_run_and_keeps_the_last_good_checkpoint(
    tmp_path: Path, swipe_train: SwipeTrain, monkeypatch: pytest.MonkeyPatch
) -> None:
    class NanFromStepFive(Counted):
        def loss(self, batch: Batch) -> Tensor:
            return super().loss(batch) * (math.nan if self.step >= 5 else 1.0)

    sabotage(monkeypatch, NanFromStepFive)
    settings = ["--set", "guard.max_skips_in_a_row=4", "--set", "guard.max_rollbacks=0"]
    done = swipe_train("fit", "--data", "synthetic:400", *SMALL, *settings)
    assert done.code == 3
    lines = done.err.splitlines()
    assert len(lines) == 2, done.err
    assert "4 steps in a row could not be taken" in lines[0]
    assert "loss is nan" in lines[0]
    assert "skipped.jsonl" in lines[1]
    assert all_sound(tmp_path / "run") == ["best.safetensors", "last.safetensors"]
    assert load_checkpoint(tmp_path / "run").step in (4, 8)
    assert not (tmp_path / "runs" / "latest").exists(), "a failed run was published"


def test_l0_a_run_that_never_had_a_finite_step_leaves_nothing(
    tmp_path: Path, swipe_train: SwipeTrain, monkeypatch: pytest.MonkeyPatch
) -> None:
    class AlwaysNan(Counted):
        def loss(self, batch: Batch) -> Tensor:
            return super().loss(batch) * math.nan

    sabotage(monkeypatch, AlwaysNan)
    settings = ["--set", "guard.max_skips_in_a_row=3"]
    done = swipe_train("fit", "--data", "synthetic:400", *SMALL, *settings)
    assert done.code == 3
    assert not list(tmp_path.rglob("*.safetensors"))


# L0: the quantizer died because the weights held NaN; L4: 78 of 78 tensors NaN in a checkpoint.


def test_l4_weights_that_turn_nan_behind_the_guard_are_not_saved(
    tmp_path: Path, swipe_train: SwipeTrain, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even when every check of the loop is passed by, the file is not written."""

    class NanWeights(Counted):
        def checkpoint(self, step: int, score: Score) -> Checkpoint:
            made = super().checkpoint(step, score)
            if step < 8:
                return made
            tensors = {
                n: torch.full_like(t, math.nan) if t.is_floating_point() else t
                for n, t in made.tensors.items()
            }
            return replace(made, tensors=tensors)

    sabotage(monkeypatch, NanWeights)
    done = swipe_train("fit", "--data", "synthetic:400", *SMALL)
    assert done.code == 3
    assert "not finite before saving" in done.err
    assert "blank: 64 NaN" in done.err
    assert all_sound(tmp_path / "run") == ["best.safetensors", "last.safetensors"]
    assert load_checkpoint(tmp_path / "run").step == 4


def test_l4_a_checkpoint_of_nothing_but_nan_is_refused_by_name(
    tmp_path: Path, swipe_train: SwipeTrain, honest: bytes
) -> None:
    """Written past our own save, with the header of a sound one."""
    path = tmp_path / "foreign.safetensors"
    path.write_bytes(honest)
    header = json.loads(honest[8 : 8 + int.from_bytes(honest[:8], "little")])["__metadata__"]
    tensors = {
        n: torch.full_like(t, math.nan) if t.is_floating_point() else t
        for n, t in load_file(path).items()
    }
    save_file(tensors, path, header)
    done = swipe_train("eval", "--checkpoint", str(path), "--lexicon", WORDS)
    assert done.code == 3
    assert "NaN" in done.err
    assert any(name in done.err for name in tensors)


@pytest.mark.parametrize("rate", ["100", "1e4", "1e30", "1e38", "1e300", "inf"])
def test_l4_an_exploding_learning_rate_never_yields_a_broken_checkpoint(
    tmp_path: Path, swipe_train: SwipeTrain, rate: str
) -> None:
    """L4's best model was chosen at loss 4.9e12. Here: finite or refused, and never a bug."""
    settings = ["--set", f"optimizer.learning_rate={rate}", "--set", "guard.max_skips_in_a_row=4"]
    done = swipe_train("fit", "--data", "synthetic:400", *SMALL, *settings)
    assert done.code in (0, 2, 3), done.err
    if (tmp_path / "run").exists():
        all_sound(tmp_path / "run")


# L0, L1: bad rows. L1: infeasible words gave NaN. L3: one bad batch crashed the run.


def _row(**changes: Any) -> str:
    row = {"id": "bad", "word": "the", "writer": "w", "points": [[0.4, 0.1, 0], [0.5, 0.5, 20]]}
    row["points"] += [[0.2, 0.1, 50]]  # type: ignore[operator]
    return json.dumps({**row, **changes})


BAD_ROWS = {
    "Inf": (_row(points=[[0.4, 0.1, 0], [float("inf"), 0.5, 20], [0.2, 0.1, 50]]), "not finite"),
    "NaN": (_row(points=[[0.4, 0.1, 0], [0.5, float("nan"), 20], [0.2, 0.1, 50]]), "not finite"),
    "NaN time": (_row(points=[[0.4, 0.1, 0], [0.5, 0.5, float("nan")], [0.2, 0.1, 50]]), "finite"),
    "overflow": (_row().replace("0.4", "1e999"), "not finite"),
    "pixels": (_row(points=[[400, 10, 0], [500, 50, 20], [200, 10, 50]]), "beyond"),
    "infeasible word": (_row(word="ab" * 17), "infeasible for CTC"),
    "no time": (_row(points=[[0.4, 0.1, 0], [0.5, 0.5, 0], [0.2, 0.1, 0]]), "same time"),
    "one point": (_row(points=[[0.4, 0.1, 0]]), "fewer than"),
    "ragged points": (_row(points=[[0.4, 0.1, 0], [0.5, 0.5], [0.2, 0.1, 50]]), "malformed"),
    "null": (_row(points=None), ""),
    "digits": (_row(word="th3"), "letters outside the alphabet"),
}


def test_l1_bad_rows_are_quarantined_with_a_reason_and_training_goes_on(
    tmp_path: Path, swipe_train: SwipeTrain, corpus: Path
) -> None:
    with corpus.open("a") as stream:
        for line, _ in BAD_ROWS.values():
            stream.write(line + "\n")
    done = swipe_train("fit", "--data", str(corpus), *SMALL)
    assert done.code == 0, done.err
    assert f"{len(BAD_ROWS)} rows quarantined" in done.out
    assert "0 skipped as not finite" in done.out
    text = (tmp_path / "run" / "quarantine.jsonl").read_text()
    rows = [json.loads(line) for line in text.splitlines()]
    assert [row["row"] for row in rows] == list(range(401, 401 + len(BAD_ROWS)))
    for row, (name, (_, reason)) in zip(rows, BAD_ROWS.items(), strict=True):
        assert row["id"] == "bad"
        assert reason in row["reason"], name
        assert row["reason"], name


def test_l1_a_number_beyond_float32_is_quarantined_without_a_warning(corpus: Path) -> None:
    """Finite in the file, Inf in memory; numpy would warn about it on the user's screen."""
    with corpus.open("a") as stream:
        stream.write(_row().replace("0.4", "1e300") + "\n")
    read = read_corpus(corpus)
    assert len(read.gestures) == 400
    (rejected,) = read.rejected
    assert (rejected.row, rejected.id) == (401, "bad")


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_l3_one_bad_number_past_the_reader_costs_one_step(
    tmp_path: Path, swipe_train: SwipeTrain, monkeypatch: pytest.MonkeyPatch, bad: float
) -> None:
    class OneBadNumber(Counted):
        def batch(self, step: int) -> Batch:
            batch = super().batch(step)
            if step == 7:
                batch.tensors["features"][31, 1, 40] = bad
            return batch

    sabotage(monkeypatch, OneBadNumber)
    done = swipe_train("fit", "--data", "synthetic:400", *SMALL)
    assert done.code == 0, done.err
    assert "1 skipped as not finite" in done.out
    (row,) = skipped(tmp_path / "run")
    assert row["step"] == 7
    assert row["cause"].startswith("batch, features: ")
    assert len(row["rows"]) == 32
    all_sound(tmp_path / "run")


def test_l1_an_infeasible_word_past_the_reader_is_seen_not_zeroed(
    tmp_path: Path, swipe_train: SwipeTrain, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`zero_infinity` would have hidden it in the average."""

    class Infeasible(Counted):
        def batch(self, step: int) -> Batch:
            batch = super().batch(step)
            if step != 3:
                return batch
            targets = torch.zeros(32, 40, dtype=torch.int64)
            return Batch(
                {**batch.tensors, "targets": targets, "lengths": torch.full((32,), 40)},
                batch.row_ids,
            )

    sabotage(monkeypatch, Infeasible)
    done = swipe_train("fit", "--data", "synthetic:400", *SMALL)
    assert done.code == 0, done.err
    (row,) = skipped(tmp_path / "run")
    assert (row["step"], row["cause"]) == (3, "loss is inf")


def test_l1_held_out_writers_given_for_training_are_refused(
    tmp_path: Path, swipe_train: SwipeTrain, corpus: Path
) -> None:
    lines = corpus.read_text().splitlines(keepends=True)
    (tmp_path / "dev.jsonl").write_text("".join(lines[300:]))
    done = swipe_train("fit", "--data", str(corpus), "--dev", "dev.jsonl", *SMALL)
    assert done.code == 2
    assert "writers are in both" in done.err


# L1: one feature contract; L4: damaged files.


def test_l4_a_truncated_checkpoint_is_refused(
    tmp_path: Path, swipe_train: SwipeTrain, honest: bytes
) -> None:
    path = tmp_path / "half.safetensors"
    for length in (0, 7, 8, 100, len(honest) // 2, len(honest) - 1):
        path.write_bytes(honest[:length])
        done = swipe_train("eval", "--checkpoint", str(path))
        assert done.code == 3, length
        assert "not a complete safetensors file" in done.err


def test_l4_a_flipped_bit_is_refused(
    tmp_path: Path, swipe_train: SwipeTrain, honest: bytes
) -> None:
    path = tmp_path / "flipped.safetensors"
    for position in range(0, len(honest), len(honest) // 25):
        damaged = bytearray(honest)
        damaged[position] ^= 1 << position % 8
        path.write_bytes(damaged)
        done = swipe_train("eval", "--checkpoint", str(path))
        assert done.code == 3, position
        assert len(done.err.splitlines()) == 2, done.err


@pytest.mark.parametrize(
    "change", [{"features": "velocity37/1"}, {"points": 37}, {"frames": 35}], ids=str
)
def test_l1_a_checkpoint_of_another_contract_is_refused(
    tmp_path: Path, swipe_train: SwipeTrain, honest: bytes, change: dict[str, Any]
) -> None:
    """Width 37 was declared and 35 produced: found when files meet, not as low accuracy."""
    path = tmp_path / "best.safetensors"
    path.write_bytes(honest)
    made = load_checkpoint(path)
    save_checkpoint(replace(made, contract=replace(made.contract, **change)), path)
    done = swipe_train(
        "eval", "--checkpoint", str(path), "--data", "synthetic:50", "--lexicon", WORDS
    )
    assert done.code in (2, 3), "evaluated as if the features were its own"


def test_l4_tensors_of_another_architecture_are_refused(
    tmp_path: Path, swipe_train: SwipeTrain, honest: bytes
) -> None:
    path = tmp_path / "best.safetensors"
    path.write_bytes(honest)
    made = load_checkpoint(path)
    save_checkpoint(replace(made, spec=made.spec.model_copy(update={"channels": 16})), path)
    done = swipe_train("eval", "--checkpoint", str(path), "--data", "synthetic:50")
    assert done.code == 3
    assert "do not fit the recorded architecture" in done.err


# L4: atomic writes. A full disk or a kill leaves the earlier file.


@pytest.mark.parametrize("failing", ["os.replace", "os.fsync"])
def test_l4_a_full_disk_leaves_the_earlier_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, honest: bytes, failing: str
) -> None:
    path = tmp_path / "best.safetensors"
    path.write_bytes(honest)
    made = load_checkpoint(path)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(failing, full)
        with pytest.raises(UsageError, match="No space left"):
            save_checkpoint(replace(made, step=99), path)
    assert path.read_bytes() == honest
    assert [p.name for p in tmp_path.iterdir()] == ["best.safetensors"]


def test_l4_a_nan_metric_does_not_replace_the_earlier_checkpoint(
    tmp_path: Path, honest: bytes
) -> None:
    path = tmp_path / "best.safetensors"
    path.write_bytes(honest)
    with pytest.raises(NonFiniteError):
        save_checkpoint(replace(load_checkpoint(path), metrics={"loss": math.nan}), path)
    assert path.read_bytes() == honest


def test_l1_a_killed_run_is_recovered(tmp_path: Path, swipe_train: SwipeTrain) -> None:
    """SIGKILL at any moment: what lies in the folder loads, and --resume goes on from it."""
    settings = [*SMALL, "--steps", "300", "--set", "evaluation.times=50"]
    command = [sys.executable, "-m", "train.cli", "fit", "--data", "synthetic:400", *settings]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL) as running:
        deadline = time.monotonic() + 60
        while not (tmp_path / "run" / "state.safetensors").exists():
            assert time.monotonic() < deadline
            assert running.poll() is None
            time.sleep(0.02)
        time.sleep(0.3)
        assert running.poll() is None, "it ended before it could be killed"
        running.kill()
    assert all_sound(tmp_path / "run") == ["best.safetensors", "last.safetensors"]
    killed_at = load_checkpoint(tmp_path / "run" / "last.safetensors").step
    assert killed_at < 300
    done = swipe_train("fit", "--resume", "--out", "run")
    assert done.code == 0, done.err
    assert load_checkpoint(tmp_path / "run" / "last.safetensors").step == 300


# The honest run, so that the refusals above prove something.


def test_the_same_run_without_sabotage_passes(
    tmp_path: Path, swipe_train: SwipeTrain, corpus: Path
) -> None:
    done = swipe_train("fit", "--data", str(corpus), *SMALL)
    assert done.code == 0, done.err
    assert "0 skipped as not finite" in done.out
    assert not (tmp_path / "run" / "skipped.jsonl").exists()
    assert not (tmp_path / "run" / "quarantine.jsonl").exists()
    assert all_sound(tmp_path / "run") == ["best.safetensors", "last.safetensors"]
    done = swipe_train("eval", "--checkpoint", "run", "--lexicon", WORDS, "--beam", "8")
    assert done.code == 0, done.err
