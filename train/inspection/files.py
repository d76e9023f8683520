"""The kinds of checkpoint that training itself knows: safetensors, and torch's own files.

Nothing in a file is ever run: a pickle that needs code is refused. Both are mapped into memory
where their format allows it, and torch's archives are proven against their checksums, which torch
itself does not look at.
"""

from __future__ import annotations

import json
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from swipe.errors import GateError, UsageError
from train.inspection.flatten import flatten
from train.inspection.losses import losses
from train.inspection.verdict import Inspection, judge, unchecked
from train.sealed import DIGEST, RECORD, digest

SAFETENSORS: Final = ".safetensors"
TORCH: Final = (".pt", ".pth", ".ckpt")
SUFFIXES: Final = (SAFETENSORS, *TORCH)
"""What checkpoints are called; ``.pth`` is also what Python calls lists of folders."""

_ZIP: Final = b"PK\x03\x04"
_PICKLE: Final = b"\x80"
_CODE: Final = re.compile(
    r"(?:Unsupported (?:global|class|operand)|Trying to (?:load|call)|Can only (?:create|build)).*"
)
"""How torch says in one line, amid advice to run the file after all, that it met code."""


def inspect_checkpoint(path: Path, stats: bool) -> Inspection:
    """Read and judge one checkpoint; a damaged file is a verdict, not an exception."""
    if path.is_dir():
        return Inspection(str(path), ("it is a folder, not a file",), refused=True)
    if path.is_symlink() and not path.exists():
        return Inspection(str(path), ("a link to a file that is not there",), refused=True)
    try:
        with path.open("rb") as stream:
            start = stream.read(4)
        if path.suffix == SAFETENSORS:
            return _inspect_safetensors(path, stats)
        if start and not start.startswith((_ZIP, _PICKLE)):
            return Inspection(str(path), ("not a torch file at all",), refused=True)
        return _inspect_torch(path, stats, archive=start == _ZIP)
    except GateError as error:
        return Inspection(str(path), (str(error),))
    except (OSError, MemoryError) as error:
        return unchecked(path, error)


class _Stored(Mapping[str, Tensor]):
    """Tensors of an open safetensors file, each read when it is asked for."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle
        self._names: list[str] = list(handle.keys())

    def __getitem__(self, name: str) -> Tensor:
        from safetensors import SafetensorError

        try:
            tensor: Tensor = self._handle.get_tensor(name)
        except SafetensorError as error:
            # The file is whole, or it would not have been opened: its type is not known here.
            raise UsageError(
                f"{name} cannot be looked into: {error}",
                fix="check it with a newer safetensors, or with the library that wrote it",
            ) from error
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _inspect_safetensors(path: Path, stats: bool) -> Inspection:
    """A file of ours is proven against its seal as well."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as handle:
            metadata: dict[str, str] = handle.metadata() or {}
            tensors = _Stored(handle)
            reasons = []
            if RECORD in metadata and DIGEST in metadata:
                reasons = _broken_seal(metadata, tensors)
            return judge(path, tensors, losses(metadata), stats=stats, reasons=reasons)
    except SafetensorError as error:
        raise GateError(f"not a complete safetensors file: {error}", fix="-") from error


def _broken_seal(metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> list[str]:
    if digest(metadata[RECORD], tensors) != metadata[DIGEST]:
        return ["it was altered after it was written"]
    try:
        record = json.loads(metadata[RECORD])
    except ValueError:
        return ["it has a record that is not JSON"]
    return [] if isinstance(record, dict) else ["it has a record that is not an object"]


def _inspect_torch(path: Path, stats: bool, *, archive: bool) -> Inspection:
    if archive:
        # First, since a flipped bit in the pickle can look like code.
        _require_checksums(path)
    try:
        with warnings.catch_warnings():
            # torch warns of pickle protocols it did not write; the verdict is ours to give.
            warnings.simplefilter("ignore", UserWarning)
            # Only archives can be mapped.
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=archive)
        tensors, recorded = flatten(content), list(losses(content))
    except (OSError, MemoryError):
        raise
    except RecursionError as error:
        raise GateError("it contains itself, or is nested too deeply", fix="-") from error
    except Exception as error:
        # Any type: a damaged pickle fails in as many ways as Python can.
        said = str(error).split("WeightsUnpickler error: ")[-1].strip() or type(error).__name__
        code = _CODE.search(said) if isinstance(error, pickle.UnpicklingError) else None
        if code is not None:
            reason = (
                "a pickle that needs code to be run: " + code[0].split(" was not an allowed")[0]
            )
        elif "TorchScript" in said:
            reason = "a TorchScript archive: a program, not a checkpoint"
        else:
            raise GateError(
                f"not a complete torch file: {said.splitlines()[0]}", fix="-"
            ) from error
        return Inspection(str(path), (reason,), refused=True)
    return judge(path, tensors, recorded, stats=stats)


def _require_checksums(path: Path) -> None:
    """Raise GateError naming the first part of a torch archive that is not what was saved.

    Torch can be told to save without checksums; they are all zero then, and prove nothing.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if not any(part.CRC for part in archive.infolist()):
                return
            damaged = archive.testzip()
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise GateError(f"not a complete torch file: {error}", fix="-") from error
    if damaged is not None:
        raise GateError(f"it was altered after it was written: {damaged}", fix="-")
