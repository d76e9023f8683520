"""``swipe-export``: lower a checkpoint to every format, quantized where that is affordable."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from exporter.figures import BRIEF, brief_cells
from exporter.policy import DEFAULT_BUDGET, Policy
from swipe.console import console, make_app, make_table, run
from swipe.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from exporter.manifest import Manifest
    from exporter.origins import Request as ModelAsked

app = make_app(
    "Lower a checkpoint to ONNX (opset 14), ExecuTorch and Core ML; quantize, measure what it "
    "cost, fall back when it costs too much.\n\n"
    "Example: [bold]swipe-export all --quantize[/]\n\n"
    "Exit codes: 0 ok, 2 usage, 3 a check refused, 4 built but not everything could be executed "
    "on this machine, 5 a library is missing."
)


class ViewChoice(StrEnum):
    """What ``--view`` takes."""

    BAKED = "baked"
    AGNOSTIC = "agnostic"
    BOTH = "both"


ViewOption = Annotated[
    ViewChoice,
    typer.Option(
        "--view",
        help="baked: for one keyboard. agnostic: the keyboard is passed at run time.",
    ),
]
CheckpointOption = Annotated[
    Path | None,
    typer.Option(
        help="A .safetensors checkpoint or a run folder; default: runs/latest, or the released "
        "base model before any run."
    ),
]
OutOption = Annotated[Path, typer.Option(help="The bundle folder; replaced when all is built.")]
QuantizeOption = Annotated[
    bool, typer.Option("--quantize/--no-quantize", help="Try int8 first, or float only.")
]
BudgetOption = Annotated[
    float,
    typer.Option(
        min=0.0,
        max=100.0,
        help="Points of top-1 that quantization may cost, with the statistical bound.",
    ),
]
RequireQuantizedOption = Annotated[
    bool, typer.Option("--require-quantized", help="Fail (exit 3) instead of shipping float.")
]
RequireFasterOption = Annotated[
    bool, typer.Option("--require-faster", help="Refuse quantized artefacts slower than float.")
]
TuneOption = Annotated[
    float,
    typer.Option(
        min=0.0,
        help="Minutes per format and view to find layers to keep float, when int8 costs too much.",
    ),
]
DataOption = Annotated[
    str | None, typer.Option(help="Swipes to judge by; default: those of the checkpoint's run.")
]
LexiconOption = Annotated[
    str, typer.Option(help="wordfreq[:COUNT], or an AOSP .combined(.gz) file.")
]
PresetOption = Annotated[
    Path | None, typer.Option(help="Decoder preset; default: CHECKPOINT.preset.json if it fits.")
]
SamplesOption = Annotated[int, typer.Option(min=100, help="Verification swipes.")]


ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="PACKAGE.MODULE:FACTORY",
        help="Export a model of your own: a function that returns an exporter.adapter.Exportable. "
        "--checkpoint then names its weights (.safetensors, .pt); default: the factory's.",
    ),
]
ABOUT_SWIPES: Final = ("view", "data", "lexicon", "samples", "preset")
"""Options that say nothing about anyone else's model."""


