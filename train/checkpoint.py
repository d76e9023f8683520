"""Checkpoints: one safetensors file that proves itself, and a JSON sidecar for people.

The record (contract, architecture, step, metrics) and a SHA-256 over record and tensors live in
the safetensors header, so a single atomic rename publishes a checkpoint and any flipped bit is
refused on load. The ``.json`` beside it repeats the record for readers and scripts; nothing loads
it. A checkpoint that holds NaN or Inf can be neither written nor read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from swipe.contract import ModelContract
from swipe.errors import CheckpointError, ConfigError, NonFiniteError, UsageError
from swipe.files import write_bytes_atomic, write_text_atomic
from train.finite import require_finite
from train.models import ModelSpec, build_model
from train.models.tcn import SwipeTcn

SCHEMA: Final = "swipe-export/checkpoint/1"
_RECORD: Final = "record"
_DIGEST: Final = "sha256"
_RETRAIN: Final = "use another checkpoint, or train again with swipe-train fit"


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """A trained model and everything needed to use it.

    Attributes:
        spec: the architecture.
        contract: what the model takes and gives.
        tensors: parameters and buffers by module path.
        step: optimizer steps taken.
        metrics: the evaluation that this checkpoint was chosen by.
        data: where the training and held-out swipes came from (see `train.swipe_task`).
    """

    spec: ModelSpec
    contract: ModelContract
    tensors: Mapping[str, Tensor]
    step: int
    metrics: Mapping[str, Any]
    data: Mapping[str, Any]

    def model(self) -> SwipeTcn:
        """The model in evaluation mode, with these weights.

        Raises:
            CheckpointError: the tensors do not fit the recorded architecture.
        """
        model = build_model(self.spec)
        try:
            model.load_state_dict(dict(self.tensors), strict=True)
        except RuntimeError as error:
            raise CheckpointError(
                f"the tensors do not fit the recorded architecture: {error}", fix=_RETRAIN
            ) from error
        return model.eval()

    def record(self) -> dict[str, Any]:
        """The JSON-ready description, without tensors."""
        return {
            "schema": SCHEMA,
            "model": self.spec.to_dict(),
            "contract": json.loads(self.contract.to_json()),
            "contract_id": self.contract.contract_id,
            "step": self.step,
            "metrics": dict(self.metrics),
            "data": dict(self.data),
        }

    @property
    def weights_sha256(self) -> str:
        """SHA-256 over names, types, shapes and bytes of the tensors."""
        return _digest("", self.tensors)


def save_checkpoint(checkpoint: Checkpoint, path: Path) -> None:
    """Write `path` (.safetensors) and its .json sidecar, each atomically.

    Raises:
        NonFiniteError: a tensor or a metric is NaN or Inf; nothing is written.
        UsageError: the folder cannot be written; the earlier checkpoint is untouched.
    """
    from safetensors.torch import save

    require_finite(
        checkpoint.tensors,
        where=f"before saving {path.name}",
        fix="lower the learning rate or look at the quarantined rows, and resume from the last "
        "good checkpoint",
    )
    try:
        record = json.dumps(checkpoint.record(), sort_keys=True, allow_nan=False)
    except ValueError as error:
        raise NonFiniteError(
            f"a metric of {path.name} is NaN or Inf", fix="look at the evaluation that gave it"
        ) from error
    digest = _digest(record, checkpoint.tensors)
    tensors = {name: t.detach().cpu().contiguous() for name, t in checkpoint.tensors.items()}
    write_bytes_atomic(path, save(tensors, {_RECORD: record, _DIGEST: digest}))
    sidecar = {**checkpoint.record(), "sha256": digest}
    write_text_atomic(path.with_suffix(".json"), json.dumps(sidecar, indent=2) + "\n")


def load_checkpoint(path: Path) -> Checkpoint:
    """Read and prove a checkpoint; a folder stands for its ``best.safetensors``.

    Raises:
        UsageError: there is no such file.
        CheckpointError: truncated, altered, foreign or of another schema.
        NonFiniteError: a tensor holds NaN or Inf.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    path = path / "best.safetensors" if path.is_dir() else path
    if not path.is_file():
        raise UsageError(
            f"no checkpoint {path}",
            fix="train one with 'make train', or name one with --checkpoint",
        )
    data = path.read_bytes()
    try:
        tensors: dict[str, Tensor] = load(data)
        length = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + length]).get("__metadata__", {})
    except (SafetensorError, ValueError) as error:
        raise CheckpointError(
            f"{path} is not a complete safetensors file: {error}", fix=_RETRAIN
        ) from error
    if _RECORD not in header or _DIGEST not in header:
        raise CheckpointError(f"{path} was not written by swipe-train", fix=_RETRAIN)
    require_finite(tensors, where=f"in {path}", fix=_RETRAIN)
    if _digest(header[_RECORD], tensors) != header[_DIGEST]:
        raise CheckpointError(f"{path} was altered after it was written", fix=_RETRAIN)
    return _from_record(json.loads(header[_RECORD]), tensors, path)


def _from_record(record: dict[str, Any], tensors: Mapping[str, Tensor], path: Path) -> Checkpoint:
    if record.get("schema") != SCHEMA:
        raise CheckpointError(
            f"{path} has schema {record.get('schema')!r}, this version reads {SCHEMA!r}",
            fix="use the version of swipe-export that wrote it, or train again",
        )
    try:
        contract = ModelContract.from_json(json.dumps(record["contract"]))
        spec = ModelSpec.from_dict(record["model"])
    except (ConfigError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} has an unusable record: {error}", fix=_RETRAIN) from error
    return Checkpoint(
        spec, contract, tensors, int(record["step"]), record["metrics"], record["data"]
    )


def _digest(record: str, tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(record.encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"\0{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
