"""Anyone's .onnx: is every tensor in it finite, and can its scales be computed with?

`exporter.formats.onnx` checks what our own artefacts promise beyond that.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporter.formats.build import first_line, library, quiet
from exporter.formats.onnx_quantization import EXTRA
from swipe.errors import LoweringError
from train.inspection.losses import losses
from train.inspection.verdict import Inspection, judge

if TYPE_CHECKING:
    from exporter.inspection.onnx_tensors import StoredTensors


def inspect_onnx(path: Path, stats: bool) -> Inspection:
    """Read and judge one ONNX file; a damaged file is a verdict, not an exception.

    Raises:
        MissingError: onnx is not installed.
        OSError: the file cannot be read.
    """
    from exporter.inspection.onnx_tensors import StoredTensors

    onnx = library("onnx", EXTRA)
    data = path.read_bytes()
    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:  # noqa: BLE001 - protobuf's differ between its implementations
        return Inspection(str(path), (f"not a complete ONNX file: {first_line(error)}",))
    if not data or not model.ir_version:
        return Inspection(str(path), ("not a complete ONNX file: it holds no model",))
    wrong, odd = _structure(onnx, path)
    tensors = StoredTensors(onnx, model, path.parent)
    try:
        wrong += _unusable_scales(tensors)
        recorded = losses({entry.key: entry.value for entry in model.metadata_props})
        found = judge(path, tensors, recorded, stats=stats, reasons=wrong)
    except LoweringError as error:
        return Inspection(str(path), (*wrong, str(error)), warnings=tuple(odd))
    return replace(found, warnings=(*found.warnings, *odd))


def _structure(onnx: Any, path: Path) -> tuple[list[str], list[str]]:
    """What onnx.checker refuses, and what its stricter shape inference complains of."""
    try:
        with quiet():
            onnx.checker.check_model(str(path))
    except Exception as error:  # noqa: BLE001 - any type, and all mean the same
        return [f"onnx.checker: {first_line(error)}"], []
    try:
        with quiet():
            onnx.checker.check_model(str(path), full_check=True)
    except Exception as error:  # noqa: BLE001 - shape inference raises one that onnx hides
        # Sound models of other exporters fail here, so it proves nothing against the file.
        return [], [f"shape inference: {first_line(error)}"]
    return [], []


def _unusable_scales(tensors: StoredTensors) -> list[str]:
    """Scales that are zero, negative or denormal; NaN and Inf are reported with all others."""
    return [reason for name in sorted(tensors.scales) for reason in _faults(name, tensors[name])]


def _faults(name: str, scale: Any) -> Iterator[str]:
    import torch

    if not scale.is_floating_point() or not scale.numel():
        return
    # Below this the reciprocal overflows, or the value is flushed to zero.
    least = torch.finfo(scale.dtype).tiny
    smallest = float(scale.float().min())
    if math.isnan(smallest):
        return
    if smallest < 0:
        yield f"{name}: a negative scale, {smallest:.3g}"
    elif smallest == 0:
        yield f"{name}: a scale of zero"
    elif smallest < least:
        yield f"{name}: a denormal scale, {smallest:.3g}"
