"""Verbs of ``swipe-bench runner``: build and list the native programs that measure on a device."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from swipe.console import console, make_app, make_table
from swipe.errors import MissingError

ENGINE_PANEL: Final = "Where engines come from"

runner_app = make_app("The native programs that execute artefacts on a device.")


def register(app: typer.Typer) -> None:
    """Add ``runner`` and its verbs to `app`."""
    app.add_typer(runner_app, name="runner")


@runner_app.command(no_args_is_help=False)
def build(
    flavour: Annotated[
        str | None,
        typer.Option(
            help="linux-x86_64, linux-aarch64, glibc-aarch64 (experimental on phones) or "
            "android-arm64-v8a; default: this machine's, or Android's when --ndk is given."
        ),
    ] = None,
    ndk: Annotated[
        Path | None,
        typer.Option(help="An unpacked Android NDK, r23 or newer.", rich_help_panel=ENGINE_PANEL),
    ] = None,
    ort_aar: Annotated[
        Path | None,
        typer.Option(
            help="ONNX Runtime for Android: onnxruntime-android-VERSION.aar.",
            rich_help_panel=ENGINE_PANEL,
        ),
    ] = None,
    ort_include: Annotated[
        Path | None,
        typer.Option(
            help="Folder of ONNX Runtime's C headers; default: the AAR's, $SWIPE_ORT_INCLUDE, or "
            "the system's.",
            rich_help_panel=ENGINE_PANEL,
        ),
    ] = None,
    executorch_build: Annotated[
        Path | None,
        typer.Option(
            help="ExecuTorch built for Android: a folder with include and lib, whose shared "
            "libraries are called as in the Python package.",
            rich_help_panel=ENGINE_PANEL,
        ),
    ] = None,
    executorch_aar: Annotated[
        Path | None,
        typer.Option(
            help="ExecuTorch for Android: executorch-android-VERSION.aar, of the installed "
            "package's release.",
            rich_help_panel=ENGINE_PANEL,
        ),
    ] = None,
    wheels: Annotated[
        Path | None,
        typer.Option(
            help="Folder of aarch64 wheels for glibc-aarch64; default: fetched with pip.",
            rich_help_panel=ENGINE_PANEL,
        ),
    ] = None,
) -> None:
    """Compile the runners and keep them, with the libraries they need, as a set.

    What is built with the NDK has not been executed by this project: no phone was at hand.

    Example: [bold]swipe-bench runner build --ndk ~/android-ndk --ort-aar onnxruntime-android.aar[/]
    """
    from android_harness.runners.build import Options, build_set
    from android_harness.runners.engines import Sources
    from android_harness.runners.toolchains import default_flavour

    chosen = flavour or ("android-arm64-v8a" if ndk is not None else default_flavour())
    sources = Sources(ndk, ort_include, ort_aar, executorch_build, executorch_aar, wheels)
    built = build_set(chosen, Options(sources), console.print)
    size_mb = sum(file.size_bytes for file in built.manifest.files.values()) / 1e6
    for engine, program in built.manifest.programs.items():
        console.print(f"{engine}: {program.file}, engine {program.version}")
    console.print(f"{built.folder}: {len(built.manifest.files)} files, {size_mb:.1f} MB")


@runner_app.command("list", no_args_is_help=False)
def list_built() -> None:
    """Show the sets that were built, and those that must be built again.

    Example: [bold]swipe-bench runner list[/]
    """
    from android_harness.runners.sets import ENGINES, RunnerSet, list_sets, sets_folder

    table = make_table(f"runner sets in {sets_folder()}", "flavour", "onnx", "executorch", "state")
    found = list(list_sets())
    for flavour, result in found:
        if not isinstance(result, RunnerSet):
            table.add_row(flavour, "", "", f"{result} ({result.fix})")
            continue
        programs = result.manifest.programs
        versions = (programs[name].version if name in programs else "-" for name in ENGINES)
        table.add_row(flavour, *versions, "ready")
    if not found:
        raise MissingError("no runner set was built yet", fix="run: swipe-bench runner build")
    console.print(table)
