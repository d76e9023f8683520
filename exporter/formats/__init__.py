"""The vocabulary every format module shares: the job it gets, the runner it gives, its five verbs.

A format module (`onnx`, `executorch`, `coreml`) is the only place that imports its heavy library,
and does so inside functions: importing `exporter.formats` and its modules costs nothing. Each
module satisfies `Format`, so adding a backend is adding one module.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

Runner = Callable[..., NDArray[np.float32]]
"""An artefact's inputs, in order, each float32 with a batch of one -> its output."""


@dataclass(frozen=True, slots=True)
class Lowering:
    """One model to lower: what every format needs to know, and nothing format-specific.

    The shapes below are those of the swipe model; any static-shape module of float32 inputs and
    one float32 output fits, as the artefact takes its shapes from `example` and `context`.

    Attributes:
        module: in eval mode, every parameter and buffer finite.
        example: one input, ``float32[1, 2, 64]``; its shape becomes the artefact's.
        calibration: real inputs ``float32[N, 2, 64]`` that static quantization measures ranges on.
        metadata: embedded in the artefact, e.g. contract_id, alphabet, the contract's JSON.
        input_name: what the artefact calls its first input.
        output_name: what the artefact calls its output.
        context: the module's further inputs by name, in order: what a host sets once and not for
            each swipe, such as the keyboard, ``float32[1, ...]``. Calibration leaves them as they
            are here, and whatever they reach computes in float32 on every rung.
    """

    module: torch.nn.Module
    example: NDArray[np.float32]
    calibration: NDArray[np.float32]
    metadata: Mapping[str, str]
    input_name: str = "features"
    output_name: str = "logits"
    context: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)

    @property
    def inputs(self) -> dict[str, NDArray[np.float32]]:
        """One call's inputs by name, in the module's order."""
        return {self.input_name: self.example, **self.context}


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
