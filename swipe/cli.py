"""``swipe-data``: fetch, make, convert and look at swipes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from swipe.console import console, make_app, make_table, run, tell_next
from swipe.progress import counting, receiving, reporting

app = make_app(
    "Fetch, make, convert and look at swipe corpora.\n\n"
    "Example: [bold]swipe-data stats train.jsonl.gz[/]"
)

STATS_SAMPLE = 100_000
LayoutOption = Annotated[str, typer.Option(help="Built-in layout or a layout JSON file.")]


FILE_OR_FOLDER = "Folder of Parquet shards to write, or a file: .jsonl or .jsonl.gz."


@app.command()
def fetch(
    corpus: Annotated[str, typer.Argument(help="how-we-swipe or futo.")],
    config: Annotated[
        str, typer.Option(help="futo: default, swipe-2, swipe-3, swipe-4 or swipe-5.")
    ] = "default",
    out: Annotated[
        Path | None, typer.Option(help="Folder to fill; default: how_we_swipe or futo.")
    ] = None,
    mirror: Annotated[
        str | None, typer.Option(help="Address of a folder with the same files.")
    ] = None,
) -> None:
    """Download a public corpus; the only command that needs a network.

    What was cut is gone on with, what is here already is verified and left.

    Example: [bold]swipe-data fetch how-we-swipe[/]
    """
    from functools import partial

    from swipe.fetch import CORPORA, fetch, files_of

    files = files_of(corpus, config)
    folder = out or Path(CORPORA[corpus].folder)
    console.print(f"{corpus}: see {CORPORA[corpus].page} for its licence and whom to cite")
    targets = []
    with receiving() as say:
        for file in files:
            target, fetched, new = fetch(file, folder, partial(say, file.path), mirror)
            console.print(
                f"{target}: fetched, compared with: {fetched.verified}"
                if new
                else f"{target}: here already, and as it was fetched"
            )
            targets.append(target)
    tell_next("swipe-data", "prepare", targets[0], "swipes")


@app.command()
def synth(
    out: Annotated[Path, typer.Argument(help=FILE_OR_FOLDER)],
    count: Annotated[int, typer.Option(min=1, help="Number of swipes.")] = 20_000,
    layout: LayoutOption = "qwerty",
    lexicon: Annotated[
        str, typer.Option(help="wordfreq[:COUNT], or an AOSP .combined(.gz) file.")
    ] = "wordfreq:20000",
    seed: Annotated[int, typer.Option(min=0, help="Equal seeds give equal swipes.")] = 0,
) -> None:
    """Write synthetic swipes; every row says that it is synthetic.

    Example: [bold]swipe-data synth synthetic.jsonl.gz --count 5000[/]
    """
    from swipe.layout import load_layout
    from swipe.lexicon import load_lexicon
    from swipe.preparation import prepare_folder
    from swipe.sources import SYNTHETIC, write_jsonl
    from swipe.synthesis import generate

    keyboard = load_layout(layout)
    swipes = generate(keyboard, load_lexicon(lexicon), count, seed=seed)
    with counting("swipes", count) as say:
        if is_jsonl(out):
            written = write_jsonl(reporting(swipes, say), out)
        else:
            label = f"{SYNTHETIC} (seed {seed})"
            written = prepare_folder(reporting(swipes, say), out, keyboard, label=label).swipes
    console.print(f"{written:,} synthetic swipes written to {out}")
    tell_next("swipe-train", "fit", "--data", out)


@app.command()
def prepare(
    sources: Annotated[
        list[Path],
        typer.Argument(
            metavar="SOURCE... OUT",
            help="FUTO rows, raw How We Swipe logs (or a folder of them), our own rows or a "
            "prepared folder; then the folder of Parquet shards to write, or a file: .jsonl or "
            ".jsonl.gz.",
        ),
    ],
    layout: LayoutOption = "qwerty",
) -> None:
    """Read any supported corpora, quarantine what is broken or repeated, write them as one.

    A folder is what large corpora are trained from: it is read in a stream.

    Example: [bold]swipe-data prepare train.jsonl.gz more.jsonl.gz swipes/[/]
    """
    from swipe.errors import UsageError
    from swipe.layout import load_layout
    from swipe.preparation import label_of, prepare_folder, prepare_jsonl, read_sources
    from swipe.prepared import QUARANTINE

    *paths, out = sources
    if not paths:
        raise UsageError(
            f"only {out} was named", fix="name what to read and then what to write: SOURCE... OUT"
        )
    keyboard = load_layout(layout)
    label = label_of(paths)
    with counting("rows") as say:
        rows = reporting(read_sources(paths, keyboard.letters), say)
        if is_jsonl(out):
            quarantine = out.with_name(f"{out.name}.{QUARANTINE}")
            summary = prepare_jsonl(rows, out, quarantine, label=label).summary()
        else:
            quarantine = out / QUARANTINE
            summary = prepare_folder(rows, out, keyboard, label=label).summary()
    console.print(summary)
    console.print(f"written to {out}, rejected rows to {quarantine}")
    tell_next("swipe-train", "fit", "--data", out)


@app.command()
def stats(
    source: Annotated[
        str, typer.Argument(help="A corpus file, a prepared folder, or synthetic[:COUNT].")
    ],
    layout: LayoutOption = "qwerty",
    sample: Annotated[
        int, typer.Option(min=0, help="Of a prepared folder, about so many swipes; 0: all.")
    ] = STATS_SAMPLE,
    plot: Annotated[
        Path | None, typer.Option(help="Draw the histograms and the keyboard: a .png file.")
    ] = None,
) -> None:
    """Print the numbers that tell whether a corpus is sane.

    Of a large prepared folder a sample is looked at, and the table says so.

    Example: [bold]swipe-data stats dev.jsonl.gz --plot dev.png[/]
    """
    from swipe.census import MISSED, Census
    from swipe.corpus import load_corpus
    from swipe.files import require_writable
    from swipe.layout import load_layout
    from swipe.picture import draw_census, require_drawable, save_figure
    from swipe.prepared import PreparedGestures, whole_groups

    if plot is not None:
        require_drawable(plot)
        require_writable(plot)
    keyboard = load_layout(layout)
    corpus = load_corpus(source, keyboard)
    console.print(corpus.summary())
    swipes, title = corpus.gestures, ""
    if isinstance(swipes, PreparedGestures) and 0 < sample < len(swipes):
        total = len(swipes)
        swipes = whole_groups(swipes, sample)
        title = f"sample: {len(swipes):,} of {total:,} swipes, as evenly spaced row groups"
    census = Census(keyboard)
    with counting("swipes", len(swipes)) as say:
        census.add(reporting(swipes, say))

    table = make_table(title, "per swipe", "min", "p10", "median", "p90", "max")
    for name, values in census.measures.items():
        figures = (values.percentile(percent) for percent in (0, 10, 50, 90, 100))
        table.add_row(name, *(f"{figure:,.2f}" for figure in figures))
    console.print(table)
    table = make_table(
        f"nearest touch point to each letter's key, in key widths; missed: beyond {MISSED:g}",
        "letter", "times", "median", "p90", "missed, %",
    )  # fmt: skip
    for (letter, values), share in zip(census.letters.items(), census.missed_share(), strict=True):
        times, near, far = int(values.counts.sum()), values.percentile(50), values.percentile(90)
        shown = (f"{near:.2f}", f"{far:.2f}", f"{100 * share:.2f}") if times else ()
        table.add_row(letter, f"{times:,}", *shown)
    console.print(table)
    if plot is not None:
        save_figure(draw_census(census, keyboard, corpus.label), plot)
        console.print(f"drawn to {plot}")


def is_jsonl(out: Path) -> bool:
    """Whether `out` names a jsonl file rather than a folder of shards."""
    return out.name.endswith((".jsonl", ".jsonl.gz"))


def main() -> None:
    """Console script ``swipe-data``."""
    run(app)


if __name__ == "__main__":
    main()
