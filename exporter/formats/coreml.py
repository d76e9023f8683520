"""Core ML: an ML Program ``.mlpackage`` for iOS 17 and macOS 14, in float32, float16 or int8.

Built anywhere. Core ML itself runs on macOS only; elsewhere the package is executed by our own
reference interpreter (`exporter.mil`), which reads nothing but the file. `inspect` reads every
weight back. Known silent errors of the converter are refused here or kept out by construction (see
`_refuse_masked_attention`, `_runs_in_float16`).

The package is rewritten after saving: coremltools gives it random identifiers and a date, and two
builds of one model must be the same bytes.
"""

from __future__ import annotations

import json
import platform
import uuid
from collections import Counter
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from exporter.formats import Axis, Lowering, Runner
from exporter.formats.axes import Shape, declaration, declared, read
from exporter.formats.build import known_rung, library, quiet, refuse_text, staged, unusable
from exporter.formats.coreml_conversion import (
    EXTRA,
    Converted,
    convert,
    gives_float16,
    is_layer,
    reduced_paths,
)
from exporter.formats.program import execute_at_extremes
from swipe.errors import LoweringError
from swipe.files import size_bytes

RUNGS: Final = ("int8", "fp16")
STORED_TYPES: Final = ("float32", "float16", "int8", "uint8")
FOREIGN_METADATA: Final = "com.github.apple.coremltools."
SPECIFICATION: Final = Path("Data", "com.apple.CoreML", "model.mlmodel")
WEIGHTS: Final = Path("Data", "com.apple.CoreML", "weights")
OLDEST_SYSTEMS: Final = {
    7: {"ios": "16", "macos": "13"},
    8: {"ios": "17", "macos": "14"},
    9: {"ios": "18", "macos": "15"},
}
"""The first systems that read each specification version; we write the one for iOS 17."""
DEBUG_FILE: Final = "executorch_debug_handle_mapping.json"


def lower(job: Lowering, path: Path) -> None:
    """Write the package computing in float32; see `exporter.formats.Format.lower`."""
    _save(convert(job, "fp32"), job, path, "fp32")


def quantize(job: Lowering, path: Path, rung: str) -> None:
    """Write the package of `rung`; see `exporter.formats.Format.quantize`.

    ``fp16`` computes in float16 from the first layer on; its `Lowering.float_layers` compute in
    float32. ``int8`` computes like ``fp16``, and stores weights in int8 per channel; its
    `Lowering.float_layers` keep float16 weights. Activations are never int8, as calibrating them
    needs macOS.
    """
    known_rung(rung, RUNGS, "Core ML")
    _save(convert(job, rung), job, path, rung)


def layers(job: Lowering, rung: str) -> tuple[str, ...]:
    """The layers that `rung` would quantize; see `exporter.formats.Format.layers`."""
    known_rung(rung, RUNGS, "Core ML")
    return reduced_paths(convert(job, rung), rung)


def runtime() -> str:
    """What `load` executes packages in on this machine: "Core ML" or "reference interpreter"."""
    return "Core ML" if platform.system() == "Darwin" else "reference interpreter"


def load(path: Path, threads: int = 1) -> Runner:
    """Open `path` in Core ML on the CPU, and off macOS in our own reference interpreter.

    The interpreter computes what the package's operations are defined to, not what Apple's kernels
    make of them; `runtime` says which of the two it is. See `exporter.formats.Format.load`.
    `threads` is accepted for symmetry and has no effect: Core ML chooses its threads itself, and
    the interpreter runs on those that torch has in this process.
    """
    return load_core_ml(path) if runtime() == "Core ML" else load_reference(path)


def load_core_ml(path: Path) -> Runner:
    """`load` in Core ML, macOS only."""
    coremltools = library("coremltools", EXTRA)
    try:
        with quiet():
            model = coremltools.models.MLModel(
                str(path), compute_units=coremltools.ComputeUnit.CPU_ONLY
            )
            description = model.get_spec().description
    except Exception as error:
        # Any type: the bindings raise bare RuntimeErrors and protobuf's own.
        raise unusable(path, "cannot be loaded", error, "coreml") from error
    sources, target = [value.name for value in description.input], description.output[0].name

    def run(*inputs: NDArray[Any]) -> NDArray[np.float32]:
        given = dict(zip(sources, map(_without_int64, inputs), strict=True))
        try:
            outputs = model.predict(given)
        except Exception as error:
            raise unusable(path, "cannot be executed", error, "coreml") from error
        return np.asarray(outputs[target], dtype=np.float32)

    return run


