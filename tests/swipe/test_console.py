"""Tables on a narrow terminal: names wrap, figures are never cut."""

from __future__ import annotations

import pytest
from rich.console import Console

from swipe.console import make_table

HEADINGS = ("implementation", "kB", "load ms", "first ms", "p50 ms", "95 %", "p90 ms", "x eager")
FIGURES = ("1146", "21.6", "0.50", "0.158", "0.158-0.163", "0.192", "0.58")


def shown(width: int) -> str:
    table = make_table("latency [per call]", *HEADINGS)
    table.add_row("onnx agnostic int8-weights *", *FIGURES)
    table.add_row("[bold]executorch baked fp32", *FIGURES)
    console = Console(width=width, soft_wrap=True, markup=False)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


@pytest.mark.parametrize("width", [200, 80, 60, 20])
def test_every_figure_is_whole_however_narrow_the_terminal(width: int) -> None:
    words = shown(width).split()
    for figure in FIGURES:
        assert words.count(figure) >= 2
    assert "…" not in "".join(words)
    assert {"implementation", "int8-weights", "baked", "eager"} <= set(words)


def test_it_fits_80_columns_by_folding_names_and_headings() -> None:
    assert max(map(len, shown(80).splitlines())) <= 80
    assert "onnx agnostic int8-weights *" in shown(200)


def test_brackets_are_text() -> None:
    assert "[bold]executorch" in shown(200)
    assert "latency [per call]" in shown(200)


def test_a_word_that_is_longer_than_any_figure_is_folded_and_not_cut() -> None:
    table = make_table("", "file", "hash")
    table.add_row("model", "0123456789abcdef" * 4)
    console = Console(width=40, soft_wrap=True, markup=False)
    with console.capture() as capture:
        console.print(table)
    lines = [line.split()[-1] for line in capture.get().splitlines() if line.strip()]
    assert "".join(lines[2:]) == "0123456789abcdef" * 4


def test_it_can_be_printed_twice() -> None:
    table = make_table("", "name", "a b")
    table.add_row("x", "1")
    console = Console(width=80, soft_wrap=True)
    texts = []
    for _ in range(2):
        with console.capture() as capture:
            console.print(table)
        texts.append(capture.get())
    assert texts[0] == texts[1]
