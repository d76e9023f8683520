"""Where the engines' headers and libraries come from: installed packages, wheels, AARs, builds.

A runner set for this machine uses the libraries of the installed Python packages, so that both
execute the same code. One for aarch64 takes those of the same release from the aarch64 wheels. For
Android they come from the files that the engines' projects publish for it and that the user names.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
import zlib
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Final

from android_harness.runners.sets import sets_folder
from swipe.errors import MissingError, UsageError

INCLUDE_VARIABLE: Final = "SWIPE_ORT_INCLUDE"
HEADER: Final = "onnxruntime_c_api.h"
LEAST_API: Final = 17
SYSTEM_INCLUDES: Final = ("/usr/include", "/usr/local/include", "/opt/homebrew/include")
EXECUTORCH_LIBRARIES: Final = (
    "executorch_kernels_optimized",
    "executorch_kernels_quantized",
    "executorch_backend_xnnpack",
    "executorch_threadpool",
    "executorch",
)
PLATFORMS: Final = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux2014_aarch64")
ANDROID_LIBRARIES: Final = "jni/arm64-v8a"


@dataclass(frozen=True, slots=True)
class Sources:
    """What a user names as the origin of engines; None: not named.

    Attributes:
        ndk: an unpacked Android NDK.
        ort_include: folder with ONNX Runtime's C headers.
        ort_aar: ONNX Runtime's AAR for Android.
        executorch_build: folder with ``include`` and ``lib`` of an ExecuTorch build for Android.
        executorch_aar: ExecuTorch's AAR for Android.
        wheels: folder with aarch64 wheels.
    """

    ndk: Path | None = None
    ort_include: Path | None = None
    ort_aar: Path | None = None
    executorch_build: Path | None = None
    executorch_aar: Path | None = None
    wheels: Path | None = None


@dataclass(frozen=True, slots=True)
class EngineFiles:
    """An engine to build a runner for.

    Attributes:
        version: its release; "unknown" where its files do not say.
        includes: folders of its headers.
        libraries: folder of its shared libraries.
        link: the libraries to link, without "lib" and ".so"; none for one that is opened by name.
        opened: file name of the library that is opened by name.
    """

    version: str
    includes: tuple[Path, ...]
    libraries: Path
    link: tuple[str, ...] = ()
    opened: str | None = None


def find_onnxruntime(flavour: str, sources: Sources, scratch: Path) -> EngineFiles:
    """ONNX Runtime for `flavour`; what must be unpacked goes under `scratch`.

    Raises:
        UsageError: a file named in `sources` is not what it should be.
        MissingError: the library or its headers are not here.
    """
    if flavour.startswith("android-"):
        if sources.ort_aar is None:
            raise MissingError("its library for Android was not named", fix="add --ort-aar FILE")
        folder = _unpack(sources.ort_aar, scratch, (ANDROID_LIBRARIES,)) / ANDROID_LIBRARIES
        version = _version_in(sources.ort_aar)
    elif flavour == "glibc-aarch64":
        version = _installed("onnxruntime", "onnx")
        wheel = _wheel("onnxruntime", version, sources.wheels)
        folder = _unpack(wheel, scratch, ("onnxruntime/capi/libonnxruntime.so",))
        folder = folder / "onnxruntime" / "capi"
    else:
        version = _installed("onnxruntime", "onnx")
        folder = _installed_folder("onnxruntime") / "capi"
    found = sorted(folder.glob("libonnxruntime.so*"))
    if len(found) != 1:
        raise UsageError(
            f"there is no one libonnxruntime.so in {folder}", fix="use an official build of it"
        )
    includes = (_onnxruntime_headers(sources, scratch),)
    return EngineFiles(version, includes, folder, opened=found[0].name)


def find_executorch(flavour: str, sources: Sources, scratch: Path) -> EngineFiles:
    """ExecuTorch for `flavour`; what must be unpacked goes under `scratch`.

    Raises:
        UsageError: a file named in `sources` is not what it should be.
        MissingError: it is not here.
    """
    if flavour.startswith("android-"):
        return _executorch_for_android(sources, scratch)
    version = _installed("executorch", "executorch")
    if flavour == "glibc-aarch64":
        wheel = _wheel("executorch", version, sources.wheels)
        parts = ("executorch/include/", "executorch/lib/lib")
        return _executorch(_unpack(wheel, scratch, parts) / "executorch", version)
    return _executorch(_installed_folder("executorch"), version)


def _executorch_for_android(sources: Sources, scratch: Path) -> EngineFiles:
    if sources.executorch_build is not None:
        return _executorch(sources.executorch_build, "unknown")
    if sources.executorch_aar is None:
        raise MissingError(
            "its libraries for Android were not named",
            fix="add --executorch-build DIR or --executorch-aar FILE",
        )
    # The AAR has no headers: those of the installed package serve, if it is of the same release.
    _installed("executorch", "executorch")
    headers = _executorch_includes(_installed_folder("executorch"))
    unpacked = _unpack(sources.executorch_aar, scratch, (ANDROID_LIBRARIES,))
    version = _version_in(sources.executorch_aar)
    return EngineFiles(version, headers, unpacked / ANDROID_LIBRARIES, link=("executorch",))


def _executorch(root: Path, version: str) -> EngineFiles:
    libraries = root / "lib"
    for name in EXECUTORCH_LIBRARIES:
        if not (libraries / f"lib{name}.so").is_file():
            raise UsageError(
                f"{libraries} has no lib{name}.so",
                fix="use an ExecuTorch with the shared libraries that its Python package has",
            )
    return EngineFiles(version, _executorch_includes(root), libraries, EXECUTORCH_LIBRARIES)


def _executorch_includes(root: Path) -> tuple[Path, ...]:
    include = root / "include"
    if not (include / "executorch" / "runtime" / "executor" / "program.h").is_file():
        raise UsageError(
            f"{include} does not hold ExecuTorch's headers", fix="use executorch 1.5 or newer"
        )
    return (include, include / "executorch" / "runtime" / "core" / "portable_type" / "c10")


def _onnxruntime_headers(sources: Sources, scratch: Path) -> Path:
    """The folder of `HEADER`: where the user says it is, in the AAR, or the system's."""
    variable = os.environ.get(INCLUDE_VARIABLE)
    if sources.ort_include is not None:
        return _headers_under(sources.ort_include, "--ort-include")
    if sources.ort_aar is not None:
        return _headers_under(_unpack(sources.ort_aar, scratch, ("headers/",)), "--ort-aar")
    if variable:
        return _headers_under(Path(variable), f"${INCLUDE_VARIABLE}")
    for root in SYSTEM_INCLUDES:
        for folder in sorted(Path(root).glob("onnxruntime*")):
            return _headers_under(folder, str(folder))
    raise MissingError(
        "there are no C headers of ONNX Runtime here: its Python package has none",
        fix="apt install libonnxruntime-dev (Debian 13 or newer), or unpack the "
        "headers of an ONNX Runtime release or AAR and name their folder with --ort-include DIR "
        f"or ${INCLUDE_VARIABLE}",
    )


