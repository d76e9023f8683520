"""Checkpoints in the wild: is this file fit to be trained from, exported or shipped?

Reads ``.safetensors`` (ours and others') and ``.pt``, ``.pth``, ``.ckpt`` (weights only: a pickle
that needs code is refused, never run), with optimizer states and recorded losses inside. A file is
INVALID when it cannot be read whole, holds a value that is not finite or no tensor at all, or
records a loss that no trained model has.

What it leaves out: whether the weights are any good.
"""

from __future__ import annotations

import json
import math
import pickle
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from swipe.errors import GateError, UsageError
from train.finite import find_nonfinite
from train.sealed import DIGEST, RECORD, digest, read_sealed

SUFFIXES: Final = (".safetensors", ".pt", ".pth", ".ckpt")
ABSURD_LOSS: Final = 1e6
"""A recorded loss beyond this is a diverged run, whatever its task."""
SUSPICIOUS_MAGNITUDE: Final = 1e4
"""Weights beyond this overflow float16 within a few layers."""


@dataclass(frozen=True, slots=True)
class TensorStats:
    """One floating-point tensor in numbers."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    minimum: float
    maximum: float
    mean: float
    std: float


@dataclass(frozen=True, slots=True)
class Inspection:
    """What is known of one file.

    Attributes:
        path: the file.
        reasons: why it is INVALID; empty when it is VALID.
        warnings: what is odd but not wrong.
        tensors: number of tensors.
        values: number of values in them.
        sha256: over names, types, shapes and bytes of the tensors; None when unreadable.
        stats: of each floating-point tensor, empty unless asked for and finite.
    """

    path: str
    reasons: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    tensors: int = 0
    values: int = 0
    sha256: str | None = None
    stats: tuple[TensorStats, ...] = ()

    @property
    def valid(self) -> bool:
        """Whether nothing speaks against the file."""
        return not self.reasons

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready fields."""
        return {"valid": self.valid, **asdict(self)}


def find_checkpoints(folder: Path) -> list[Path]:
    """All checkpoint files below `folder`, sorted; leftovers of interrupted writes are none.

    Raises:
        UsageError: there is no such folder, or no checkpoint in it.
    """
    found = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix in SUFFIXES and path.is_file() and not path.name.startswith(".")
    )
    if not found:
        raise UsageError(
            f"no checkpoint below {folder}", fix=f"look for {', '.join(SUFFIXES)} elsewhere"
        )
    return found


def inspect_file(path: Path, *, stats: bool = False) -> Inspection:
    """Read and judge one file; a damaged file is a verdict, not an exception.

    Raises:
        UsageError: there is no such file, or it is of a kind that holds no checkpoint.
    """
    if not path.is_file() or path.suffix not in SUFFIXES:
        raise UsageError(f"no checkpoint {path}", fix=f"name a file of {', '.join(SUFFIXES)}")
    try:
        read = _read_safetensors if path.suffix == ".safetensors" else _read_torch
        tensors, numbers = read(path)
    except GateError as error:
        return Inspection(str(path), (str(error),))
    reasons = [f"recorded {name} is {value:g}" for name, value in numbers if _absurd(value)]
    if not tensors:
        reasons.append("it holds no tensor")
    bad = find_nonfinite(tensors)
    if bad is not None:
        reasons.append(f"not finite: {bad}")
    floats = {n: t for n, t in sorted(tensors.items()) if t.is_floating_point() and t.numel()}
    odd = [
        f"{name} has values up to {largest:.3g}"
        for name, tensor in floats.items()
        if tensor.ndim  # a scalar is a step counter
        and math.isfinite(largest := float(tensor.abs().max()))
        and largest > SUSPICIOUS_MAGNITUDE
    ]
    return Inspection(
        path=str(path),
        reasons=tuple(reasons),
        warnings=tuple(odd),
        tensors=len(tensors),
        values=sum(tensor.numel() for tensor in tensors.values()),
        sha256=digest("", tensors),
        stats=tuple(_stats(n, t) for n, t in floats.items()) if stats and bad is None else (),
    )


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], list[tuple[str, float]]]:
    """Tensors and recorded losses; a file of ours is proven against its seal as well."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    data = path.read_bytes()
    try:
        tensors: dict[str, Tensor] = load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        metadata = header.get("__metadata__") or {}
    except (SafetensorError, ValueError) as error:
        raise GateError(f"not a complete safetensors file: {error}", fix="-") from error
    numbers: list[tuple[str, float]] = list(_losses(metadata))
    if RECORD in metadata and DIGEST in metadata and find_nonfinite(tensors) is None:
        record, _ = read_sealed(path, fix="-")
        numbers += list(_losses(record))
    return tensors, numbers


def _read_torch(path: Path) -> tuple[dict[str, Tensor], list[tuple[str, float]]]:
    try:
        with warnings.catch_warnings():
            # torch warns of pickle protocols it did not write; the verdict is ours to give.
            warnings.simplefilter("ignore", UserWarning)
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        detail = str(error).split("WeightsUnpickler error: ")[-1].splitlines()[0].strip()
        raise GateError(f"a pickle that needs code to be run: {detail}", fix="-") from error
    except (EOFError, OSError, RuntimeError, ValueError, zipfile.BadZipFile) as error:
        detail = (str(error) or type(error).__name__).splitlines()[0]
        raise GateError(f"not a complete torch file: {detail}", fix="-") from error
    return dict(_tensors(content)), list(_losses(content))


def _tensors(content: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """All tensors of a nested structure, by dotted path."""
    if isinstance(content, Tensor):
        yield name or "tensor", content
    elif isinstance(content, Mapping):
        for key, value in content.items():
            yield from _tensors(value, f"{name}.{key}" if name else str(key))
    elif isinstance(content, list | tuple):
        for index, value in enumerate(content):
            yield from _tensors(value, f"{name}.{index}" if name else str(index))


def _losses(content: Any, name: str = "") -> Iterator[tuple[str, float]]:
    """Numbers of a nested structure whose name says that they are losses."""
    if isinstance(content, Mapping):
        for key, value in content.items():
            yield from _losses(value, f"{name}.{key}" if name else str(key))
    elif isinstance(content, list | tuple):
        for index, value in enumerate(content):
            yield from _losses(value, f"{name}.{index}")
    elif isinstance(content, int | float | str) and "loss" in name.lower():
        try:
            yield name, float(content)
        except ValueError:
            return


def _absurd(value: float) -> bool:
    return not abs(value) <= ABSURD_LOSS


def _stats(name: str, tensor: Tensor) -> TensorStats:
    values = tensor.double()
    return TensorStats(
        name=name,
        dtype=str(tensor.dtype).removeprefix("torch."),
        shape=tuple(tensor.shape),
        minimum=float(values.min()),
        maximum=float(values.max()),
        mean=float(values.mean()),
        std=float(values.std(correction=0)),
    )
