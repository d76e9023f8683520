"""The vocabulary every format module shares: the job it gets, the runner it gives, its verbs.

A format module (`onnx`, `executorch`, `coreml`) is the only place that imports its heavy library,
and does so inside functions: importing `exporter.formats` and its modules costs nothing. Each
module satisfies `Format`, so adding a backend is adding one module.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

Inputs = Mapping[str, NDArray[Any]]
"""One call: arrays with a batch of one (float32, or int64 such as lengths) by name, in the module's
order."""

Runner = Callable[..., NDArray[np.float32]]
"""An artefact's inputs, in order, as in `Inputs` -> its one output, float32 with a batch of one."""


@runtime_checkable
class Speaker(Protocol):
    """The runner of an artefact that writes text as well, see `Spelling`."""

    def __call__(self, *inputs: NDArray[Any]) -> NDArray[np.float32]:
        """The numbers, as every `Runner` gives them."""

    def speak(self, *inputs: NDArray[Any]) -> str:
        """The text for the same inputs."""


@dataclass(frozen=True, slots=True)
class Spelling:
    """Text that an artefact writes besides its output, CTC scores ``[1, T, K + 1]``, blank last.

    Attributes:
        letters: what each class but the blank writes.
        name: what the artefact calls the text, a string[1].
    """

    letters: tuple[str, ...]
    name: str = "text"


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
        float_layers: layers that stay float on quantized rungs, by their names in
            `Format.layers`.
        spelling: the text to write besides the output, in a format that has strings; others
            refuse it with a UsageError.
    """

    module: torch.nn.Module
    example: Inputs
    calibration: Sequence[Inputs]
    metadata: Mapping[str, str]
    output_name: str = "logits"
    float_inputs: frozenset[str] = frozenset()
    dynamic: Mapping[str, Mapping[int, Axis]] = field(default_factory=dict)
    float_layers: frozenset[str] = frozenset()
    spelling: Spelling | None = None


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
        """The rungs `quantize` can build, best first."""

    def lower(self, job: Lowering, path: Path) -> None:
        """Write the float32 artefact to `path`.

        Raises:
            UsageError: `Lowering.dynamic` does not fit the example.
            LoweringError: the module cannot be expressed in this format, or not with its dynamic
                axes; these are named.
            MissingError: the format's library is not installed.
        """

    def quantize(self, job: Lowering, path: Path, rung: str) -> None:
        """Write the artefact of `rung` to `path`.

        Raises:
            UsageError: this format has no such rung, the model has no such layer as one in
                `Lowering.float_layers`, or `Lowering.dynamic` does not fit the example.
            LoweringError: it cannot be built, or nothing in it was quantized.
            MissingError: the format's library is not installed.
        """

    def layers(self, job: Lowering, rung: str) -> tuple[str, ...]:
        """The layers that `quantize` would quantize on `rung`, in model order.

        A layer is a torch module, called by its path, e.g. "blocks.0.mix"; an operator that is in
        no sub-module is called by its own name in the graph. The same job has the same names at
        every call. `Lowering.float_layers` takes these names, and those of layers that other rungs
        quantize; what it holds is not in the answer.

        Raises:
            UsageError, LoweringError, MissingError: as for `quantize`; a rung that would quantize
                nothing gives an empty answer here.
        """

    def load(self, path: Path, threads: int = 1) -> Runner:
        """Open the artefact at `path` for execution on this machine with `threads` CPU threads.

        Raises:
            LoweringError: it cannot be loaded or executed; the runner raises it as well.
            MissingError: the format's library is not installed or cannot execute here.
        """

    def inspect(self, path: Path) -> dict[str, object]:
        """Facts read from the artefact's structure, all JSON types, without executing it.

        All formats have these:

        * ``inputs``, ``outputs``: shapes by name, or by position where a format has no names. A
          size that varies is a string of its axis and bounds, e.g. ``[1, 35, "T:4..200"]``; for an
          output it may be an expression, e.g. ``"T//2:2..100"``. The artefact's metadata declares
          them, and `inspect` refuses a file whose structure says otherwise.
        * ``quantized``, ``quantized_layers``, ``float_layers``: whether a layer has int8 weights,
          how many have, and how many have not.
        * ``weights``: how many constant numbers are stored, by type, e.g. ``{"int8": 9216}``.
        * ``size_bytes``.

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
