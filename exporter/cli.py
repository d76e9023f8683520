"""``swipe-export``: lower a checkpoint to every format, quantized where that is affordable."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from exporter.figures import BRIEF, brief_cells
from exporter.localize.command import localize
from exporter.policy import DEFAULT_BUDGET, Policy
from exporter.verbs import JsonOption, register
from exporter.verbs_verify import register as register_verification
from swipe.console import make_app, make_table, run, tell_next
from swipe.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from exporter.answer import Answer
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
    POINTS = "points"
    TEXT = "text"
    BOTH = "both"
    ALL = "all"


ViewOption = Annotated[
    ViewChoice,
    typer.Option(
        "--view",
        help="baked: for one keyboard. agnostic: the keyboard is passed at run time. points: "
        "baked, raw touch points in. text: baked, the spelled string out (ONNX only). both: baked "
        "and agnostic.",
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


CacheOption = Annotated[
    bool,
    typer.Option(
        "--cache/--no-cache", help="Reuse results of earlier exports, see swipe-export cache."
    ),
]
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
        cache: CacheOption = True,
        json: JsonOption = False,
    ) -> None:
        if model is not None:
            _refuse_swipe_options(context)
        from exporter.answer import answering
        from exporter.bundle import Request, export
        from exporter.cache import default_folder
        from exporter.origins.requests import ModelRequest, SwipeRequest
        from exporter.progress import showing
        from exporter.targets import find_target, known_targets
        from exporter.views import choose_views
        from train.released import default_checkpoint

        with answering(name, json) as answer:
            targets = known_targets() if formats is None else tuple(map(find_target, formats))
            policy = Policy(quantize, budget, require_quantized, require_faster, tune_minutes)
            asked: ModelAsked
            if model is not None:
                asked = ModelRequest(model, checkpoint)
            else:
                views = tuple(chosen.name for chosen in choose_views(view))
                found = checkpoint or default_checkpoint()
                asked = SwipeRequest(found, views, data, lexicon, samples, preset)
            request = Request(targets, asked, out, policy, default_folder() if cache else None)
            with showing(answer.people, [target.name for target in targets]) as say:
                manifest = export(request, say)
            _conclude(manifest, out, asked, answer)
        raise typer.Exit(answer.exit_code)

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
_register(
    "coreml",
    ("coreml",),
    "Build a Core ML ML Program; executed here, off macOS by our interpreter.",
)
app.command("localize")(localize)


register(app)
register_verification(app)


def _conclude(manifest: Manifest, out: Path, asked: ModelAsked, answer: Answer) -> None:
    """Tell what was taken and why, and choose the exit code."""
    title = f"{out}: judged on {manifest.source.samples}"
    table = make_table(title, "taken", "kB", *BRIEF, "verdict", "level")
    for entry in manifest.formats:
        taken, verdict = entry.taken, entry.taken.verdict
        size = "-" if taken.size_bytes is None else f"{taken.size_bytes / 1000:.0f}"
        figures = brief_cells(verdict.metrics)
        name = f"{entry.format} {entry.view} {taken.rung}"
        table.add_row(name, size, *figures, verdict.status, verdict.level)
    answer.people.print(table)
    for entry in manifest.formats:
        for rung in entry.rungs:
            if rung.verdict.reasons:
                reasons = "; ".join(rung.verdict.reasons)
                name = f"{entry.format} {entry.view} {rung.rung}"
                answer.people.print(f"{name}: {rung.verdict.status}: {reasons}")
    answer.people.print(f"manifest and report: {out}/manifest.json, {out}/report.html")
    following = ["swipe-bench", *([] if out == Path("bundle") else [out])]
    kept = asked.recipe().get("lexicon")
    if asked.lexicon != kept:  # a bundle keeps no folder of this machine
        following += ["--lexicon", asked.lexicon]
    tell_next(*following, people=answer.people)
    verified = all(entry.taken.verdict.status == "PASS" for entry in manifest.formats)
    answer.give(
        ExitCode.OK if verified else ExitCode.UNVERIFIED,
        {"bundle": str(out), "manifest": manifest.model_dump(mode="json")},
    )


def main() -> None:
    """Console script ``swipe-export``."""
    run(app)


if __name__ == "__main__":
    main()
