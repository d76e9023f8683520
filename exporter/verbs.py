"""Verbs of ``swipe-export`` that build nothing: plan, doctor and cache."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Final

import typer

from exporter.policy import DEFAULT_BUDGET, Policy
from swipe.console import make_table, tell_next

if TYPE_CHECKING:
    from exporter.targets import Target

DEFAULT_VIEW: Final = "both"

JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on stdout; lines go to stderr.")
]


class FormatChoice(StrEnum):
    """What ``plan`` and ``doctor`` take."""

    ALL = "all"
    ONNX = "onnx"
    EXECUTORCH = "executorch"
    COREML = "coreml"


FormatArgument = Annotated[FormatChoice, typer.Argument(help="One format, or all.")]


def register(app: typer.Typer) -> None:
    """Add the verbs to `app`."""
    for verb in (plan, doctor, cache):
        app.command(verb.__name__)(verb)


def plan(
    formats: FormatArgument = FormatChoice.ALL,
    view: Annotated[
        str, typer.Option(help="As for an export: baked, ..., both, all.")
    ] = DEFAULT_VIEW,
    quantize: Annotated[bool, typer.Option("--quantize/--no-quantize")] = True,
    json: JsonOption = False,
) -> None:
    """Show what an export would try, what not, and why; nothing is built.

    Example: [bold]swipe-export plan --no-quantize[/]
    """
    from exporter import plan as planning
    from exporter.answer import answering
    from exporter.cache import Cache, default_folder
    from exporter.memory import durations
    from exporter.views import choose_views

    with answering("plan", json) as answer:
        known = durations(Cache(default_folder(), answer.people.print))
        policy = Policy(quantize, DEFAULT_BUDGET)
        rows = planning.plan(_targets(formats), choose_views(view), policy, known)
        headings = ("format", "view", "rung", "fate", "checked", "about")
        table = make_table("what an export would do", *headings)
        for row in rows:
            about = "" if row.seconds is None else f"{row.seconds:g} s"
            table.add_row(row.format, row.view, row.rung, row.fate, row.level, about)
        answer.people.print(table)
        reasons = [f"{r.format} {r.view} {r.rung}: {r.fate}: {r.reason}" for r in rows if r.reason]
        levels = [f"{r.format}: {r.level_reason}" for r in rows if r.level_reason]
        for line in (*reasons, *dict.fromkeys(levels)):
            answer.people.print(line)
        total = planning.total_seconds(rows)
        if total is not None:
            answer.people.print(f"about {total:.0f} s of work, two formats at a time")
        answer.give(
            planning.exit_code(rows),
            {"rows": [row.to_dict() for row in rows], "seconds": total},
        )
        flag = "--quantize" if quantize else "--no-quantize"
        views = [] if view == DEFAULT_VIEW else ["--view", view]
        tell_next("swipe-export", formats, *views, flag, people=answer.people)
    raise typer.Exit(answer.exit_code)


def doctor(formats: FormatArgument = FormatChoice.ALL, json: JsonOption = False) -> None:
    """Say what can be built and executed on this machine, and how to mend what cannot.

    Example: [bold]swipe-export doctor onnx[/]
    """
    from exporter.answer import answering
    from exporter.cache import Cache, default_folder
    from exporter.doctor import State, buildable, examine, exit_code

    with answering("doctor", json) as answer:
        targets = _targets(formats)
        findings = examine(targets)
        kept = Cache(default_folder(), answer.people.print).contents()
        table = make_table("this machine", "needed by", "what", "state", "found", "tested")
        for found in findings:
            table.add_row(found.part, found.name, found.state, found.found, found.tested)
        answer.people.print(table)
        for found in findings:
            if found.mend:
                verb = "fix" if found.state is not State.INFO else "note"
                answer.people.print(f"{found.part} {found.name}: {verb}: {found.mend}")
        possible = buildable(findings, targets)
        answer.people.print(f"can be built here: {', '.join(possible) or 'nothing'}")
        answer.people.print(
            f"cache: {kept.entries} results, {kept.size_bytes / 1e6:.1f} MB; "
            "swipe-export cache --clear drops them"
        )
        told = {
            "findings": [found.to_dict() for found in findings],
            "buildable": possible,
            "cache": {"entries": kept.entries, "size_bytes": kept.size_bytes},
        }
        answer.give(exit_code(findings), told)
        every = len(possible) == len(targets)
        verb = formats if every else possible[0] if possible else "doctor"
        flags = ["--quantize"] if possible else []
        tell_next("swipe-export", verb, *flags, people=answer.people)
    raise typer.Exit(answer.exit_code)


def cache(
    clear: Annotated[bool, typer.Option("--clear", help="Drop all results.")] = False,
    json: JsonOption = False,
) -> None:
    """Show where results of earlier exports are kept, and how much; or drop them.

    Example: [bold]swipe-export cache --clear[/]
    """
    from exporter.answer import answering
    from exporter.cache import LIMIT_BYTES, Cache, default_folder

    with answering("cache", json) as answer:
        store = Cache(default_folder(), answer.people.print)
        found = store.clear() if clear else store.contents()
        told = {
            "folder": str(store.folder),
            "entries": found.entries,
            "size_bytes": found.size_bytes,
            "limit_bytes": LIMIT_BYTES,
            "cleared": clear,
        }
        answer.give(answer.exit_code, told)
        size = f"{found.entries} results, {found.size_bytes / 1e6:.1f} MB"
        limit = f"of at most {LIMIT_BYTES / 1e6:,.0f} MB"
        answer.people.print(f"{store.folder}: {size} {'dropped' if clear else limit}")
        following = ("all", "--quantize") if clear else ("cache", "--clear")
        tell_next("swipe-export", *following, people=answer.people)
    raise typer.Exit(answer.exit_code)


def _targets(choice: FormatChoice) -> tuple[Target, ...]:
    from exporter.targets import find_target, known_targets

    return known_targets() if choice is FormatChoice.ALL else (find_target(choice),)