def load_reference(path: Path) -> Runner:
    """`load` in the reference interpreter, on any machine."""
    from exporter.mil import Interpreter

    interpreter = Interpreter.open(path)
    features, target = interpreter.inputs, interpreter.outputs[0].name

    def run(*inputs: NDArray[Any]) -> NDArray[np.float32]:
        if len(inputs) != len(features):
            raise LoweringError(
                f"{path.name} takes {len(features)} inputs and got {len(inputs)}",
                fix=f"pass {', '.join(feature.name for feature in features)}, in that order",
            )
        given = {
            feature.name: _without_int64(value)
            for feature, value in zip(features, inputs, strict=True)
        }
        return np.asarray(interpreter.run(given)[target], dtype=np.float32)

    return run


def _without_int64(value: NDArray[Any]) -> NDArray[Any]:
    """`value` as Core ML takes it: lengths are int32 there."""
    return value.astype(np.int32) if value.dtype == np.int64 else value


def inspect(path: Path) -> dict[str, object]:
    """Facts of the program, every weight read back; see `exporter.formats.Format.inspect`."""
    specification = _read(path)
    if specification.WhichOneof("Type") != "mlProgram":
        raise _malformed(path, f"its type is {specification.WhichOneof('Type')}")
    description = specification.description
    program = _operations(path, specification)
    operations = [operation for operation in program if operation.op_type != "const"]
    operators = Counter(operation.op_type for operation in operations)
    if operators["inverse"]:
        raise _malformed(path, "it computes 1/x as 1/(x + 1e-4): write a division instead")
    int8 = sum(count for kind, count in operators.items() if kind.startswith("constexpr_"))
    return {
        "type": "mlProgram",
        "specification_version": specification.specificationVersion,
        "inputs": _shapes(path, description, "input"),
        "outputs": _shapes(path, description, "output"),
        "operators": dict(sorted(operators.items())),
        "float16_operators": sum(gives_float16(operation) for operation in operations),
        "quantized": int8 > 0,
        "quantized_layers": int8,
        "float_layers": sum(is_layer(operation, "const") for operation in operations),
        "weights": _census(program),
        "size_bytes": size_bytes(path),
        "minimum_runtime": OLDEST_SYSTEMS.get(specification.specificationVersion),
    }


def metadata(path: Path) -> dict[str, str]:
    """The package's user-defined metadata; see `exporter.formats.Format.metadata`."""
    ours = _metadata(_read(path).description)
    if not ours:
        raise _malformed(path, "it holds no metadata")
    return ours


def _metadata(description: Any) -> dict[str, str]:
    entries = sorted(description.metadata.userDefined.items())
    return {key: value for key, value in entries if not key.startswith(FOREIGN_METADATA)}


def _save(converted: Converted, job: Lowering, path: Path, rung: str) -> None:
    refuse_text(job, "Core ML")
    with staged(path) as new:
        with quiet():
            converted.model.save(str(new))
        _normalize(new, declaration(job, *converted.shapes))
        facts = inspect(new)
        if job.dynamic:
            execute_at_extremes(load(new), job, "Core ML")
        if rung == "int8" and not facts["quantized"]:
            raise LoweringError(
                "int8 quantization changed nothing: no weight is large enough",
                fix="ship the fp16 artefact of this model",
            )
        # Not the operators: the relus of float32 layers are in float16 too.
        if rung == "fp16" and not reduced_paths(converted, rung):
            raise LoweringError(
                "fp16 quantization changed nothing: no layer computes in float16",
                fix="ship the float32 artefact of this model",
            )


def _normalize(package: Path, metadata: dict[str, str]) -> None:
    """Give `package` our `metadata`, and identifiers that depend on its content only."""
    (package / DEBUG_FILE).unlink(missing_ok=True)
    specification = _read(package)
    entries = specification.description.metadata.userDefined
    entries.pop(f"{FOREIGN_METADATA}conversion_date", None)
    entries.update(metadata)
    # Maps have no order of their own.
    content = specification.SerializeToString(deterministic=True)
    (package / SPECIFICATION).write_bytes(content)
    manifest = json.loads((package / "Manifest.json").read_text())
    names = {
        old: str(uuid.uuid5(uuid.NAMESPACE_URL, item["path"]))
        for old, item in manifest["itemInfoEntries"].items()
    }
    items = {names[old]: item for old, item in manifest["itemInfoEntries"].items()}
    manifest["itemInfoEntries"] = items
    manifest["rootModelIdentifier"] = names[manifest["rootModelIdentifier"]]
    (package / "Manifest.json").write_text(json.dumps(manifest, indent=4, sort_keys=True) + "\n")


