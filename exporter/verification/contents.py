"""Files of a bundle that are no artefacts, read again: weights, swipes, words, report."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from exporter.manifest import (
    BENCH,
    CHECKPOINT,
    FILE,
    REPORT,
    VERIFICATION,
    Manifest,
)
from exporter.provenance import library_versions, portable_record
from exporter.reopened import open_lexicon, read_verification
from exporter.report import render
from exporter.verification.findings import Finding, Gate, judged, unknown
from exporter.views import VIEWS
from swipe.contract import ModelContract
from swipe.decode import DEFAULT_PRESET
from swipe.errors import GateError, MissingError, SwipeError, UsageError
from swipe.presets import parse_preset
from train.finite import null_for_nonfinite

if TYPE_CHECKING:
    from train.checkpoint import Checkpoint


def check_files(folder: Path, manifest: Manifest) -> Finding:
    """Whether the folder holds what the manifest names, and nothing else."""
    artefacts = {str(r.file) for entry in manifest.formats for r in entry.rungs if r.file}
    wanted = {FILE, REPORT, CHECKPOINT, VERIFICATION, *artefacts}
    present = {child.name for child in folder.iterdir()}
    links = sorted(child.name for child in folder.rglob("*") if child.is_symlink())
    reasons = [f"{name} lies outside the bundle" for name in artefacts if Path(name).name != name]
    reasons += [f"{name} is not there" for name in sorted(wanted - present)]
    reasons += [f"{name} is not in {FILE}" for name in sorted(present - wanted - {BENCH})]
    reasons += [f"{name} is a link" for name in links]
    return judged(Gate.FILES, "", reasons, f"{len(wanted)} files")


def check_checkpoint(folder: Path, manifest: Manifest) -> tuple[Checkpoint | None, list[Finding]]:
    """The checkpoint, once it is proven finite, and whether it is the manifest's."""
    from train.checkpoint import load_checkpoint

    source = manifest.source
    try:
        checkpoint = load_checkpoint(folder / CHECKPOINT)
        parameters = sum(p.numel() for p in checkpoint.model().parameters())
    except (GateError, UsageError) as error:
        return None, [judged(Gate.CHECKPOINT, CHECKPOINT, [str(error)])]
    wrong = [
        f"{name} is {ours!r}, {FILE} says {theirs!r}"
        for name, ours, theirs in (
            ("step", checkpoint.step, source.checkpoint_step),
            ("number of parameters", parameters, source.parameters),
            ("data", portable_record(checkpoint.data), source.trained_on),
        )
        if ours != theirs
    ]
    found = checkpoint.weights_sha256
    other = [] if found == source.weights_sha256 else [f"{found} is not {source.weights_sha256}"]
    return checkpoint, [
        judged(Gate.CHECKPOINT, CHECKPOINT, wrong, "every value is finite"),
        judged(Gate.WEIGHTS, CHECKPOINT, other),
        judged(Gate.CONTRACT, CHECKPOINT, _wrong_contract(checkpoint.contract, manifest)),
        judged(Gate.VIEWS, "", _wrong_views(checkpoint.contract, manifest)),
    ]


def _wrong_contract(contract: ModelContract, manifest: Manifest) -> Iterator[str]:
    source = manifest.source
    if source.contract_id != contract.contract_id:
        yield f"{FILE} says {source.contract_id}, the checkpoint's is {contract.contract_id}"
    if source.contract != json.loads(contract.to_json()):
        yield f"the contract in {FILE} is not the checkpoint's"


def _wrong_views(contract: ModelContract, manifest: Manifest) -> Iterator[str]:
    wanted = tuple(view.describe(contract) for view in VIEWS)
    if manifest.views != wanted:
        yield "inputs and outputs are not those of the checkpoint's contract"


def check_swipes(folder: Path, manifest: Manifest) -> Iterator[Finding]:
    """Hash, number and finiteness of the verification swipes; those of calibration are not here."""
    source = manifest.source
    yield judged(Gate.SWIPES, VERIFICATION, _wrong_swipes(folder, manifest))
    yield unknown(
        Gate.CALIBRATION,
        "",
        f"the {source.calibration_swipes} swipes are not in the bundle",
        matters=False,
    )


def _wrong_swipes(folder: Path, manifest: Manifest) -> Iterator[str]:
    try:
        features, words, writers = read_verification(folder, manifest.source)
    except GateError as error:
        yield str(error)
        return
    wanted = manifest.source.verification_swipes
    if {len(features), len(words), len(writers)} != {wanted}:
        yield f"{len(features)} swipes, {FILE} says {wanted}"
    if not np.isfinite(features).all():
        yield "some coordinates are not finite"


def check_words(folder: Path, manifest: Manifest, lexicon: str | None) -> Iterator[Finding]:
    """Whether lexicon and decoder settings are those that decoded; `lexicon` if one is named."""
    source = manifest.source
    try:
        known = open_lexicon(folder, source, lexicon)
    except (UsageError, GateError, MissingError) as error:
        yield unknown(Gate.LEXICON, source.lexicon, f"{error}: {error.fix}", matters=False)
    else:
        other = known.sha256 != source.lexicon_sha256
        reasons = [f"{lexicon} is not the lexicon that decoded"] if other else []
        yield judged(Gate.LEXICON, source.lexicon, reasons)
    yield judged(Gate.DECODER, "", _wrong_decoder(manifest))


def _wrong_decoder(manifest: Manifest) -> Iterator[str]:
    source, settings = manifest.source, DEFAULT_PRESET
    if source.preset is not None:
        try:
            preset = parse_preset(source.preset, "its preset")
        except SwipeError as error:
            yield str(error)
            return
        settings = preset.settings
        if preset.lexicon_sha256 != source.lexicon_sha256:
            yield f"its preset was tuned with another lexicon, {preset.lexicon}"
    if source.decoder != null_for_nonfinite(asdict(settings)):
        yield f"{source.decoder} are not the settings of its preset"


def _wrong_report(path: Path, manifest: Manifest) -> Iterator[str]:
    try:
        wanted = render(manifest)
    except (GateError, LookupError, TypeError, ValueError) as error:
        # Any figure may be absent from an edited manifest, or be none.
        yield f"{FILE} cannot be reported: {error!r}"
        return
    if not path.is_file() or path.read_bytes() != wanted.encode():
        yield f"it does not say what {FILE} says"


def check_records(folder: Path, manifest: Manifest) -> Iterator[Finding]:
    """The report against the manifest, and what only the machine that built it could tell."""
    path = folder / REPORT
    newest = manifest.builds[0].versions if manifest.builds else {}
    if newest.get("swipe-export") != library_versions()["swipe-export"]:
        yield unknown(
            Gate.REPORT, REPORT, "another version of swipe-export wrote it", matters=False
        )
    else:
        yield judged(Gate.REPORT, REPORT, _wrong_report(path, manifest))
    yield unknown(
        Gate.BUILD,
        "",
        "dates, versions, processor, commit, seconds and speed are of the machine that built it",
        matters=False,
    )
