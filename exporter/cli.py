"""``swipe-export``: lower a checkpoint to every format, quantized where that is affordable."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from exporter.policy import DEFAULT_BUDGET, Policy
from swipe.console import console, make_app, make_table, run
from swipe.errors import ExitCode

if TYPE_CHECKING:
    from exporter.manifest import Manifest
    from exporter.verification import Finding, Gate, Outcome

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
    ) -> None:
        from exporter.bundle import Request, export
        from exporter.targets import find_target
        from exporter.views import VIEWS, find_view
        from train.released import default_checkpoint

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
        )
        manifest = export(request, console.print)
        raise typer.Exit(_conclude(manifest, out, lexicon))

    command.__doc__ = f"{summary}\n\nExample: [bold]swipe-export {name} --quantize[/]"
    app.command(name)(command)


_register("all", ("onnx", "executorch", "coreml"), "Build ONNX, ExecuTorch and Core ML.")
_register("onnx", ("onnx",), "Build ONNX (opset 14), executed in ONNX Runtime.")
_register("executorch", ("executorch",), "Build a .pte delegated to XNNPACK, executed here.")
_register("coreml", ("coreml",), "Build a Core ML ML Program; executed on macOS only.")


@app.command(no_args_is_help=False)
def verify(
    bundle: Annotated[
        Path, typer.Argument(help="A folder written by swipe-export; default: ./bundle.")
    ] = Path("bundle"),
    deep: Annotated[
        bool, typer.Option("--deep", help="Execute every artefact again and compare its figures.")
    ] = False,
    lexicon: Annotated[
        str | None, typer.Option(help="Where the lexicon is that the bundle was judged with.")
    ] = None,
    public_key: Annotated[
        Path | None, typer.Option(help="Also prove BUNDLE.sig with this key, in PEM.")
    ] = None,
) -> None:
    """Recompute everything that a bundle's manifest says.

    Exit codes: 0 all that was checked holds, 3 something was refused, 4 something that matters
    cannot be recomputed on this machine.

    Example: [bold]swipe-export verify bundle --deep[/]
    """
    from exporter.verification import Outcome, exit_code
    from exporter.verification import verify as run_verify

    with console.status("") as status:
        findings = run_verify(
            bundle, deep=deep, lexicon=lexicon, say=status.update, public_key=public_key
        )
    table = make_table(f"{bundle}", "check", "outcome", "detail")
    for column in table.columns:
        column.justify = "left"
    for (gate, outcome, detail), about in _grouped(findings).items():
        names = about[0] if len(about) == 1 else f"{len(about)} of them"
        said = (text for text in (names, "" if outcome is Outcome.REFUSED else detail) if text)
        table.add_row(gate, outcome, ": ".join(said))
    console.print(table)
    for finding in findings:
        if finding.outcome is Outcome.REFUSED:
            where = f" of {finding.about}" if finding.about else ""
            console.print(f"{finding.gate}{where}: REFUSED: {finding.detail}")
    counts = (f"{sum(f.outcome is o for f in findings)} {o}" for o in Outcome)
    code = exit_code(findings)
    console.print(f"{bundle}: {', '.join(counts)}")
    if code is ExitCode.OK:
        following = f"swipe-bench {bundle}" if deep else f"swipe-export verify {bundle} --deep"
        console.print(f"next: {following}")
    raise typer.Exit(code)


@app.command(no_args_is_help=False)
def sign(
    key: Annotated[Path, typer.Option(help="Your elliptic-curve private key, in PEM.")],
    bundle: Annotated[
        Path, typer.Argument(help="A folder written by swipe-export; default: ./bundle.")
    ] = Path("bundle"),
) -> None:
    """Sign a bundle that verify does not refuse, and write its bill of materials (CycloneDX).

    Needs the extra [supply-chain], and no network.

    Example: [bold]swipe-export sign bundle --key key.pem[/]
    """
    from exporter.manifest import load_manifest
    from exporter.supply_chain import sign as sign_folder
    from exporter.supply_chain import write_bill
    from exporter.verification import exit_code
    from exporter.verification import verify as run_verify
    from swipe.errors import GateError

    with console.status("") as status:
        findings = run_verify(bundle, deep=False, lexicon=None, say=status.update)
    if exit_code(findings) is ExitCode.GATE_FAILED:
        raise GateError(f"{bundle} is not sound", fix=f"see swipe-export verify {bundle}")
    written = write_bill(load_manifest(bundle), bundle), sign_folder(bundle, key)
    console.print(f"written: {', '.join(map(str, written))}")
    console.print(f"next: swipe-export verify {bundle} --public-key PUBLIC.pem")


def _grouped(findings: list[Finding]) -> dict[tuple[Gate, Outcome, str], list[str]]:
    """What was checked alike and ended alike, and what of; a bundle has a hundred findings."""
    groups: dict[tuple[Gate, Outcome, str], list[str]] = {}
    for finding in findings:
        groups.setdefault((finding.gate, finding.outcome, finding.detail), []).append(finding.about)
    return groups


def _conclude(manifest: Manifest, out: Path, lexicon: str) -> ExitCode:
    """Print what was taken and why, and choose the exit code."""
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
    console.print(table)
    for entry in manifest.formats:
        for rung in entry.rungs:
            if rung.verdict.reasons:
                reasons = "; ".join(rung.verdict.reasons)
                name = f"{entry.format} {entry.view} {rung.rung}"
                console.print(f"{name}: {rung.verdict.status}: {reasons}")
    console.print(f"manifest and report: {out}/manifest.json, {out}/report.md")
    following = "swipe-bench" + ("" if out == Path("bundle") else f" {out}")
    if lexicon != manifest.source.lexicon:  # a bundle keeps no folder of this machine
        following += f" --lexicon {lexicon}"
    console.print(f"next: {following}")
    verified = all(entry.taken.verdict.status == "PASS" for entry in manifest.formats)
    return ExitCode.OK if verified else ExitCode.UNVERIFIED


def main() -> None:
    """Console script ``swipe-export``."""
    run(app)


if __name__ == "__main__":
    main()