def _headers_under(root: Path, named: str) -> Path:
    found = sorted(root.rglob(HEADER))
    if not found:
        raise UsageError(f"{named}: no {HEADER} under {root}", fix="name the folder that holds it")
    version = re.search(r"#define ORT_API_VERSION (\d+)", found[0].read_text(errors="replace"))
    if version is None or int(version[1]) < LEAST_API:
        raise UsageError(
            f"{named}: {found[0]} is older than ONNX Runtime 1.{LEAST_API}", fix="use newer headers"
        )
    return found[0].parent


def _installed(name: str, extra: str) -> str:
    """The release of an installed package, without a local part such as "+cpu"."""
    try:
        return distribution(name).version.partition("+")[0]
    except PackageNotFoundError as error:
        raise MissingError(
            f"{name} is not installed", fix=f"pip install 'swipe-export[{extra}]'"
        ) from error


def _installed_folder(name: str) -> Path:
    return Path(str(distribution(name).locate_file(name)))


def _wheel(name: str, version: str, folder: Path | None) -> Path:
    """The aarch64 wheel of a release: in `folder`, or fetched by pip and kept in the cache."""
    kept = folder or sets_folder() / "wheels"
    pattern = f"{name}-{version}-*aarch64.whl"
    if not any(kept.glob(pattern)):
        if folder is not None:
            raise UsageError(f"there is no {pattern} in {folder}", fix="put it there")
        _fetch(f"{name}=={version}", kept)
    found = sorted(kept.glob(pattern))
    if not found:
        raise MissingError(f"pip fetched no {pattern}", fix="name the folder of it with --wheels")
    return found[0]


def _fetch(requirement: str, folder: Path) -> None:
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-input"]
    command += ["--disable-pip-version-check", "--only-binary=:all:", "--python-version", python]
    command += [word for name in PLATFORMS for word in ("--platform", name)]
    command += ["--dest", str(folder), requirement]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise MissingError(
            f"pip cannot fetch the aarch64 wheel of {requirement}: {last}",
            fix="download it elsewhere and name its folder with --wheels DIR",
        )


def _version_in(aar: Path) -> str:
    """The release in a file name like onnxruntime-android-1.23.2.aar."""
    found = re.search(r"-(\d+(?:\.\d+)+)", aar.stem)
    return found[1] if found else "unknown"


def _unpack(archive: Path, scratch: Path, prefixes: tuple[str, ...]) -> Path:
    """Unpack the members of a wheel or AAR that start with one of `prefixes`."""
    folder = scratch / archive.name
    try:
        with zipfile.ZipFile(archive) as content:
            members = [name for name in content.namelist() if name.startswith(prefixes)]
            content.extractall(folder, members)
    except (OSError, zipfile.BadZipFile, zlib.error) as error:
        raise UsageError(
            f"{archive} cannot be unpacked: {error}", fix="download it again"
        ) from error
    if not members:
        raise UsageError(
            f"{archive} holds nothing under {' or '.join(prefixes)}",
            fix="name the engine's official file for aarch64",
        )
    return folder
