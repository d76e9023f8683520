"""``swipe-export verify``: recompute all that a manifest says, and say what cannot be.

Every check is a `Finding` of a named gate: VERIFIED, REFUSED, or CANNOT BE RECOMPUTED with the
reason. Nothing stops at the first refusal, so that one damaged file does not hide another.

What it leaves out: who made the bundle. Hashes detect accidents; a forger can hash again, and only
a signature over the folder tells (`exporter.supply_chain`).
"""

from __future__ import annotations

from pathlib import Path

from exporter.manifest import FILE, read_manifest
from exporter.supply_chain import require_signed, signature_path
from exporter.verification.artefacts import artefacts_of, check_artefact
from exporter.verification.consistency import contradictions
from exporter.verification.contents import (
    check_checkpoint,
    check_files,
    check_records,
    check_swipes,
    check_words,
)
from exporter.verification.execution import check_execution, left_out
from exporter.verification.findings import Finding, Gate, Outcome, exit_code, judged, unknown
from swipe.errors import GateError, MissingError
from swipe.progress import Say

__all__ = ["Finding", "Gate", "Outcome", "exit_code", "verify"]


def verify(
    folder: Path, *, deep: bool, lexicon: str | None, say: Say, public_key: Path | None = None
) -> list[Finding]:
    """Check the bundle at `folder`.

    Args:
        folder: what ``swipe-export`` published.
        deep: execute every artefact again on the samples that it was judged by; of anyone's model
            that runs the code of its factory.
        lexicon: where the lexicon that decoded is; None: where the manifest says.
        say: told about each step.
        public_key: of who signed it; None: a signature is not looked at.

    Raises:
        UsageError: there is no bundle, no such key, or a lexicon that does not apply.
    """
    try:
        manifest, sealed = read_manifest(folder)
    except GateError as error:
        return [judged(Gate.SCHEMA, FILE, [str(error)])]
    edited = [] if sealed else ["it was edited: its hash over itself is another"]
    findings = [judged(Gate.SCHEMA, FILE, []), judged(Gate.SEAL, FILE, edited)]
    findings.append(check_files(folder, manifest))
    if public_key is not None:
        findings.append(_check_signed(folder, public_key))
    findings += contradictions(manifest)
    say(f"{folder}: checkpoint, swipes and words")
    expected, found = check_checkpoint(folder, manifest)
    findings += found
    findings += check_swipes(folder, manifest)
    findings += check_words(folder, manifest, lexicon)
    findings += check_records(folder, manifest)
    artefacts = artefacts_of(folder, manifest)
    for artefact in artefacts:
        say(f"{artefact.path.name}: reading")
        findings += check_artefact(artefact, expected.get(artefact.view))
    if deep:
        findings += check_execution(folder, manifest, artefacts, lexicon, say)
    else:
        findings += left_out(manifest, artefacts)
    return findings


def _check_signed(folder: Path, public_key: Path) -> Finding:
    about = signature_path(folder).name
    try:
        require_signed(folder, public_key)
    except GateError as error:
        return judged(Gate.SIGNED, about, [str(error)])
    except MissingError as error:
        return unknown(Gate.SIGNED, about, str(error), matters=True)
    return judged(Gate.SIGNED, about, [])
