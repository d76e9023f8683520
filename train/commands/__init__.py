"""The commands of ``swipe-train``, and the options that several of them take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from swipe.console import make_app

app = make_app(
    "Train a swipe-typing model that is proven finite, and evaluate it.\n\n"
    "Example: [bold]swipe-train fit --data swipes.jsonl.gz --minutes 10[/]"
)

ConfigOption = Annotated[
    str | None,
    typer.Option(
        "--config",
        help="Preset (nano, the default; base, large, transformer, nano-words, base-words) or a "
        "TOML file.",
    ),
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
CheckpointOption = Annotated[
    Path | None,
    typer.Option(
        help="A .safetensors checkpoint or a run folder; default: runs/latest, or the released "
        "base model before any run."
    ),
]
LexiconOption = Annotated[
    str | None, typer.Option("--lexicon", help="wordfreq[:COUNT], or an AOSP .combined(.gz) file.")
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="Any setting, e.g. --set model.channels=64.")
]
