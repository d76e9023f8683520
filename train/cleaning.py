"""What may be deleted below a folder of checkpoints; a dry run unless told otherwise.

Broken checkpoints and leftovers of interrupted writes go; with `keep`, older valid ones too, but
never a run's ``best`` and never a state to resume from. What is not proven broken stays, and it
is said why: files that could not be read, sound weights of a diverged run, programs, bundles, links
and what they point to, and leftovers so new that a run may still be writing them.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from safetensors import SafetensorError, safe_open

from swipe.errors import UsageError
from swipe.paths import is_folder
from train.checkpoint import MODEL_SCHEMA, SCHEMA
from train.inspection.files import SAFETENSORS, SUFFIXES
from train.inspection.kinds import find_checkpoints, inspect_file
from train.resume import GOOD
from train.sealed import RECORD

BEST: Final = "best.safetensors"
IN_USE_SECONDS: Final = 600.0
"""A temporary file younger than this may belong to a run that is writing it."""
_TEMPORARY: Final = re.compile(r"\..+\.safetensors\.[a-z0-9_]{8}")
"""What `swipe.files.replacing` calls a checkpoint that is being written."""
_LINKED: Final = re.compile(rf"\.{re.escape(GOOD)}\.[0-9]{{1,7}}")
"""What `train.resume.mark_good` calls the state for a moment: a second name, and a process id."""
_PART: Final = re.compile(r"-\d+-of-\d+(?=\.)")
"""In the names of the files that hold one model together."""


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
        keep: valid checkpoints to keep of each folder and architecture: ``best`` and the newest;
            None keeps all.

    Raises:
        UsageError: there is no checkpoint below `folder`, or `keep` is less than 1.
    """
    if keep is not None and keep < 1:
        raise UsageError(f"keep {keep} checkpoints", fix="keep at least one")
    removals, left = _leftovers(folder) if is_folder(folder) else ([], [])
    try:
        found = find_checkpoints(folder)
    except UsageError:
        if not removals and not left:
            raise
        found = []
    valid: dict[tuple[Path, str | None], list[Path]] = defaultdict(list)
    for path in found:
        inspection = inspect_file(path)
        verdict = f"{inspection.verdict}: {[*inspection.reasons, inspection.unchecked][0]}"
        if path.suffix in SUFFIXES and os.path.isfile(path) and not path.is_symlink():
            if inspection.valid:
                valid[path.parent, inspection.architecture_sha256].append(path)
            elif inspection.reasons and not inspection.refused:
                removals.append(Finding(path, verdict))
            else:
                left.append(Finding(path, verdict))
        elif not inspection.valid:
            left.append(Finding(path, f"{verdict}; {_what(path)} is not taken apart"))
    if keep is not None:
        pointed_to = {path.resolve() for path in found if path.is_symlink()}
        for paths in valid.values():
            parts = [path for path in paths if _PART.search(path.name)]
            reason = "a part of a model in several files, not a version of it"
            left += [Finding(path, reason) for path in parts]
            for path in _surplus([path for path in paths if path not in parts], keep):
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
        if _TEMPORARY.fullmatch(path.name) or _LINKED.fullmatch(path.name):
            try:
                why = _why_it_stays(path)
            except OSError as error:
                why = f"it cannot be read: {error.strerror or error}"
            if why:
                left.append(Finding(path, why))
            else:
                removals.append(Finding(path, "left behind by an interrupted write"))
    return removals, left


def _why_it_stays(path: Path) -> str:
    """Why a file named like one of an interrupted write is not deleted; empty when it may go."""
    if path.is_symlink() or not path.is_file():
        return f"{_what(path)}, though named like an interrupted write"
    if time.time() - path.stat().st_mtime <= IN_USE_SECONDS:
        return f"less than {IN_USE_SECONDS / 60:g} minutes old: maybe being written"
    if _LINKED.fullmatch(path.name):
        return ""  # whole, and the state has it under its own name
    try:
        with safe_open(path, framework="pt"):
            return "named like an interrupted write, but it is whole: maybe a backup"
    except SafetensorError:
        return ""


def _surplus(paths: Sequence[Path], keep: int) -> list[Path]:
    """All but `keep` of the valid checkpoints of one architecture in one folder.

    States to resume from are not counted, since nobody can use them as models; ``best`` always is.
    """

    def worth(path: Path) -> tuple[bool, float]:
        return path.name == BEST, path.stat().st_mtime

    return sorted((p for p in paths if not _is_state(p)), key=worth, reverse=True)[keep:]


def _is_state(path: Path) -> bool:
    """Whether it is ours, but to resume from: sealed, and of no checkpoint's schema."""
    if path.suffix != SAFETENSORS:
        return False
    with safe_open(path, framework="pt") as handle:
        metadata = handle.metadata() or {}
    return RECORD in metadata and not _describes_checkpoint(metadata[RECORD])


def _what(path: Path) -> str:
    # Of what may not be looked at, os.path says False where Path raises.
    if os.path.islink(path):
        return "a link"
    return "a folder" if os.path.isdir(path) else f"a {path.suffix} file"


def _is_ours(sidecar: Path) -> bool:
    return sidecar.is_file() and _describes_checkpoint(sidecar.read_bytes())


def _describes_checkpoint(text: str | bytes) -> bool:
    """Whether `text` is the record of a checkpoint that `train.checkpoint` wrote."""
    try:
        record: Any = json.loads(text)
    except ValueError:
        return False
    return isinstance(record, dict) and record.get("schema") in (SCHEMA, MODEL_SCHEMA)
