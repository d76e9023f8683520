"""Building runner sets: what is looked for where, what is said when it is not there."""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from runner_builds import build_or_say
from typer.testing import CliRunner

from android_harness.runners import engines, toolchains
from android_harness.runners.build import Options, _direct_needs, build_set
from android_harness.runners.engines import (
    HEADER,
    INCLUDE_VARIABLE,
    Sources,
    find_executorch,
    find_onnxruntime,
)
from android_harness.runners.sets import MANIFEST, RunnerSet, find_set, sets_folder
from android_harness.runners.toolchains import default_flavour, find_toolchain
from android_harness.verbs_runner import register
from swipe.console import make_app
from swipe.errors import GateError, MissingError, UsageError

HOST = default_flavour()


def _say_nothing(line: str) -> None:
    """Nobody listens."""


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache without sets."""
    monkeypatch.setenv("SWIPE_EXPORT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def headers(tmp_path: Path) -> Path:
    """A folder with a header of the release that is asked for at least."""
    folder = tmp_path / "headers" / "onnxruntime"
    folder.mkdir(parents=True)
    (folder / HEADER).write_text("#define ORT_API_VERSION 17\n")
    return folder


@pytest.fixture
def no_system_headers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without ONNX Runtime's headers."""
    monkeypatch.delenv(INCLUDE_VARIABLE, raising=False)
    monkeypatch.setattr(engines, "SYSTEM_INCLUDES", ())


def test_headers_are_looked_for_in_order(
    headers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_system_headers: None
) -> None:
    def found(sources: Sources) -> Path:
        return find_onnxruntime(HOST, sources, tmp_path / "scratch").includes[0]

    with pytest.raises(MissingError, match="no C headers") as caught:
        found(Sources())
    assert "libonnxruntime-dev" in caught.value.fix
    monkeypatch.setattr(engines, "SYSTEM_INCLUDES", (str(headers.parent),))
    assert found(Sources()) == headers
    named = tmp_path / "named"
    shutil.copytree(headers, named / "include" / "core")
    monkeypatch.setenv(INCLUDE_VARIABLE, str(named))
    assert found(Sources()) == named / "include" / "core"
    assert found(Sources(ort_include=headers.parent)) == headers
    aar = tmp_path / "onnxruntime-android-1.31.1.aar"
    with zipfile.ZipFile(aar, "w") as archive:
        archive.write(headers / HEADER, f"headers/{HEADER}")
    assert found(Sources(ort_aar=aar)).parent.name == aar.name


def test_headers_that_are_none(headers: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"no {HEADER} under"):
        find_onnxruntime(HOST, Sources(ort_include=tmp_path / "gone"), tmp_path)
    for text in ("#define ORT_API_VERSION 16\n", "// nothing\n"):
        (headers / HEADER).write_text(text)
        with pytest.raises(UsageError, match="older than"):
            find_onnxruntime(HOST, Sources(ort_include=headers), tmp_path)


def test_archives_that_are_none(tmp_path: Path) -> None:
    broken, empty = tmp_path / "broken.aar", tmp_path / "empty.aar"
    broken.write_bytes(b"no archive")
    with zipfile.ZipFile(empty, "w") as archive:
        archive.writestr("readme", "")
    for path, says in ((broken, "cannot be unpacked"), (empty, "holds nothing under")):
        with pytest.raises(UsageError, match=says):
            find_onnxruntime("android-arm64-v8a", Sources(ort_aar=path), tmp_path / "scratch")


def test_an_archive_that_was_damaged(tmp_path: Path) -> None:
    path = tmp_path / "onnxruntime-android-1.31.1.aar"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("jni/arm64-v8a/libonnxruntime.so", bytes(range(256)) * 100)
    whole = path.read_bytes()
    start = whole.index(b"libonnxruntime.so") + len(b"libonnxruntime.so")
    for at in range(start, start + 100):
        path.write_bytes(whole[:at] + b"\xff" + whole[at + 1 :])
        with pytest.raises(UsageError, match="cannot be unpacked"):
            find_onnxruntime("android-arm64-v8a", Sources(ort_aar=path), tmp_path / "scratch")


def test_wheels_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no onnxruntime-.*aarch64\.whl in"):
        find_onnxruntime("glibc-aarch64", Sources(wheels=tmp_path), tmp_path)


