"""``swipe-train``: fit a model, evaluate a checkpoint, check and clean what others left."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from swipe.console import console, make_app, make_table, run
from swipe.errors import GateError, MissingError, UsageError

if TYPE_CHECKING:
    from train.inspection.verdict import Inspection

if TYPE_CHECKING:
    from train.config import CustomConfig, TrainConfig

app = make_app(
    "Train a swipe-typing model that is proven finite, and evaluate it.\n\n"
    "Example: [bold]swipe-train fit --data swipes.jsonl.gz --minutes 10[/]"
)


ConfigOption = Annotated[
    str | None,
    typer.Option("--config", help="Preset (nano, the default; base, large) or a TOML file."),
]
DataOption = Annotated[
    str | None,
    typer.Option("--data", help="Training swipes: .jsonl, .jsonl.gz, .log, or synthetic[:COUNT]."),
]
MixOption = Annotated[
    list[str] | None,
    typer.Option(
        "--mix", help="CORPUS=WEIGHT: train on it too, WEIGHT rows of it per row of --data."
    ),
]
DevOption = Annotated[
    str | None,
    typer.Option("--dev", help="Held-out swipes; default: writers held out of --data."),
]
LexiconOption = Annotated[
    str | None, typer.Option("--lexicon", help="wordfreq[:COUNT], or an AOSP .combined(.gz) file.")
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="Any setting, e.g. --set model.channels=64.")
]


@app.command()
def fit(
    config: ConfigOption = None,
    data: DataOption = None,
    mix: MixOption = None,
    dev: DevOption = None,
    minutes: Annotated[float | None, typer.Option(help="Training time.")] = None,
    steps: Annotated[int | None, typer.Option(help="Steps, instead of --minutes.")] = None,
    lexicon: LexiconOption = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything random.")] = None,
    threads: Annotated[int | None, typer.Option(help="Torch threads.")] = None,
    override: SetOption = None,
    out: Annotated[Path | None, typer.Option(help="Run folder; default: a dated one.")] = None,
    resume: Annotated[bool, typer.Option(help="Continue the run in --out, or the newest.")] = False,
    preflight: Annotated[
        bool, typer.Option(help="Check the task first, for half a minute.")
    ] = True,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the settings, check the task, train nothing.")
    ] = False,
) -> None:
    """Train until the time or steps are used up; leaves best.safetensors in the run folder.

    Example: [bold]swipe-train fit --config base --data train.jsonl.gz --minutes 60[/]
    """
    from train.fit import check_first, start

    overrides = _overrides(override, data, mix, dev, lexicon, seed, threads)
    if steps is not None:
        overrides |= {"length.steps": steps, "length.minutes": 0 if minutes is None else minutes}
    elif minutes is not None:
        overrides |= {"length.minutes": minutes, "length.steps": 0}
    if resume and (overrides or config or dry_run):
        given = config or ("--dry-run" if dry_run else min(overrides))
        raise UsageError(
            f"--resume goes on with the run's own settings, and {given} was given too",
            fix="leave out one of the two",
        )
    name = config or "nano"
    settings = None if resume else _load(name, overrides)
    if dry_run and settings is not None:
        console.print(settings.model_dump_json(indent=2))
        check_first(settings, out)
        console.print("nothing was written: leave out --dry-run to train")
        return
    start(settings, Path(name).stem, out, preflight=preflight)


@app.command()
def preflight(
    config: ConfigOption = None,
    data: DataOption = None,
    mix: MixOption = None,
    dev: DevOption = None,
    lexicon: LexiconOption = None,
    override: SetOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Check in half a minute whether a task trains at all: shapes, labels, eight samples by heart.

    Example: [bold]swipe-train preflight --config base --data train.jsonl.gz[/]
    """
    from train.fit import check_first

    overrides = _overrides(override, data, mix, dev, lexicon, None, None)
    check_first(_load(config or "nano", overrides), None, as_json=as_json)


@app.command("eval")
def evaluate(
    checkpoint: Annotated[
        Path, typer.Option(help="A .safetensors checkpoint or a run folder.")
    ] = Path("runs/latest"),
    data: Annotated[
        str | None, typer.Option(help="Swipes to evaluate on; default: the run's held-out ones.")
    ] = None,
    lexicon: Annotated[
        str, typer.Option(help="wordfreq[:COUNT], or an AOSP .combined(.gz) file.")
    ] = "wordfreq",
    beam: Annotated[int, typer.Option(min=1, help="Beam width.")] = 100,
    limit: Annotated[int, typer.Option(min=0, help="Only this many swipes; 0: all.")] = 0,
    threads: Annotated[int, typer.Option(min=1, help="Torch threads.")] = 1,
    json_out: Annotated[
        Path | None, typer.Option("--json", help="Write the figures here as JSON too.")
    ] = None,
) -> None:
    """Decode held-out swipes, greedily and by beam, and print the accuracy.

    Example: [bold]swipe-train eval --data dev.jsonl.gz --lexicon en_wordlist.combined.gz[/]
    """
    from swipe.files import write_text_atomic
    from train.evaluate import evaluate_checkpoint, table

    result = evaluate_checkpoint(
        checkpoint, data, lexicon, beam_width=beam, limit=limit, threads=threads
    )
    for part in table(result):
        console.print(part)
    if json_out is not None:
        text = json.dumps(result.to_dict(), indent=2, allow_nan=False)
        write_text_atomic(json_out, text + "\n")
        console.print(f"figures written to {json_out}")


