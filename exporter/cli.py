"""``swipe-export``: lower a checkpoint to every format, quantized where that is affordable."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from exporter.localize.command import localize
from exporter.policy import DEFAULT_BUDGET, Policy
from exporter.verbs import JsonOption, register
from swipe.console import make_app, make_table, run
from swipe.errors import ExitCode

if TYPE_CHECKING:
    from exporter.answer import Answer
    from exporter.manifest import Manifest

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


CacheOption = Annotated[
    bool,
    typer.Option(
        "--cache/--no-cache", help="Reuse results of earlier exports, see swipe-export cache."
    ),
]


def _register(name: str, formats: tuple[str, ...], summary: str) -> None:
    """Add the subcommand `name`; all four differ in nothing but the formats they build."""

    def command(
        checkpoint: CheckpointOption = None,
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
        from exporter.answer import answering
        from exporter.bundle import Request, export
        from exporter.cache import default_folder
        from exporter.progress import showing
        from exporter.targets import find_target
        from exporter.views import VIEWS, find_view
        from train.released import default_checkpoint

        with answering(name, json) as answer:
            targets = tuple(find_target(f) for f in formats)
            views = VIEWS if view is ViewChoice.BOTH else (find_view(view),)
            policy = Policy(quantize, budget, require_quantized, require_faster, tune_minutes)
            request = Request(
                targets,
                views,
                checkpoint or default_checkpoint(),
                out,
                policy,
                data,
                lexicon,
                samples,
                preset,
                default_folder() if cache else None,
            )
            with showing(answer.people, formats) as say:
                manifest = export(request, say)
            _conclude(manifest, out, answer)
        raise typer.Exit(answer.exit_code)

    command.__doc__ = f"{summary}\n\nExample: [bold]swipe-export {name} --quantize[/]"
    app.command(name)(command)


_register("all", ("onnx", "executorch", "coreml"), "Build ONNX, ExecuTorch and Core ML.")
_register("onnx", ("onnx",), "Build ONNX (opset 14), executed in ONNX Runtime.")
_register("executorch", ("executorch",), "Build a .pte delegated to XNNPACK, executed here.")
_register("coreml", ("coreml",), "Build a Core ML ML Program; executed on macOS only.")
app.command("localize")(localize)


register(app)


def _conclude(manifest: Manifest, out: Path, answer: Answer) -> None:
    """Tell what was taken and why, and choose the exit code."""
    title = f"{out}: judged on {manifest.source.swipes}"
    table = make_table(
        title, "format", "view", "taken", "kB", "top-1", "PyTorch", "frames agree", "verdict"
    )
    for entry in manifest.formats:
        taken, metrics = entry.taken, entry.taken.verdict.metrics
        figures = (
            ("-", "-", "-")
            if metrics is None
            else (
                f"{metrics['scores']['top1']:.2f} %",
                f"{metrics['reference_scores']['top1']:.2f} %",
                f"{metrics['agreement']['frames']:.2%}",
            )
        )
        size = "-" if taken.size_bytes is None else f"{taken.size_bytes / 1000:.0f}"
        table.add_row(entry.format, entry.view, taken.rung, size, *figures, taken.verdict.status)
    answer.people.print(table)
    for entry in manifest.formats:
        for rung in entry.rungs:
            if rung.verdict.reasons:
                reasons = "; ".join(rung.verdict.reasons)
                name = f"{entry.format} {entry.view} {rung.rung}"
                answer.people.print(f"{name}: {rung.verdict.status}: {reasons}")
    answer.people.print(f"manifest and report: {out}/manifest.json, {out}/report.html")
    answer.people.print("next: swipe-bench" + ("" if out == Path("bundle") else f" {out}"))
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
