"""ONNX: opset 14, IR 7, one self-contained file, symbolic dimensions only where a job asks.

torch's supported exporter writes opset 18, `exporter.formats.opset14` brings it down. The file is
scrubbed of everything that describes the machine that built it, so two builds of one model are
the same bytes. What the quantized rungs are is `exporter.formats.onnx_quantization`.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from exporter.formats import Axis, Lowering, Runner
from exporter.formats.axes import (
    Shape,
    declaration,
    declared,
    read,
    require_bounds,
)
from exporter.formats.build import (
    OPERATOR_FIX,
    first_line,
    known_rung,
    library,
    quiet,
    staged,
    unusable,
)
from exporter.formats.onnx_quantization import (
    EXTRA,
    Exported,
    all_paths,
    int8_layers,
    onnxruntime,
    origins_of,
    quantized,
    quantized_paths,
)
from exporter.formats.onnx_text import DOMAIN, DOMAIN_VERSION, append_text, register
from exporter.formats.opset14 import SOURCE_OPSET, TARGET_IR, TARGET_OPSET, to_opset14
from exporter.formats.program import (
    execute_at_extremes,
    exported,
    remembered,
    require_known,
    signatures,
)
from swipe.errors import LoweringError, MissingError

RUNGS: Final = ("int8", "int8-weights", "fp16-weights")
PRODUCER: Final = "swipe-export"
OLDEST_RUNTIME: Final = "1.8"
"""The first ONNX Runtime that reads opset 14; IR 7 is older."""
SCALED: Final = ("QuantizeLinear", "DequantizeLinear")
"""Operators whose second input is a scale."""


def lower(job: Lowering, path: Path) -> None:
    """Write the float32 model; see `exporter.formats.Format.lower`."""
    source = _exported(job)
    _save(source.model(), source, job, path)


def quantize(job: Lowering, path: Path, rung: str) -> None:
    """Write the model of `rung`; see `exporter.formats.Format.quantize`.

    ``int8`` computes in int8: weights are signed and per channel, activations unsigned and per
    tensor, the combination that onnxruntime has fast kernels for on every CPU. ``int8-weights`` and
    ``fp16-weights`` store weights small and compute in float32.
    """
    known_rung(rung, RUNGS, "ONNX")
    source = _exported(job)
    require_known(job, all_paths(source, job))
    _save(quantized(source, job, rung), source, job, path)


def layers(job: Lowering, rung: str) -> tuple[str, ...]:
    """The layers that `rung` would quantize; see `exporter.formats.Format.layers`."""
    known_rung(rung, RUNGS, "ONNX")
    source = _exported(job)
    require_known(job, all_paths(source, job))
    return quantized_paths(source, job, rung)


def load(path: Path, threads: int = 1) -> Runner:
    """Open `path` in onnxruntime on the CPU; see `exporter.formats.Format.load`."""
    ort = onnxruntime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        content = path.read_bytes()
        if DOMAIN.encode() in content:
            register(options)
        with quiet():
            session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except MissingError:
        raise
    except Exception as error:
        raise unusable(path, "cannot be loaded", error, "onnx") from error
    names = tuple(value.name for value in session.get_inputs())
    entries = dict(session.get_modelmeta().custom_metadata_map)
    speaks = any(value.type == "tensor(string)" for value in session.get_outputs())
    return (_SpeakingSession if speaks else _Session)(path, session, names, entries)


@dataclass(frozen=True, slots=True)
class _Session:
    """A session of onnxruntime, as a `Runner`."""

    path: Path
    session: Any
    names: tuple[str, ...]
    entries: dict[str, str]

    def __call__(self, *inputs: NDArray[Any]) -> NDArray[np.float32]:
        return np.asarray(self.outputs(inputs)[-1], dtype=np.float32)

    def outputs(self, inputs: tuple[NDArray[Any], ...]) -> list[Any]:
        """All of them, the numbers last."""
        call = dict(zip(self.names, inputs, strict=True))
        require_bounds(self.entries, call, self.path.name)
        try:
            found: list[Any] = self.session.run(None, call)
        except Exception as error:
            raise unusable(self.path, "cannot be executed", error, "onnx") from error
        return found


class _SpeakingSession(_Session):
    """The same for a graph whose first output is text, as a `exporter.formats.Speaker`."""

    __slots__ = ()

    def speak(self, *inputs: NDArray[Any]) -> str:
        return str(self.outputs(inputs)[0].item())


def inspect(path: Path) -> dict[str, object]:
    """Facts of the file after a full structural check; see `exporter.formats.Format.inspect`."""
    model = _read(path)
    _check(model)
    graph = model.graph
    in_int8, with_int8_weights, floating = int8_layers(model)
    entries = _metadata(model)
    return {
        "opset": TARGET_OPSET,
        "ir_version": model.ir_version,
        "producer": model.producer_name,
        "inputs": {value.name: _declared_shape(value, entries, "inputs") for value in graph.input},
        "outputs": {
            value.name: _declared_shape(value, entries, "outputs") for value in graph.output
        },
        "operators": dict(sorted(Counter(node.op_type for node in graph.node).items())),
        "custom_operators": _custom_operators(graph),
        "quantized": in_int8 + with_int8_weights > 0,
        "quantized_layers": in_int8 + with_int8_weights,
        "quantized_activations": in_int8,
        "float_layers": floating,
        "weights": _census(graph),
        "size_bytes": path.stat().st_size,
        "minimum_runtime": {"onnxruntime": OLDEST_RUNTIME},
    }


def metadata(path: Path) -> dict[str, str]:
    """The model's metadata_props; see `exporter.formats.Format.metadata`."""
    entries = _metadata(_read(path))
    if not entries:
        raise LoweringError(
            f"{path.name} holds no metadata", fix="export the model again with swipe-export onnx"
        )
    return entries


