"""Building runner sets: compile the native programs, gather what they need, publish the folder.

A set may hold one engine only: what is not on this machine is left out, and the set says why.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from android_harness.runners.engines import (
    EngineFiles,
    Sources,
    find_executorch,
    find_onnxruntime,
)
from android_harness.runners.sets import (
    ENGINES,
    KIND,
    MANIFEST,
    NATIVE,
    File,
    Program,
    RunnerManifest,
    RunnerSet,
    sets_folder,
    sources_sha256,
)
from android_harness.runners.toolchains import Toolchain, find_toolchain
from swipe.errors import GateError, MissingError
from swipe.files import replacing_folder, sha256_file
from swipe.progress import Say

WARNINGS: Final = ("-Wall", "-Wextra", "-Wpedantic", "-Wshadow")
OPTIMISATION: Final = ("-O2", "-fPIE", "-fstack-protector-strong", "-D_GNU_SOURCE")
C: Final = ("-std=c11", "-Wconversion")
CXX: Final = ("-std=c++17", "-DC10_USING_CUSTOM_GENERATED_MACROS", "-DET_USE_THREADPOOL")
LINK: Final = ("-pthread", "-ldl", "-lm")
PROGRAMS: Final = {"onnx": "runner_ort", "executorch": "runner_et"}


@dataclass(frozen=True, slots=True)
class Options:
    """How a set is built.

    Attributes:
        sources: where engines come from.
        extra_flags: further options of both compilers, such as -Werror or sanitizers.
        engines: which of them the set is to execute.
    """

    sources: Sources = field(default_factory=Sources)
    extra_flags: tuple[str, ...] = ()
    engines: tuple[str, ...] = ENGINES


def build_set(flavour: str, options: Options, say: Say) -> RunnerSet:
    """Build the set of `flavour` and put it in the place of an earlier one.

    Args:
        flavour: one of `toolchains.FLAVOURS`.
        say: told each command, and each engine that is left out.

    Raises:
        UsageError: the flavour cannot be built here, or a named file is not what it should be.
        MissingError: a compiler, or both engines, are not here.
        GateError: a program could not be compiled.
    """
    toolchain = find_toolchain(flavour, options.sources.ndk)
    out = sets_folder() / flavour
    with (
        tempfile.TemporaryDirectory(prefix="swipe-runner-") as scratch,
        replacing_folder(out, ours=_is_set, kind=KIND) as folder,
    ):
        build = _Build(toolchain, options.extra_flags, Path(scratch), folder, say)
        engines, absent = _find_engines(flavour, options, Path(scratch))
        for engine, why in absent.items():
            say(f"{engine} is left out: {why}")
        build.compile_shared()
        programs = {name: build.program(name, files) for name, files in engines.items()}
        manifest = RunnerManifest(
            flavour=flavour,
            abi=toolchain.abi,
            programs=programs,
            absent=absent,
            launch=toolchain.launch,
            files={path.name: _describe(path) for path in sorted(folder.iterdir())},
            commands=tuple(build.commands),
            sources_sha256=sources_sha256(),
        )
        (folder / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n")
    return RunnerSet(out, manifest)


def _is_set(folder: Path) -> bool:
    return (folder / MANIFEST).is_file()


def _find_engines(
    flavour: str, options: Options, scratch: Path
) -> tuple[dict[str, EngineFiles], dict[str, str]]:
    """The engines that are here, and why the others are not."""
    found: dict[str, EngineFiles] = {}
    absent: dict[str, str] = {}
    for engine, find in (("onnx", find_onnxruntime), ("executorch", find_executorch)):
        if engine not in options.engines:
            absent[engine] = "it was not asked for"
            continue
        try:
            found[engine] = find(flavour, options.sources, scratch)
        except MissingError as error:
            absent[engine] = f"{error}; {error.fix}"
    if not found:
        raise MissingError(
            f"neither engine is here for {flavour}",
            fix="; ".join(f"{engine}: {why}" for engine, why in absent.items()),
        )
    return found, absent


def _onnxruntime_sources() -> list[Path]:
    return [NATIVE / "runner_ort.c", *sorted(NATIVE.glob("ort_*.c"))]


def _describe(path: Path) -> File:
    facts = path.stat()
    return File(
        sha256=sha256_file(path), size_bytes=facts.st_size, executable=bool(facts.st_mode & 0o100)
    )


@dataclass(slots=True)
class _Build:
    """One build under way.

    Attributes:
        scratch: for objects.
        folder: the set that grows.
        commands: executed so far.
    """

    toolchain: Toolchain
    extra_flags: tuple[str, ...]
    scratch: Path
    folder: Path
    say: Say
    commands: list[str] = field(default_factory=list)

    def compile_shared(self) -> None:
        """Compile what both programs share."""
        shared = sorted(set(NATIVE.glob("*.c")).difference(_onnxruntime_sources()))
        self._execute(self.toolchain.cc, *self._flags(C), "-c", *map(str, shared))

    def program(self, engine: str, files: EngineFiles) -> Program:
        """Compile and link the program of `engine`, with the libraries that it needs beside it."""
        name = PROGRAMS[engine]
        objects = sorted(path.name for path in self.scratch.glob("*.o"))
        includes = [word for path in files.includes for word in ("-isystem", str(path))]
        if engine == "onnx":
            sources = map(str, _onnxruntime_sources())
            start = [self.toolchain.cc, *self._flags(C), *includes, *sources]
        else:
            version = f'-DEXECUTORCH_VERSION="{files.version}"'
            flags = (*self._flags(CXX), version)
            start = [self.toolchain.cxx, *flags, *includes, str(NATIVE / "runner_et.cpp")]
        link = (*self.toolchain.link, *self._libraries(files), *LINK, "-s")
        self._execute(*start, *objects, *link, "-o", name)
        made = [self.scratch / name]
        if files.opened is not None:
            made.append(files.libraries / files.opened)
        for path in (*made, *self._needed(made, files)):
            self._take(path)
        return Program(file=name, library=files.opened, version=files.version)

    def _flags(self, language: tuple[str, ...]) -> tuple[str, ...]:
        return (*language, *OPTIMISATION, *WARNINGS, *self.extra_flags)

    def _libraries(self, files: EngineFiles) -> tuple[str, ...]:
        """Linked whether or not a symbol is used: kernels and backends register themselves."""
        if not files.link:
            return ()
        names = (f"-l{name}" for name in files.link)
        return (f"-L{files.libraries}", "-Wl,--no-as-needed", *names, "-Wl,--as-needed")

    def _execute(self, *command: str) -> None:
        line = shlex.join(command)
        self.commands.append(line)
        self.say(f"$ {line}")
        done = subprocess.run(
            command, cwd=self.scratch, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            errors = [text for text in done.stderr.splitlines() if "error" in text.lower()]
            first = (errors or done.stderr.strip().splitlines() or ["no reason given"])[0]
            raise GateError(
                f"{command[0]} failed: {first}",
                fix="run the command above by hand to see all that it says",
            )

    def _needed(self, files: Sequence[Path], engine: EngineFiles) -> Iterator[Path]:
        """The shared libraries that `files` need, directly or not, and the device may lack."""
        waiting, seen = list(files), set[str]()
        while waiting:
            for name in _direct_needs(self.toolchain.readelf(), waiting.pop()):
                path = None if name in seen else self._find(name, engine)
                seen.add(name)
                if path is not None:
                    yield path
                    waiting.append(path)

    def _find(self, name: str, engine: EngineFiles) -> Path | None:
        """Where the library `name` is; None: the device has it."""
        if (engine.libraries / name).is_file():
            return engine.libraries / name
        return self.toolchain.library(name) if self.toolchain.brings(name) else None

    def _take(self, file: Path) -> None:
        target = self.folder / file.name
        if not target.exists():
            shutil.copy(file, target)


def _direct_needs(readelf: str, path: Path) -> list[str]:
    command = [readelf, "--dynamic", "--wide", str(path)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise MissingError(
            f"{readelf} cannot be started: {error.strerror}", fix="install GNU binutils"
        ) from error
    if done.returncode != 0:
        raise GateError(
            f"{readelf} cannot read {path.name}: {done.stderr.strip()}", fix="build again"
        )
    return re.findall(r"\(NEEDED\)[^\[]*\[([^\]]+)\]", done.stdout)
