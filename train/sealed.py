"""Sealed safetensors: tensors and a JSON record in one file that proves itself.

The record and a SHA-256 over record and tensors live in the safetensors header, so one atomic
rename publishes both, and any flipped bit is refused when the file is read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from swipe.errors import CheckpointError, NonFiniteError
from swipe.files import write_bytes_atomic
from train.finite import require_finite

RECORD: Final = "record"
DIGEST: Final = "sha256"


def write_sealed(
    path: Path, tensors: Mapping[str, Tensor], record: Mapping[str, Any], *, fix: str
) -> str:
    """Write `path` atomically; returns the digest.

    Raises:
        NonFiniteError: a tensor, or a number of the record, is NaN or Inf; nothing is written.
        UsageError: the folder cannot be written; the earlier file is untouched.
    """
    from safetensors.torch import save

    require_finite(tensors, where=f"before saving {path.name}", fix=fix)
    try:
        text = json.dumps(record, sort_keys=True, allow_nan=False)
    except ValueError as error:
        raise NonFiniteError(f"a figure recorded in {path.name} is NaN or Inf", fix=fix) from error
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    sealed = digest(text, whole)
    write_bytes_atomic(path, save(whole, {RECORD: text, DIGEST: sealed}))
    return sealed


def read_sealed(path: Path, *, fix: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The record and the tensors of `path`, after both were proven.

    Raises:
        CheckpointError: truncated, altered, or not written by `write_sealed`.
        NonFiniteError: a tensor holds NaN or Inf.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}", fix=fix) from error
    try:
        tensors: dict[str, Tensor] = load(data)
        length = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + length]).get("__metadata__") or {}
    except (SafetensorError, ValueError) as error:
        raise CheckpointError(
            f"{path} is not a complete safetensors file: {error}", fix=fix
        ) from error
    if RECORD not in header or DIGEST not in header:
        raise CheckpointError(f"{path} was not written by swipe-train", fix=fix)
    require_finite(tensors, where=f"in {path}", fix=fix)
    if digest(header[RECORD], tensors) != header[DIGEST]:
        raise CheckpointError(f"{path} was altered after it was written", fix=fix)
    try:
        record = json.loads(header[RECORD])
    except ValueError as error:
        raise CheckpointError(f"{path} has a record that is not JSON", fix=fix) from error
    if not isinstance(record, dict):
        raise CheckpointError(f"{path} has a record that is not an object", fix=fix)
    return record, tensors


def digest(record: str, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over a record's text and the names, types, shapes and bytes of tensors."""
    result = hashlib.sha256(record.encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        result.update(f"\0{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        result.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return result.hexdigest()
