"""Checkpoints in the wild: every kind of damage is INVALID with its reason; nothing is run."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from swipe.errors import GateError, UsageError
from train.checkpoint import SCHEMA
from train.cleaning import plan_removals, remove
from train.cli import app
from train.inspection.kinds import find_checkpoints, inspect_file


def _weights(**changes: torch.Tensor) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {"a.weight": torch.randn(4, 3), "a.bias": torch.zeros(4), **changes}


def _nan() -> torch.Tensor:
    tensor = torch.ones(4)
    tensor[2] = float("nan")
    return tensor


def test_a_released_checkpoint_is_valid_with_its_stats(released: Path) -> None:
    found = inspect_file(released, stats=True)
    assert found.valid
    assert not found.warnings
    assert found.tensors == 67
    assert {row.name for row in found.stats} >= {"query.weight", "halve.norm.running_var"}
    assert all(row.minimum <= row.mean <= row.maximum for row in found.stats)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth", ".ckpt"])
def test_a_bad_value_is_named_in_every_format(tmp_path: Path, suffix: str) -> None:
    """L4: 78 of 78 tensors NaN, and nobody had looked."""
    path = tmp_path / f"model{suffix}"
    if suffix == ".safetensors":
        save_file(_weights(**{"a.bias": _nan()}), path)
    else:
        torch.save({"model": _weights(**{"a.bias": _nan()}), "epoch": 3}, path)
    found = inspect_file(path, stats=True)
    assert not found.valid
    assert "a.bias: 1 NaN and 0 Inf of 4 values" in found.reasons[0]
    assert not found.stats


def test_a_bad_optimizer_moment_is_found(tmp_path: Path) -> None:
    state = {0: {"step": torch.tensor(7.0), "exp_avg": _nan()}}
    torch.save({"model": _weights(), "optimizer": {"state": state}}, tmp_path / "last.pt")
    found = inspect_file(tmp_path / "last.pt")
    assert "optimizer.state.0.exp_avg" in found.reasons[0]


@pytest.mark.parametrize("loss", [float("nan"), float("inf"), 4.9e12])
def test_a_recorded_loss_of_a_broken_run_is_invalid(tmp_path: Path, loss: float) -> None:
    """L4: the "best" model had a loss of 4.9e12."""
    torch.save({"model": _weights(), "best_val_loss": loss}, tmp_path / "best.pt")
    found = inspect_file(tmp_path / "best.pt")
    assert "recorded best_val_loss is" in found.reasons[0]
    save_file(_weights(), tmp_path / "best.safetensors", {"val_loss": str(loss)})
    assert not inspect_file(tmp_path / "best.safetensors").valid


def test_a_sane_loss_is_no_reason(tmp_path: Path) -> None:
    torch.save({"model": _weights(), "train_loss": [3.0, 0.7]}, tmp_path / "best.pt")
    assert inspect_file(tmp_path / "best.pt").valid


class _Payload:
    """A pickle that would create a file if it were ever run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.path),))


