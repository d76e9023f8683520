"""Tables on a narrow terminal, readers who leave, names that are not text."""

from __future__ import annotations

import io
import os
import subprocess
import sys

import pytest
from rich.console import Console

from swipe.console import make_app, make_table, run

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


# Readers who leave.

TALK = """
import sys
from swipe.console import console, errors, make_app, run
from swipe.errors import UsageError
app = make_app("talks")
@app.command()
def talk() -> None:
    {}
@app.command()
def other() -> None: ...
run(app)
"""
BUFFERED = {**os.environ, "PYTHONUNBUFFERED": ""}


def talk(body: str, arguments: str = "talk", *, closed: str | None = None) -> tuple[int, str]:
    """Exit code and stderr of a command whose `closed` stream, if any, nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    if closed is not None:
        streams[closed] = writing
    done = subprocess.run(
        [sys.executable, "-c", TALK.format(body), *arguments.split()],
        **streams, text=True, check=False, env=BUFFERED,
    )  # fmt: skip
    os.close(writing)
    return done.returncode, done.stderr or ""


@pytest.mark.parametrize(
    ("body", "arguments"),
    [
        ("console.print('one'); console.print('two')", "talk"),
        ("print('{}', flush=True)", "talk"),
        ("print('{}')", "talk"),
        ("with console.status('at work'): print('x' * 10**6)", "talk"),
        ("...", "--help"),
    ],
    ids=["console", "print", "held back until the end", "much", "help"],
)
def test_a_closed_output_ends_a_command_as_sigpipe_would(body: str, arguments: str) -> None:
    """1 would say that it is a bug; Python's own 120 comes with a complaint."""
    assert talk(body, arguments, closed="stdout") == (141, "")


def test_an_error_keeps_its_code_when_nobody_reads_the_errors() -> None:
    assert talk("raise UsageError('wrong', fix='mend it')", closed="stderr") == (2, "")


def test_what_is_reported_beside_a_closed_output_keeps_its_code() -> None:
    code, err = talk("print('x'); raise UsageError('wrong', fix='mend it')", closed="stdout")
    assert (code, err) == (2, "error: wrong\n  fix: mend it\n")


# Names that are not text.


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "utf-8:replace"])
def test_a_name_that_is_no_unicode_is_shown_and_no_bug(encoding: str) -> None:
    """A file name in Latin-1, from an old disk; a user's own choice how to show it stays."""
    body = "import os; console.print(os.fsdecode(b'caf\\xe9.pt'))"
    done = subprocess.run(
        [sys.executable, "-c", TALK.format(body), "talk"],
        capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONIOENCODING": encoding},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    shown = "caf?.pt" if encoding.endswith("replace") else "caf\\udce9.pt"
    assert done.stdout == f"{shown}\n"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux has a file that is full")
@pytest.mark.parametrize(
    ("body", "told"),
    [("print('x')", "cannot write standard output"), ("print('x', flush=True)", "an output")],
    ids=["at the end", "on the way"],
)
def test_an_output_that_is_full_is_no_bug(body: str, told: str) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", TALK.format(body), "talk"],
            stdout=full, stderr=subprocess.PIPE, text=True, check=False, env=BUFFERED,
        )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {told}: No space left on device")


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("ENAMETOOLONG", (2, "error: it: refused\n  fix: check the path")),
        ("EACCES", (2, "error: it: refused\n  fix: check the path")),
        ("ENOENT", (1, "bug: FileNotFoundError: ")),
        ("EINVAL", (1, "bug: OSError: ")),
    ],
)
def test_what_only_the_system_can_refuse_is_no_bug(code: str, told: tuple[int, str]) -> None:
    """A file that should be there and is not may well be one."""
    status, err = talk(f"import errno; raise OSError(errno.{code}, 'refused', 'it')")
    assert (status, err[: len(told[1])]) == told


def test_output_that_is_no_encoded_stream_is_left_as_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log = io.StringIO()
    monkeypatch.setattr(sys, "stdout", log)
    monkeypatch.setattr(sys, "argv", ["talk", "talk"])
    app = make_app("talks")
    app.command()(lambda: print("caf\udce9"))
    app.command("talk")(lambda: print("caf\udce9"))
    with pytest.raises(SystemExit) as ended:
        run(app)
    assert (ended.value.code, log.getvalue()) == (0, "caf\udce9\n")
