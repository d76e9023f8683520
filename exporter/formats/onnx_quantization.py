"""The quantized rungs of ONNX: static int8, int8 weights, float16 weights.

* ``int8``: QDQ by onnxruntime. It fuses a layer between its DequantizeLinear and QuantizeLinear
  into one integer kernel.
* ``int8-weights``: each weight is an int8 initializer, one scale per channel, behind a
  DequantizeLinear; activations are float32. onnxruntime keeps these nodes and runs them at every
  call, so the file is small and no call is faster than in float32.
* ``fp16-weights``: each weight is a float16 initializer behind a Cast. onnxruntime folds the casts
  when it loads the file: the same speed and memory as float32, half the download.

All start from the same graph, in which onnxruntime folded what torch left apart (BatchNorm, the
bias of a linear layer), and none touches what `Lowering.float_inputs` reach.

What it leaves out: dynamic int8, which is slower than float32 for convolutions in this runtime.
"""

from __future__ import annotations

import ast
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from exporter.formats import Inputs, Lowering
from exporter.formats.axes import Signature
from exporter.formats.build import calibration_calls, first_line, library, quiet
from exporter.formats.program import remembered
from swipe.errors import LoweringError

EXTRA: Final = "onnx"
LAYERS: Final = ("Conv", "MatMul", "Gemm")
PERCENTILE: Final = 99.999

SMALLEST_STORED: Final = 256
"""Elements. Storing a smaller weight in another type costs more in nodes than it saves."""

SCOPES: Final = "pkg.torch.onnx.name_scopes"
"""Where torch's exporter notes the path of modules, outermost first, that a node is in."""


@dataclass(frozen=True, slots=True)
class Exported:
    """A job in float32.

    Attributes:
        content: the model, scrubbed and serialized.
        origins: path of the torch module that computes a layer's output, by the output's name.
        shapes: of its inputs and its output.
    """

    content: bytes
    origins: Mapping[str, str]
    shapes: tuple[Signature, Signature]

    def model(self) -> Any:
        """The ModelProto, for the caller to change."""
        return library("onnx", EXTRA).load_model_from_string(self.content)


@dataclass(frozen=True, slots=True)
class Layer:
    """A node with a constant weight.

    Attributes:
        path: of the torch module that it is; a module that is called twice is two nodes.
        node: its name.
        weight: name of the initializer.
        elements: of the weight.
    """

    path: str
    node: str
    weight: str
    elements: int


def origins_of(graph: Any) -> dict[str, str]:
    """`Exported.origins`, from the notes that torch's exporter leaves in `graph`.

    A BatchNorm or a bias that onnxruntime folds into a layer gives the layer its own output's
    name, so these outputs count as the layer's.
    """
    origins: dict[str, str] = {}
    for node in graph.node:
        scopes = {entry.key: entry.value for entry in node.metadata_props}.get(SCOPES, "[]")
        path = [*ast.literal_eval(scopes)][-2:-1]
        if node.op_type in LAYERS:
            origins[node.output[0]] = (path and path[0]) or node.output[0]
        elif node.op_type in ("BatchNormalization", "Add"):
            before = [origins[name] for name in node.input if name in origins]
            if before:
                origins[node.output[0]] = before[0]
    return origins


def all_paths(source: Exported, job: Lowering) -> list[str]:
    """Paths of the layers that could be kept in float, in order."""
    return [layer.path for layer in _reach(_folded(source, job), source, job)[0]]


def quantized_paths(source: Exported, job: Lowering, rung: str) -> tuple[str, ...]:
    """Paths of the layers that `rung` quantizes, in order, each once."""
    chosen, _ = _chosen(_folded(source, job), source, job, rung)
    return tuple(dict.fromkeys(layer.path for layer in chosen))


def quantized(source: Exported, job: Lowering, rung: str) -> Any:
    """The ModelProto of `rung`.

    Raises:
        LoweringError: onnxruntime cannot quantize it, or there is nothing to quantize.
    """
    folded = _folded(source, job)
    chosen, kept = _chosen(folded, source, job, rung)
    if not chosen:
        raise _unchanged(rung)
    if rung == "int8":
        return _with_integer_layers(folded, job, kept)
    return _with_stored_weights(folded, {layer.weight for layer in chosen}, chosen, rung)


def int8_layers(model: Any) -> tuple[int, int, int]:
    """How many layers compute in int8, in float with int8 weights, and wholly in float."""
    constants = {tensor.name for tensor in model.graph.initializer}
    dequantized, converted = {}, set()
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear":
            dequantized[node.output[0]] = node.input[0]
        elif node.op_type == "Cast" and node.input[0] in constants:
            converted.add(node.output[0])
    int8 = {output for output, stored in dequantized.items() if stored in constants}
    found = [node for node in model.graph.node if _is_layer(node, constants | int8 | converted)]
    with_int8 = [node for node in found if node.input[1] in int8]
    in_int8 = sum(node.input[0] in dequantized for node in with_int8)
    return in_int8, len(with_int8) - in_int8, len(found) - len(with_int8)


