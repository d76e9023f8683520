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

from exporter.formats import Lowering, Runner
from exporter.formats.build import first_line, known_rung, library, quiet, staged, unusable
from swipe.errors import LoweringError
from swipe.files import size_bytes

EXTRA: Final = "coreml"
RUNGS: Final = ("int8", "fp16")
LAYERS: Final = frozenset({"conv", "linear", "matmul"})
FRAGILE_IN_FLOAT16: Final = frozenset({"softmax", "log", "exp"})
"""log(softmax) of float16 is -inf for every class that is not likely."""

SMALLEST_QUANTIZED_WEIGHT: Final = 512
"""Elements. The library's 2048 skips layers of a small model; a bias is smaller than this."""

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
    _save(_converted(job, half=False), job, path)


def quantize(job: Lowering, path: Path, rung: str) -> None:
    """Write the package of `rung`; see `exporter.formats.Format.quantize`.

    ``fp16`` computes in float16 from the first layer on. ``int8`` does too, and stores its weights
    in int8 per channel; activations stay float16, as calibrating them needs macOS.
    """
    known_rung(rung, RUNGS, "Core ML")
    model = _converted(job, half=True)
    _save(_quantized(model, job) if rung == "int8" else model, job, path, rung)


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

    def run(*inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        try:
            outputs = model.predict(dict(zip(sources, inputs, strict=True)))
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
            # Core ML has no int64; lengths are int32 there.
            feature.name: value.astype(np.int32) if value.dtype == np.int64 else value
            for feature, value in zip(features, inputs, strict=True)
        }
        return np.asarray(interpreter.run(given)[target], dtype=np.float32)

    return run


def inspect(path: Path) -> dict[str, object]:
    """Facts of the program, every weight read back; see `exporter.formats.Format.inspect`."""
    specification = _read(path)
    if specification.WhichOneof("Type") != "mlProgram":
        raise _malformed(path, f"its type is {specification.WhichOneof('Type')}")
    description = specification.description
    operations = _operations(path, specification)
    operators = Counter(operation.op_type for operation in operations)
    if operators["inverse"]:
        raise _malformed(path, "it computes 1/x as 1/(x + 1e-4): write a division instead")
    int8 = sum(count for kind, count in operators.items() if kind.startswith("constexpr_"))
    return {
        "type": "mlProgram",
        "specification_version": specification.specificationVersion,
        "inputs": {value.name: _shape(path, value) for value in description.input},
        "outputs": {value.name: _shape(path, value) for value in description.output},
        "operators": dict(sorted(operators.items())),
        "float16_operators": sum(_gives_float16(operation) for operation in operations),
        "quantized": int8 > 0,
        "quantized_layers": int8,
        "size_bytes": size_bytes(path),
        "minimum_runtime": OLDEST_SYSTEMS.get(specification.specificationVersion),
    }


def metadata(path: Path) -> dict[str, str]:
    """The package's user-defined metadata; see `exporter.formats.Format.metadata`."""
    entries = dict(_read(path).description.metadata.userDefined)
    ours = {k: v for k, v in sorted(entries.items()) if not k.startswith(FOREIGN_METADATA)}
    if not ours:
        raise _malformed(path, "it holds no metadata")
    return ours


def _converted(job: Lowering, *, half: bool) -> Any:
    """The job as a coremltools MLModel, computing in float16 where `half` and it is safe."""
    import torch

    coremltools = library("coremltools", EXTRA)
    precision = (
        coremltools.transform.FP16ComputePrecision(
            op_selector=lambda operation: _runs_in_float16(operation, job)
        )
        if half
        else coremltools.precision.FLOAT32
    )
    # The boundary stays float32: without dtypes a float16 model also wants float16 inputs.
    inputs = [
        coremltools.TensorType(name, shape=value.shape, dtype=np.float32)
        for name, value in job.example.items()
    ]
    output = coremltools.TensorType(job.output_name, dtype=np.float32)
    try:
        with quiet(), torch.no_grad():
            example = tuple(map(torch.from_numpy, job.example.values()))
            exported = torch.export.export(job.module, example)
            _refuse_masked_attention(exported)
            return coremltools.convert(
                exported.run_decompositions({}),
                convert_to="mlprogram",
                minimum_deployment_target=coremltools.target.iOS17,
                compute_precision=precision,
                inputs=inputs,
                outputs=[output],
                skip_model_load=True,
            )
    except LoweringError:
        raise
    except Exception as error:
        # Any type: the converter raises whatever an unknown operator provokes.
        raise LoweringError(
            f"coremltools cannot convert the model: {first_line(error)}",
            fix="run with --debug for the converter's own report",
        ) from error


