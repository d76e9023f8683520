"""``swipe-train clean`` deletes what is proven broken, and nothing that somebody may still need."""

from __future__ import annotations

import json
import os
import pickle
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from swipe.errors import UsageError
from swipe.files import replacing
from train.checkpoint import MODEL_SCHEMA, SCHEMA, ModelCheckpoint, save_checkpoint
from train.cleaning import plan_removals, remove
from train.inspection import kinds
from train.inspection.kinds import Kind
from train.inspection.verdict import Inspection
from train.resume import mark_good
from train.sealed import write_sealed

WEIGHTS = {"w": torch.ones(3)}
BROKEN = {"w": torch.tensor([1.0, float("nan")])}


def _aged(path: Path, age: float) -> Path:
    os.utime(path, (1e9 - age, 1e9 - age))
    return path


def _planned(folder: Path, **options: Any) -> dict[str, str]:
    plan = plan_removals(folder, **options)
    return {str(f.path.relative_to(folder)): f.reason for f in plan.removals}


def _left(folder: Path, **options: Any) -> dict[str, str]:
    plan = plan_removals(folder, **options)
    return {str(f.path.relative_to(folder)): f.reason for f in plan.left}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder as `train.loop` leaves it: the state is its newest file, best its oldest."""
    for age, name in ((30, "best"), (20, "last"), (10, "older")):
        write_sealed(
            tmp_path / f"{name}.safetensors", WEIGHTS, {"schema": SCHEMA, "step": 1}, fix="-"
        )
        _aged(tmp_path / f"{name}.safetensors", age)
    write_sealed(tmp_path / "state.safetensors", WEIGHTS, {"step": 7}, fix="-")
    return tmp_path


@pytest.mark.parametrize(
    ("keep", "expected"),
    [(1, {"last.safetensors", "older.safetensors"}), (2, {"last.safetensors"}), (3, set())],
)
def test_best_and_the_state_are_never_deleted_for_their_age(
    run: Path, keep: int, expected: set[str]
) -> None:
    """The newest file of a run is its state, which nobody can export."""
    assert set(_planned(run, keep=keep)) == expected


def test_what_was_never_read_or_never_torn_is_left_and_said_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python calls lists of folders .pth, and a pickled module may be all that somebody has."""
    (tmp_path / "editable.pth").write_text("import site\n")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pt")
    (tmp_path / "raw.ckpt").write_bytes(pickle.dumps({"w": Path()}))
    (tmp_path / "folder.pt").mkdir()
    save_file(WEIGHTS, tmp_path / "closed.safetensors")
    (tmp_path / "empty.pt").write_bytes(b"")
    opened = Path.open

    def guarded(path: Path, *arguments: Any, **options: Any) -> Any:
        if path.name == "closed.safetensors":
            raise PermissionError(13, os.strerror(13))
        return opened(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", guarded)
    assert set(_planned(tmp_path)) == {"empty.pt"}
    left = _left(tmp_path)
    assert set(left) == {
        "editable.pth", "module.pt", "raw.ckpt", "folder.pt", "closed.safetensors",
    }  # fmt: skip
    assert left["closed.safetensors"].startswith("UNCHECKED: it cannot be read")


def test_links_are_not_counted_and_what_they_point_to_stays(tmp_path: Path) -> None:
    save_file(WEIGHTS, tmp_path / "a.safetensors")
    save_file(WEIGHTS, tmp_path / "b.safetensors")
    _aged(tmp_path / "b.safetensors", 5)
    (tmp_path / "best.safetensors").symlink_to("b.safetensors")
    (tmp_path / "dangling.pt").symlink_to("gone.pt")
    assert _planned(tmp_path, keep=1) == {}
    left = _left(tmp_path, keep=1)
    assert left["b.safetensors"] == "older, but a link points to it"
    assert "dangling.pt" in left


def test_a_write_under_way_is_left_alone(tmp_path: Path) -> None:
    """A run whose temporary file is deleted under its hands ends with an error."""
    save_file(WEIGHTS, tmp_path / "best.safetensors")
    fresh, stale = tmp_path / ".best.safetensors.x1_7k2ab", tmp_path / ".last.safetensors.q3_7k2ab"
    for path in (fresh, stale):
        path.write_text("half")
    _aged(stale, 0)
    assert set(_planned(tmp_path)) == {stale.name}
    assert set(_left(tmp_path)) == {fresh.name}


def test_leftovers_alone_are_found(tmp_path: Path) -> None:
    stale = tmp_path / ".best.safetensors.x1_7k2ab"
    stale.write_text("half")
    _aged(stale, 0)
    remove(plan_removals(tmp_path).removals)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UsageError, match="no checkpoint below"):
        plan_removals(tmp_path)


