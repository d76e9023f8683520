"""Files of a bundle that are no artefacts, read again: weights, swipes, words, report."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from exporter import report, report_page
from exporter.manifest import (
    BENCH,
    CHECKPOINT,
    FILE,
    PAGE,
    REPORT,
    VERIFICATION,
    Manifest,
    ModelSource,
    Source,
    SwipeSource,
    ViewEntry,
)
from exporter.provenance import library_versions, portable_record
from exporter.verification.expected import Expected, of_contract, of_manifest
from exporter.verification.findings import Finding, Gate, judged, unknown
from exporter.views import VIEWS
from swipe.contract import ModelContract
from swipe.errors import GateError, MissingError, SwipeError, UsageError
from swipe.files import cannot_read, hash_of
from swipe.presets import DEFAULT_PRESET, parse_preset
from train.finite import null_for_nonfinite

FINITE: Final = "every value is finite"


def check_files(folder: Path, manifest: Manifest) -> Finding:
    """Whether the folder holds what the manifest names, and nothing else."""
    artefacts = {str(r.file) for entry in manifest.formats for r in entry.rungs if r.file}
    wanted = {FILE, REPORT, PAGE, CHECKPOINT, VERIFICATION, *artefacts}
    present = {child.name for child in folder.iterdir()}
    links = sorted(child.name for child in folder.rglob("*") if child.is_symlink())
    reasons = [f"{name} lies outside the bundle" for name in artefacts if Path(name).name != name]
    reasons += [f"{name} is not there" for name in sorted(wanted - present)]
    reasons += [f"{name} is not in {FILE}" for name in sorted(present - wanted - {BENCH})]
    reasons += [f"{name} is a link" for name in links]
    return judged(Gate.FILES, "", reasons, f"{len(wanted)} files")


def check_checkpoint(
    folder: Path, manifest: Manifest
) -> tuple[Mapping[str, Expected], list[Finding]]:
    """What artefacts are expected to be, by view, and whether the checkpoint is the manifest's.

    Nothing is expected where the checkpoint could not be proven sound.
    """
    try:
        if isinstance(manifest.source, ModelSource):
            return _check_model(folder, manifest, manifest.source)
        return _check_swipe_model(folder, manifest, manifest.source)
    except (GateError, UsageError) as error:
        return {}, [judged(Gate.CHECKPOINT, CHECKPOINT, [str(error)])]


def _check_swipe_model(
    folder: Path, manifest: Manifest, source: SwipeSource
) -> tuple[Mapping[str, Expected], list[Finding]]:
    from train.checkpoint import load_checkpoint

    checkpoint = load_checkpoint(folder / CHECKPOINT)
    parameters = sum(p.numel() for p in checkpoint.model().parameters())
    wrong = _unequal(
        ("step", checkpoint.step, source.checkpoint_step),
        ("number of parameters", parameters, source.parameters),
        ("data", portable_record(checkpoint.data), source.trained_on),
    )
    contract = checkpoint.contract
    described = tuple(view.describe(contract) for view in VIEWS)
    return of_contract(checkpoint), [
        judged(Gate.CHECKPOINT, CHECKPOINT, wrong, FINITE),
        judged(Gate.WEIGHTS, CHECKPOINT, _wrong_weights(checkpoint.weights_sha256, source)),
        judged(Gate.CONTRACT, CHECKPOINT, _wrong_contract(contract, source)),
        judged(Gate.VIEWS, "", wrong_views(described, manifest)),
    ]


def _check_model(
    folder: Path, manifest: Manifest, source: ModelSource
) -> tuple[Mapping[str, Expected], list[Finding]]:
    from train.checkpoint import load_model_checkpoint
    from train.sealed import digest

    checkpoint = load_model_checkpoint(folder / CHECKPOINT)
    weights = digest("", checkpoint.tensors)
    wrong = _unequal(
        ("factory", checkpoint.factory, source.factory),
        ("step", checkpoint.step, source.checkpoint_step or 0),
    )
    values = sum(tensor.numel() for tensor in checkpoint.tensors.values())
    if not (0 < source.parameters <= values):  # which of them are buffers, the factory knows
        wrong.append(f"{values} values, {FILE} says {source.parameters} parameters")
    return of_manifest(manifest, source, weights), [
        judged(Gate.CHECKPOINT, CHECKPOINT, wrong, FINITE),
        judged(Gate.WEIGHTS, CHECKPOINT, _wrong_weights(weights, source)),
        unknown(Gate.CONTRACT, "", "only swipe models have one", matters=False),
    ]


def _unequal(*claims: tuple[str, object, object]) -> list[str]:
    return [
        f"{name} is {ours!r}, {FILE} says {theirs!r}"
        for name, ours, theirs in claims
        if ours != theirs
    ]


def _wrong_weights(found: str, source: Source) -> list[str]:
    return [] if found == source.weights_sha256 else [f"{found} is not {source.weights_sha256}"]


def _wrong_contract(contract: ModelContract, source: SwipeSource) -> Iterator[str]:
    if source.contract_id != contract.contract_id:
        yield f"{FILE} says {source.contract_id}, the checkpoint's is {contract.contract_id}"
    if source.contract != json.loads(contract.to_json()):
        yield f"the contract in {FILE} is not the checkpoint's"


def wrong_views(described: tuple[ViewEntry, ...], manifest: Manifest) -> Iterator[str]:
    """Why the manifest's views are not those `described` by the model itself, of those built."""
    built = {entry.view for entry in manifest.formats}
    if manifest.views != tuple(view for view in described if view.name in built):
        yield "inputs and outputs are not those of the model"


