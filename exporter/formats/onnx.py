"""ONNX: opset 14, IR 7, static shapes, one self-contained file.

torch's supported exporter writes opset 18, `exporter.formats.opset14` brings it down. The file is
scrubbed of everything that describes the machine that built it, so two builds of one model are
the same bytes. The int8 rung is static QDQ.
"""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from exporter.formats import Inputs, Lowering, Runner
from exporter.formats.build import (
    calibration_calls,
    first_line,
    known_rung,
    library,
    quiet,
    staged,
    unusable,
)
from exporter.formats.opset14 import SOURCE_OPSET, TARGET_IR, TARGET_OPSET, to_opset14
from swipe.errors import LoweringError

EXTRA: Final = "onnx"
RUNGS: Final = ("int8",)
QUANTIZED_OPERATORS: Final = ("Conv", "MatMul", "Gemm")
PERCENTILE: Final = 99.999
PRODUCER: Final = "swipe-export"
OLDEST_RUNTIME: Final = "1.8"
"""The first ONNX Runtime that reads opset 14; IR 7 is older."""


def lower(job: Lowering, path: Path) -> None:
    """Write the float32 model; see `exporter.formats.Format.lower`."""
    _save(_exported(job), job, path)


def quantize(job: Lowering, path: Path, rung: str) -> None:
    """Write the int8 model; see `exporter.formats.Format.quantize`.

    Weights are signed and per channel, activations unsigned and per tensor: the combination that
    onnxruntime has fast kernels for on every CPU.
    """
    known_rung(rung, RUNGS, "ONNX")
    model = _quantized(_exported(job), job)
    quantized, _ = _layers(model)
    if quantized == 0:
        raise _unchanged()
    _save(model, job, path)