def test_a_broken_bundle_is_left_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its other artefacts, or the checkpoint in it, may be the last of their kind."""
    bundle = Kind(
        "bundle",
        lambda path: (path / "manifest.json").is_file(),
        lambda path, stats: Inspection(str(path), ("torn",)),
    )
    monkeypatch.setattr(kinds, "known_kinds", lambda: (bundle, kinds.CHECKPOINT))
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "manifest.json").write_text("{}")
    save_file(BROKEN, tmp_path / "bundle" / "checkpoint.safetensors")
    save_file(BROKEN, tmp_path / "broken.safetensors")
    assert set(_planned(tmp_path)) == {"broken.safetensors"}
    assert _left(tmp_path) == {"bundle": "INVALID: torn; a folder is not taken apart"}


@pytest.mark.parametrize(
    "loss", [float("inf"), float("nan"), 2.5e6, torch.tensor(float("inf")), torch.tensor(4.9e12)]
)
def test_sound_weights_are_not_deleted_for_a_loss_they_record(tmp_path: Path, loss: Any) -> None:
    """A run that was not evaluated yet has a best loss of inf, and a sum of squares is large."""
    torch.save({"model": WEIGHTS, "best_val_loss": loss}, tmp_path / "epoch1.pt")
    assert not kinds.inspect_file(tmp_path / "epoch1.pt").valid
    assert _planned(tmp_path) == {}
    assert _left(tmp_path)["epoch1.pt"].startswith("INVALID: recorded best_val_loss is ")


def test_weights_that_are_not_finite_go_whatever_loss_they_record(tmp_path: Path) -> None:
    torch.save({"loss": torch.tensor(float("inf")), "model": BROKEN}, tmp_path / "epoch1.pt")
    assert set(_planned(tmp_path)) == {"epoch1.pt"}


def test_a_file_that_only_lacks_tensors_is_not_deleted(tmp_path: Path) -> None:
    """Vocabularies and data sets are saved as .pt too, and they are whole."""
    torch.save({"vocabulary": ["a", "b"]}, tmp_path / "vocabulary.pt")
    torch.save({"w": torch.ones(3, device="meta")}, tmp_path / "shapes.pt")
    assert _planned(tmp_path) == {}
    assert set(_left(tmp_path)) == {"vocabulary.pt", "shapes.pt"}


def test_hidden_backups_are_no_leftovers(tmp_path: Path) -> None:
    """Of our own writes the name is known to the letter, and what was interrupted is torn."""
    for name in (".model.pt.backup", ".model.pt.original", ".best.safetensors.bak", ".x.ckpt.1"):
        torch.save(WEIGHTS, tmp_path / name)
    save_file(WEIGHTS, tmp_path / ".best.safetensors.original")
    save_file(WEIGHTS, tmp_path / "best.safetensors")
    for path in tmp_path.iterdir():
        _aged(path, 0)
    assert _planned(tmp_path) == {}
    reason = "named like an interrupted write, but it is whole: maybe a backup"
    assert _left(tmp_path) == {".best.safetensors.original": reason}


def test_what_our_own_writers_leave_behind_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The names come from the writers themselves, killed where nothing can be tidied up."""
    monkeypatch.setattr(Path, "unlink", lambda *_, **__: None)
    names = set()
    for content in (b"", b"half"):
        with suppress(KeyboardInterrupt), replacing(tmp_path / "best.safetensors") as temporary:
            temporary.write_bytes(content)
            names.add(temporary.name)
            raise KeyboardInterrupt
    save_file(WEIGHTS, tmp_path / "state.safetensors")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        mark_good(tmp_path)
    for path in tmp_path.iterdir():
        _aged(path, 0)
    planned = _planned(tmp_path)
    assert set(planned) == {*names, f".good.safetensors.{os.getpid()}"}
    assert set(planned.values()) == {"left behind by an interrupted write"}


def test_the_parts_of_one_model_are_not_taken_for_its_versions(tmp_path: Path) -> None:
    for part in (1, 2, 3):
        save_file(WEIGHTS, tmp_path / f"model-{part:05}-of-00003.safetensors")
    save_file(WEIGHTS, tmp_path / "model.safetensors")
    assert _planned(tmp_path, keep=1) == {}
    reason = "a part of a model in several files, not a version of it"
    assert set(_left(tmp_path, keep=1).values()) == {reason}
    assert len(_left(tmp_path, keep=1)) == 3
    assert _left(tmp_path) == {}


def test_another_model_in_the_folder_is_no_version(tmp_path: Path) -> None:
    """Released models lie side by side: to keep one version of each is to keep them all."""
    for name, size in (("base", 5), ("nano", 3), ("tiny", 2)):
        save_file({"w": torch.ones(size)}, tmp_path / f"{name}.safetensors")
    save_file({"v": torch.ones(3)}, tmp_path / "other.safetensors")
    torch.save({"w": torch.zeros(3)}, _aged(tmp_path / "nano.safetensors", 9).with_suffix(".pt"))
    assert _planned(tmp_path, keep=1) == {"nano.safetensors": "older"}


def test_a_broken_part_of_a_model_goes(tmp_path: Path) -> None:
    save_file(BROKEN, tmp_path / "model-00001-of-00002.safetensors")
    assert set(_planned(tmp_path, keep=1)) == {"model-00001-of-00002.safetensors"}


def test_versions_of_a_custom_task_are_counted_and_go_with_their_sidecars(tmp_path: Path) -> None:
    for age, name in enumerate(("best", "last", "older")):
        saved = ModelCheckpoint("package.module:build", {}, WEIGHTS, 1, {})
        save_checkpoint(saved, tmp_path / f"{name}.safetensors")
        _aged(tmp_path / f"{name}.safetensors", age)
    assert json.loads((tmp_path / "best.json").read_text())["schema"] == MODEL_SCHEMA
    write_sealed(tmp_path / "state.safetensors", WEIGHTS, {"step": 7}, fix="-")
    plan = plan_removals(tmp_path, keep=1)
    assert {f.path.name for f in plan.removals} == {"last.safetensors", "older.safetensors"}
    (tmp_path / "older.json").write_text(json.dumps({"mine": SCHEMA}))
    remove(plan.removals)
    assert {path.name for path in tmp_path.iterdir()} == {
        "best.json", "best.safetensors", "older.json", "state.safetensors",
    }  # fmt: skip