def _metadata(model: Any) -> dict[str, str]:
    return {entry.key: entry.value for entry in model.metadata_props}


def _exported(job: Lowering) -> Exported:
    """The job as an opset 14 model that passes every check, made once for each model."""
    return remembered(job, "onnx", lambda: _export(job))


def _export(job: Lowering) -> Exported:
    import torch

    library("onnx", EXTRA)
    library("onnxscript", EXTRA)
    program = exported(job)
    shapes = signatures(program, job)
    try:
        with quiet(), torch.no_grad():
            converted = torch.onnx.export(
                program,
                dynamo=True,
                opset_version=SOURCE_OPSET,
                external_data=False,
                input_names=list(job.example),
                output_names=[job.output_name],
                verbose=False,
            )
            source: Any = converted.model_proto  # type: ignore[union-attr]
            model, origins = to_opset14(source), origins_of(source.graph)
    except LoweringError:
        raise
    except Exception as error:
        raise LoweringError(
            f"torch cannot export the model to ONNX: {first_line(error)}",
            fix=OPERATOR_FIX,
        ) from error
    _name_dimensions(model.graph, job)
    content = _scrubbed(model).SerializeToString(deterministic=True)
    return Exported(content, origins, shapes)


def _custom_operators(graph: Any) -> dict[str, list[str]]:
    """What a runtime has to have besides ONNX's own operators, by domain."""
    custom: dict[str, set[str]] = {}
    for node in graph.node:
        if node.domain:
            custom.setdefault(node.domain, set()).add(node.op_type)
    return {domain: sorted(operators) for domain, operators in sorted(custom.items())}


