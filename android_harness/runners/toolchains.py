"""The compilers that build runners, one per flavour of runner set.

``linux-x86_64`` and ``linux-aarch64`` are for the machine that builds. ``glibc-aarch64`` brings its
own loader and C library along and runs on any aarch64 Linux kernel: cross-built where there is no
such machine. It is what emulated devices execute, and experimental on a phone.
``android-arm64-v8a`` is what phones should run; it needs the Android NDK, which no machine of this
project has: its commands are tested, its programs are not.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from swipe.errors import MissingError, UsageError

FLAVOURS: Final = ("linux-x86_64", "linux-aarch64", "glibc-aarch64", "android-arm64-v8a")
ANDROID_API: Final = 24
CROSS: Final = "aarch64-linux-gnu-"
LOADER: Final = "ld-linux-aarch64.so.1"
CXX_RUNTIME: Final = "libc++_shared.so"
"""What the NDK's C++ programs need and no phone has."""
PAGE_BYTES: Final = 16384
"""Phones since Android 15 may have pages of 16 kB; a program must be aligned to them."""


@dataclass(frozen=True, slots=True)
class Toolchain:
    """How programs of one flavour are compiled.

    Attributes:
        flavour: one of `FLAVOURS`.
        abi: in Android's words.
        cc, cxx: the compilers.
        link: options of the linker.
        loader: the loader that a set of this flavour brings, with the libraries that its programs
            need; None: those of the device are used.
    """

    flavour: str
    abi: str
    cc: str
    cxx: str
    link: tuple[str, ...] = ()
    loader: str | None = None

    @property
    def launch(self) -> tuple[str, ...]:
        """What a program is started with."""
        return (f"./{self.loader}", "--library-path", ".") if self.loader else ()

    def brings(self, name: str) -> bool:
        """Whether a set must hold the shared library `name`, because the device may lack it."""
        return self.loader is not None or name == CXX_RUNTIME

    def library(self, name: str) -> Path:
        """Where the compiler finds the shared library `name`.

        Raises:
            MissingError: nowhere.
        """
        path = Path(self._ask(f"-print-file-name={name}"))
        if not (path.is_absolute() and path.is_file()):
            raise MissingError(f"{self.cc} has no {name}", fix="install its C and C++ libraries")
        return path

    def readelf(self) -> str:
        """The program that reads what a library needs."""
        return self._ask("-print-prog-name=readelf")

    def _ask(self, question: str) -> str:
        done = subprocess.run([self.cc, question], capture_output=True, text=True, check=False)
        return done.stdout.strip()


def default_flavour() -> str:
    """The flavour that this machine itself runs.

    Raises:
        UsageError: there is none.
    """
    flavour = f"linux-{_machine()}"
    if sys.platform != "linux" or flavour not in FLAVOURS:
        raise UsageError(
            f"no runners execute on {sys.platform} {platform.machine()}",
            fix="build for a device: --flavour android-arm64-v8a",
        )
    return flavour


def find_toolchain(flavour: str, ndk: Path | None) -> Toolchain:
    """The compilers for `flavour`.

    Raises:
        UsageError: no such flavour, not on this machine, or `ndk` is missing, too much, or no NDK.
        MissingError: a compiler is not installed.
    """
    if flavour not in FLAVOURS:
        raise UsageError(f"no flavour {flavour}", fix=f"choose one of {', '.join(FLAVOURS)}")
    if flavour.startswith("android-"):
        return _android(ndk)
    if ndk is not None:
        raise UsageError(
            f"--ndk does not build {flavour}", fix="use --flavour android-arm64-v8a with it"
        )
    if flavour == "glibc-aarch64":
        prefix = "" if _machine() == "aarch64" else CROSS
        return _gnu(flavour, "arm64-v8a", prefix, LOADER)
    if flavour != default_flavour():
        raise UsageError(
            f"{flavour} is built on such a machine, this one is {default_flavour()}",
            fix="for an aarch64 device use --flavour glibc-aarch64 or android-arm64-v8a",
        )
    return _gnu(flavour, "x86_64" if flavour.endswith("x86_64") else "arm64-v8a", "", None)


def _machine() -> str:
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(
        platform.machine().lower(), platform.machine()
    )


def _gnu(flavour: str, abi: str, prefix: str, loader: str | None) -> Toolchain:
    for program in (f"{prefix}gcc", f"{prefix}g++"):
        if shutil.which(program) is None:
            package = f"{program}-aarch64-linux-gnu".removeprefix(CROSS) if prefix else program
            raise MissingError(
                f"there is no {program} here", fix=f"install it, on Debian: apt install {package}"
            )
    # The libraries of a set lie beside its programs. RPATH, not RUNPATH: it also serves them.
    link = ("-Wl,--disable-new-dtags", "-Wl,-rpath,$ORIGIN")
    return Toolchain(flavour, abi, f"{prefix}gcc", f"{prefix}g++", link, loader)


def _android(ndk: Path | None) -> Toolchain:
    if ndk is None:
        raise UsageError(
            "runners for Android are built with the Android NDK",
            fix="unpack the NDK and add --ndk DIR",
        )
    prebuilt = ndk / "toolchains" / "llvm" / "prebuilt"
    hosts = sorted(prebuilt.glob("*/bin"))
    if len(hosts) != 1:
        raise UsageError(
            f"{ndk} is not an unpacked Android NDK: {len(hosts)} toolchains under {prebuilt}",
            fix="give the folder that holds toolchains/ and source.properties",
        )
    clang = hosts[0] / f"aarch64-linux-android{ANDROID_API}-clang"
    clang_cxx = clang.with_name(f"{clang.name}++")
    for compiler in (clang, clang_cxx):
        if shutil.which(compiler) is None:
            raise UsageError(
                f"{ndk} has no {compiler.name}", fix="use an NDK from r23 on, for this machine"
            )
    link = (
        "-pie",
        f"-Wl,-z,max-page-size={PAGE_BYTES}",
        "-Wl,-rpath,$ORIGIN",
    )
    return Toolchain("android-arm64-v8a", "arm64-v8a", str(clang), str(clang_cxx), link)
