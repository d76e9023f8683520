"""Verbs of ``swipe-export`` about bundles that exist: verify and sign."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from exporter.verbs import JsonOption
from swipe.console import console, make_table, tell_next
from swipe.errors import ExitCode
from swipe.progress import telling

if TYPE_CHECKING:
    from rich.console import Console

    from exporter.verification import Finding, Gate, Outcome

BundleArgument = Annotated[
    Path, typer.Argument(help="A folder written by swipe-export; default: ./bundle.")
]


def register(app: typer.Typer) -> None:
    """Add the verbs to `app`."""
    for verb in (verify, sign):
        app.command(verb.__name__, no_args_is_help=False)(verb)


def verify(
    bundle: BundleArgument = Path("bundle"),
    deep: Annotated[
        bool, typer.Option("--deep", help="Execute every artefact again and compare its figures.")
    ] = False,
    lexicon: Annotated[
        str | None, typer.Option(help="Where the lexicon is that the bundle was judged with.")
    ] = None,
    public_key: Annotated[
        Path | None, typer.Option(help="Also prove BUNDLE.sig with this key, in PEM.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Recompute everything that a bundle's manifest says.

    Exit codes: 0 all that was checked holds, 3 something was refused, 4 something that matters
    cannot be recomputed on this machine.

    Example: [bold]swipe-export verify bundle --deep[/]
    """
    from exporter.answer import answering
    from exporter.verification import exit_code
    from exporter.verification import verify as run_verify

    with answering("verify", json) as answer:
        with telling(answer.people) as say:
            findings = run_verify(
                bundle, deep=deep, lexicon=lexicon, say=say, public_key=public_key
            )
        code = exit_code(findings)
        _tell(bundle, findings, answer.people)
        if code is ExitCode.OK:
            verb = ("swipe-bench", bundle) if deep else ("swipe-export", "verify", bundle, "--deep")
            named = () if lexicon is None else ("--lexicon", lexicon)
            tell_next(*verb, *named, people=answer.people)
        told = {"bundle": str(bundle), "findings": [found.to_dict() for found in findings]}
        answer.give(code, told)
    raise typer.Exit(answer.exit_code)


def sign(
    key: Annotated[Path, typer.Option(help="Your elliptic-curve private key, in PEM.")],
    bundle: BundleArgument = Path("bundle"),
) -> None:
    """Sign a bundle that verify does not refuse, and write its bill of materials (CycloneDX).

    Needs the extra supply-chain, and no network.

    Example: [bold]swipe-export sign bundle --key key.pem[/]
    """
    from exporter.manifest import load_manifest
    from exporter.supply_chain import sign as sign_folder
    from exporter.supply_chain import write_bill
    from exporter.verification import exit_code
    from exporter.verification import verify as run_verify
    from swipe.errors import GateError

    with telling() as say:
        findings = run_verify(bundle, deep=False, lexicon=None, say=say)
    if exit_code(findings) is ExitCode.GATE_FAILED:
        raise GateError(
            f"{bundle} is not sound", fix=f"see swipe-export verify {shlex.quote(str(bundle))}"
        )
    written = write_bill(load_manifest(bundle), bundle), sign_folder(bundle, key)
    console.print(f"written: {', '.join(map(str, written))}")
    tell_next("swipe-export", "verify", bundle, "--public-key", "PUBLIC.pem")


def _tell(bundle: Path, findings: list[Finding], people: Console) -> None:
    """Print a table of what was checked, why anything was refused, and how many ended how."""
    from exporter.verification import Outcome

    table = make_table(f"{bundle}", "check", "outcome", "detail")
    for column in table.columns:
        column.justify = "left"
    for (gate, outcome, detail), about in _grouped(findings).items():
        names = about[0] if len(about) == 1 else f"{len(about)} of them"
        said = (text for text in (names, "" if outcome is Outcome.REFUSED else detail) if text)
        table.add_row(gate, outcome, ": ".join(said))
    people.print(table)
    for finding in findings:
        if finding.outcome is Outcome.REFUSED:
            where = f" of {finding.about}" if finding.about else ""
            people.print(f"{finding.gate}{where}: REFUSED: {finding.detail}")
    counts = (f"{sum(f.outcome is o for f in findings)} {o}" for o in Outcome)
    people.print(f"{bundle}: {', '.join(counts)}")


def _grouped(findings: list[Finding]) -> dict[tuple[Gate, Outcome, str], list[str]]:
    """What was checked alike and ended alike, and what of; a bundle has a hundred findings."""
    groups: dict[tuple[Gate, Outcome, str], list[str]] = {}
    for finding in findings:
        groups.setdefault((finding.gate, finding.outcome, finding.detail), []).append(finding.about)
    return groups
