"""How a verb ends: lines and tables for people, or one JSON object for machines.

With ``--json`` standard output holds that object and nothing else, whatever happened; everything
for people goes to standard error.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console

from swipe.console import INTERRUPTED, console, errors
from swipe.errors import ExitCode, SwipeError


@dataclass(slots=True)
class Answer:
    """What a verb has to say; its fields are filled as the verb goes.

    Attributes:
        people: where lines and tables go.
        exit_code: what the command ends with.
        fields: what machines get besides.
    """

    people: Console
    exit_code: int = ExitCode.OK
    fields: dict[str, Any] = field(default_factory=dict)

    def give(self, exit_code: int, fields: Mapping[str, Any]) -> None:
        """Set the outcome."""
        self.exit_code = exit_code
        self.fields.update(fields)


@contextmanager
def answering(verb: str, as_json: bool) -> Iterator[Answer]:
    """Yield the answer to fill; at the end it is printed if machines asked.

    An error is told to machines and passed on, so that people see it too and the exit code stands.
    """
    answer = Answer(errors if as_json else console)
    try:
        # A factory is someone's own code, and prints what it likes.
        with redirect_stdout(sys.stderr) if as_json else nullcontext():
            yield answer
    except SwipeError as error:
        told = {"error": str(error), "kind": type(error).__name__, "fix": error.fix}
        answer.give(error.exit_code, told)
        raise
    except KeyboardInterrupt:
        told = {"error": "interrupted", "kind": "KeyboardInterrupt", "fix": "run it again"}
        answer.give(INTERRUPTED, told)
        raise
    except BaseException as error:
        kind, fix = type(error).__name__, "please report it, with what --debug prints"
        answer.give(ExitCode.BUG, {"error": f"{kind}: {error}", "kind": kind, "fix": fix})
        raise
    finally:
        if as_json:
            outcome = {"verb": verb, "exit_code": int(answer.exit_code), **answer.fields}
            print(json.dumps(outcome), flush=True)
