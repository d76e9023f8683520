"""Runner sets: found when they are whole and of today's sources, refused otherwise."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from android_harness.runners import sets
from android_harness.runners.sets import (
    MANIFEST,
    File,
    Program,
    RunnerManifest,
    RunnerSet,
    build_command,
    find_set,
    list_sets,
    sets_folder,
    sources_sha256,
)
from swipe.errors import MissingError
from swipe.files import sha256_file

FLAVOUR = "linux-x86_64"


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small set in a cache of its own: one program, and one engine left out."""
    monkeypatch.setenv("SWIPE_EXPORT_CACHE", str(tmp_path))
    folder = sets_folder() / FLAVOUR
    folder.mkdir(parents=True)
    program = folder / "runner_ort"
    program.write_bytes(b"a program")
    manifest = RunnerManifest(
        flavour=FLAVOUR,
        abi="x86_64",
        programs={"onnx": Program(file="runner_ort", library="lib.so", version="1.31.1")},
        absent={"executorch": "it is not installed"},
        launch=(),
        files={"runner_ort": File(sha256=sha256_file(program), size_bytes=9, executable=True)},
        commands=("cc",),
        sources_sha256=sources_sha256(),
    )
    (folder / MANIFEST).write_text(manifest.model_dump_json())
    return folder


def test_a_sound_set_is_found(kept: Path) -> None:
    found = find_set(FLAVOUR)
    assert found.folder == kept
    assert found.command("onnx") == ["./runner_ort"]
    assert list_sets_by_flavour() == {FLAVOUR: found}


def list_sets_by_flavour() -> dict[str, object]:
    return dict(list_sets())


def test_an_engine_that_was_left_out_is_said(kept: Path) -> None:
    with pytest.raises(MissingError, match="cannot execute executorch: it is not installed"):
        find_set(FLAVOUR).command("executorch")


def test_a_loader_of_its_own_comes_first(kept: Path) -> None:
    manifest = find_set(FLAVOUR).manifest
    launched = manifest.model_copy(update={"launch": ("./ld.so", "--library-path", ".")})
    words = RunnerSet(kept, launched).command("onnx")
    assert words == ["./ld.so", "--library-path", ".", "./runner_ort"]


def test_no_set(kept: Path) -> None:
    with pytest.raises(MissingError, match="no runner set glibc-aarch64") as caught:
        find_set("glibc-aarch64")
    assert caught.value.fix == "run: swipe-bench runner build --flavour glibc-aarch64"
    assert "--ndk" in build_command("android-arm64-v8a")


def test_a_damaged_program(kept: Path) -> None:
    (kept / "runner_ort").write_bytes(b"a pr0gram")
    with pytest.raises(MissingError, match="damaged: runner_ort"):
        find_set(FLAVOUR)
    assert isinstance(list_sets_by_flavour()[FLAVOUR], MissingError)
    (kept / "runner_ort").unlink()
    with pytest.raises(MissingError, match="damaged: runner_ort"):
        find_set(FLAVOUR)


def test_a_damaged_manifest(kept: Path) -> None:
    path = kept / MANIFEST
    fields = json.loads(path.read_text())
    for broken in (path.read_text()[:-5], json.dumps({**fields, "more": 1}), "", "[]"):
        path.write_text(broken)
        with pytest.raises(MissingError, match="cannot be read"):
            find_set(FLAVOUR)


@pytest.mark.parametrize("name", ["runner.c", "pack.h", "runner_et.cpp"])
def test_other_sources_make_a_set_stale(
    kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    sources = tmp_path / "native"
    shutil.copytree(sets.NATIVE, sources)
    monkeypatch.setattr(sets, "NATIVE", sources)
    assert find_set(FLAVOUR).folder == kept
    with (sources / name).open("a") as stream:
        stream.write("\n")
    with pytest.raises(MissingError, match="from other sources") as caught:
        find_set(FLAVOUR)
    assert "runner build" in caught.value.fix
