"""``swipe-train`` as a user meets it: what it leaves, what it prints, how it refuses."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from swipe_train_command import Done, SwipeTrain

from swipe.errors import UsageError
from swipe.layout import load_layout
from swipe.lexicon import load_lexicon
from swipe.sources import write_jsonl
from swipe.synthesis import synthesize
from train import fit as fit_module
from train.checkpoint import load_checkpoint, save_checkpoint
from train.runs import publish_run

pytestmark = pytest.mark.slow

FAST = [
    "--data", "synthetic:400", "--steps", "6",
    "--set", "evaluation.times=2", "--set", "evaluation.swipes=20",
    "--set", "evaluation.lexicon=wordfreq:2000", "--set", "data.dev_share=0.3",
    "--set", "model.channels=8", "--set", "optimizer.batch_size=64",
]  # fmt: skip


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder with one finished run, made by the real command; and what it printed."""
    folder = tmp_path_factory.mktemp("fitted")
    done = subprocess.run(
        [sys.executable, "-m", "train.cli", "fit", *FAST],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert not done.stderr
    return folder, done.stdout


def refused(done: Done, code: int, *said: str) -> None:
    """One line that says what is wrong, one that says how to mend it, and nothing else."""
    assert done.code == code, done
    assert "Traceback" not in done.out + done.err
    lines = done.err.splitlines()
    assert len(lines) == 2, done.err
    assert lines[0].startswith("error: ")
    assert lines[1].startswith("  fix: ")
    assert len(lines[1]) > len("  fix: ")
    for text in said:
        assert text in lines[0]


# What a run leaves.


def test_a_run_leaves_its_files_and_is_the_latest(fitted: tuple[Path, str]) -> None:
    folder, _ = fitted
    latest = folder / "runs" / "latest"
    assert latest.is_symlink()
    assert not Path(latest.readlink()).is_absolute(), "a moved folder would lose its run"
    names = {p.name for p in latest.iterdir()}
    assert names == {
        "best.json", "best.safetensors", "config.json", "data.json", "good.safetensors",
        "last.json", "last.safetensors", "metrics.jsonl", "state.safetensors", "tensorboard",
    }  # fmt: skip
    assert load_checkpoint(latest).spec.channels == 8
    assert load_checkpoint(latest / "last.safetensors").step == 6
    assert len(list((folder / "runs").iterdir())) == 2


def test_the_resolved_configuration_is_saved_with_the_run(fitted: tuple[Path, str]) -> None:
    folder, _ = fitted
    config = json.loads((folder / "runs" / "latest" / "config.json").read_text())
    assert config["length"] == {"steps": 6, "minutes": 0.0, "patience": 0}
    assert config["evaluation"]["times"] == 2
    assert config["data"]["train"] == "synthetic:400"
    assert config["optimizer"]["weight_decay"] == 0.01


def test_a_run_says_what_it_trained_on_and_what_to_do_next(fitted: tuple[Path, str]) -> None:
    _, out = fitted
    assert "synthetic" in out.splitlines()[0]
    assert "swipes of" in out
    assert "step 3: dev top-1" in out
    assert "step 6: dev top-1" in out
    assert "6 steps, 0 skipped as not finite" in out
    assert "(synthetic swipes)" in out
    assert out.splitlines()[-1].startswith("next: swipe-export")


def test_a_moved_run_can_still_be_evaluated(
    fitted: tuple[Path, str], tmp_path: Path, swipe_train: SwipeTrain
) -> None:
    shutil.copytree(fitted[0] / "runs", tmp_path / "runs", symlinks=True)
    done = swipe_train("eval", "--lexicon", "wordfreq:2000", "--beam", "8")
    assert done.code == 0, done.err


def test_eval_prints_a_table_and_writes_json(
    fitted: tuple[Path, str], tmp_path: Path, swipe_train: SwipeTrain
) -> None:
    run, figures = str(fitted[0] / "runs" / "latest"), tmp_path / "deep" / "figures.json"
    done = swipe_train(
        "eval", "--checkpoint", run, "--lexicon", "wordfreq:2000", "--beam", "8",
        "--limit", "25", "--json", str(figures),
    )  # fmt: skip
    assert done.code == 0, done.err
    for text in ("held-out writers", "synthetic", "strict", "in vocabulary", "top-4 %", "CER"):
        assert text in done.out
    result = json.loads(figures.read_text())
    assert result["beam"]["strict"]["n"] == result["greedy"]["strict"]["n"] == 25
    assert result["lexicon"] == "wordfreq:2000"
    assert result["preset"]["beam_width"] == 8


def test_a_tuned_preset_is_found_beside_its_checkpoint_and_refused_elsewhere(
    fitted: tuple[Path, str], tmp_path: Path, swipe_train: SwipeTrain
) -> None:
    checkpoint = tmp_path / "x.safetensors"
    shutil.copyfile(fitted[0] / "runs" / "latest" / "best.safetensors", checkpoint)
    ours, other = ("--lexicon", "wordfreq:2000"), ("--lexicon", "wordfreq:1000")
    swipes = ("--checkpoint", str(checkpoint), "--data", "synthetic:200")
    tuned = swipe_train("tune-decoder", *swipes, *ours, "--minutes", "0")
    assert tuned.code == 0, tuned.err
    assert "other half" in tuned.out
    preset = tmp_path / "x.preset.json"
    found = swipe_train("eval", *swipes, *ours)
    assert f"decoder preset {preset}" in found.out
    left = swipe_train("eval", *swipes, *other)
    assert "the default" in left.out
    assert "another lexicon" in left.out
    named = ("--preset", str(preset))
    refused(swipe_train("eval", *swipes, *other, *named), 3, "was tuned with lexicon wordfreq:2000")
    forced = swipe_train("eval", *swipes, *other, *named, "--force-preset")
    assert f"decoder preset {preset}" in forced.out


def test_a_rejected_row_is_quarantined_with_its_reason(
    tmp_path: Path, swipe_train: SwipeTrain
) -> None:
    swipes = synthesize(load_layout("qwerty"), load_lexicon("wordfreq:2000"), 400)
    write_jsonl(swipes.gestures, tmp_path / "swipes.jsonl")
    with (tmp_path / "swipes.jsonl").open("a") as stream:
        stream.write("{broken\n")
    done = swipe_train("fit", *FAST, "--data", "swipes.jsonl", "--out", "mine")
    assert done.code == 0, done.err
    assert "1 rows quarantined (1 not JSON)" in done.out
    row = json.loads((tmp_path / "mine" / "quarantine.jsonl").read_text())
    assert row["row"] == 401
    assert (tmp_path / "runs" / "latest").resolve() == tmp_path / "mine"


def test_a_stopped_run_is_resumed_and_ends_where_it_would_have(
    fitted: tuple[Path, str],
    tmp_path: Path,
    swipe_train: SwipeTrain,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    observe = fit_module._Display.observe

    def interrupt(self: object, progress: object) -> None:
        observe(self, progress)  # type: ignore[arg-type]
        if progress.step == 4:  # type: ignore[attr-defined]
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(fit_module._Display, "observe", interrupt)
        stopped = swipe_train("fit", *FAST, "--out", "mine")
    assert stopped.code == 130
    assert "continue with: swipe-train fit --resume --out mine" in stopped.out
    assert not (tmp_path / "runs" / "latest").exists(), "only finished runs are published"
    resumed = swipe_train("fit", "--resume", "--out", "mine")
    assert resumed.code == 0, resumed.err
    whole = load_checkpoint(fitted[0] / "runs" / "latest" / "last.safetensors")
    assert load_checkpoint(tmp_path / "mine" / "last.safetensors").weights_sha256 == (
        whole.weights_sha256
    )


def test_a_run_does_not_go_on_with_other_data(tmp_path: Path, swipe_train: SwipeTrain) -> None:
    swipes = synthesize(load_layout("qwerty"), load_lexicon("wordfreq:2000"), 400).gestures
    write_jsonl(swipes, tmp_path / "mine.jsonl")
    fast = ["mine.jsonl" if word.startswith("synthetic") else word for word in FAST]
    assert swipe_train("fit", *fast, "--out", "mine", "--no-preflight").code == 0
    assert swipe_train("fit", "--resume", "--out", "mine").code == 0
    write_jsonl(swipes[:350], tmp_path / "mine.jsonl")
    refused(swipe_train("fit", "--resume", "--out", "mine"), 3, "mine.jsonl changed since")


def test_processes_that_torchrun_restarts_go_on_with_their_run(
    tmp_path: Path, swipe_train: SwipeTrain, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torchrun repeats the first command; without it, the folder would be taken already."""
    assert swipe_train("fit", *FAST, "--out", "mine", "--no-preflight").code == 0
    refused(swipe_train("fit", *FAST, "--out", "mine"), 2, "holds a run already")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    again = swipe_train("fit", *FAST, "--out", "mine")
    assert again.code == 0, again.err
    assert load_checkpoint(tmp_path / "mine" / "last.safetensors").step == 6


def test_resuming_with_other_settings_is_refused_not_ignored(
    fitted: tuple[Path, str], tmp_path: Path, swipe_train: SwipeTrain
) -> None:
    """No option is silently rewritten: a conflict names both options."""
    shutil.copytree(fitted[0] / "runs" / "latest", tmp_path / "mine")
    done = swipe_train("fit", "--resume", "--out", "mine", "--steps", "12")
    refused(done, 2, "--resume")


# Refusals of fit.


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--config", "huge"], ["no configuration 'huge'"]),
        (["--set", "model.chanels=64"], ["model.chanels"]),
        (["--set", "modle.channels=64"], ["modle"]),
        (["--set", "model.channels"], ["not key=value"]),
        (["--set", "model.channels=many"], ["model.channels", "many"]),
        (["--set", "model.name=lstm"], ["lstm"]),
        (["--set", "model.dilations=[]"], ["dilations"]),
        (["--steps", "0"], ["length"]),
        (["--steps", "-3"], ["length.steps"]),
        (["--minutes", "5"], ["length"]),
        (["--minutes", "nan"], ["length.minutes"]),
        (["--threads", "0"], ["threads"]),
        (["--set", "data.layout=colemak"], ["no layout 'colemak'"]),
        (["--data", "absent.jsonl"], ["no data file absent.jsonl"]),
        (["--data", "empty.jsonl"], ["empty.jsonl holds no usable swipe"]),
        (["--data", "bad.jsonl"], ["2 rows rejected", "not JSON"]),
        (["--data", "damaged.jsonl.gz"], ["damaged.jsonl.gz"]),
        (["--data", "data.csv"], ["data.csv"]),
        (["--data", "."], ["no prepared corpus"]),
        (["--data", "synthetic:many"], ["'many'"]),
        (["--data", "synthetic:0"], ["0 synthetic swipes"]),
        (["--data", "synthetic:30"], ["too few writers"]),
        (["--dev", "absent.jsonl"], ["no data file absent.jsonl"]),
        (["--lexicon", "absent.txt"], ["no lexicon absent.txt"]),
        (["--lexicon", "empty.txt"], ["holds no words"]),
        (["--lexicon", "digits.txt"], ["holds no words"]),
        (["--lexicon", "damaged.combined.gz"], ["damaged.combined.gz"]),
        (["--out", "taken"], ["taken holds a run already"]),
        (["--out", "a-file"], ["a-file"]),
        (["--out", "a-file/run"], ["a-file/run"]),
        (["--resume", "--out", "nothing"], ["nothing holds no run"]),
    ],
    ids=lambda value: " ".join(value) if value[0].startswith("--") else "",
)
def test_a_mistake_is_one_line_and_its_mend(
    tmp_path: Path, swipe_train: SwipeTrain, arguments: list[str], said: list[str]
) -> None:
    files = {
        "empty.jsonl": b"",
        "bad.jsonl": b"{broken\n[]\n",
        "damaged.jsonl.gz": gzip.compress(b'{"id": 1}\n' * 500)[:-20],
        "data.csv": b"word,x,y\n",
        "empty.txt": b"",
        "digits.txt": b"123\n42 7\n",
        "damaged.combined.gz": b"\x1f\x8b no archive",
        "a-file": b"in the way",
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "config.json").write_text("{}")
    base = [] if "--resume" in arguments else FAST
    refused(swipe_train("fit", *base, *arguments), 2, *said)
    assert (tmp_path / "taken" / "config.json").read_text() == "{}"
    assert (tmp_path / "a-file").read_bytes() == b"in the way"
    assert not list(tmp_path.rglob("*.safetensors"))
    assert not (tmp_path / "runs" / "latest").exists()


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"seed = = 3"], ids=["not text", "not TOML"])
def test_a_configuration_that_cannot_be_read_is_refused(
    tmp_path: Path, swipe_train: SwipeTrain, content: bytes
) -> None:
    (tmp_path / "mine.toml").write_bytes(content)
    refused(swipe_train("fit", "--config", "mine.toml", "--steps", "6"), 2, "mine.toml")


@pytest.mark.parametrize("content", ["{broken", "{}", '{"length": {"steps": 6}, "sede": 1}'])
def test_resuming_with_a_damaged_configuration_is_refused(
    fitted: tuple[Path, str], tmp_path: Path, swipe_train: SwipeTrain, content: str
) -> None:
    shutil.copytree(fitted[0] / "runs" / "latest", tmp_path / "mine")
    (tmp_path / "mine" / "config.json").write_text(content)
    refused(swipe_train("fit", "--resume", "--out", "mine"), 2, "config.json")


def test_resuming_with_a_damaged_state_is_refused(
    fitted: tuple[Path, str], tmp_path: Path, swipe_train: SwipeTrain
) -> None:
    shutil.copytree(fitted[0] / "runs" / "latest", tmp_path / "mine")
    state = tmp_path / "mine" / "state.safetensors"
    state.write_bytes(state.read_bytes()[:-100])
    refused(swipe_train("fit", "--resume", "--out", "mine"), 3, "state.safetensors")


def test_a_file_where_runs_belong_does_not_cost_the_training(
    fitted: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found after hours of training with --out elsewhere: a typed error, not a bug."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").write_text("in the way")
    with pytest.raises(UsageError):
        publish_run(fitted[0] / "runs" / "latest")


# Refusals of eval.


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--checkpoint", "absent.safetensors"], 2, ["no checkpoint absent.safetensors"]),
        (["--checkpoint", "."], 2, ["no checkpoint"]),
        (["--checkpoint", "half.safetensors"], 3, ["half.safetensors is not a complete"]),
        (["--checkpoint", "text.safetensors"], 3, ["text.safetensors is not a complete"]),
        (["--data", "absent.jsonl"], 2, ["no data file absent.jsonl"]),
        (["--data", "empty.jsonl"], 2, ["empty.jsonl holds no usable swipe"]),
        (["--lexicon", "empty.txt"], 2, ["holds no words"]),
        (["--json", "empty.txt/figures.json"], 2, ["cannot write empty.txt/figures.json"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) and "--" in value[0] else "",
)
def test_what_cannot_be_evaluated_is_refused(
    fitted: tuple[Path, str],
    tmp_path: Path,
    swipe_train: SwipeTrain,
    arguments: list[str],
    code: int,
    said: list[str],
) -> None:
    best = (fitted[0] / "runs" / "latest" / "best.safetensors").read_bytes()
    (tmp_path / "good.safetensors").write_bytes(best)
    (tmp_path / "half.safetensors").write_bytes(best[: len(best) // 2])
    (tmp_path / "text.safetensors").write_text("not weights")
    for name in ("empty.jsonl", "empty.txt"):
        (tmp_path / name).write_text("")
    base = ["--checkpoint", "good.safetensors", "--lexicon", "wordfreq:2000", "--limit", "5"]
    refused(swipe_train("eval", *base, *arguments), code, *said)


def test_the_run_of_a_corpus_that_is_gone_names_it(
    fitted: tuple[Path, str], tmp_path: Path, swipe_train: SwipeTrain
) -> None:
    made = load_checkpoint(fitted[0] / "runs" / "latest")
    gone = replace(made, data={**made.data, "train": "gone.jsonl"})
    save_checkpoint(gone, tmp_path / "best.safetensors")
    refused(swipe_train("eval", "--checkpoint", "best.safetensors"), 2, "gone.jsonl")


# The real process, a few times.


def process(folder: Path, *arguments: str) -> Done:
    command = [sys.executable, "-m", "train.cli", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize(
    "arguments",
    [["fit", "--steps", "6", "--data", "absent.jsonl"], ["eval", "--checkpoint", "absent.bin"]],
    ids=["fit", "eval"],
)
def test_a_process_ends_with_the_code_and_no_traceback(
    tmp_path: Path, arguments: list[str]
) -> None:
    refused(process(tmp_path, *arguments), 2, "absent.")


def test_debug_adds_the_traceback_and_keeps_the_code(tmp_path: Path) -> None:
    done = process(tmp_path, "fit", "--config", "huge", "--debug")
    assert done.code == 2
    assert "Traceback" in done.err
    assert "fix: " in done.err


def test_a_wrong_option_is_a_usage_error(swipe_train: SwipeTrain) -> None:
    done = swipe_train("fit", "--stepps", "3")
    assert done.code == 2
    assert "--stepps" in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize("command", [[], ["fit"], ["eval"]])
def test_help_says_an_example_and_loads_no_torch(tmp_path: Path, command: list[str]) -> None:
    probe = (
        "import sys, runpy; sys.argv = ['swipe-train', *sys.argv[1:]]\n"
        "try: runpy.run_module('train.cli', run_name='__main__')\n"
        "finally: assert 'torch' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", probe, *command, "--help"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    assert "Example: swipe-train fit" in done.stdout or command == ["eval"]
