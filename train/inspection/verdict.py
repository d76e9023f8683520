"""What is known of one file: VALID, INVALID or UNCHECKED, and how its tensors are judged.

INVALID is proven, UNCHECKED is not known: a file that could not be opened or for which a library
is missing has not been looked at, so nothing may be concluded of it, least of all that it can go.

One tensor is looked at at a time, in pieces, so that a file may be larger than the memory.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

import torch
from torch import Tensor

from swipe.errors import ExitCode, SwipeError
from train.finite import find_nonfinite
from train.inspection.losses import Recorded, absurd, named_like_a_loss
from train.sealed import digest

SUSPICIOUS_MAGNITUDE: Final = 1e4
"""Weights beyond this overflow float16 within a few layers."""
NOT_NEGATIVE: Final = ("running_var", "exp_avg_sq", "max_exp_avg_sq")
"""Last names of tensors whose square root is taken: a negative value becomes NaN in use."""
_PIECE: Final = 1 << 22
_NEWER: Final = "check it with a newer torch, or with the library that wrote it"

Verdict = Literal["VALID", "INVALID", "UNCHECKED"]


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
    """What is known of one file or folder.

    Attributes:
        path: where it lies.
        reasons: why it is INVALID; empty otherwise.
        warnings: what is odd but not wrong.
        unchecked: why it, or a part of it, could not be looked at.
        mend: what to do about `unchecked`.
        missing: `unchecked` because a library is not installed.
        refused: INVALID for what it is (a program, another kind of file) or records (the loss of a
            diverged run), while nothing in it is damaged or not finite.
        tensors: number of tensors.
        values: number of stored values in them.
        sha256: over names, types, shapes and bytes of the tensors; None when unreadable.
        architecture_sha256: over their names and shapes only, which the versions of one model
            share; None when unreadable.
        stats: of each floating-point tensor, empty unless asked for and finite.
    """

    path: str
    reasons: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    unchecked: str = ""
    mend: str = ""
    missing: bool = False
    refused: bool = False
    tensors: int = 0
    values: int = 0
    sha256: str | None = None
    architecture_sha256: str | None = None
    stats: tuple[TensorStats, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """One word; a proven fault outweighs a part that could not be looked at."""
        if self.reasons:
            return "INVALID"
        return "UNCHECKED" if self.unchecked else "VALID"

    @property
    def valid(self) -> bool:
        """Whether all of it was looked at and nothing speaks against it."""
        return self.verdict == "VALID"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready fields."""
        return {"verdict": self.verdict, "valid": self.valid, **asdict(self)}


def unchecked(path: Path, error: SwipeError | OSError | MemoryError | RuntimeError) -> Inspection:
    """The inspection of a file that could not be looked at, because of `error`."""
    if isinstance(error, SwipeError):
        missing = error.exit_code == ExitCode.MISSING
        return Inspection(str(path), unchecked=str(error), mend=error.fix, missing=missing)
    if isinstance(error, MemoryError):
        mend = "check it on a machine with more memory"
        return Inspection(str(path), unchecked="it does not fit into the memory", mend=mend)
    if isinstance(error, RuntimeError):
        return Inspection(str(path), unchecked=f"it cannot be judged: {_said(error)}", mend=_NEWER)
    reason = f"it cannot be read: {error.strerror or error}"
    return Inspection(str(path), unchecked=reason, mend="check its permissions, and the disk")


