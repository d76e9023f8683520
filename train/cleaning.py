"""What may be deleted below a folder of checkpoints; a dry run unless told otherwise.

Broken checkpoints and leftovers of interrupted writes go; with `keep`, older valid ones too, but
never a run's ``best`` and never a state to resume from. What is not proven broken stays, and it
is said why: files that could not be read, sound weights of a diverged run, programs, bundles, links
and what they point to, and leftovers so new that a run may still be writing them.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from safetensors import safe_open

from swipe.errors import UsageError
from train.checkpoint import SCHEMA
from train.inspection.files import SAFETENSORS, SUFFIXES
from train.inspection.kinds import find_checkpoints, inspect_file
from train.sealed import RECORD

BEST: Final = "best.safetensors"
IN_USE_SECONDS: Final = 600.0
"""A temporary file younger than this may belong to a run that is writing it."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A file, and why it may go or must stay."""

    path: Path
    reason: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What ``swipe-train clean`` would do.

    Attributes:
        removals: what may go.
        left: what one might expect to go, and why it stays.
    """

    removals: tuple[Finding, ...]
    left: tuple[Finding, ...]


def plan_removals(folder: Path, keep: int | None = None) -> Plan:
    """What ``swipe-train clean`` would delete below `folder`.

    Args:
        folder: where to look, with its subfolders.
        keep: valid checkpoints to keep per folder: ``best`` and the newest; None keeps all.

    Raises:
        UsageError: there is no checkpoint below `folder`, or `keep` is less than 1.
    """
    if keep is not None and keep < 1:
        raise UsageError(f"keep {keep} checkpoints", fix="keep at least one")
    removals, left = _leftovers(folder)
    try:
        found = find_checkpoints(folder)
    except UsageError:
        if not removals and not left:
            raise
        found = []
    valid: dict[Path, list[Path]] = defaultdict(list)
    for path in found:
        inspection = inspect_file(path)
        verdict = f"{inspection.verdict}: {[*inspection.reasons, inspection.unchecked][0]}"
        if path.is_file() and path.suffix in SUFFIXES and not path.is_symlink():
            if inspection.valid:
                valid[path.parent].append(path)
            elif inspection.reasons and not inspection.refused:
                removals.append(Finding(path, verdict))
            else:
                left.append(Finding(path, verdict))
        elif not inspection.valid:
            left.append(Finding(path, f"{verdict}; {_what(path)} is not taken apart"))
    if keep is not None:
        pointed_to = {path.resolve() for path in found if path.is_symlink()}
        for paths in valid.values():
            for path in _surplus(paths, keep):
                if path.resolve() in pointed_to:
                    left.append(Finding(path, "older, but a link points to it"))
                else:
                    removals.append(Finding(path, "older"))
    return Plan(tuple(removals), tuple(left))


def remove(removals: Sequence[Finding]) -> None:
    """Delete the files of a plan and the JSON sidecars that swipe-train wrote beside them.

    Raises:
        UsageError: a file cannot be deleted; those before it are gone.
    """
    for removal in removals:
        try:
            removal.path.unlink()
            sidecar = removal.path.with_suffix(".json")
            if removal.path.suffix in SUFFIXES and _is_ours(sidecar):
                sidecar.unlink()
        except OSError as error:
            raise UsageError(
                f"cannot delete {removal.path}: {error.strerror}", fix="check its permissions"
            ) from error


def _leftovers(folder: Path) -> tuple[list[Finding], list[Finding]]:
    """Temporary files of interrupted writes: those that may go, those that may be in use."""
    removals, left = [], []
    for path in sorted(folder.rglob(".*")):
        if not path.is_file() or not any(f"{suffix}." in path.name for suffix in SUFFIXES):
            continue
        if time.time() - path.stat().st_mtime > IN_USE_SECONDS:
            removals.append(Finding(path, "left behind by an interrupted write"))
        else:
            minutes = IN_USE_SECONDS / 60
            left.append(Finding(path, f"less than {minutes:g} minutes old: maybe being written"))
    return removals, left


def _surplus(paths: Sequence[Path], keep: int) -> list[Path]:
    """All but `keep` of the valid checkpoints of one folder.

    States to resume from are not counted, since nobody can use them as models; ``best`` always is.
    """

    def worth(path: Path) -> tuple[bool, float]:
        return path.name == BEST, path.stat().st_mtime

    return sorted((p for p in paths if not _is_state(p)), key=worth, reverse=True)[keep:]


def _is_state(path: Path) -> bool:
    """Whether it is ours, but to resume from: sealed without a checkpoint's schema."""
    if path.suffix != SAFETENSORS:
        return False
    with safe_open(path, framework="pt") as handle:
        metadata = handle.metadata() or {}
    return RECORD in metadata and SCHEMA not in metadata[RECORD]


def _what(path: Path) -> str:
    if path.is_symlink():
        return "a link"
    return "a folder" if path.is_dir() else f"a {path.suffix} file"


def _is_ours(sidecar: Path) -> bool:
    return sidecar.is_file() and SCHEMA.encode() in sidecar.read_bytes()
