"""What may be deleted below a folder of checkpoints; a dry run unless told otherwise.

Invalid checkpoints and leftovers of interrupted writes go; with `keep`, older valid ones too. At
least one valid checkpoint of every folder always stays.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from swipe.errors import UsageError
from train.checkpoint import SCHEMA
from train.inspection import SUFFIXES, find_checkpoints, inspect_file


@dataclass(frozen=True, slots=True)
class Removal:
    """A file that may go, and why."""

    path: Path
    reason: str


def plan_removals(folder: Path, keep: int | None = None) -> list[Removal]:
    """What ``swipe-train clean`` would delete below `folder`.

    Args:
        folder: where to look, with its subfolders.
        keep: valid checkpoints to keep per folder, the newest; None keeps all.

    Raises:
        UsageError: there is no checkpoint below `folder`, or `keep` is less than 1.
    """
    if keep is not None and keep < 1:
        raise UsageError(f"keep {keep} checkpoints", fix="keep at least one")
    removals = [
        Removal(path, "left behind by an interrupted write")
        for path in sorted(folder.rglob(".*"))
        if path.is_file() and any(f"{suffix}." in path.name for suffix in SUFFIXES)
    ]
    valid: dict[Path, list[Path]] = defaultdict(list)
    for path in find_checkpoints(folder):
        found = inspect_file(path)
        if found.valid:
            valid[path.parent].append(path)
        else:
            removals.append(Removal(path, f"INVALID: {found.reasons[0]}"))
    for paths in valid.values():
        newest_first = sorted(paths, key=lambda path: path.stat().st_mtime, reverse=True)
        removals += [Removal(path, "older") for path in newest_first[keep:] if keep is not None]
    return removals


def remove(removals: list[Removal]) -> None:
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


def _is_ours(sidecar: Path) -> bool:
    return sidecar.is_file() and SCHEMA.encode() in sidecar.read_bytes()
