"""The vocabulary every format module shares: the job it gets, the runner it gives, its five verbs.

A format module (`onnx`, `executorch`, `coreml`) is the only place that imports its heavy library,
and does so inside functions: importing `exporter.formats` and its modules costs nothing. Each
module satisfies `Format`, so adding a backend is adding one module.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

Inputs = Mapping[str, NDArray[Any]]
"""One call: arrays with a batch of one (float32, or int64 such as lengths) by name, in the module's
order."""

Runner = Callable[..., NDArray[np.float32]]
"""An artefact's inputs, in order, as in `Inputs` -> its one output, float32 with a batch of one."""


@dataclass(frozen=True, slots=True)
class Axis:
    """A dimension that differs from call to call.

    Attributes:
        name: the same name, the same size: two inputs may share an axis.
        least: smallest size.
        most: largest size; memory on a phone is planned for it.
    """

    name: str
    least: int
    most: int


@dataclass(frozen=True, slots=True)
class Lowering:
    """One model to lower: what every format needs to know, and nothing format-specific.

    Attributes:
        module: in eval mode, every parameter and buffer finite; gives one float tensor.
        example: one call; its shapes become the artefact's, except along `dynamic` axes.
        calibration: real calls that static quantization measures ranges on.
        metadata: embedded in the artefact, e.g. contract_id, alphabet, the contract's JSON.
        output_name: what the artefact calls its output.
        float_inputs: inputs that a host sets once and not for each call, such as the keyboard:
            whatever they reach computes in float32 on every rung.
        dynamic: the axes that vary, by input name and dimension.
        float_layers: layers that stay float on quantized rungs, by the names that the format's
            `Format.layers` gives them.
    """

    module: torch.nn.Module
    example: Inputs
    calibration: Sequence[Inputs]
    metadata: Mapping[str, str]
    output_name: str = "logits"
    float_inputs: frozenset[str] = frozenset()
    dynamic: Mapping[str, Mapping[int, Axis]] = field(default_factory=dict)
    float_layers: frozenset[str] = frozenset()


def calls_of(
    rows: NDArray[Any], context: Inputs = MappingProxyType({}), *, name: str = "features"
) -> list[Inputs]:
    """One call for each of `rows`, each with the same `context` after it."""
    # Slices, not row[None]: its stride of 0 is one that ExecuTorch refuses.
    return [{name: rows[i : i + 1], **context} for i in range(len(rows))]


class Format(Protocol):
    """What each format module offers, as module-level names.

    Artefacts are replaced in one step: after a failed build the earlier artefact is untouched.
    """

    @property
    def RUNGS(self) -> tuple[str, ...]:  # noqa: N802 - a module constant, hence upper case
        """The rungs `quantize` can build, smallest artefact first."""

    def lower(self, job: Lowering, path: Path) -> None:
        """Write the float32 artefact to `path`.

        Raises:
            LoweringError: the module cannot be expressed in this format.
            MissingError: the format's library is not installed.
        """

    def quantize(self, job: Lowering, path: Path, rung: str) -> None:
        """Write the artefact of `rung` to `path`.

        Raises:
            UsageError: this format has no such rung.
            LoweringError: it cannot be built, or nothing in it was quantized.
            MissingError: the format's library is not installed.
        """

    def load(self, path: Path, threads: int = 1) -> Runner:
        """Open the artefact at `path` for execution on this machine with `threads` CPU threads.

        Raises:
            LoweringError: it cannot be loaded or executed; the runner raises it as well.
            MissingError: the format's library is not installed or cannot execute here.
        """

    def inspect(self, path: Path) -> dict[str, object]:
        """Facts read from the artefact's structure, all JSON types, without executing it.

        Raises:
            LoweringError: the artefact is damaged or fails a structural check.
            MissingError: the format's library is not installed.
        """

    def metadata(self, path: Path) -> dict[str, str]:
        """The metadata `lower` or `quantize` embedded.

        Raises:
            LoweringError: the artefact is damaged or holds no metadata.
            MissingError: the format's library is not installed.
        """