def test_pip_that_cannot_fetch(
    own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", (tmp_path / "no-index").as_uri())
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(MissingError, match="pip cannot fetch the aarch64 wheel") as caught:
        find_onnxruntime("glibc-aarch64", Sources(), tmp_path)
    assert "--wheels" in caught.value.fix


@pytest.mark.parametrize(
    ("flavour", "ndk", "says"),
    [
        ("windows", None, "no flavour windows"),
        ("android-arm64-v8a", None, "built with the Android NDK"),
        ("android-arm64-v8a", Path("/gone"), "is not an unpacked Android NDK"),
        ("glibc-aarch64", Path("/gone"), "--ndk does not build"),
    ],
)
def test_flavours_that_cannot_be_built(flavour: str, ndk: Path | None, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        find_toolchain(flavour, ndk)


def test_another_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    with pytest.raises(UsageError, match="no runners execute on"):
        default_flavour()
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    assert default_flavour() == "linux-aarch64"
    with pytest.raises(UsageError, match="is built on such a machine"):
        find_toolchain("linux-x86_64", None)
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(UsageError, match="no runners execute on darwin"):
        default_flavour()


def test_no_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingError, match="there is no gcc here"):
        find_toolchain(HOST, None)
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    with pytest.raises(MissingError, match="no aarch64-linux-gnu-gcc") as caught:
        find_toolchain("glibc-aarch64", None)
    assert "gcc-aarch64-linux-gnu" in caught.value.fix


def test_no_readelf(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A compiler answers with the bare name of a program that it does not have."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingError, match="readelf cannot be started"):
        _direct_needs("readelf", tmp_path / "runner_ort")


def test_neither_engine(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch, no_system_headers: None
) -> None:
    monkeypatch.setattr(engines, "_installed", _not_installed)
    with pytest.raises(MissingError, match="neither engine is here") as caught:
        build_set(HOST, Options(), _say_nothing)
    assert "pip install" in caught.value.fix
    assert not (sets_folder() / HOST).exists()


def _not_installed(name: str, extra: str) -> str:
    raise MissingError(f"{name} is not installed", fix=f"pip install 'swipe-export[{extra}]'")


@pytest.mark.slow
def test_a_set_without_onnx_runtime(own_cache: Path, no_system_headers: None) -> None:
    """By the command: it says each step, what is left out, and where the set is."""
    app = make_app("a harness")
    register(app)
    done = CliRunner().invoke(app, ["runner", "build"])
    assert done.exit_code == 0, done.output
    built = find_set(HOST)
    assert list(built.manifest.programs) == ["executorch"]
    assert "no C headers" in built.manifest.absent["onnx"]
    assert "onnx is left out: there are no C headers" in done.output
    assert all(f"$ {command}\n" in done.output for command in built.manifest.commands)
    assert str(built.folder) in done.output.replace("\n", "")
    with pytest.raises(MissingError, match="cannot execute onnx"):
        built.command("onnx")
    listed = CliRunner().invoke(app, ["runner", "list"])
    assert listed.exit_code == 0
    assert "ready" in listed.output


def test_commands_that_cannot_do_it(own_cache: Path) -> None:
    app = make_app("a harness")
    register(app)
    nothing = CliRunner().invoke(app, ["runner", "list"])
    assert isinstance(nothing.exception, MissingError)
    assert nothing.exception.fix == "run: swipe-bench runner build"
    unknown = CliRunner().invoke(app, ["runner", "build", "--flavour", "windows"])
    assert isinstance(unknown.exception, UsageError)
    no_ndk = CliRunner().invoke(app, ["runner", "build", "--ndk", "/gone"])
    assert isinstance(no_ndk.exception, UsageError)
    assert "is not an unpacked Android NDK" in str(no_ndk.exception)


@pytest.mark.slow
def test_a_failed_build_leaves_the_earlier_set(native_set: RunnerSet, own_cache: Path) -> None:
    folder = sets_folder() / HOST
    shutil.copytree(native_set.folder, folder)
    with pytest.raises(GateError, match=r"gcc failed: .*error") as caught:
        build_set(HOST, Options(extra_flags=("-Dstatic=typo",)), _say_nothing)
    assert "by hand" in caught.value.fix
    assert find_set(HOST).manifest == native_set.manifest
    assert [path.name for path in sets_folder().iterdir()] == [HOST]


@pytest.mark.slow
def test_what_a_set_says_of_itself(native_set: RunnerSet) -> None:
    manifest = native_set.manifest
    stored = {path.name for path in native_set.folder.iterdir()} - {MANIFEST}
    assert stored == set(manifest.files)
    assert manifest.files["runner_ort"].executable
    assert len(manifest.commands) == 3
    assert all("-Werror" in command for command in manifest.commands)
    assert manifest.absent == {}
    assert json.loads((native_set.folder / MANIFEST).read_text())["flavour"] == HOST


@pytest.mark.slow
def test_programs_find_their_libraries_beside_them(native_set: RunnerSet, tmp_path: Path) -> None:
    """A set is copied to a device, and is whole there."""
    copy = tmp_path / "copy"
    shutil.copytree(native_set.folder, copy)
    for engine in ("onnx", "executorch"):
        program = copy / native_set.program(engine).file
        done = subprocess.run(["ldd", program], capture_output=True, text=True, check=True)
        assert "not found" not in done.stdout
        of_set = [line for line in done.stdout.splitlines() if "libexecutorch" in line]
        assert all(str(copy) in line for line in of_set)
        assert bool(of_set) == (engine == "executorch")


@pytest.fixture(scope="module")
def cross_set() -> RunnerSet:
    """The set for aarch64 that brings its own loader, without a warning."""
    return build_or_say("glibc-aarch64", ())


@pytest.mark.slow
def test_a_cross_built_set_is_whole(cross_set: RunnerSet) -> None:
    """Every library that anything in it needs is in it, and all is for aarch64."""
    readelf = find_toolchain("glibc-aarch64", None).readelf()
    names = set(cross_set.manifest.files)
    assert toolchains.LOADER in names
    for name in names:
        path = cross_set.folder / name
        assert path.read_bytes()[18:20] == (183).to_bytes(2, "little"), f"{name} is not AArch64"
        needs = subprocess.run(
            [readelf, "--dynamic", "--wide", path], capture_output=True, text=True, check=True
        )
        needed = {
            line.partition("[")[2].rstrip("]")
            for line in needs.stdout.splitlines()
            if "(NEEDED)" in line
        }
        assert needed <= names, name
    assert cross_set.manifest.abi == "arm64-v8a"
    assert cross_set.command("onnx")[0] == f"./{toolchains.LOADER}"


FAKE_CLANG = """#!/bin/sh
# Stands in for the NDK's clang: notes what it was asked, and lets a real compiler do it.
printf '%s\\n' "$0" "$@" END >> "{log}"
exec {compiler} "$@"
"""


@pytest.fixture
def fake_ndk(tmp_path: Path) -> Path:
    """A folder that looks like an NDK, whose compilers build for aarch64 Linux."""
    ndk = tmp_path / "ndk"
    tools = ndk / "toolchains" / "llvm" / "prebuilt" / "linux-x86_64" / "bin"
    tools.mkdir(parents=True)
    prefix = "" if platform.machine() == "aarch64" else toolchains.CROSS
    for name, compiler in (("clang", "gcc"), ("clang++", "g++")):
        path = tools / f"aarch64-linux-android24-{name}"
        path.write_text(FAKE_CLANG.format(log=tmp_path / "log", compiler=prefix + compiler))
        path.chmod(0o755)
    return ndk


@pytest.fixture
def ort_aar(cross_set: RunnerSet, tmp_path: Path) -> Path:
    """A file laid out like ONNX Runtime's AAR, around the library of the aarch64 wheel."""
    library = cross_set.program("onnx").library
    assert library is not None
    with_headers = find_onnxruntime(HOST, Sources(), tmp_path / "host").includes[0]
    aar = tmp_path / "onnxruntime-android-1.31.1.aar"
    with zipfile.ZipFile(aar, "w") as archive:
        archive.write(cross_set.folder / library, "jni/arm64-v8a/libonnxruntime.so")
        archive.writestr("jni/x86_64/libonnxruntime.so", b"of another ABI")
        for header in with_headers.glob("*.h"):
            archive.write(header, f"headers/{header.name}")
    return aar


@pytest.mark.slow
def test_commands_for_android(
    fake_ndk: Path,
    ort_aar: Path,
    own_cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What the NDK is asked; what it would build is not known here."""
    monkeypatch.delenv(INCLUDE_VARIABLE, raising=False)
    said: list[str] = []
    sources = Sources(ndk=fake_ndk, ort_aar=ort_aar)
    built = build_set("android-arm64-v8a", Options(sources), said.append)
    manifest = built.manifest
    assert set(manifest.files) == {"runner_ort", "libonnxruntime.so"}
    assert manifest.programs["onnx"].version == "1.31.1"
    assert "--executorch-build" in manifest.absent["executorch"]
    assert manifest.launch == ()
    assert (manifest.abi, manifest.flavour) == ("arm64-v8a", "android-arm64-v8a")
    assert [line for line in said if line.startswith("$ ")] == [
        f"$ {command}" for command in manifest.commands
    ]
    asked = (tmp_path / "log").read_text().split("END\n")
    link = next(words for words in asked if "runner_ort.c" in words).splitlines()
    assert link[0].endswith("aarch64-linux-android24-clang")
    assert {"-std=c11", "-pie", "-fPIE", "-Wl,-z,max-page-size=16384", "-ldl"} <= set(link)
    assert find_set("android-arm64-v8a") == built
    program = (built.folder / "runner_ort").read_bytes()
    assert program[18:20] == (183).to_bytes(2, "little")


@pytest.mark.slow
def test_executorch_for_android(
    fake_ndk: Path,
    cross_set: RunnerSet,
    own_cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """From a build that is laid out like the Python package; one that is not is refused."""
    wheels = sets_folder().parent / "nothing-here"
    with pytest.raises(UsageError, match=r"has no libexecutorch_kernels_optimized\.so"):
        build_set(
            "android-arm64-v8a",
            Options(Sources(ndk=fake_ndk, executorch_build=wheels)),
            _say_nothing,
        )
    package = Path(engines._installed_folder("executorch"))
    build = tmp_path / "executorch-build"
    (build / "lib").mkdir(parents=True)
    (build / "include").symlink_to(package / "include")
    for name in engines.EXECUTORCH_LIBRARIES:
        shutil.copy(cross_set.folder / f"lib{name}.so", build / "lib")
    monkeypatch.setattr(toolchains, "CXX_RUNTIME", "libstdc++.so.6")  # the stand-in's
    built = build_set(
        "android-arm64-v8a",
        Options(Sources(ndk=fake_ndk, executorch_build=build)),
        _say_nothing,
    )
    assert list(built.manifest.programs) == ["executorch"]
    assert "libexecutorch_backend_xnnpack.so" in built.manifest.files
    assert "--ort-aar" in built.manifest.absent["onnx"]
    link = next(words for words in built.manifest.commands if "runner_et.cpp" in words)
    assert "android24-clang++" in link
    assert "max-page-size=16384" in link
    assert "libstdc++.so.6" in built.manifest.files


def test_executorch_from_an_aar(tmp_path: Path) -> None:
    """Its one library, and the headers of the installed package, for it has none."""
    aar = tmp_path / "executorch-android-1.5.1.aar"
    with zipfile.ZipFile(aar, "w") as archive:
        archive.writestr("jni/arm64-v8a/libexecutorch.so", b"a library")
    found = find_executorch("android-arm64-v8a", Sources(executorch_aar=aar), tmp_path / "scratch")
    assert (found.version, found.link) == ("1.5.1", ("executorch",))
    assert (found.libraries / "libexecutorch.so").read_bytes() == b"a library"
    assert (found.includes[0] / "executorch/runtime/executor/program.h").is_file()
    with pytest.raises(MissingError, match="were not named") as caught:
        find_executorch("android-arm64-v8a", Sources(), tmp_path)
    assert "--executorch-aar" in caught.value.fix


def test_an_ndk_without_its_compilers(fake_ndk: Path) -> None:
    for path in fake_ndk.rglob("*clang++"):
        path.chmod(0o644)
    with pytest.raises(UsageError, match=r"has no aarch64-linux-android24-clang\+\+"):
        find_toolchain("android-arm64-v8a", fake_ndk)