def _name_dimensions(graph: Any, job: Lowering) -> None:
    """Call symbolic dimensions by the names of their axes, where torch counts symbols."""
    symbols = {
        value.type.tensor_type.shape.dim[dimension].dim_param: axis.name
        for value in graph.input
        for dimension, axis in job.dynamic.get(value.name, {}).items()
    }
    for value in (*graph.input, *graph.output):
        for dim in value.type.tensor_type.shape.dim:
            for symbol, name in symbols.items():
                if dim.dim_param:
                    dim.dim_param = re.sub(rf"\b{symbol}\b", name, dim.dim_param)


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
    speaks = DOMAIN in imports
    wanted = {"": TARGET_OPSET} | ({DOMAIN: DOMAIN_VERSION} if speaks else {})
    if imports != wanted or model.ir_version != TARGET_IR:
        raise _malformed(f"it imports opsets {imports} with IR version {model.ir_version}")
    if not graph.input or len(graph.output) != 1 + speaks:
        raise _malformed(f"it has {len(graph.input)} inputs and {len(graph.output)} outputs")
    floating, integer = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64
    if speaks and graph.output[0].type.tensor_type.elem_type != onnx.TensorProto.STRING:
        raise _malformed(f"its first output {graph.output[0].name} is no text")
    for kind, values, types in (
        ("inputs", graph.input, (floating, integer)),
        ("outputs", graph.output[-1:], (floating,)),
    ):
        for value in values:
            if value.type.tensor_type.elem_type not in types:
                raise _malformed(f"{value.name} is not a float32 tensor, nor int64 that goes in")
            _declared_shape(value, _metadata(model), kind)
    if any(part.doc_string or part.metadata_props for part in _parts(graph)):
        raise _malformed("notes of the exporter are left in it")
    for tensor in _tensors(graph):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            raise _malformed(f"the data of {tensor.name} is in another file")
        values = onnx.numpy_helper.to_array(tensor)
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise _malformed(f"{tensor.name} holds NaN or Inf")
    _require_scales(graph)
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:
        # Any type: shape inference raises one that onnx does not export.
        raise _malformed(first_line(error)) from error


def _require_scales(graph: Any) -> None:
    """Refuse a scale of 0: it silences a channel, which few samples would show."""
    to_array = library("onnx", EXTRA).numpy_helper.to_array
    stored = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        scale = stored.get(node.input[1]) if node.op_type in SCALED else None
        if scale is not None and not (to_array(scale) > 0).all():
            raise _malformed(f"{scale.name} is a scale that is not above 0")


def _tensors(graph: Any) -> list[Any]:
    constants = [a.t for node in graph.node for a in node.attribute if a.HasField("t")]
    return [*graph.initializer, *constants]


def _declared_shape(value: Any, entries: dict[str, str], kind: str) -> Shape:
    """Shape of a graph input or output; see `exporter.formats.Format.inspect`.

    Raises:
        LoweringError: a dimension is neither static nor what the metadata declares.
    """
    held = [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
    try:
        shapes = declared(entries, kind)
        shape = held if shapes is None else shapes[value.name]
        sizes = [read(size) for size in shape]
    except (LookupError, ValueError, TypeError) as error:
        raise _malformed(f"the shape {held} of {value.name} is not declared: {error}") from error
    wanted = [size.name if isinstance(size, Axis) else size for size in sizes]
    if held != wanted or 0 in held:
        raise _malformed(f"{value.name} has the shape {held} where it declares {shape}")
    return shape


def _census(graph: Any) -> dict[str, int]:
    """How many numbers are stored, by their type."""
    counts: Counter[str] = Counter()
    to_array = library("onnx", EXTRA).numpy_helper.to_array
    for tensor in _tensors(graph):
        values = to_array(tensor)
        counts[str(values.dtype)] += values.size
    return dict(sorted(counts.items()))


def _save(model: Any, source: Exported, job: Lowering, path: Path) -> None:
    if job.spelling is not None:
        append_text(model, job.spelling, job.output_name)
    _scrubbed(model)
    for key, value in sorted(declaration(job, *source.shapes).items()):
        model.metadata_props.add(key=key, value=value)
    _check(model)
    with staged(path) as new:
        new.write_bytes(model.SerializeToString(deterministic=True))
        if job.dynamic:
            execute_at_extremes(load(new), job, "ONNX")


def _read(path: Path) -> Any:
    onnx = library("onnx", EXTRA)
    try:
        return onnx.load_model_from_string(path.read_bytes())
    except Exception as error:
        # Any type: protobuf's differ between its implementations.
        raise unusable(path, "cannot be read", error, "onnx") from error


def _malformed(reason: str) -> LoweringError:
    return LoweringError(
        f"this is not an ONNX model as we ship them: {reason}",
        fix="export the model again with swipe-export onnx",
    )
