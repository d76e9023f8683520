"""What the console scripts share: how errors and tables reach the user, and where lines go.

An expected error is one line and its mend on stderr, with the exit code of its class; a traceback
appears only with ``--debug``. Markup is off: file names may hold brackets.
"""

from __future__ import annotations

import errno
import io
import os
import shlex
import signal
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from textwrap import wrap
from typing import IO, Any, NoReturn

import typer
from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, JustifyMethod, RenderResult
from rich.table import Table
from rich.text import Text
from typer.core import TyperGroup

from swipe.errors import ExitCode, SwipeError, UsageError
from swipe.files import FULL, cannot_write

INTERRUPTED = 130
"""How the shell reports a program that Ctrl-C ended; SIGTERM ends ours the same way."""
BROKEN_PIPE = 141
"""How the shell reports a program that SIGPIPE ended; ours live on to tidy up."""


class _Piped(Console):
    """A console whose reader may leave before the end, as ``head`` does."""

    def on_broken_pipe(self) -> None:
        """Print no more. Rich's own way out is exit code 1, which is that of a bug here.

        Raises:
            BrokenPipeError: the results have no reader; errors are not worth ending for.
        """
        self.quiet = True
        _discard(self.file)
        if not self.stderr:
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


def _discard(stream: IO[str]) -> None:
    """Send what `stream` still holds nowhere: Python would fail to write it at the end."""
    with suppress(OSError):  # one that is no file holds nothing
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


console = _Piped(highlight=False, soft_wrap=True, markup=False)
errors = _Piped(stderr=True, highlight=False, soft_wrap=True, markup=False)

_REFUSALS = (*FULL, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.EIO)
"""Errors that a path, a disk or its permissions cause, and no mistake in the code."""

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
    for stream in (sys.stdout, sys.stderr):
        # File names need not be text; who chose how to write them is obeyed.
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")
    debug = DEBUG_FLAG in sys.argv
    arguments = [argument for argument in sys.argv[1:] if argument != DEBUG_FLAG]
    code = _call(app, arguments, debug)
    try:
        sys.stdout.flush()
    except OSError as error:
        _discard(sys.stdout)
        if not code and isinstance(error, BrokenPipeError):
            code = BROKEN_PIPE
        elif not code:
            code = ExitCode.USAGE
            _show(cannot_write(Path("standard output"), error), debug)
    sys.exit(code)


def _call(app: typer.Typer, arguments: list[str], debug: bool) -> int:
    """Run `app`, show what went wrong; returns the exit code."""
    try:
        app(args=arguments)
    except SystemExit as ended:
        # Typer ends with 1 when a pipe is closed, wherever the error came from.
        broken = isinstance(ended.__context__, BrokenPipeError)
        return BROKEN_PIPE if broken else int(ended.code or ExitCode.OK)
    except SwipeError as error:
        _show(error, debug)
        return error.exit_code
    except KeyboardInterrupt:
        errors.print("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        return BROKEN_PIPE
    except Exception as error:  # noqa: BLE001 - the last line of defence: a bug, exit code 1
        if isinstance(error, OSError) and error.errno in _REFUSALS:
            _show(_refused(error), debug)
            return ExitCode.USAGE
        if debug:
            traceback.print_exc()
        errors.print("bug:", style="red", end=" ")
        errors.print(f"{type(error).__name__}: {error}")
        errors.print("  please report it, with the output of the same command and --debug")
        return ExitCode.BUG
    return ExitCode.OK


def _refused(error: OSError) -> UsageError:
    """What is told of a refusal that nobody before could name the purpose of."""
    what = error.filename or "an output"
    return UsageError(
        f"{what}: {error.strerror}",
        fix="check the path, its permissions, and that its disk has space",
    )


def _show(error: SwipeError, debug: bool) -> None:
    if debug:
        traceback.print_exception(error)
    errors.print("error:", style="red", end=" ")
    errors.print(str(error))
    errors.print("  fix:", style="green", end=" ")
    errors.print(error.fix)