@app.command()
def check(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(help="Files: .safetensors, .pt, .pth, .ckpt, .onnx; or bundle folders."),
    ] = None,
    all_below: Annotated[
        Path | None, typer.Option("--all", help="Check everything below this folder.")
    ] = None,
    stats: Annotated[bool, typer.Option(help="Print min, max, mean and std per tensor.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Say VALID or INVALID of anyone's checkpoints, ONNX files and bundles, with the first fault.

    Exit codes: 0 all valid, 3 any invalid, 5 not checked for want of a library, 2 unreadable.

    Example: [bold]swipe-train check --all runs[/]
    """
    from train.inspection.kinds import find_checkpoints, inspect_file

    listed = [*(paths or []), *(find_checkpoints(all_below) if all_below else [])]
    files = list({path.absolute(): path for path in listed}.values())
    if not files:
        raise UsageError("nothing to check", fix="name checkpoints, or a folder with --all")
    found = [inspect_file(path, stats=stats) for path in files]
    if as_json:
        print(json.dumps([inspection.to_dict() for inspection in found], indent=2))
    else:
        for inspection in found:
            _show(inspection)
    invalid = sum(inspection.verdict == "INVALID" for inspection in found)
    if invalid:
        raise GateError(
            f"{invalid} of {len(found)} checkpoints are INVALID",
            fix="list what may go with: swipe-train clean DIR",
        )
    unchecked = [inspection for inspection in found if inspection.verdict == "UNCHECKED"]
    if unchecked:
        kind = MissingError if any(one.missing for one in unchecked) else UsageError
        raise kind(
            f"{len(unchecked)} of {len(found)} could not be checked",
            fix="; ".join(sorted({one.mend for one in unchecked})),
        )


def _show(inspection: Inspection) -> None:
    """One inspection for a person."""
    styles = {"VALID": "green", "INVALID": "red", "UNCHECKED": "yellow"}
    console.print(inspection.verdict, style=styles[inspection.verdict], end=" ")
    console.print(
        f"{inspection.path}: {inspection.tensors} tensors, "
        f"{inspection.values:,} values, sha256 {(inspection.sha256 or '-')[:16]}"
    )
    unchecked = [f"unchecked: {inspection.unchecked}"] if inspection.unchecked else []
    odd = [f"warning: {warning}" for warning in inspection.warnings]
    for line in (*inspection.reasons, *unchecked, *odd):
        console.print(f"  {line}")
    if inspection.stats:
        table = make_table("", "tensor", "shape", "min", "max", "mean", "std")
        for row in inspection.stats:
            figures = (row.minimum, row.maximum, row.mean, row.std)
            shape = "x".join(map(str, row.shape))
            table.add_row(row.name, shape, *(f"{value:.3g}" for value in figures))
        console.print(table)


@app.command()
def clean(
    folder: Annotated[Path, typer.Argument(help="Folder of runs or checkpoints.")],
    keep: Annotated[
        int | None,
        typer.Option(help="Keep this many valid ones per folder, best first; default: all."),
    ] = None,
    delete: Annotated[bool, typer.Option("--delete", help="Really delete.")] = False,
) -> None:
    """List broken checkpoints and leftovers; delete them with --delete, never the only valid one.

    Example: [bold]swipe-train clean runs --keep 2[/]
    """
    from train.cleaning import plan_removals, remove

    plan = plan_removals(folder, keep)
    for finding in plan.left:
        console.print(f"left: {finding.path}: {finding.reason}")
    for finding in plan.removals:
        console.print(f"{finding.path}: {finding.reason}")
    if not plan.removals:
        console.print("nothing to delete")
    elif delete:
        remove(plan.removals)
        console.print(f"{len(plan.removals)} files deleted")
    else:
        console.print(f"{len(plan.removals)} files would go; nothing was deleted: add --delete")


def _overrides(
    override: list[str] | None,
    data: str | None,
    mix: list[str] | None,
    dev: str | None,
    lexicon: str | None,
    seed: int | None,
    threads: int | None,
) -> dict[str, Any]:
    """Dotted settings: ``--set`` first, then the options that stand for one, which win."""
    from train.config import parse_mix, parse_override

    named = {
        "data.train": data,
        "data.mix": parse_mix(mix) if mix else None,
        "data.dev": dev,
        "evaluation.lexicon": lexicon,
        "seed": seed,
        "threads": threads,
    }
    given = dict(parse_override(text) for text in override or [])
    return given | {key: value for key, value in named.items() if value is not None}


def _load(name: str, overrides: dict[str, Any]) -> TrainConfig | CustomConfig:
    from train.config import load_config

    return load_config(name, overrides)


def main() -> None:
    """Console script ``swipe-train``."""
    run(app)


if __name__ == "__main__":
    main()