def _register(name: str, formats: tuple[str, ...] | None, summary: str) -> None:
    """Add the subcommand `name`; all differ in nothing but the formats, None being all known."""

    def command(
        context: typer.Context,
        checkpoint: CheckpointOption = None,
        model: ModelOption = None,
        out: OutOption = Path("bundle"),
        view: ViewOption = ViewChoice.BOTH,
        quantize: QuantizeOption = True,
        budget: BudgetOption = DEFAULT_BUDGET,
        require_quantized: RequireQuantizedOption = False,
        require_faster: RequireFasterOption = False,
        tune_minutes: TuneOption = 0.0,
        data: DataOption = None,
        lexicon: LexiconOption = "wordfreq",
        samples: SamplesOption = 2000,
        preset: PresetOption = None,
    ) -> None:
        if model is not None:
            _refuse_swipe_options(context)
        from exporter.bundle import Request, export
        from exporter.targets import find_target, known_targets

        targets = known_targets() if formats is None else tuple(find_target(f) for f in formats)
        policy = Policy(quantize, budget, require_quantized, require_faster, tune_minutes)
        asked: ModelAsked
        if model is not None:
            from exporter.origins.brought import ModelRequest

            asked = ModelRequest(model, checkpoint)
        else:
            from exporter.origins.swipe import SwipeRequest
            from exporter.views import VIEWS, find_view
            from train.released import default_checkpoint

            views = VIEWS if view is ViewChoice.BOTH else (find_view(view),)
            found = checkpoint or default_checkpoint()
            asked = SwipeRequest(found, views, data, lexicon, samples, preset)
        manifest = export(Request(targets, asked, out, policy), console.print)
        raise typer.Exit(_conclude(manifest, out))

    command.__doc__ = f"{summary}\n\nExample: [bold]swipe-export {name} --quantize[/]"
    app.command(name)(command)


def _refuse_swipe_options(context: typer.Context) -> None:
    """Refuse options that ``--model`` would leave without effect.

    Raises:
        UsageError: names both.
    """
    for name in ABOUT_SWIPES:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            raise UsageError(
                f"--model and --{name} contradict each other: --{name} is about swipes",
                fix=f"leave out --{name}; the factory says what it says about its own samples",
            )


_register("all", None, "Build ONNX, ExecuTorch, Core ML, and every format that is installed.")
_register("onnx", ("onnx",), "Build ONNX (opset 14), executed in ONNX Runtime.")
_register("executorch", ("executorch",), "Build a .pte delegated to XNNPACK, executed here.")
_register("coreml", ("coreml",), "Build a Core ML ML Program; executed on macOS only.")


@app.command()
def plan() -> None:
    """What would be built here: formats, rungs, missing libraries, how far it can be checked.

    Example: [bold]swipe-export plan[/]
    """
    from exporter.targets import known_targets, missing_libraries

    title = "formats, and the rungs of each, best first"
    table = make_table(title, "format", "file", "rungs", "checked by", "missing")
    for target in known_targets():
        rungs = " > ".join(rung.name for rung in target.rungs)
        missing = ", ".join(missing_libraries(target)) or "-"
        table.add_row(target.name, target.suffix, rungs, target.level, missing)
    console.print(table)
    console.print("next: swipe-export all --quantize")


def _conclude(manifest: Manifest, out: Path) -> ExitCode:
    """Print what was taken and why, and choose the exit code."""
    title = f"{out}: judged on {manifest.source.samples}"
    table = make_table(title, "format", "view", "taken", "kB", *BRIEF, "verdict", "level")
    for entry in manifest.formats:
        taken, verdict = entry.taken, entry.taken.verdict
        size = "-" if taken.size_bytes is None else f"{taken.size_bytes / 1000:.0f}"
        figures = brief_cells(verdict.metrics)
        table.add_row(
            entry.format, entry.view, taken.rung, size, *figures, verdict.status, verdict.level
        )
    console.print(table)
    for entry in manifest.formats:
        for rung in entry.rungs:
            if rung.verdict.reasons:
                reasons = "; ".join(rung.verdict.reasons)
                name = f"{entry.format} {entry.view} {rung.rung}"
                console.print(f"{name}: {rung.verdict.status}: {reasons}")
    console.print(f"manifest and report: {out}/manifest.json, {out}/report.md")
    console.print("next: swipe-bench" + ("" if out == Path("bundle") else f" {out}"))
    verified = all(entry.taken.verdict.status == "PASS" for entry in manifest.formats)
    return ExitCode.OK if verified else ExitCode.UNVERIFIED


def main() -> None:
    """Console script ``swipe-export``."""
    run(app)


if __name__ == "__main__":
    main()
