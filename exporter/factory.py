"""``--model package.module:factory``: from the name to a proven `Exportable` with its weights.

Weights come from the factory itself, or from a file: a checkpoint of ours, a safetensors of anyone,
or a PyTorch file, of which nothing is ever run. What the file holds and what the network has must
be the same tensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from torch import Tensor

from exporter.adapter import Exportable
from exporter.proof import require_finite_weights
from exporter.provenance import portable
from swipe.errors import CheckpointError, SwipeError, UsageError
from train.assemble import load_factory
from train.checkpoint import load_weights
from train.inspection.files import SAFETENSORS, TORCH
from train.inspection.kinds import inspect_file
from train.runs import checkpoint_file
from train.sealed import RECORD

NESTED: Final = ("state_dict", "model_state_dict", "model")
"""Where training scripts put the weights in what they save."""


@dataclass(frozen=True, slots=True)
class Origins:
    """Where the weights come from, for the record.

    Attributes:
        step: optimizer steps taken; None where nobody wrote it down.
        metrics: of the checkpoint.
        label: one line for a person.
    """

    step: int | None
    metrics: Mapping[str, Any]
    label: str


def make_exportable(name: str) -> Exportable:
    """Call the factory that `name` names; the working directory counts as well.

    Raises:
        UsageError: it names no factory, cannot be imported or called without arguments, or gives
            something else.
    """
    try:
        factory = load_factory(name)
    except SwipeError:
        raise
    except (Exception, SystemExit) as error:
        # Any type: importing runs someone's code, and a script ends by itself, even with 0.
        raise _unusable(name, f"cannot be imported: {_described(error)}") from error
    if not callable(factory):
        raise _unusable(name, f"is a {type(factory).__name__} and cannot be called")
    try:
        made = factory()
    except SwipeError:
        raise
    except (Exception, SystemExit) as error:
        # Any type, as above; a factory that wants arguments raises TypeError.
        raise _unusable(name, f"cannot be called without arguments: {_described(error)}") from error
    if not isinstance(made, Exportable):
        raise _unusable(name, f"gives a {type(made).__name__}, not an Exportable")
    made.module.eval()
    return made


def load_exportable(name: str, weights: Path | None) -> tuple[Exportable, Origins]:
    """What the factory makes, with the `weights` of a file if one is given, proven finite.

    Raises:
        UsageError: as `make_exportable`, or there is no such file or no such kind of file.
        CheckpointError: the file is damaged, needs code, or holds other tensors than the network.
        NonFiniteError: a parameter or buffer holds NaN or Inf.
    """
    made = make_exportable(name)
    origins = Origins(None, {}, "weights of the factory itself")
    if weights is not None:
        origins = _load(checkpoint_file(weights), made)
    require_finite_weights(made)
    return made, origins


def _load(path: Path, made: Exportable) -> Origins:
    if path.suffix == SAFETENSORS and _is_ours(path):
        record = load_weights(path, made.module)
        return Origins(
            int(record["step"]),
            record["metrics"],
            f"{portable(str(path))}, step {record['step']:,}",
        )
    if path.suffix != SAFETENSORS and path.suffix not in TORCH:
        raise UsageError(
            f"{path} is of no kind that weights are read from",
            fix=f"use one of {SAFETENSORS}, {', '.join(TORCH)}",
        )
    # The inspector proves checksums, that no code is in it, and that every tensor is finite.
    found = inspect_file(path)
    if found.reasons or found.unchecked:
        raise CheckpointError(
            f"{path}: {'; '.join(found.reasons) or found.unchecked}",
            fix="save the network's state_dict() again, from weights that are finite",
        )
    tensors = _state_dict(path)
    try:
        made.module.load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        raise CheckpointError(
            f"{path} holds the weights of another model: {error}",
            fix="let the factory build the network that these weights were trained in",
        ) from error
    return Origins(None, {}, portable(str(path)))


def _is_ours(path: Path) -> bool:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as handle:
            return RECORD in (handle.metadata() or {})
    except SafetensorError as error:
        raise CheckpointError(
            f"{path} is not a complete safetensors file: {error}", fix="copy or save it again"
        ) from error


def _state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a file that was inspected before.

    Raises:
        CheckpointError: it is no state_dict, nor a mapping with one under a usual name.
    """
    if path.suffix == SAFETENSORS:
        from safetensors.torch import load_file

        tensors: dict[str, Tensor] = load_file(path)
        return tensors
    import torch

    content: Any = torch.load(path, map_location="cpu", weights_only=True)
    candidates = [content]
    if isinstance(content, Mapping):
        candidates += [content[key] for key in NESTED if key in content]
    for candidate in candidates:
        found = isinstance(candidate, Mapping) and bool(candidate)
        if found and all(isinstance(value, Tensor) for value in candidate.values()):
            return dict(candidate)
    held = sorted(map(str, content))[:8] if isinstance(content, Mapping) else type(content).__name__
    raise CheckpointError(
        f"{path} is no state_dict, it holds {held}",
        fix=f"save model.state_dict(), or a dictionary with it as {' or '.join(NESTED)}",
    )


def _described(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _unusable(name: str, reason: str) -> UsageError:
    return UsageError(
        f"{name} {reason}",
        fix="name a function without arguments that returns an exporter.adapter.Exportable",
    )
