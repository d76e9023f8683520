"""``swipe-data``: make, convert and look at swipes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from swipe.console import console, make_app, make_table, run

app = make_app(
    "Make, convert and look at swipe corpora.\n\nExample: [bold]swipe-data stats train.jsonl.gz[/]"
)

LayoutOption = Annotated[str, typer.Option(help="Built-in layout or a layout JSON file.")]


@app.command()
def synth(
    out: Annotated[Path, typer.Argument(help="File to write: .jsonl or .jsonl.gz.")],
    count: Annotated[int, typer.Option(min=1, help="Number of swipes.")] = 20_000,
    layout: LayoutOption = "qwerty",
    lexicon: Annotated[
        str, typer.Option(help="wordfreq[:COUNT], or an AOSP .combined(.gz) file.")
    ] = "wordfreq:20000",
    seed: Annotated[int, typer.Option(min=0, help="Equal seeds give equal files.")] = 0,
) -> None:
    """Write synthetic swipes; every row says that it is synthetic.

    Example: [bold]swipe-data synth synthetic.jsonl.gz --count 5000[/]
    """
    from swipe.layout import load_layout
    from swipe.lexicon import load_lexicon
    from swipe.sources import write_jsonl
    from swipe.synthesis import synthesize

    corpus = synthesize(load_layout(layout), load_lexicon(lexicon), count, seed=seed)
    written = write_jsonl(corpus.gestures, out)
    console.print(f"{written:,} synthetic swipes written to {out}")
    console.print(f"next: swipe-train fit --data {out}")


@app.command()
def prepare(
    source: Annotated[Path, typer.Argument(help="FUTO rows, a raw How We Swipe log, or our own.")],
    out: Annotated[Path, typer.Argument(help="File to write: .jsonl or .jsonl.gz.")],
) -> None:
    """Read any supported corpus, quarantine what is broken, write our own jsonl.

    Example: [bold]swipe-data prepare writer.log swipes.jsonl.gz[/]
    """
    from swipe.sources import read_corpus, write_jsonl

    corpus = read_corpus(source)
    console.print(corpus.summary())
    written = write_jsonl(corpus.gestures, out)
    quarantine = out.with_name(out.name + ".quarantine.jsonl")
    corpus.write_quarantine(quarantine)
    console.print(f"{written:,} swipes written to {out}, rejected rows to {quarantine}")
    console.print(f"next: swipe-train fit --data {out}")


@app.command()
def stats(
    source: Annotated[str, typer.Argument(help="A corpus file, or synthetic[:COUNT].")],
    layout: LayoutOption = "qwerty",
) -> None:
    """Print the numbers that tell whether a corpus is sane.

    Example: [bold]swipe-data stats dev.jsonl.gz[/]
    """
    import numpy as np

    from swipe.corpus import load_corpus
    from swipe.gesture import letter_miss
    from swipe.layout import load_layout

    keyboard = load_layout(layout)
    corpus = load_corpus(source, keyboard)
    console.print(corpus.summary())
    rows: dict[str, list[float]] = {
        "letters per word": [len(g.word) for g in corpus.gestures],
        "duration, ms": [g.duration_ms for g in corpus.gestures],
        "points": [len(g.points) for g in corpus.gestures],
        "points per second": [1000 * len(g.points) / g.duration_ms for g in corpus.gestures],
        "worst letter miss, keys": [letter_miss(g, keyboard) for g in corpus.gestures],
    }
    table = make_table("", "per swipe", "min", "p10", "median", "p90", "max")
    for name, values in rows.items():
        table.add_row(name, *(f"{v:,.2f}" for v in np.percentile(values, [0, 10, 50, 90, 100])))
    console.print(table)


def main() -> None:
    """Console script ``swipe-data``."""
    run(app)


if __name__ == "__main__":
    main()
