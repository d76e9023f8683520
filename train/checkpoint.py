"""Checkpoints: one sealed safetensors file, and a JSON sidecar for people.

The record (architecture, contract, step, metrics) is sealed into the file with the tensors. The
``.json`` beside it repeats the record for readers and scripts; nothing loads it. A checkpoint that
holds NaN or Inf can be neither written nor read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from torch import Tensor, nn

from swipe.contract import FEATURE_RECIPE, FRAMES, POINTS, ModelContract
from swipe.errors import CheckpointError, ConfigError
from swipe.files import write_text_atomic
from train.models import SwipeModel, TcnSpec, TransformerSpec, build_model, spec_from_dict
from train.runs import checkpoint_file
from train.sealed import digest, read_sealed, write_sealed
from train.task import Saveable

SCHEMA: Final = "swipe-export/checkpoint/1"
MODEL_SCHEMA: Final = "swipe-export/model/1"
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

    spec: TcnSpec | TransformerSpec
    contract: ModelContract
    tensors: Mapping[str, Tensor]
    step: int
    metrics: Mapping[str, Any]
    data: Mapping[str, Any]

    def model(self) -> SwipeModel:
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
        return digest("", self.tensors)


@dataclass(frozen=True, slots=True, eq=False)
class ModelCheckpoint:
    """Weights of anyone's model, and what builds the module they belong to.

    Attributes:
        factory: ``"package.module:callable"`` that returns the module; a record, never imported.
        options: its keyword arguments.
        tensors: parameters and buffers by module path.
        step: optimizer steps taken.
        metrics: the evaluation that this checkpoint was chosen by.
    """

    factory: str
    options: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    step: int
    metrics: Mapping[str, Any]

    def record(self) -> dict[str, Any]:
        """The JSON-ready description, without tensors."""
        return {
            "schema": MODEL_SCHEMA,
            "factory": self.factory,
            "options": dict(self.options),
            "step": self.step,
            "metrics": dict(self.metrics),
        }


def load_model_checkpoint(path: Path) -> ModelCheckpoint:
    """Read and prove weights of anyone's model; nothing that the record names is imported.

    Raises:
        UsageError: there is no such file.
        CheckpointError: truncated, altered or of another kind.
        NonFiniteError: a tensor holds NaN or Inf.
    """
    record, tensors = _read(path, MODEL_SCHEMA)
    try:
        return ModelCheckpoint(
            factory=str(record["factory"]),
            options=dict(record["options"]),
            tensors=tensors,
            step=int(record["step"]),
            metrics=dict(record["metrics"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} has an unusable record: {error!r}", fix=_RETRAIN) from error


def copy_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers of `model` by module path, copied to the CPU."""
    return {n: t.detach().to("cpu", copy=True) for n, t in model.state_dict().items()}


def load_weights(path: Path, model: nn.Module) -> dict[str, Any]:
    """Put the weights of a `ModelCheckpoint` into `model`; returns the checkpoint's record.

    Raises:
        UsageError: there is no such file.
        CheckpointError: truncated, altered, of another kind, or of another architecture.
        NonFiniteError: a tensor holds NaN or Inf.
    """
    record, tensors = _read(path, MODEL_SCHEMA)
    try:
        model.load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        raise CheckpointError(
            f"{path} holds the weights of another model: {error}",
            fix=f"build it with {record['factory']} and {record['options']}",
        ) from error
    return record


def _read(path: Path, schema: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Record and tensors of a checkpoint that has to be of one kind."""
    path = checkpoint_file(path)
    record, tensors = read_sealed(path, fix=_RETRAIN)
    if record.get("schema") != schema:
        raise CheckpointError(
            f"{path} has schema {record.get('schema')!r}, this version reads {schema!r} here",
            fix="name a checkpoint of this kind of model, written by this version, or train again",
        )
    return record, tensors


def save_checkpoint(checkpoint: Saveable, path: Path) -> None:
    """Write `path` (.safetensors) and its .json sidecar, each atomically.

    Raises:
        NonFiniteError: a tensor or a metric is NaN or Inf; nothing is written.
        UsageError: the folder cannot be written; the earlier checkpoint is untouched.
    """
    record = checkpoint.record()
    sealed = write_sealed(
        path,
        checkpoint.tensors,
        record,
        fix="lower the learning rate or look at the quarantined rows, and resume from the last "
        "good checkpoint",
    )
    sidecar = json.dumps({**record, "sha256": sealed}, indent=2)
    write_text_atomic(path.with_suffix(".json"), sidecar + "\n")


def load_checkpoint(path: Path) -> Checkpoint:
    """Read and prove a checkpoint; a folder stands for its ``best.safetensors``.

    Raises:
        UsageError: there is no such file.
        CheckpointError: truncated, altered, foreign, of another schema or feature recipe.
        NonFiniteError: a tensor holds NaN or Inf.
    """
    record, tensors = _read(path, SCHEMA)
    try:
        contract = ModelContract.from_json(json.dumps(record["contract"]))
        checkpoint = Checkpoint(
            spec=spec_from_dict(record["model"]),
            contract=contract,
            tensors=tensors,
            step=int(record["step"]),
            metrics=dict(record["metrics"]),
            data=dict(record["data"]),
        )
    except (ConfigError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} has an unusable record: {error!r}", fix=_RETRAIN) from error
    if (contract.features, contract.points, contract.frames) != (FEATURE_RECIPE, POINTS, FRAMES):
        raise CheckpointError(
            f"{path} wants features {contract.features!r} of {contract.points} points for "
            f"{contract.frames} frames; this version makes {FEATURE_RECIPE!r}, {POINTS}, {FRAMES}",
            fix="use the version of swipe-export that wrote it, or train again",
        )
    return checkpoint
