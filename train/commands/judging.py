"""After training: ``eval``, ``average``, ``tune-decoder``, ``geometry`` and ``card``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from swipe.console import console
from train.commands import (
    CheckpointOption,
    app,
)


@app.command("eval")
def evaluate(
    checkpoint: CheckpointOption = None,
    data: Annotated[
        str | None, typer.Option(help="Swipes to evaluate on; default: the run's held-out ones.")
    ] = None,
    lexicon: Annotated[
        str, typer.Option(help="wordfreq[:COUNT], or an AOSP .combined(.gz) file.")
    ] = "wordfreq",
    beam: Annotated[
        int | None, typer.Option(min=1, help="Beam width; default: the preset's.")
    ] = None,
    limit: Annotated[int, typer.Option(min=0, help="Only this many swipes; 0: all.")] = 0,
    threads: Annotated[int, typer.Option(min=1, help="Torch threads.")] = 1,
    against: Annotated[
        Path | None, typer.Option(help="A second checkpoint: the same swipes, McNemar's test.")
    ] = None,
    train_data: Annotated[
        str | None,
        typer.Option(help="What it was trained on, if elsewhere now; an overlap is refused."),
    ] = None,
    json_out: Annotated[
        Path | None, typer.Option("--json", help="Write the figures here as JSON too.")
    ] = None,
    preset: Annotated[
        Path | None,
        typer.Option(help="Decoder preset; default: CHECKPOINT.preset.json if it fits."),
    ] = None,
    force_preset: Annotated[
        bool, typer.Option("--force-preset", help="Use --preset with another lexicon too.")
    ] = False,
) -> None:
    """Decode held-out swipes, greedily and by beam, and print the accuracy with its intervals.

    Refused with exit code 3 when swipes or writers of it were trained on.

    Example: [bold]swipe-train eval --data dev.jsonl.gz --lexicon en_wordlist.combined.gz[/]

    Example: [bold]swipe-train eval --checkpoint runs/new --against runs/old --data dev.jsonl.gz[/]
    """
    from swipe.files import require_writable, write_text_atomic
    from train.judge import evaluate_checkpoint, table
    from train.released import default_checkpoint

    if json_out is not None:
        require_writable(json_out)
    result = evaluate_checkpoint(
        checkpoint or default_checkpoint(),
        data,
        lexicon,
        beam_width=beam,
        preset=preset,
        force_preset=force_preset,
        limit=limit,
        threads=threads,
        against=against,
        train_data=train_data,
    )
    if json_out is not None:  # first: a terminal that is gone costs the print, not the figures
        text = json.dumps(result.to_dict(), indent=2, allow_nan=False)
        write_text_atomic(json_out, text + "\n")
    for part in table(result):
        console.print(part)
    if json_out is not None:
        console.print(f"figures written to {json_out}")


@app.command()
def average(
    folder: Annotated[Path, typer.Argument(help="The folder of a finished run.")],
) -> None:
    """Average a run's best and last weights: often better than either, never guessed, measured.

    Example: [bold]swipe-train average runs/latest[/]
    """
    from train.averaging import average_run

    path, score = average_run(folder)
    console.print(score.summary)
    console.print(f"checkpoint: {path}")


@app.command("tune-decoder")
def tune_decoder(
    data: Annotated[str, typer.Option(help="Development swipes that training never saw.")],
    checkpoint: CheckpointOption = None,
    lexicon: Annotated[
        str, typer.Option(help="wordfreq[:COUNT], or an AOSP .combined(.gz) file.")
    ] = "wordfreq",
    minutes: Annotated[float, typer.Option(min=0.0, help="Time to search at most.")] = 10.0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the search.")] = 0,
    threads: Annotated[int, typer.Option(min=1, help="Torch threads.")] = 1,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Preset file; default: CHECKPOINT.preset.json, or CHECKPOINT.LEXICON.preset.json "
            "beside another lexicon's."
        ),
    ] = None,
) -> None:
    """Search the decoder's settings on half of the writers, judge them on the others, refit on all.

    Example: [bold]swipe-train tune-decoder --data dev.jsonl.gz --lexicon en_wordlist.combined.gz[/]
    """
    from swipe.files import require_writable
    from swipe.lexicon import load_lexicon
    from swipe.presets import preset_place
    from train.released import default_checkpoint
    from train.runs import checkpoint_file
    from train.tuning import table, tune_checkpoint

    source = checkpoint or default_checkpoint()
    words = load_lexicon(lexicon)
    path = out or preset_place(checkpoint_file(source), words)
    require_writable(path)
    tuned = tune_checkpoint(
        source,
        data,
        words,
        minutes=minutes,
        seed=seed,
        threads=threads,
        say=console.print,
    )
    tuned.save(path)
    console.print(table(tuned))
    console.print(f"{tuned.settings}")
    console.print(f"preset written to {path}")


@app.command()
def geometry(
    checkpoint: CheckpointOption = None,
    data: Annotated[
        str | None, typer.Option(help="Swipes to carry; default: the run's held-out ones.")
    ] = None,
    lexicon: Annotated[
        str, typer.Option(help="wordfreq[:COUNT], or an AOSP .combined(.gz) file.")
    ] = "wordfreq",
    layout: Annotated[
        list[str] | None, typer.Option(help="Keyboards to carry them to; default: the built-in.")
    ] = None,
    limit: Annotated[int, typer.Option(min=0, help="Only this many swipes; 0: all.")] = 2000,
    json_out: Annotated[
        Path | None, typer.Option("--json", help="Write the figures here as JSON too.")
    ] = None,
) -> None:
    """Prove that a model reads the keyboard: swipes carried to others, and shuffled letters.

    Exit code 3 when another keyboard costs too much, or shuffled letters cost too little, and when
    too little is read to tell, or no other keyboard is named.

    Example: [bold]swipe-train geometry --data dev.jsonl.gz --layout azerty --layout dvorak[/]
    """
    from swipe.files import require_writable, write_text_atomic
    from swipe.layout import BUILT_IN
    from swipe.lexicon import load_lexicon
    from train.checkpoint import load_checkpoint
    from train.geometry import measure_geometry, require_geometry, table
    from train.judge import held_out
    from train.released import default_checkpoint

    if json_out is not None:
        require_writable(json_out)
    loaded = load_checkpoint(checkpoint or default_checkpoint())
    found = measure_geometry(
        loaded.model(),
        loaded.contract,
        held_out(loaded, data, limit).gestures,
        load_lexicon(lexicon),
        layouts=tuple(layout or BUILT_IN),
    )
    if json_out is not None:
        figures = {"weights_sha256": loaded.weights_sha256, **found.to_dict()}
        write_text_atomic(json_out, json.dumps(figures, indent=2) + "\n")
    console.print(table(found))
    require_geometry(found)


@app.command()
def card(
    checkpoint: Annotated[Path, typer.Argument(help="The .safetensors checkpoint to describe.")],
    evaluation: Annotated[
        list[Path], typer.Option(help="File of eval --json; one for each lexicon.")
    ],
    corpus: Annotated[
        list[str], typer.Option(help="What it was trained on: how_we_swipe, futo, synthetic.")
    ],
    seed_evaluation: Annotated[
        list[Path] | None, typer.Option(help="The same of a model of another seed.")
    ] = None,
    geometry_file: Annotated[
        Path | None, typer.Option("--geometry", help="File of geometry --json.")
    ] = None,
    trained_by: Annotated[
        list[str] | None, typer.Option("--trained-by", help="A command that trained it, in order.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Default: CHECKPOINT.md.")] = None,
) -> None:
    """Write a model card from measured figures; figures of other weights are refused.

    Example: [bold]swipe-train card base.safetensors --evaluation e.json --corpus how_we_swipe[/]
    """
    from swipe.files import require_writable, write_text_atomic
    from train.card import Facts, model_card

    facts = Facts(evaluation, corpus, seed_evaluation or (), geometry_file, trained_by or ())
    path = out or checkpoint.with_suffix(".md")
    require_writable(path)
    write_text_atomic(path, model_card(checkpoint, facts))
    console.print(f"model card written to {path}")