@pytest.mark.parametrize("save", [torch.save, lambda o, p: p.write_bytes(pickle.dumps(o))])
def test_a_pickle_with_code_is_refused_and_not_run(tmp_path: Path, save: Any) -> None:
    save({"model": _Payload(tmp_path / "owned")}, tmp_path / "evil.pt")
    found = inspect_file(tmp_path / "evil.pt")
    assert not found.valid
    assert "a pickle that needs code" in found.reasons[0]
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_file_is_invalid(tmp_path: Path, suffix: str, share: float) -> None:
    path = tmp_path / f"cut{suffix}"
    if suffix == ".safetensors":
        save_file(_weights(), path)
    else:
        torch.save(_weights(), path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    assert not inspect_file(path).valid


def test_an_altered_checkpoint_of_ours_is_invalid(released: Path, tmp_path: Path) -> None:
    data = bytearray(released.read_bytes())
    data[-100] ^= 1
    (tmp_path / "altered.safetensors").write_bytes(bytes(data))
    (reason,) = inspect_file(tmp_path / "altered.safetensors").reasons
    assert "altered after it was written" in reason


def test_no_tensor_is_no_checkpoint_and_huge_values_are_warned_of(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "empty.pt")
    assert inspect_file(tmp_path / "empty.pt").reasons == ("it holds no tensor",)
    save_file(_weights(**{"a.bias": torch.full((4,), 7e4)}), tmp_path / "huge.safetensors")
    found = inspect_file(tmp_path / "huge.safetensors")
    assert found.valid
    assert "a.bias has values up to 7e+04" in found.warnings[0]


def test_a_file_of_another_kind_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("-")
    for path in (tmp_path / "notes.txt", tmp_path / "absent.pt", tmp_path):
        with pytest.raises(UsageError):
            inspect_file(path)
    with pytest.raises(UsageError, match="no checkpoint below"):
        find_checkpoints(tmp_path)


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two folders: one with three valid and one invalid checkpoint, one with a single valid one."""
    for age, name in enumerate(("a/best", "a/last", "a/old", "b/only")):
        path = tmp_path / f"{name}.safetensors"
        path.parent.mkdir(exist_ok=True)
        save_file(_weights(), path)
        path.with_suffix(".json").write_text(f'{{"schema": "{SCHEMA}"}}')
        os.utime(path, (10_000 - age, 10_000 - age))
    save_file(_weights(**{"a.bias": _nan()}), tmp_path / "a" / "broken.safetensors")
    leftover = tmp_path / "b" / ".best.safetensors.x1_7k2ab"
    leftover.write_text("half")
    os.utime(leftover, (10_000, 10_000))
    (tmp_path / "b" / "notes.txt").write_text("keep me")
    (tmp_path / "a" / "broken.json").write_text('{"mine": "keep me"}')
    return tmp_path


def test_clean_plans_invalid_files_and_leftovers_only(runs: Path) -> None:
    planned = {str(r.path.relative_to(runs)): r.reason for r in plan_removals(runs).removals}
    assert set(planned) == {"a/broken.safetensors", "b/.best.safetensors.x1_7k2ab"}
    assert "INVALID: not finite: a.bias" in planned["a/broken.safetensors"]


def test_clean_never_plans_the_only_valid_one(runs: Path) -> None:
    planned = {str(r.path.relative_to(runs)) for r in plan_removals(runs, keep=1).removals}
    assert planned == {
        "a/broken.safetensors", "a/last.safetensors", "a/old.safetensors",
        "b/.best.safetensors.x1_7k2ab",
    }  # fmt: skip
    with pytest.raises(UsageError, match="keep 0"):
        plan_removals(runs, keep=0)


def test_remove_takes_the_sidecar_along_and_nothing_else(runs: Path) -> None:
    remove(plan_removals(runs, keep=1).removals)
    left = {str(p.relative_to(runs)) for p in runs.rglob("*") if p.is_file()}
    assert left == {
        "a/best.safetensors", "a/best.json", "a/broken.json",
        "b/only.safetensors", "b/only.json", "b/notes.txt",
    }  # fmt: skip


def test_the_commands_say_valid_or_invalid_and_delete_on_request_only(runs: Path) -> None:
    runner = CliRunner()
    good = runner.invoke(app, ["check", str(runs / "b" / "only.safetensors"), "--stats"])
    assert good.exit_code == 0
    assert "VALID" in good.stdout
    assert "a.weight" in good.stdout
    bad = runner.invoke(app, ["check", "--all", str(runs)])
    assert isinstance(bad.exception, GateError)
    assert "INVALID" in bad.stdout
    assert "1 of 5 checkpoints are INVALID" in str(bad.exception)
    machine = runner.invoke(app, ["check", "--json", str(runs / "a" / "broken.safetensors")])
    assert '"valid": false' in machine.stdout

    before = sorted(runs.rglob("*"))
    assert "nothing was deleted" in runner.invoke(app, ["clean", str(runs)]).stdout
    assert sorted(runs.rglob("*")) == before
    assert "2 files deleted" in runner.invoke(app, ["clean", str(runs), "--delete"]).stdout
    assert len(list(runs.rglob("*"))) == len(before) - 2