def _read(path: Path) -> Any:
    coremltools = library("coremltools", EXTRA)
    try:
        with quiet():
            return coremltools.utils.load_spec(str(path))
    except Exception as error:
        # Any type: the package reader and protobuf raise their own.
        raise unusable(path, "cannot be read", error, "coreml") from error


def _operations(path: Path, specification: Any) -> list[Any]:
    """The program's operations and constants, once every weight is read and sound."""
    reader = library("coremltools.converters.mil.frontend.milproto.load", EXTRA)
    try:
        with quiet():
            program = reader.load(
                specification,
                specification_version=specification.specificationVersion,
                file_weights_dir=str(path / WEIGHTS),
            )
    except Exception as error:
        # Any type: a lookup in half a weight file ends as anything.
        raise unusable(path, "has weights that cannot be read", error, "coreml") from error
    operations = list(program.functions["main"].operations)
    for operation in operations:
        for value in (*operation.inputs.values(), *operation.outputs):
            number = np.asarray(getattr(value, "val", None))
            if number.dtype.kind == "f" and not np.isfinite(number).all():
                raise _malformed(path, f"{value.name} holds NaN or Inf")
        if operation.op_type == "constexpr_affine_dequantize" and _is_silenced(operation):
            raise _malformed(path, f"{operation.name} has a scale that is not above 0")
    return operations


def _is_silenced(operation: Any) -> bool:
    """Whether weights are lost to a scale of 0, which few samples would show.

    coremltools gives such a scale to channels of nothing but zeros, which lose nothing.
    """
    inputs = {name: np.asarray(value.val) for name, value in operation.inputs.items()}
    held = np.moveaxis(inputs["quantized_data"], int(inputs["axis"]), 0)
    offset = inputs["zero_point"].reshape(-1, *[1] * (held.ndim - 1))
    used = (held != offset).reshape(len(held), -1).any(axis=1)
    return bool((used & ~(inputs["scale"].reshape(-1) > 0)).any())


def _census(operations: list[Any]) -> dict[str, int]:
    """How many constant numbers are stored, by type; without what tells an operation what to do."""
    counts: Counter[str] = Counter()
    for operation in operations:
        values = operation.outputs[0].val if operation.op_type == "const" else None
        if isinstance(values, np.ndarray) and values.dtype in STORED_TYPES:
            counts[str(values.dtype)] += values.size
    return dict(sorted(counts.items()))


def _shapes(path: Path, description: Any, kind: str) -> dict[str, Shape]:
    """Shapes of the package's inputs or outputs; see `exporter.formats.Format.inspect`."""
    try:
        shapes = declared(_metadata(description), f"{kind}s")
        return {
            value.name: _shape(path, value, None if shapes is None else shapes[value.name], kind)
            for value in getattr(description, kind)
        }
    except (LookupError, ValueError, TypeError) as error:
        raise unusable(path, "declares no readable shapes", error, "coreml") from error


def _shape(path: Path, value: Any, shape: Shape | None, kind: str) -> Shape:
    """The `shape` that a value declares, once it is the one that the package has.

    A package states the bounds of an input. Of an output that varies it states no shape at all.
    """
    array = value.type.multiArrayType
    types = (array.FLOAT32, array.INT32) if kind == "input" else (array.FLOAT32,)
    if array.dataType not in types:
        raise _malformed(path, f"{value.name} is no float32 array, nor int32 that goes in")
    ranges = array.shapeRange.sizeRanges
    held = [(size.lowerBound, size.upperBound) for size in ranges] or [
        (size, size) for size in array.shape
    ]
    sizes = [read(size) for size in (shape or [int(size) for size in array.shape])]
    varies = any(isinstance(size, Axis) for size in sizes)
    wanted = [(s.least, s.most) if isinstance(s, Axis) else (s, s) for s in sizes]
    if not sizes or (held != wanted and (kind == "input" or not varies or held)):
        raise _malformed(path, f"{value.name} has sizes {held} where it declares {shape}")
    return [int(size) for size in array.shape] if shape is None else shape


def _malformed(path: Path, reason: str) -> LoweringError:
    return LoweringError(
        f"{path.name} is not a Core ML package as we ship them: {reason}",
        fix="export the model again with swipe-export coreml",
    )
