"""Training: ``fit`` and ``preflight``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from swipe.console import console
from swipe.errors import UsageError
from train.commands import (
    ConfigOption,
    DataOption,
    DevOption,
    LexiconOption,
    MixOption,
    SetOption,
    app,
)

if TYPE_CHECKING:
    from train.config import CustomConfig, TrainConfig


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
    init: Annotated[
        Path | None, typer.Option(help="Start from the weights of this checkpoint or run folder.")
    ] = None,
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

    Second stage: [bold]swipe-train fit --config base-words --init runs/latest --data …[/]
    """
    from train.fit import check_first, start

    overrides = _overrides(override, data, mix, dev, lexicon, seed, threads)
    if init is not None:
        overrides |= {"init": str(init.resolve())}
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
