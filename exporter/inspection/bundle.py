"""A bundle: is every file in it the one that its manifest speaks of, and sound in itself?

A bundle is one thing. Its verdict is that of its weakest part, each part is named in the reason.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from exporter.manifest import (
    CHECKPOINT,
    FILE,
    PAGE,
    REPORT,
    VERIFICATION,
    Manifest,
    RungEntry,
    load_manifest,
)
from swipe.errors import GateError
from swipe.files import sha256_file, size_bytes
from train.inspection.kinds import inspect_file, known_kinds
from train.inspection.verdict import Inspection


def inspect_bundle(path: Path, stats: bool) -> Inspection:
    """Read and judge one bundle; damage is a verdict, not an exception.

    Raises:
        OSError: the folder or a file in it cannot be read.
    """
    try:
        manifest = load_manifest(path)
    except GateError as error:
        return Inspection(str(path), (str(error),))
    reasons = list(_wrong_manifest(manifest))
    weights = path / CHECKPOINT
    found = Inspection(str(path))
    parts: list[tuple[str, Inspection]] = []
    if weights.is_file():
        found = inspect_file(weights, stats=stats)
        parts.append((CHECKPOINT, found))
        if found.valid and found.sha256 != manifest.source.weights_sha256:
            reasons.append(f"{CHECKPOINT}: not the weights that {FILE} speaks of")
    else:
        reasons.append(f"{CHECKPOINT}: it is not there")
    reasons += _altered(path, VERIFICATION, manifest.source.verification_sha256, None)
    rungs = [rung for entry in manifest.formats for rung in entry.rungs if rung.file is not None]
    for rung in rungs:
        reasons += _altered(path, str(rung.file), rung.sha256, rung.size_bytes)
        parts += _inspected(path, rung, stats)
    named = {FILE, REPORT, PAGE, CHECKPOINT, VERIFICATION, *(str(rung.file) for rung in rungs)}
    strangers = sorted(child.name for child in path.iterdir() if child.name not in named)
    return replace(
        found,
        path=str(path),
        reasons=(*reasons, *(f"{name}: {r}" for name, part in parts for r in part.reasons)),
        warnings=(
            *(f"{name}: {w}" for name, part in parts for w in part.warnings),
            *(f"{FILE} does not speak of {name}" for name in strangers),
        ),
        unchecked="; ".join(f"{n}: {part.unchecked}" for n, part in parts if part.unchecked),
        mend="; ".join(sorted({part.mend for _, part in parts if part.mend})),
        missing=any(part.missing for _, part in parts),
        stats=tuple(
            replace(row, name=f"{name}: {row.name}") for name, part in parts for row in part.stats
        ),
    )


def _wrong_manifest(manifest: Manifest) -> Iterator[str]:
    """Claims that cannot be true of any bundle."""
    for entry in manifest.formats:
        taken = [rung for rung in entry.rungs if rung.taken]
        if len(taken) != 1 or taken[0].file is None:
            yield f"{FILE}: {entry.format} {entry.view} has {len(taken)} artefacts to ship, not one"
        elif taken[0].verdict.status == "FAIL":
            yield f"{FILE}: {taken[0].file} is to be shipped although its verdict is FAIL"


def _altered(folder: Path, name: str, sha256: str | None, size: int | None) -> Iterator[str]:
    """Why the file called `name` is not the one that was published, if so."""
    path = folder / name
    if Path(name).name != name:
        yield f"{name}: lies outside the bundle"
    elif not path.exists():
        yield f"{name}: it is not there"
    elif size is not None and size_bytes(path) != size:
        yield f"{name}: {size_bytes(path):,} bytes, and {FILE} says {size:,}"
    elif sha256_file(path) != sha256:
        yield f"{name}: its hash is not the one in {FILE}"


def _inspected(folder: Path, rung: RungEntry, stats: bool) -> Iterator[tuple[str, Inspection]]:
    """The verdict on an artefact by the inspector of its own kind, where there is one."""
    name = str(rung.file)
    path = folder / name
    if Path(name).name == name and any(kind.claims(path) for kind in known_kinds()):
        yield name, inspect_file(path, stats=stats)