def _refuse_masked_attention(exported: Any) -> None:
    """Refuse what coremltools 9 converts wrongly and silently: it inverts attention masks."""
    import torch

    attention = torch.ops.aten.scaled_dot_product_attention.default
    for node in exported.graph.nodes:
        mask = node.args[3] if len(node.args) > 3 else node.kwargs.get("attn_mask")
        if node.target is attention and mask is not None:
            raise LoweringError(
                f"{node.name} has an attention mask, which coremltools inverts without a word",
                fix="write it with matmul and softmax, and add a float mask of 0 and -1e4",
            )


def _runs_in_float16(operation: Any, job: Lowering) -> bool:
    """Whether a MIL operation may compute in float16: from the first layer on.

    What comes before builds features as differences of coordinates, where float16's 11 bits cost
    four times the error of all layers together (max |diff| of logits 0.30 against 0.07). What
    `float_inputs` reach stays float32.
    """
    if operation.op_type in FRAGILE_IN_FLOAT16:
        return False
    operators, names = _upstream(operation)
    return bool(operators & LAYERS) and not names.intersection(job.float_inputs)


def _upstream(operation: Any) -> tuple[set[str], set[str]]:
    """Types of `operation` and of all that it depends on, and the names of what they read."""
    operators, names = set(), set()
    waiting, seen = [operation], set()
    while waiting:
        current = waiting.pop()
        operators.add(current.op_type)
        for value in current.inputs.values():
            for source in value if isinstance(value, tuple | list) else [value]:
                names.add(getattr(source, "name", ""))
                producer = getattr(source, "op", None)
                if producer is not None and id(producer) not in seen:
                    seen.add(id(producer))
                    waiting.append(producer)
    return operators, names


def _quantized(model: Any, job: Lowering) -> Any:
    """`model` with int8 weights, except those of operations that `float_inputs` reach."""
    optimize = library("coremltools.optimize.coreml", EXTRA)
    config = optimize.OpLinearQuantizerConfig(
        mode="linear_symmetric",
        dtype="int8",
        granularity="per_channel",
        weight_threshold=SMALLEST_QUANTIZED_WEIGHT,
    )
    try:
        with quiet():
            operations = model._mil_program.functions["main"].operations
            kept = [o.name for o in operations if _upstream(o)[1].intersection(job.float_inputs)]
            return optimize.linear_quantize_weights(
                model,
                optimize.OptimizationConfig(
                    global_config=config, op_name_configs=dict.fromkeys(kept)
                ),
            )
    except Exception as error:
        # Any type: as for the converter.
        raise LoweringError(
            f"coremltools cannot quantize the model: {first_line(error)}",
            fix="ship the fp16 artefact of this model",
        ) from error


def _save(model: Any, job: Lowering, path: Path, rung: str = "fp32") -> None:
    with staged(path) as new:
        with quiet():
            model.save(str(new))
        _normalize(new, job)
        facts = inspect(new)
        if rung == "int8" and not facts["quantized"]:
            raise LoweringError(
                "int8 quantization changed nothing: no weight is large enough",
                fix="ship the fp16 artefact of this model",
            )
        if rung != "fp32" and not facts["float16_operators"]:
            raise LoweringError(
                "nothing computes in float16: the model has no convolution, linear or matmul",
                fix="ship the float32 artefact of this model",
            )


def _normalize(package: Path, job: Lowering) -> None:
    """Give `package` our metadata, and identifiers that depend on its content only."""
    (package / DEBUG_FILE).unlink(missing_ok=True)
    specification = _read(package)
    entries = specification.description.metadata.userDefined
    entries.pop(f"{FOREIGN_METADATA}conversion_date", None)
    entries.update(job.metadata)
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
    """The program's operations without constants, once every weight is read and finite."""
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
    return [operation for operation in operations if operation.op_type != "const"]


def _gives_float16(operation: Any) -> bool:
    types = library("coremltools.converters.mil.mil.types", EXTRA)
    return any(types.builtin_to_string(value.dtype) == "fp16" for value in operation.outputs)


def _shape(path: Path, value: Any) -> list[int]:
    array = value.type.multiArrayType
    if array.dataType != array.FLOAT32 or not array.shape:
        raise _malformed(path, f"{value.name} is not a float32 array of static shape")
    return [int(size) for size in array.shape]


def _malformed(path: Path, reason: str) -> LoweringError:
    return LoweringError(
        f"{path.name} is not a Core ML package as we ship them: {reason}",
        fix="export the model again with swipe-export coreml",
    )