def check_swipes(folder: Path, manifest: Manifest) -> Iterator[Finding]:
    """Hash, number and finiteness of the verification samples; those of calibration are not here.

    Of anyone's model only hashes are: its samples are its factory's.
    """
    source = manifest.source
    wrong = _wrong_swipes if isinstance(source, SwipeSource) else _wrong_digests
    yield judged(Gate.SWIPES, VERIFICATION, wrong(folder, source))
    if isinstance(source, SwipeSource):
        why = f"the {source.calibration_samples} swipes are not in the bundle"
        yield unknown(Gate.CALIBRATION, "", why, matters=False)


def _wrong_swipes(folder: Path, source: Source) -> Iterator[str]:
    arrays = yield from _verification(folder, source, ("features", "words", "writers"))
    if arrays is None:
        return
    features, wanted = arrays[0], source.verification_samples
    if {len(array) for array in arrays} != {wanted}:
        yield f"{', '.join(str(len(array)) for array in arrays)} swipes, {FILE} says {wanted}"
    if not np.isfinite(features).all():
        yield "some coordinates are not finite"


def _wrong_digests(folder: Path, source: Source) -> Iterator[str]:
    arrays = yield from _verification(folder, source, ("digests",))
    if arrays is not None and len(arrays[0]) != source.verification_samples:
        yield f"{len(arrays[0])} samples, {FILE} says {source.verification_samples}"


def _verification(
    folder: Path, source: Source, names: tuple[str, ...]
) -> Generator[str, None, list[NDArray[Any]] | None]:
    """The arrays of the verification samples; None, and why, where they are not the manifest's."""
    path = folder / VERIFICATION
    if not path.is_file() or hash_of(path) != source.verification_sha256:
        yield f"{path} is not what {FILE} speaks of"
        return None
    try:
        with np.load(path) as kept:
            return [kept[name] for name in names]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        yield f"{path} cannot be read: {error}"
        return None


def check_words(folder: Path, manifest: Manifest, lexicon: str | None) -> Iterator[Finding]:
    """Whether lexicon and decoder settings are those that decoded; `lexicon` if one is named.

    Raises:
        UsageError: one is named and the bundle is of anyone's model.
    """
    source = manifest.source
    if isinstance(source, ModelSource):
        from exporter.origins.brought import require_no_lexicon

        require_no_lexicon(lexicon, source)
        for gate in (Gate.LEXICON, Gate.DECODER):
            yield unknown(gate, "", "the factory decodes, if anything does", matters=False)
        return
    from exporter.origins.swipe import open_lexicon

    try:
        known = open_lexicon(folder, source, lexicon)
    except (UsageError, GateError, MissingError) as error:
        yield unknown(Gate.LEXICON, source.lexicon, f"{error}: {error.fix}", matters=False)
    else:
        other = known.sha256 != source.lexicon_sha256
        reasons = [f"{lexicon} is not the lexicon that decoded"] if other else []
        yield judged(Gate.LEXICON, source.lexicon, reasons)
    yield judged(Gate.DECODER, "", _wrong_decoder(source))


def _wrong_decoder(source: SwipeSource) -> Iterator[str]:
    settings = DEFAULT_PRESET
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


def _wrong_report(
    path: Path, manifest: Manifest, render: Callable[[Manifest], str]
) -> Iterator[str]:
    try:
        wanted = render(manifest)
    except (GateError, LookupError, TypeError, ValueError) as error:
        # Any figure may be absent from an edited manifest, or be none.
        yield f"{FILE} cannot be reported: {error!r}"
        return
    try:
        found = path.read_bytes() if path.is_file() else None
    except OSError as error:
        raise cannot_read(path, error) from error
    if found != wanted.encode():
        yield f"it does not say what {FILE} says"


def check_records(folder: Path, manifest: Manifest) -> Iterator[Finding]:
    """The reports against the manifest, and what only the machine that built it could tell."""
    newest = manifest.builds[0].versions if manifest.builds else {}
    for name, render in ((REPORT, report.render), (PAGE, report_page.render)):
        if newest.get("swipe-export") == library_versions()["swipe-export"]:
            yield judged(Gate.REPORT, name, _wrong_report(folder / name, manifest, render))
        else:
            why = "another version of swipe-export wrote it"
            yield unknown(Gate.REPORT, name, why, matters=False)
    yield unknown(
        Gate.BUILD,
        "",
        "dates, versions, processor, commit, seconds and speed are of the machine that built it",
        matters=False,
    )