def judge(
    path: Path,
    tensors: Mapping[str, Tensor],
    recorded: Iterable[Recorded],
    *,
    stats: bool,
    reasons: Iterable[str] = (),
) -> Inspection:
    """Judge plain dense tensors (see `train.inspection.flatten`) and recorded losses.

    Args:
        path: the file they are from.
        tensors: by name; may load each one when it is asked for, and is walked twice.
        recorded: losses that the file records.
        stats: whether to add figures of each floating-point tensor.
        reasons: what is already known to be wrong.
    """
    against, odd = list(reasons), []
    damaged = bool(against)
    against += [f"recorded {name} is {value:g}" for name, value in recorded if absurd(value)]
    rows: list[TensorStats] = []
    unknown: list[str] = []
    values, floats, largest = 0, 0, 0.0
    bad, finite, whole = False, True, True
    shapes: list[tuple[str, list[int]]] = []
    for name, tensor in tensors.items():
        shapes.append((name, list(tensor.shape)))
        values += tensor.numel()
        if tensor.is_meta:
            against.append(f"{name} has a shape but no values (device meta)")
            whole = False
            continue
        if not tensor.numel() or not (tensor.is_floating_point() or tensor.is_complex()):
            continue
        try:
            low, high = _range(tensor)
        except RuntimeError as error:  # a type that torch stores, but has no arithmetic for
            kind = str(tensor.dtype).removeprefix("torch.")
            unknown.append(f"torch cannot compute with {name} of {kind}: {_said(error)}")
            whole = False
            continue
        floats += 1
        magnitude = max(-low, high)
        largest = max(largest, magnitude)
        # First, since the loss of a run not yet evaluated is Inf while its weights are sound.
        if tensor.ndim <= 1 and named_like_a_loss(name) and absurd(magnitude):
            against.append(f"recorded {name} is {magnitude:g}")
        elif not math.isfinite(magnitude):
            if not bad:  # the first one is named, the others are more of the same
                against.append(f"not finite: {find_nonfinite({name: tensor})}")
            bad = True
        elif tensor.ndim and magnitude > SUSPICIOUS_MAGNITUDE:  # a scalar is a step counter
            odd.append(f"{name} has values up to {magnitude:.3g}")
        if not math.isfinite(magnitude):
            finite = False
            continue
        if low < 0 and name.rpartition(".")[2] in NOT_NEGATIVE:
            odd.append(f"{name} has values down to {low:.3g}, and its square root is taken")
        if stats:
            rows.append(_stats(name, tensor, low, high))
    if not tensors:
        against.append("it holds no tensor")
    elif floats and not largest and finite:
        odd.append("every floating-point value in it is zero")
    return Inspection(
        path=str(path),
        reasons=tuple(against),
        warnings=tuple(odd),
        unchecked=unknown[0] if unknown else "",
        mend=_NEWER if unknown else "",
        refused=bool(against) and not damaged and not bad,
        tensors=len(tensors),
        values=values,
        sha256=digest("", tensors) if whole else None,
        architecture_sha256=hashlib.sha256(json.dumps(sorted(shapes)).encode()).hexdigest(),
        stats=tuple(sorted(rows, key=lambda row: row.name)) if finite else (),
    )


def _said(error: RuntimeError) -> str:
    """The first line of an error, since torch appends the trace of its own C++."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _range(tensor: Tensor) -> tuple[float, float]:
    """Least and greatest value; NaN when there is a NaN among them."""
    ends = [torch.stack(torch.aminmax(piece)) for piece in _pieces(tensor)]
    low, high = torch.aminmax(torch.stack(ends))
    return float(low), float(high)


def _stats(name: str, tensor: Tensor, low: float, high: float) -> TensorStats:
    """Mean and deviation are taken of values scaled to one, whose squares cannot overflow."""
    scale = max(-low, high) or 1.0
    count = sum(piece.numel() for piece in _pieces(tensor))
    scaled = (piece.double() / scale for piece in _pieces(tensor))
    mean = sum(float(piece.sum()) for piece in scaled) / count
    scaled = (piece.double() / scale for piece in _pieces(tensor))
    square = sum(float((piece - mean).square().sum()) for piece in scaled)
    return TensorStats(
        name=name,
        dtype=str(tensor.dtype).removeprefix("torch."),
        shape=tuple(tensor.shape),
        minimum=low,
        maximum=high,
        mean=mean * scale,
        std=math.sqrt(square / count) * scale,
    )


def _pieces(tensor: Tensor) -> Iterator[Tensor]:
    """The values in pieces, real and of a type that torch can compute with."""
    real = torch.view_as_real(tensor) if tensor.is_complex() else tensor
    for piece in torch.split(real.reshape(-1), _PIECE):
        # float8 and complex32's halves have no arithmetic of their own.
        yield piece if piece.dtype in (torch.float32, torch.float64) else piece.float()
