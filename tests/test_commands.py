"""What a user sees of the four commands: light help, errors of one line, exit codes."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

MODULES = {
    "swipe-data": "swipe.cli",
    "swipe-train": "train.cli",
    "swipe-export": "exporter.cli",
    "swipe-bench": "android_harness.cli",
}
HEAVY = (
    "torch",
    "onnx",
    "onnxruntime",
    "coremltools",
    "executorch",
    "numba",
    "numpy",
    "pyarrow",
    "wordfreq",
)


def _run(module: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("module", MODULES.values())
def test_help_loses_no_word_in_brackets(module: str) -> None:
    """Brackets are markup there: ``the extra [onnx]`` is shown as ``the extra``."""
    group: Any = typer.main.get_command(importlib.import_module(module).app)
    for command in (group, *group.commands.values()):
        texts = [command.help or "", *(getattr(p, "help", None) or "" for p in command.params)]
        assert set(re.findall(r"\[[a-z/][\w-]*\]|\[/\]", " ".join(texts))) <= {"[bold]", "[/]"}


@pytest.mark.parametrize("module", MODULES.values())
def test_help_loads_no_heavy_library(module: str, tmp_path: Path) -> None:
    code = (
        f"import sys, contextlib, {module} as cli\n"
        "with contextlib.suppress(SystemExit): cli.app(args=['--help'])\n"
        f"print('LOADED', [m for m in {HEAVY} if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert "Usage" in done.stdout
    assert "Example" in done.stdout
    assert done.stdout.rstrip().endswith("LOADED []")


@pytest.mark.parametrize(
    ("module", "arguments", "code", "says"),
    [
        ("exporter.cli", ["tflite"], 2, "No such command"),
        ("exporter.cli", ["onnx", "--checkpoint", "absent.safetensors"], 2, "no checkpoint"),
        ("exporter.cli", ["onnx", "--checkpoint", "text.safetensors"], 3, "not a complete"),
        ("exporter.cli", ["onnx", "--checkpoint", "cut.safetensors"], 3, "not a complete"),
        ("exporter.cli", ["onnx", "--checkpoint", "NANO", "--lexicon", "no.txt"], 2, "no lexicon"),
        ("exporter.cli", ["onnx", "--checkpoint", "NANO", "--lexicon", "void.txt"], 2, "no words"),
        ("exporter.cli", ["onnx", "--checkpoint", "NANO", "--data", "bad.jsonl"], 2, "no usable"),
        ("exporter.cli", ["onnx", "--checkpoint", "NANO", "--data", "synthetic:300",
                          "--out", "void.txt/x"], 2, "cannot write"),
        ("train.cli", ["fit", "--config", "huge"], 2, "no configuration"),
        ("train.cli", ["fit", "--set", "model.chanels=3"], 2, "model.chanels"),
        ("train.cli", ["fit", "--data", "absent.jsonl"], 2, "no data file"),
        ("train.cli", ["fit", "--data", "bad.jsonl"], 2, "no usable swipe"),
        ("train.cli", ["fit", "--data", "synthetic:none"], 2, "not a number"),
        ("train.cli", ["fit", "--data", "synthetic:300", "--out", "void.txt/x"],
         2, "cannot write"),
        ("train.cli", ["fit", "--resume"], 2, "holds no run"),
        ("train.cli", ["fit", "--resume", "--config", "large"], 2, "large was given too"),
        ("train.cli", ["fit", "--set", "optimizer.clip_norm=inf"], 2, "optimizer.clip_norm"),
        ("train.cli", ["eval"], 2, "not on this machine"),
        ("android_harness.cli", ["absent"], 2, "no bundle"),
        ("android_harness.cli", ["run", "absent"], 2, "no bundle"),
        ("android_harness.cli", ["--serial", "A"], 2, "--serial without"),
        ("android_harness.cli", ["--device", "android", "--adb", "no/adb"], 5, "--adb names"),
        ("android_harness.cli", ["--device", "local", "--device-dir", "x"], 2, "--device-dir"),
        ("android_harness.cli", ["diff", "old.json", "new.json"], 2, "no results"),
        ("android_harness.cli", ["report", "bad.jsonl"], 3, "not results of this version"),
        ("android_harness.cli", ["runner", "build", "--flavour", "amiga"], 2, "amiga"),
        ("swipe.cli", ["prepare", "bad.jsonl", "out.jsonl"], 2, "no usable swipe"),
        ("swipe.cli", ["synth", "void.txt/x.jsonl", "--count", "3"], 2, "cannot write"),
    ],
)  # fmt: skip
@pytest.mark.slow
def test_bad_input_is_one_line_with_its_mend(
    module: str, arguments: list[str], code: int, says: str, tmp_path: Path, released: Path
) -> None:
    (tmp_path / "text.safetensors").write_text("weights")
    (tmp_path / "cut.safetensors").write_bytes(released.read_bytes()[:5000])
    (tmp_path / "void.txt").write_text("")
    (tmp_path / "bad.jsonl").write_text("{broken\n")
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    filled = [str(released) if a == "NANO" else a for a in arguments]
    done = _run(module, *filled, cwd=tmp_path)
    printed = done.stdout + done.stderr
    assert done.returncode == code, printed
    assert says in printed
    assert "Traceback" not in printed
    if says != "No such command":
        assert "fix:" in done.stderr
    assert {p.name: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before
    assert not (tmp_path / "runs").exists()


def test_file_names_with_brackets_are_printed_as_they_are(tmp_path: Path) -> None:
    done = _run("swipe.cli", "synth", "[red]x.jsonl", "--count", "3", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "next: swipe-train fit --data '[red]x.jsonl'" in done.stdout
    assert (tmp_path / "[red]x.jsonl").is_file()


@pytest.mark.slow
def test_modules_in_the_users_folder_are_not_taken_for_ours(tmp_path: Path, released: Path) -> None:
    for name in ("train.py", "random.py"):
        (tmp_path / name).write_text("raise SystemExit('a stranger was run')")
    done = subprocess.run(
        [Path(sys.executable).with_name("swipe-export"), "onnx", "--checkpoint", str(released),
         "--data", "synthetic:600", "--no-quantize", "--lexicon", "wordfreq:20000"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    done = _run("train.cli", "eval", "--debug", cwd=tmp_path)
    assert done.returncode == 2
    assert "Traceback" in done.stderr


def test_a_missing_optional_library_exits_5(released: Path, tmp_path: Path) -> None:
    code = (
        "import sys, importlib.util as u\n"
        "find = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'coremltools' else find(name, *a)\n"
        f"sys.argv = ['swipe-export', 'all', '--checkpoint', {str(released)!r}]\n"
        "from exporter.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 5
    assert "not installed: coremltools" in done.stderr
    assert "pip install 'swipe-export[coreml]'" in done.stderr
    assert not (tmp_path / "bundle").exists()