def load(path: Path, threads: int = 1) -> Runner:
    """Open `path` in onnxruntime on the CPU; see `exporter.formats.Format.load`."""
    ort = _onnxruntime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        with quiet():
            session = ort.InferenceSession(
                path.read_bytes(), options, providers=["CPUExecutionProvider"]
            )
    except Exception as error:
        raise unusable(path, "cannot be loaded", error, "onnx") from error
    names = [value.name for value in session.get_inputs()]

    def run(*inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        try:
            (output,) = session.run(None, dict(zip(names, inputs, strict=True)))
        except Exception as error:
            raise unusable(path, "cannot be executed", error, "onnx") from error
        return np.asarray(output, dtype=np.float32)

    return run


def inspect(path: Path) -> dict[str, object]:
    """Facts of the file after a full structural check; see `exporter.formats.Format.inspect`."""
    model = _read(path)
    _check(model)
    graph = model.graph
    quantized, floating = _layers(model)
    return {
        "opset": TARGET_OPSET,
        "ir_version": model.ir_version,
        "producer": model.producer_name,
        "inputs": {value.name: _shape(value) for value in graph.input},
        "outputs": {value.name: _shape(value) for value in graph.output},
        "operators": dict(sorted(Counter(node.op_type for node in graph.node).items())),
        "quantized": quantized > 0,
        "quantized_layers": quantized,
        "float_layers": floating,
        "size_bytes": path.stat().st_size,
        "minimum_runtime": {"onnxruntime": OLDEST_RUNTIME},
    }


def metadata(path: Path) -> dict[str, str]:
    """The model's metadata_props; see `exporter.formats.Format.metadata`."""
    entries = {entry.key: entry.value for entry in _read(path).metadata_props}
    if not entries:
        raise LoweringError(
            f"{path.name} holds no metadata", fix="export the model again with swipe-export onnx"
        )
    return entries


def _exported(job: Lowering) -> Any:
    """The job as an opset 14 ModelProto that passes every check."""
    import torch

    library("onnx", EXTRA)
    library("onnxscript", EXTRA)
    example = tuple(torch.from_numpy(value) for value in job.example.values())
    try:
        with quiet(), torch.no_grad():
            program = torch.onnx.export(
                job.module,
                example,
                dynamo=True,
                opset_version=SOURCE_OPSET,
                external_data=False,
                input_names=list(job.example),
                output_names=[job.output_name],
                verbose=False,
            )
            model = to_opset14(program.model_proto)  # type: ignore[union-attr]
    except LoweringError:
        raise
    except Exception as error:
        raise LoweringError(
            f"torch cannot export the model to ONNX: {first_line(error)}",
            fix="run with --debug for the exporter's own report",
        ) from error
    return _scrubbed(model)


def _quantized(model: Any, job: Lowering) -> Any:
    """`model` with its inner layers in static QDQ int8.

    The first layer reads raw kinematics, whose rare fast strokes stretch an int8 range until slow
    ones round to nothing (greedy accuracy -12 points on How We Swipe); the last one writes the
    logits. Both are small and stay float. A percentile, as MinMax gives the range to the wildest
    calibration swipe. What `float_inputs` reach is no layer here, and stays float altogether.
    """
    quantization = _onnxruntime(".quantization")
    preprocess = _onnxruntime(".quantization.shape_inference")
    onnx = library("onnx", EXTRA)
    reader = _Reader(job)

    try:
        with quiet(), tempfile.TemporaryDirectory() as folder:
            full, folded, small = (Path(folder, f"{n}.onnx") for n in ("full", "folded", "small"))
            # By path: both calls empty the weights of a ModelProto given to them.
            onnx.save(model, full)
            # Folds what torch left (BatchNorm, MatMul + Add), so that it is quantized as one.
            preprocess.quant_pre_process(full, folded, skip_symbolic_shape=True)
            names, kept = _layer_names(onnx.load(folded), job)
            if not names:
                raise _unchanged()
            quantization.quantize_static(
                folded,
                small,
                reader,
                quant_format=quantization.QuantFormat.QDQ,
                op_types_to_quantize=list(QUANTIZED_OPERATORS),
                nodes_to_exclude=kept + ([names[0], names[-1]] if len(names) > 2 else []),
                per_channel=True,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
                calibrate_method=quantization.CalibrationMethod.Percentile,
                extra_options={"CalibPercentile": PERCENTILE, "MatMulConstBOnly": True},
            )
            return _scrubbed(onnx.load(small))
    except LoweringError:
        raise
    except Exception as error:
        # Any type: bare asserts are among what it raises.
        raise LoweringError(
            f"onnxruntime cannot quantize the model: {first_line(error)}",
            fix="ship the float32 artefact, or run with --debug for the library's own report",
        ) from error


class _Reader:
    """What onnxruntime calls a CalibrationDataReader: one input at a time, then None."""

    def __init__(self, job: Lowering) -> None:
        self._calls = iter(calibration_calls(job))

    def get_next(self) -> Inputs | None:
        return next(self._calls, None)


def _layer_names(model: Any, job: Lowering) -> tuple[list[str], list[str]]:
    """Names of the layers `float_inputs` do not reach, and of all nodes that it does."""
    weights = {tensor.name for tensor in model.graph.initializer}
    reached = set(job.float_inputs)
    layers, kept = [], []
    for node in model.graph.node:
        if reached.intersection(node.input):
            reached.update(node.output)
            kept.append(node.name)
        elif _is_layer(node, weights):
            layers.append(node.name)
    return layers, kept


def _is_layer(node: Any, weights: set[str]) -> bool:
    return node.op_type in QUANTIZED_OPERATORS and node.input[1] in weights


def _layers(model: Any) -> tuple[int, int]:
    """How many layers with constant weights compute in (int8, float)."""
    tensors = {tensor.name for tensor in model.graph.initializer}
    dequantized = {
        node.output[0]: node.input[0]
        for node in model.graph.node
        if node.op_type == "DequantizeLinear"
    }
    weights = {output for output, source in dequantized.items() if source in tensors}
    quantized = [
        node
        for node in model.graph.node
        if _is_layer(node, weights) and node.input[0] in dequantized
    ]
    total = sum(_is_layer(node, tensors | weights) for node in model.graph.node)
    return len(quantized), total - len(quantized)


def _scrubbed(model: Any) -> Any:
    """`model` without build paths, source lines and versions; nodes are named by their output."""
    graph = model.graph
    used = {node.domain for node in graph.node}
    imports = [entry for entry in model.opset_import if entry.domain in used]
    del model.opset_import[:], model.metadata_props[:], graph.value_info[:]
    model.opset_import.extend(imports)
    model.producer_name, model.producer_version, graph.name = PRODUCER, "", "main"
    model.ir_version = TARGET_IR
    for part in (graph, *_parts(graph)):
        part.ClearField("doc_string")
        part.ClearField("metadata_props")
    for node in graph.node:
        node.name = node.output[0]
    # Quantization leaves them in the order of a set.
    ordered = sorted(graph.initializer, key=lambda tensor: tensor.name)
    del graph.initializer[:]
    graph.initializer.extend(ordered)
    return model


def _parts(graph: Any) -> list[Any]:
    return [*graph.node, *graph.initializer, *graph.input, *graph.output]


def _check(model: Any) -> None:
    """Raise LoweringError unless `model` is what this module promises to write."""
    onnx = library("onnx", EXTRA)
    graph = model.graph
    imports = {entry.domain: entry.version for entry in model.opset_import}
    if imports != {"": TARGET_OPSET} or model.ir_version != TARGET_IR:
        raise _malformed(f"it imports opsets {imports} with IR version {model.ir_version}")
    if not graph.input or len(graph.output) != 1:
        raise _malformed(f"it has {len(graph.input)} inputs and {len(graph.output)} outputs")
    for value in (*graph.input, *graph.output):
        tensor = value.type.tensor_type
        if tensor.elem_type != onnx.TensorProto.FLOAT or 0 in _shape(value):
            raise _malformed(f"{value.name} is not a float32 tensor of static shape")
    if any(part.doc_string or part.metadata_props for part in _parts(graph)):
        raise _malformed("notes of the exporter are left in it")
    for tensor in _tensors(graph):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            raise _malformed(f"the data of {tensor.name} is in another file")
        values = onnx.numpy_helper.to_array(tensor)
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise _malformed(f"{tensor.name} holds NaN or Inf")
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:
        # Any type: shape inference raises one that onnx does not export.
        raise _malformed(first_line(error)) from error


def _tensors(graph: Any) -> list[Any]:
    constants = [a.t for node in graph.node for a in node.attribute if a.HasField("t")]
    return [*graph.initializer, *constants]


def _shape(value: Any) -> list[int]:
    """Static dimensions of a graph input or output, 0 where one is not static."""
    return [dim.dim_value for dim in value.type.tensor_type.shape.dim]


def _save(model: Any, job: Lowering, path: Path) -> None:
    for key, value in sorted(job.metadata.items()):
        model.metadata_props.add(key=key, value=value)
    _check(model)
    with staged(path) as new:
        new.write_bytes(model.SerializeToString(deterministic=True))


def _onnxruntime(module: str = "") -> Any:
    # Read once, when the library is loaded.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    return library(f"onnxruntime{module}", EXTRA)


def _read(path: Path) -> Any:
    onnx = library("onnx", EXTRA)
    try:
        return onnx.load_model_from_string(path.read_bytes())
    except Exception as error:
        # Any type: protobuf's differ between its implementations.
        raise unusable(path, "cannot be read", error, "onnx") from error


def _unchanged() -> LoweringError:
    return LoweringError(
        f"int8 quantization changed nothing: no {'/'.join(QUANTIZED_OPERATORS)} was quantized",
        fix="ship the float32 artefact of this model",
    )


def _malformed(reason: str) -> LoweringError:
    return LoweringError(
        f"this is not an ONNX model as we ship them: {reason}",
        fix="export the model again with swipe-export onnx",
    )
