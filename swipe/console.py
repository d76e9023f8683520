"""What the console scripts share: how errors and tables reach the user, and where lines go.

An expected error is one line and its mend on stderr, with the exit code of its class; a traceback
appears only with ``--debug``. Markup is off: file names may hold brackets.
"""

from __future__ import annotations

import os
import shlex
import signal
import sys
import traceback
from textwrap import wrap
from typing import Any, NoReturn

import typer
from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, JustifyMethod, RenderResult
from rich.table import Table
from rich.text import Text
from typer.core import TyperGroup

from swipe.errors import ExitCode, SwipeError

console = Console(highlight=False, soft_wrap=True, markup=False)
errors = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)

DEBUG_FLAG = "--debug"
WORD = 16
"""Letters of a word in a table that are kept on one line: longer than any figure."""
EPILOG = "Add --debug to any command to see the traceback of an error."


def make_app(help_text: str, *, default: str | None = None) -> typer.Typer:
    """A typer application with the house's settings.

    Args:
        help_text: what it is for.
        default: the command that is meant when none is named.
    """
    return typer.Typer(
        cls=_with_default(default),
        help=help_text,
        epilog=EPILOG,
        no_args_is_help=default is None,
        add_completion=False,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def _with_default(default: str | None) -> type[TyperGroup]:
    """The group whose command `default` needs not be named."""
    if default is None:
        return TyperGroup
    meant = default

    class Group(TyperGroup):
        # Typer brings a click of its own in some versions: no type fits all.
        def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
            named = args[:1] in (["-h"], ["--help"], *([name] for name in self.commands))
            return super().parse_args(ctx, args if named else [meant, *args])

    return Group


class _Legible(Table):
    """A table that rather grows than cuts a figure short.

    Words are whole up to `WORD` letters, and a heading is no wider than what stands below it where
    its words allow that.
    """

    def add_row(self, *cells: str, style: str | None = None) -> None:  # type: ignore[override]
        """Append a row of plain text."""
        super().add_row(*map(Text, cells), style=style)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for column in self.columns:
            cells = list(map(str, column.cells))
            # Per cent stays beside what it is of: textwrap does not break at a hard space.
            heading = " ".join(str(column.header).split()).replace(" %", "\xa0%")
            words = [*heading.split(" "), *(word for cell in cells for word in cell.split())]
            column.min_width = min(max(map(cell_len, words)), WORD)
            width = max(map(cell_len, (*heading.split(" "), *cells)))
            folded = "\n".join(wrap(heading, max(width, 1)))
            column.header = Text(folded.replace("\xa0", " "))
        return super().__rich_console__(console, options)


def make_table(title: str, *headings: str) -> Table:
    """A table for 80 columns: the first one names, the others are figures, which are never cut."""
    table = _Legible(
        title=Text(f"\n{title}"), box=SIMPLE_HEAD, title_justify="left", padding=(0, 1, 0, 0),
        show_edge=False, pad_edge=False,
    )  # fmt: skip
    for number, heading in enumerate(headings):
        justify: JustifyMethod = "right" if number else "left"
        table.add_column(Text(heading), justify=justify, overflow="fold")
    return table


def tell_next(*words: object, people: Console = console) -> None:
    """Print the command that comes next: `words` as a shell takes them, whatever a name holds."""
    people.print(f"next: {shlex.join(map(str, words))}")


def run(app: typer.Typer) -> NoReturn:
    """Run `app` on the command line and leave the process with its exit code."""
    # ONNX Runtime sends telemetry unless this is set before its library is loaded.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    # As Ctrl-C does, so that temporary folders are removed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    debug = DEBUG_FLAG in sys.argv
    arguments = [argument for argument in sys.argv[1:] if argument != DEBUG_FLAG]
    try:
        app(args=arguments)
    except SwipeError as error:
        _show(error, debug)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        errors.print("interrupted")
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(141)
    except Exception as error:  # noqa: BLE001 - the last line of defence: a bug, exit code 1
        if debug:
            traceback.print_exc()
        errors.print("bug:", style="red", end=" ")
        errors.print(f"{type(error).__name__}: {error}")
        errors.print("  please report it, with the output of the same command and --debug")
        sys.exit(ExitCode.BUG)
    sys.exit(ExitCode.OK)


def _show(error: SwipeError, debug: bool) -> None:
    if debug:
        traceback.print_exception(error)
    errors.print("error:", style="red", end=" ")
    errors.print(str(error))
    errors.print("  fix:", style="green", end=" ")
    errors.print(error.fix)
