"""What the console scripts share: how an error reaches the user, and where lines are printed.

An expected error is one line and its mend on stderr, with the exit code of its class; a traceback
appears only with ``--debug``. Markup is off: file names may hold brackets.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from typing import NoReturn

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from swipe.errors import ExitCode, SwipeError

console = Console(highlight=False, soft_wrap=True, markup=False)
errors = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)

DEBUG_FLAG = "--debug"
EPILOG = "Add --debug to any command to see the traceback of an error."


def make_app(help_text: str) -> typer.Typer:
    """A typer application with the house's settings."""
    return typer.Typer(
        help=help_text,
        epilog=EPILOG,
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def make_table(title: str, *headings: str) -> Table:
    """A table that fits 80 columns: the first column names, the others are figures."""
    table = Table(title=Text(title), box=SIMPLE_HEAD, title_justify="left", padding=(0, 1, 0, 0))
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="right" if number else "left", no_wrap=not number)
    return table


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
