"""Where a bundle comes from is recorded, and where this machine keeps its files is not."""

from __future__ import annotations

import dataclasses
import getpass
import json
import platform
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lowering_jobs import traces_of_this_machine

from exporter.manifest import load_manifest
from exporter.origins.swipe import put_checkpoint
from exporter.provenance import (
    FLAGS,
    library_versions,
    parse_cpuinfo,
    parse_sysctl,
    portable,
    portable_record,
    processor,
    working_tree,
)
from swipe.errors import UsageError
from swipe.files import sha256_file
from train.checkpoint import load_checkpoint, save_checkpoint

ROOT = Path(__file__).parents[2]

X86 = """processor\t: 0
vendor_id\t: AuthenticAMD
model name\t: AMD EPYC 9B14
flags\t\t: fpu sse2 avx2 avx512f avx512_vnni avx_vnni_extra

processor\t: 1
model name\t: another
flags\t\t: amx_int8
"""
ARM = """processor\t: 0
BogoMIPS\t: 243.75
Features\t: fp asimd asimdhp asimddp i8mm bf16
CPU part\t: 0xd4f
"""
APPLE = """machdep.cpu.brand_string: Apple M3
hw.optional.arm.FEAT_DotProd: 1
hw.optional.arm.FEAT_I8MM: 0
"""


def test_instructions_that_change_int8_are_read_from_each_system() -> None:
    found = parse_cpuinfo(X86)
    assert (found.model, found.flags) == ("AMD EPYC 9B14", ("avx2", "avx512_vnni", "avx512f"))
    assert parse_cpuinfo(ARM).flags == ("asimddp", "asimdhp", "i8mm")
    assert parse_cpuinfo(ARM).model == platform.machine()
    assert parse_sysctl(APPLE) == dataclasses.replace(
        parse_sysctl(""), model="Apple M3", flags=("asimddp",)
    )


def test_this_machine_has_a_processor_and_versions() -> None:
    assert processor().model
    assert set(processor().flags) <= set(FLAGS)
    assert library_versions()["python"] == platform.python_version()
    assert {"torch", "numpy", "swipe-export"} <= library_versions().keys()


def test_commit_and_uncommitted_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert working_tree() == (None, None)
    git = ["git", "-c", "user.name=n", "-c", "user.email=e"]
    subprocess.run([*git, "init", "-q"], check=True)
    assert working_tree() == (None, None)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "m"], check=True)
    commit, changed = working_tree()
    assert commit is not None
    assert len(commit) == 40
    assert changed is False
    (tmp_path / "new").write_text("")
    assert working_tree() == (commit, True)
    monkeypatch.setenv("PATH", "")
    assert working_tree() == (None, None)


def test_a_name_that_is_no_text_is_refused_by_name() -> None:
    """It ended as a bug of the library that writes the manifest."""
    with pytest.raises(UsageError, match=r"lex\\udcff\.txt.* its name is no text"):
        portable("/home/ada/lex\udcff.txt")


@pytest.mark.parametrize(
    ("given_as", "recorded"),
    [
        ("wordfreq:300000", "wordfreq:300000"),
        ("synthetic", "synthetic"),
        ("words/en.txt", "words/en.txt"),
        ("../shared/en.txt", "../shared/en.txt"),
        ("/home/ada/en.txt", "en.txt"),
        ("/home/ada/swipes/", "swipes"),
        ("~/en.txt", "en.txt"),
        ("C:\\Users\\ada\\en.txt", "en.txt"),
        ("", ""),
    ],
)
def test_an_absolute_path_is_recorded_by_name(given_as: str, recorded: str) -> None:
    assert portable(given_as) == recorded


@given(st.lists(st.text("abc.~ ", min_size=1), min_size=1))
def test_no_folder_of_an_absolute_path_is_left(parts: list[str]) -> None:
    recorded = portable("/" + "/".join(parts))
    assert "/" not in recorded
    assert portable(recorded) in (recorded, recorded.lstrip("~"))


def test_a_checkpoint_is_copied_unless_its_record_names_folders_of_this_machine(
    released: Path, tmp_path: Path
) -> None:
    checkpoint = load_checkpoint(released)
    put_checkpoint(released, checkpoint, tmp_path / "copy.safetensors")
    assert sha256_file(tmp_path / "copy.safetensors") == sha256_file(released)
    data = {**checkpoint.data, "train": "/home/ada/a.jsonl", "mix": {"/home/ada/b.jsonl": 0.3}}
    told = dataclasses.replace(checkpoint, data=data)
    save_checkpoint(told, tmp_path / "told.safetensors")
    put_checkpoint(tmp_path / "told.safetensors", told, tmp_path / "sealed.safetensors")
    assert b"/home/ada" in (tmp_path / "told.safetensors").read_bytes()
    assert b"/home/ada" not in (tmp_path / "sealed.safetensors").read_bytes()
    sealed = load_checkpoint(tmp_path / "sealed.safetensors")
    assert sealed.weights_sha256 == checkpoint.weights_sha256
    assert sealed.data == portable_record(data)
    assert sealed.data["mix"] == {"b.jsonl": 0.3}


def _export(folder: Path, out: Path, released: Path) -> Path:
    """Everything, from a working folder of its own and with absolute paths."""
    folder.mkdir(parents=True)
    words = folder / "words.txt"
    words.write_text(
        "".join(f"{w} {c}\n" for w, c in {"the": 9, "cat": 3, "dog": 2, "of": 5}.items())
    )
    command = [
        sys.executable, "-m", "exporter.cli", "all", "--quantize", "--checkpoint", str(released),
        "--data", "synthetic:600", "--lexicon", str(words), "--samples", "100",
        "--budget", "50", "--no-cache", "--out", str(out),
    ]  # fmt: skip
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 4), done.stdout + done.stderr
    assert f"--lexicon {words}" in done.stdout.splitlines()[-1]
    return out


def _timeless(bundle: Path) -> dict[str, object]:
    fields = json.loads(load_manifest(bundle).model_dump_json())
    for build in fields["builds"]:
        del build["created"]
    for entry in fields["formats"]:
        for rung in entry["rungs"]:
            del rung["seconds"], rung["speed"]
    return dict(fields)


@pytest.mark.slow
def test_one_checkpoint_gives_the_same_bytes_wherever_it_is_exported(
    released: Path, tmp_path: Path
) -> None:
    first = _export(tmp_path / "some-place", tmp_path / "here" / "bundle", released)
    second = _export(tmp_path / "other" / "place", tmp_path / "there", released)
    names = sorted(p.relative_to(first).as_posix() for p in first.rglob("*") if p.is_file())
    assert names == sorted(
        p.relative_to(second).as_posix() for p in second.rglob("*") if p.is_file()
    )
    assert {Path(name).suffix for name in names} >= {".onnx", ".pte", ".mlmodel", ".bin"}
    timed = {"manifest.json", "report.md", "report.html"}
    different = [n for n in names if (first / n).read_bytes() != (second / n).read_bytes()]
    assert set(different) <= timed
    assert _timeless(first) == _timeless(second)
    # Fewer letters than six occur by chance in a megabyte of weights.
    secrets = [tmp_path.name, "some-place", str(Path.home()), platform.node(), getpass.getuser()]
    secrets = [s for s in secrets if len(s) >= 6 or "/" in s]
    for name in names:
        content = (first / name).read_bytes()
        assert traces_of_this_machine(content) == [], name
        assert [secret for secret in secrets if secret.encode() in content] == [], name
