"""The kinds of thing that can be inspected, and where they are found below a folder.

Training knows its own checkpoints. Every other kind is offered by an installed package under the
entry point group ``swipe_export.inspectors``, so that `exporter` can add ONNX files and bundles,
and a stranger a format of theirs, while imports keep pointing left.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Final

from swipe.errors import SwipeError, UsageError
from swipe.paths import is_file, is_folder
from swipe.plugins import offers
from train.inspection.files import SUFFIXES, inspect_checkpoint
from train.inspection.verdict import Inspection, unchecked

GROUP: Final = "swipe_export.inspectors"


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of file or folder; a package offers it as an entry point of `GROUP`.

    Attributes:
        description: what to call it in a message, e.g. ".onnx".
        claims: whether a path is of this kind, by its name and, for a folder, by what lies in it.
            A claimed folder is one thing: what lies in it is not looked for again.
        inspect: (path, whether to give statistics) -> the verdict. A damaged file is a verdict; a
            missing library is a `swipe.errors.MissingError`.
    """

    description: str
    claims: Callable[[Path], bool]
    inspect: Callable[[Path, bool], Inspection]


CHECKPOINT: Final = Kind(
    ", ".join(SUFFIXES),
    lambda path: path.suffix in SUFFIXES and (is_file(path) or path.is_symlink()),
    inspect_checkpoint,
)


@cache
def known_kinds() -> tuple[Kind, ...]:
    """Training's own kind first, then the installed ones by name.

    Raises:
        MissingError: a package offers a kind that cannot be loaded. Leaving it out would leave
            its files unchecked without a word.
        UsageError: two packages offer kinds of the same name.
    """
    offered = offers(GROUP, Kind, "inspector of")
    for one, other in pairwise(offered):
        if one.name == other.name:
            raise UsageError(
                f"{one.package} and {other.package} both offer to inspect {one.name}",
                fix="uninstall one of them",
            )
    return (CHECKPOINT, *(offer.thing for offer in offered))


def inspect_file(path: Path, *, stats: bool = False) -> Inspection:
    """Read and judge one file, or a folder that is one thing.

    Raises:
        UsageError: there is no such file, or it is of no known kind.
    """
    kinds = known_kinds()
    try:
        folder = is_folder(path)
        for kind in kinds:
            if kind.claims(path):
                return kind.inspect(path, stats)
    except (SwipeError, OSError, MemoryError, RuntimeError) as error:
        return unchecked(path, error)
    described = "; ".join(kind.description for kind in kinds)
    if not folder:
        raise UsageError(f"no checkpoint {path}", fix=f"name one of these: {described}")
    if path.suffix in SUFFIXES:
        return inspect_checkpoint(path, stats)
    try:
        _require_open(path)
    except OSError as error:
        return unchecked(path, error)
    raise UsageError(f"{path} is a folder", fix=f"look into it with --all {path}")


def find_checkpoints(folder: Path) -> list[Path]:
    """Everything of a known kind below `folder`, sorted, and folders that cannot be looked into.

    Links to folders are not followed. Hidden folders and files, leftovers of interrupted writes
    among them, and virtual environments are passed over: what lies there is a program's own.

    Raises:
        UsageError: there is no such folder, it may not be looked at, or it holds nothing of use.
    """
    found = sorted(_walk(folder)) if is_folder(folder) else []
    if not found:
        described = "; ".join(kind.description for kind in known_kinds())
        raise UsageError(f"no checkpoint below {folder}", fix=f"look elsewhere for: {described}")
    return found


def _walk(folder: Path) -> Iterator[Path]:
    kinds = known_kinds()
    try:
        _require_open(folder)
        if any(kind.claims(folder) for kind in kinds):
            yield folder
            return
        with os.scandir(folder) as entries:
            children = [Path(entry) for entry in entries if not entry.name.startswith(".")]
    except OSError:
        yield folder
        return
    if any(child.name == "pyvenv.cfg" for child in children):
        return
    for path in children:
        try:
            is_dir = path.is_dir()
        except OSError:
            yield path
            continue
        if is_dir and not path.is_symlink():
            if path.suffix in SUFFIXES:
                yield path
            yield from _walk(path)
        elif not is_dir and any(kind.claims(path) for kind in kinds):
            yield path


def _require_open(folder: Path) -> None:
    """Raise OSError for a folder that may not be listed, or may be listed and not entered."""
    os.scandir(folder).close()
    os.stat(os.path.join(folder, os.curdir))