def onnxruntime(module: str = "") -> Any:
    """onnxruntime, or its `module`."""
    # Read once, when the library is loaded.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    return library(f"onnxruntime{module}", EXTRA)


def _folded(source: Exported, job: Lowering) -> bytes:
    return remembered(job, "onnx folded", lambda: _fold(source))


def _fold(source: Exported) -> bytes:
    """The model with what torch left apart (BatchNorm, MatMul + Add) folded into the layers."""
    preprocess = onnxruntime(".quantization.shape_inference")
    try:
        with quiet(), tempfile.TemporaryDirectory() as folder:
            full, folded = Path(folder, "full.onnx"), Path(folder, "folded.onnx")
            # By path: the call empties the weights of a ModelProto given to it.
            full.write_bytes(source.content)
            preprocess.quant_pre_process(full, folded, skip_symbolic_shape=True)
            return folded.read_bytes()
    except Exception as error:
        raise _failed(error) from error


def _reach(folded: bytes, source: Exported, job: Lowering) -> tuple[list[Layer], list[str]]:
    """The layers `float_inputs` do not reach, and the names of all nodes that they do."""
    onnx = library("onnx", EXTRA)
    graph = onnx.load_model_from_string(folded).graph
    sizes = {tensor.name: int(np.prod(tensor.dims)) for tensor in graph.initializer}
    reached = set(job.float_inputs)
    readers = {name: node.output[0] for node in graph.node for name in node.input}
    order = {output: position for position, output in enumerate(source.origins)}
    layers, kept = [], []
    for node in graph.node:
        if reached.intersection(node.input):
            reached.update(node.output)
            kept.append(node.name)
        elif _is_layer(node, set(sizes)):
            output, weight = node.output[0], node.input[1]
            while output not in source.origins and output in readers:
                # Folding put a Reshape between the layer and the output it had.
                output = readers[output]
            path = source.origins.get(output, node.output[0])
            position = order.get(output, len(order))
            layers.append((position, Layer(path, node.name, weight, sizes[weight])))
    # Folding moves nodes; layers are in the order of the model.
    return [layer for _, layer in sorted(layers, key=lambda found: found[0])], kept


def _is_layer(node: Any, weights: set[str]) -> bool:
    return node.op_type in LAYERS and node.input[1] in weights


def _chosen(
    folded: bytes, source: Exported, job: Lowering, rung: str
) -> tuple[list[Layer], list[str]]:
    """The layers that `rung` quantizes, and the names of all other layers and kept nodes.

    The first layer reads raw kinematics, whose rare fast strokes stretch an int8 range until slow
    ones round to nothing (greedy accuracy -12 points on How We Swipe), and rounding its weights
    alone costs as much as all others' (float16 weights of base: max |diff| of logits 0.098 with it,
    0.035 without). The last one writes the logits. Both are small and stay float.
    """
    layers, kept = _reach(folded, source, job)
    chosen = layers[1:-1] if len(layers) > 2 else layers
    if rung != "int8":
        chosen = [layer for layer in chosen if layer.elements >= SMALLEST_STORED]
    chosen = [layer for layer in chosen if layer.path not in job.float_layers]
    nodes = {layer.node for layer in chosen}
    return chosen, [*kept, *(layer.node for layer in layers if layer.node not in nodes)]


def _with_integer_layers(folded: bytes, job: Lowering, kept: list[str]) -> Any:
    """The model with every layer that is not `kept` in static QDQ int8.

    A percentile, as MinMax gives the range to the wildest calibration swipe; but percentiles take
    calls of one shape only.
    """
    quantization = onnxruntime(".quantization")
    onnx = library("onnx", EXTRA)
    calls = calibration_calls(job)
    method = (
        quantization.CalibrationMethod.MinMax
        if len({tuple(value.shape for value in call.values()) for call in calls}) > 1
        else quantization.CalibrationMethod.Percentile
    )

    def quantize(reader: _Reader | None, ranges: Path, kept: list[str]) -> Any:
        with quiet(), tempfile.TemporaryDirectory() as folder:
            source, target = Path(folder, "folded.onnx"), Path(folder, "small.onnx")
            source.write_bytes(folded)
            quantization.quantize_static(
                source,
                target,
                reader,
                quant_format=quantization.QuantFormat.QDQ,
                op_types_to_quantize=list(LAYERS),
                nodes_to_exclude=kept,
                per_channel=True,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
                calibrate_method=method,
                extra_options={"CalibPercentile": PERCENTILE, "MatMulConstBOnly": True},
                calibration_cache_path=ranges,
            )
            return onnx.load(target)

    def calibrate() -> bytes:
        # Which layers are quantized makes no difference to the ranges of the float model.
        with tempfile.TemporaryDirectory() as folder:
            ranges = Path(folder, "ranges.json")
            quantize(_Reader(calls), ranges, [])
            return ranges.read_bytes()

    try:
        with tempfile.TemporaryDirectory() as folder:
            ranges = Path(folder, "ranges.json")
            ranges.write_bytes(remembered(job, "onnx ranges", calibrate))
            return quantize(None, ranges, kept)
    except Exception as error:
        # Any type: bare asserts are among what it raises.
        raise _failed(error) from error


