"""Run folders: whose they are while a run lasts, and what is left of a run that never began."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from linear_task import LinearTask, settings

from swipe.errors import DataError, UsageError
from train import fit as fit_module
from train import runs
from train.assemble import Assembled
from train.progress import Progress
from train.runs import CONFIG, STATE, new_run, old_run


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


class OneSecond(datetime):
    """A clock that stands still."""

    @classmethod
    def now(cls, tz: Any = None) -> OneSecond:
        return cls(2026, 1, 2, 3, 4, 5)


@pytest.fixture
def linear(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is configured, a small task is trained."""
    monkeypatch.setattr(fit_module, "assemble", lambda _: Assembled(LinearTask(), "samples"))
    monkeypatch.setattr(fit_module, "load_saved_config", lambda _: settings())


def start(out: Path | None, *, resume: bool = False, preflight: bool = False) -> Path:
    config: Any = None if resume else settings()
    return fit_module.start(config, "linear", out, preflight=preflight)


# Whose a folder is.


def test_runs_that_begin_in_one_second_have_a_folder_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "datetime", OneSecond)
    with new_run("base", None) as one, new_run("base", None) as two, new_run("base", None) as three:
        found = [one, two, three]
        assert all(folder.is_dir() for folder in found)
    first = "runs/20260102-030405-base"
    assert list(map(str, found)) == [first, f"{first}-2", f"{first}-3"]


@pytest.mark.usefixtures("linear")
def test_two_runs_of_one_second_keep_their_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "datetime", OneSecond)
    one, two = start(None), start(None)
    assert one != two
    for folder in (one, two):
        assert len((folder / "metrics.jsonl").read_text().splitlines()) == 15


@pytest.mark.usefixtures("linear")
@pytest.mark.parametrize("resume", [False, True], ids=["--out", "--resume"])
def test_a_run_that_goes_on_is_neither_resumed_nor_begun_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resume: bool
) -> None:
    observe = fit_module._Display.observe
    refused: list[UsageError] = []

    def meanwhile(self: fit_module._Display, progress: Progress) -> None:
        observe(self, progress)
        if progress.step in (1, 6):
            with pytest.raises(UsageError, match="run is being trained") as caught:
                start(tmp_path / "run", resume=resume)
            refused.append(caught.value)

    monkeypatch.setattr(fit_module._Display, "observe", meanwhile)
    start(tmp_path / "run")
    assert len(refused) == 2
    assert str(tmp_path / "run") in str(refused[0])
    assert "--out" in refused[0].fix
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 15
    with old_run(tmp_path / "run"):
        pass


@pytest.mark.slow
@pytest.mark.parametrize("out", [[], ["--out", "mine"]], ids=["dated", "--out"])
def test_the_processes_of_one_run_share_its_folder(tmp_path: Path, out: list[str]) -> None:
    """The first one holds it, and the others neither choose one nor are kept out."""
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
         "-m", "train.cli", "fit", *out, "--data", "synthetic:400", "--steps", "4",
         "--no-preflight", "--set", "evaluation.times=1", "--set", "evaluation.swipes=20",
         "--set", "evaluation.lexicon=wordfreq:2000", "--set", "data.dev_share=0.3",
         "--set", "model.channels=8", "--set", "optimizer.batch_size=32", "--set", "device=cpu",
         "--threads", "1"],
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "runs" / "latest" / "best.safetensors").is_file()
    folders = [path for path in tmp_path.glob("runs/*") if not path.is_symlink()]
    assert len(folders) + (tmp_path / "mine").is_dir() == 1


def test_a_folder_that_is_claimed_and_still_empty_is_refused(tmp_path: Path) -> None:
    with new_run("base", tmp_path / "run"):
        assert not (tmp_path / "run" / CONFIG).exists()
        with (
            pytest.raises(UsageError, match="run is being trained"),
            new_run("base", tmp_path / "run"),
        ):
            pass
    with new_run("base", tmp_path / "run"):
        pass


def test_a_run_named_through_a_link_is_the_same_run(tmp_path: Path) -> None:
    (tmp_path / "latest").symlink_to("run")
    with new_run("base", tmp_path / "run") as folder:
        (folder / CONFIG).write_text("{}")
        with (
            pytest.raises(UsageError, match="run is being trained"),
            old_run(tmp_path / "latest"),
        ):
            pass


def test_the_newest_run_is_held_as_well(tmp_path: Path) -> None:
    with new_run("base", None) as folder:
        (folder / CONFIG).write_text("{}")
        (folder / STATE).write_text("-")
        with pytest.raises(UsageError, match="run is being trained"), old_run(None):
            pass


def test_a_file_system_without_locks_is_no_reason_to_refuse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network file system may lock no folder."""

    def refuse(*_: object) -> None:
        raise OSError(9, os.strerror(9))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with new_run("base", tmp_path / "run") as folder:
        assert folder.is_dir()


def test_a_finished_run_is_never_claimed_anew(tmp_path: Path) -> None:
    with new_run("base", tmp_path / "run") as folder:
        (folder / CONFIG).write_text("{}")
    with (
        pytest.raises(UsageError, match="holds a run already"),
        new_run("base", tmp_path / "run"),
    ):
        pass
    assert (tmp_path / "run" / CONFIG).read_text() == "{}"


# What is left of a run that never began.


@pytest.mark.parametrize("out", [None, Path("deep/er/run")], ids=["dated", "--out"])
@pytest.mark.parametrize("cause", ["data", "preflight", "Ctrl-C"])
def test_a_run_that_never_began_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: Path | None, cause: str
) -> None:
    error: BaseException = DataError("no data file", fix="-")
    if cause == "Ctrl-C":
        error = KeyboardInterrupt()

    def fail(*_: object, **__: object) -> Assembled:
        assert any(tmp_path.rglob("*")), "the folder is claimed before the data are read"
        raise error

    monkeypatch.setattr(fit_module, "assemble", lambda _: Assembled(LinearTask(), "samples"))
    monkeypatch.setattr(fit_module, "_preflight" if cause == "preflight" else "assemble", fail)
    with pytest.raises(type(error)):
        start(out, preflight=True)
    assert not list(tmp_path.rglob("*"))


def test_a_folder_that_was_there_before_stays(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    with new_run("base", tmp_path / "mine"):
        pass
    assert (tmp_path / "mine").is_dir()


@pytest.mark.parametrize("runs_is", ["a file", "a broken link"])
def test_where_no_folder_can_be_made_is_one_clear_error(tmp_path: Path, runs_is: str) -> None:
    if runs_is == "a file":
        (tmp_path / "runs").write_text("in the way")
    else:
        (tmp_path / "runs").symlink_to("nowhere")
    for out in (None, Path("runs/mine")):
        with pytest.raises(UsageError, match=r"cannot write runs/"), new_run("base", out):
            pass
