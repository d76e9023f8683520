"""The vocabulary every format module shares: the job it gets, the runner it gives, its five verbs.

A format module (`onnx`, `executorch`, `coreml`) is the only place that imports its heavy library,
and does so inside functions: importing `exporter.formats` and its modules costs nothing. Each
module satisfies `Format`, so adding a backend is adding one module.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

Runner = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""Features ``float32[1, 2, 64]`` -> logits ``float32[1, 32, K + 1]``."""


@dataclass(frozen=True, slots=True)
class Lowering:
    """One model to lower: what every format needs to know, and nothing format-specific.

    The shapes below are those of the swipe model; any static-shape module with one float32 input
    and one float32 output fits, as the artefact takes its shapes from `example`.

    Attributes:
        module: in eval mode, every parameter and buffer finite.
        example: one input, ``float32[1, 2, 64]``; its shape becomes the artefact's.
        calibration: real inputs ``float32[N, 2, 64]`` that static quantization measures ranges on.
        metadata: embedded in the artefact, e.g. contract_id, alphabet, the contract's JSON.
        input_name: what the artefact calls its input.
        output_name: what the artefact calls its output.
    """

    module: torch.nn.Module
    example: NDArray[np.float32]
    calibration: NDArray[np.float32]
    metadata: Mapping[str, str]
    input_name: str = "features"
    output_name: str = "logits"


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
