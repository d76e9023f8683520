"""Runner sets: everything that executes artefacts on one kind of device, as one folder.

A set holds the native programs, the libraries that they need and ``runner.json``, which says how
they were made. `android_harness.runners.build` writes sets into the user's cache folder; here they
are found again. One that is damaged, or was built from other sources than today's, is refused: a
measurement by an unknown program is none.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from exporter.cache import default_folder
from swipe.errors import MissingError, SwipeError
from swipe.files import sha256_file

MANIFEST: Final = "runner.json"
KIND: Final = "runner set"
SCHEMA: Final = "swipe-export/runner-set/1"
NATIVE: Final = Path(__file__).parent / "native"
"""The programs' sources."""
ENGINES: Final = ("onnx", "executorch")
"""What a set can execute, in the words of `exporter.targets`."""
_BUILDERS: Final = ("build.py", "engines.py", "toolchains.py")


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Program(_Record):
    """What executes artefacts of one format."""

    file: str
    library: str | None
    """The shared library to give as `Invocation.library`; None where the engine is linked."""
    version: str
    """Of the engine."""


class File(_Record):
    """A file of the set, by its name in the folder."""

    sha256: str
    size_bytes: int
    executable: bool


class RunnerManifest(_Record):
    """``runner.json``."""

    schema_name: Literal["swipe-export/runner-set/1"] = SCHEMA
    flavour: str
    abi: str
    """In Android's words: arm64-v8a, x86_64."""
    programs: dict[str, Program]
    """By engine, see `ENGINES`."""
    absent: dict[str, str]
    """Engines that are not in the set, and why."""
    launch: tuple[str, ...]
    """What a program's command line starts with, such as a loader of the set's own."""
    files: dict[str, File]
    commands: tuple[str, ...]
    """As they were executed, in order."""
    sources_sha256: str


@dataclass(frozen=True, slots=True)
class RunnerSet:
    """A set that was found whole.

    Attributes:
        folder: where it is; programs are started with the copy of this folder as the current one.
    """

    folder: Path
    manifest: RunnerManifest

    @property
    def paths(self) -> dict[str, Path]:
        """The files that a device needs, by name."""
        return {name: self.folder / name for name in self.manifest.files}

    def program(self, engine: str) -> Program:
        """What executes artefacts of `engine`.

        Raises:
            MissingError: the set has none.
        """
        if engine not in self.manifest.programs:
            why = self.manifest.absent.get(engine, "it was not built")
            raise MissingError(
                f"the runner set {self.manifest.flavour} cannot execute {engine}: {why}",
                fix=build_command(self.manifest.flavour),
            )
        return self.manifest.programs[engine]

    def command(self, engine: str) -> list[str]:
        """How the program of `engine` is started from within the set's folder, without options.

        Raises:
            MissingError: the set has none.
        """
        return [*self.manifest.launch, f"./{self.program(engine).file}"]


def build_command(flavour: str) -> str:
    """What a user types to have a set."""
    needs = " --ndk DIR --ort-aar FILE" if flavour.startswith("android-") else ""
    return f"run: swipe-bench runner build --flavour {flavour}{needs}"


def sets_folder() -> Path:
    """Where sets are kept."""
    return default_folder() / "runners"


def sources_sha256() -> str:
    """The hash of all that decides what a program does: its sources, and how they are built."""
    digest = hashlib.sha256()
    builders = [Path(__file__).with_name(name) for name in _BUILDERS]
    sources = (path for path in NATIVE.iterdir() if path.suffix in (".c", ".cpp", ".h"))
    for path in (*sorted(sources), *builders):
        digest.update(f"{path.name}\0{sha256_file(path)}\n".encode())
    return digest.hexdigest()


def find_set(flavour: str) -> RunnerSet:
    """The set of `flavour`.

    Raises:
        MissingError: there is none, it is damaged, or it was built from other sources.
    """
    folder = sets_folder() / flavour
    fix = build_command(flavour)
    try:
        manifest = RunnerManifest.model_validate_json((folder / MANIFEST).read_bytes())
    except FileNotFoundError as error:
        raise MissingError(f"there is no runner set {flavour}", fix=fix) from error
    except (OSError, ValidationError) as error:
        raise MissingError(f"the runner set {folder} cannot be read", fix=fix) from error
    for name, expected in manifest.files.items():
        path = folder / name
        if not path.is_file() or sha256_file(path) != expected.sha256:
            raise MissingError(f"the runner set {folder} is damaged: {name}", fix=fix)
    if manifest.sources_sha256 != sources_sha256():
        raise MissingError(f"the runner set {folder} was built from other sources", fix=fix)
    return RunnerSet(folder, manifest)


def list_sets() -> Iterator[tuple[str, RunnerSet | SwipeError]]:
    """Every flavour that has a folder, with its set or why it is refused."""
    for manifest in sorted(sets_folder().glob(f"*/{MANIFEST}")):
        flavour = manifest.parent.name
        try:
            yield flavour, find_set(flavour)
        except SwipeError as error:
            yield flavour, error