class _Reader:
    """What onnxruntime calls a CalibrationDataReader: one input at a time, then None."""

    def __init__(self, calls: list[Inputs]) -> None:
        self._calls = iter(calls)

    def get_next(self) -> Inputs | None:
        return next(self._calls, None)


def _with_stored_weights(folded: bytes, weights: set[str], chosen: list[Layer], rung: str) -> Any:
    """The model with `weights` in the type of `rung`, each behind a node that makes it float32.

    A weight that a float layer shares is stored a second time, as it was.
    """
    onnx = library("onnx", EXTRA)
    model = onnx.load_model_from_string(folded)
    graph, nodes = model.graph, {layer.node for layer in chosen}
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    readers: dict[str, list[Any]] = {name: [] for name in weights}
    for node in graph.node:
        if node.name in nodes:
            readers[node.input[1]].append(node)
            node.input[1] += ".float32"
    added = []
    for name in sorted(weights):
        values = onnx.numpy_helper.to_array(tensors[name])
        store = _in_int8 if rung == "int8-weights" else _in_float16
        stored, node = store(name, values, readers[name][0])
        graph.initializer.extend(onnx.numpy_helper.from_array(v, n) for n, v in stored.items())
        added.append(node)
    ordered = [*added, *graph.node]
    used = {name for node in ordered for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(ordered)
    graph.initializer.extend(kept)
    return model


def _in_float16(
    name: str, values: NDArray[np.float32], reader: Any
) -> tuple[dict[str, NDArray[Any]], Any]:
    """What to store for a weight, by name, and the node that makes it float32."""
    onnx = library("onnx", EXTRA)
    if not (np.abs(values).max() <= np.finfo(np.float16).max):
        raise LoweringError(
            f"{name} holds {np.abs(values).max():.4g}, and float16 ends at 65504",
            fix=f"keep {reader.output[0]} in float, or ship the float32 artefact of this model",
        )
    node = onnx.helper.make_node(
        "Cast", [f"{name}.float16"], [f"{name}.float32"], to=onnx.TensorProto.FLOAT
    )
    return {f"{name}.float16": values.astype(np.float16)}, node


def _in_int8(
    name: str, values: NDArray[np.float32], reader: Any
) -> tuple[dict[str, NDArray[Any]], Any]:
    """As `_in_float16`: round(w / scale) with one scale per output channel, no zero point."""
    onnx = library("onnx", EXTRA)
    axis = _output_axis(reader, values.ndim)
    others = tuple(dimension for dimension in range(values.ndim) if dimension != axis)
    largest = np.abs(values).max(axis=others, keepdims=True)
    if not np.isfinite(largest).all():
        raise LoweringError(
            f"{name} holds NaN or Inf, and so would its scales", fix="train the model again"
        )
    # Any scale holds a channel of zeros.
    scale = np.where(largest > 0, largest / np.float32(127), np.float32(1)).astype(np.float32)
    stored = {
        f"{name}.int8": np.rint(values / scale).clip(-127, 127).astype(np.int8),
        f"{name}.scale": scale.reshape(-1),
        f"{name}.zero": np.zeros(scale.size, np.int8),
    }
    node = onnx.helper.make_node("DequantizeLinear", list(stored), [f"{name}.float32"], axis=axis)
    return stored, node


def _output_axis(node: Any, rank: int) -> int:
    """Which dimension of a layer's weight counts its output channels."""
    if node.op_type == "Conv":
        return 0
    transposed = any(a.name == "transB" and a.i for a in node.attribute)
    return rank - 2 if transposed else rank - 1


def _unchanged(rung: str) -> LoweringError:
    return LoweringError(
        f"{rung} quantization changed nothing: no {'/'.join(LAYERS)} is left to quantize",
        fix="ship the float32 artefact of this model",
    )


def _failed(error: Exception) -> LoweringError:
    return LoweringError(
        f"onnxruntime cannot quantize the model: {first_line(error)}",
        fix="ship the float32 artefact, or write the layer that it names with others",
    )
