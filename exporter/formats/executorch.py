"""ExecuTorch: a .pte whose arithmetic runs in XNNPACK, in float32 or int8.

The metadata travels as the constant method ``get_metadata``, which returns a JSON string. What the
quantized rungs are is `exporter.formats.executorch_quantization`. A graph that XNNPACK refuses is
only noticed when a method is loaded or meets another size, so each artefact is executed before it
is put in place: on the example, and on the shortest and longest calls of a job with dynamic axes.
Memory is planned for the upper bound of an axis; XNNPACK takes one such axis, and no larger batch.
"""

from __future__ import annotations

import json
import math
import re
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from exporter.formats import Axis, Lowering, Runner
from exporter.formats.axes import (
    Signature,
    axes_of,
    declaration,
    declared,
    not_kept,
    read,
)
from exporter.formats.build import (
    OPERATOR_FIX,
    first_line,
    known_rung,
    library,
    quiet,
    refuse_text,
    staged,
    unusable,
)
from exporter.formats.executorch_quantization import EXTRA, quantized, quantized_paths
from exporter.formats.program import execute_at_extremes, exported, require_dynamic, signatures
from swipe.errors import LoweringError

RUNGS: Final = ("int8", "int8-dynamic")
METHOD: Final = "forward"
METADATA_METHOD: Final = "get_metadata"
DELEGATE: Final = "XnnpackBackend"
INPUT_TYPES: Final = ("FLOAT", "LONG")
OUTPUT_TYPES: Final = ("FLOAT",)
BOUNDED: Final = "DYNAMIC_BOUND"
INT8_WEIGHT: Final = "xnn_datatype_qcint8"
DYNAMIC_INT8: Final = "xnn_datatype_qdint8"
STORED_TYPES: Final = {
    "xnn_datatype_fp32": "float32",
    "xnn_datatype_fp16": "float16",
    INT8_WEIGHT: "int8",
    "xnn_datatype_qint8": "int8",
    "xnn_datatype_qcint32": "int32",
    "xnn_datatype_qint32": "int32",
    "FLOAT": "float32",
    "LONG": "int64",
    "INT": "int32",
    "CHAR": "int8",
    "BYTE": "uint8",
    "BOOL": "bool",
}
"""The names of types in a program and in XNNPACK's graphs, in numpy's words."""
FLOAT_TYPES: Final = {"xnn_datatype_fp32": np.float32, "xnn_datatype_fp16": np.float16}


def lower(job: Lowering, path: Path) -> None:
    """Write the float32 program; see `exporter.formats.Format.lower`."""
    _save(exported(job), job, path)


def quantize(job: Lowering, path: Path, rung: str) -> None:
    """Write the program of `rung`; see `exporter.formats.Format.quantize`."""
    known_rung(rung, RUNGS, "ExecuTorch")
    _save(quantized(job, rung), job, path, rung)


def layers(job: Lowering, rung: str) -> tuple[str, ...]:
    """The layers that `rung` would quantize; see `exporter.formats.Format.layers`."""
    known_rung(rung, RUNGS, "ExecuTorch")
    return quantized_paths(job, rung)


def load(path: Path, threads: int = 1) -> Runner:
    """Open `path` in ExecuTorch's runtime; see `exporter.formats.Format.load`.

    The thread pool belongs to the process: the last call's `threads` holds for every runner.
    """
    runtime = library("executorch.runtime", EXTRA)
    bindings = library("executorch.extension.pybindings.portable_lib", EXTRA)
    try:
        with quiet():
            # Underscored, but the only way to choose; benchmarks need one thread.
            if bindings._threadpool_get_thread_count() != threads:
                bindings._unsafe_reset_threadpool(threads)
            program = runtime.Runtime.get().load_program(path.read_bytes())
            method = program.load_method(METHOD)
    except (OSError, RuntimeError) as error:
        raise unusable(path, "cannot be loaded", error, "executorch") from error

    return _Session(path, program, method)


@dataclass(frozen=True, slots=True)
class _Session:
    """A loaded method, as a `Runner`.

    It holds the program too: the method points into the program's bytes without owning them.
    """

    path: Path
    program: Any
    method: Any

    def __call__(self, *inputs: NDArray[Any]) -> NDArray[np.float32]:
        import torch

        try:
            (output,) = self.method.execute(
                [torch.from_numpy(np.ascontiguousarray(value)) for value in inputs]
            )
        except (RuntimeError, ValueError) as error:
            raise unusable(self.path, "cannot be executed", error, "executorch") from error
        # A copy: the runtime writes the next result into the same memory.
        return np.array(output.numpy(), dtype=np.float32)


def inspect(path: Path) -> dict[str, object]:
    """Facts of the program, and of the graphs in XNNPACK; see `exporter.formats.Format.inspect`.

    Inputs and outputs have no names in a .pte: they are called by their position.
    """
    file = _read(path)
    program = file.program
    plans = {plan.name: plan for plan in program.execution_plan}
    if METHOD not in plans:
        raise _malformed(path, f"it has no method {METHOD!r}, only {sorted(plans)}")
    plan = plans[METHOD]
    delegates = Counter(delegate.id for delegate in plan.delegates)
    if delegates[DELEGATE] == 0:
        raise _malformed(path, "nothing in it is delegated to XNNPACK")
    try:
        with quiet():
            graphs = [_xnnpack_graph(bytes(data.data)) for data in program.backend_delegate_data]
            unsound = [reason for graph in graphs for reason in _unsound(graph, file.named_data)]
    except Exception as error:
        # Any type: flatc's failures, JSON's, and lookups in half a graph.
        raise unusable(path, "has a delegate that cannot be read", error, "executorch") from error
    if unsound:
        raise _malformed(path, unsound[0])
    kinds = Counter(node["xnode_union_type"] for graph in graphs for node in graph["xnodes"])
    layers = [layer for graph in graphs for layer in _layers(graph)]
    quantized = sum(weight == INT8_WEIGHT for weight, _ in layers)
    return {
        "methods": sorted(plans),
        "inputs": _shapes(path, plans, "inputs", INPUT_TYPES),
        "outputs": _shapes(path, plans, "outputs", OUTPUT_TYPES),
        "delegates": dict(sorted(delegates.items())),
        "delegated_operators": dict(sorted(kinds.items())),
        "portable_operators": sorted(".".join((op.name, op.overload)) for op in plan.operators),
        "quantized": quantized > 0,
        "quantized_layers": quantized,
        "dynamic_layers": sum(activation == DYNAMIC_INT8 for _, activation in layers),
        "float_layers": len(layers) - quantized,
        "weights": _census(plan, graphs),
        "size_bytes": path.stat().st_size,
        "schema": {"identifier": _identifier(path), "version": program.version},
        "delegated_calls": _calls(plan, "DelegateCall"),
        "portable_calls": _calls(plan, "KernelCall"),
        # The first buffer is the constants', which are not planned.
        "planned_memory_bytes": sum(plan.non_const_buffer_sizes[1:]),
    }


def _identifier(path: Path) -> str:
    """Which schema the file says it was written with; a runtime reads those that it knows."""
    with path.open("rb") as stream:
        return stream.read(8)[4:].decode("ascii", errors="replace")


def _calls(plan: Any, kind: str) -> int:
    """How many instructions of one `kind` a call of the method executes."""
    instructions = [step for chain in plan.chains for step in chain.instructions]
    return sum(type(step.instr_args).__name__ == kind for step in instructions)


def metadata(path: Path) -> dict[str, str]:
    """What the constant method returns; see `exporter.formats.Format.metadata`."""
    return _metadata(path, {plan.name: plan for plan in _read(path).program.execution_plan})


def _metadata(path: Path, plans: dict[str, Any]) -> dict[str, str]:
    if METADATA_METHOD not in plans:
        raise _malformed(path, f"it holds no metadata: there is no method {METADATA_METHOD!r}")
    plan = plans[METADATA_METHOD]
    try:
        text = plan.values[plan.outputs[0]].val.string_val
        return {str(key): str(value) for key, value in json.loads(text).items()}
    except (AttributeError, LookupError, ValueError) as error:
        raise unusable(path, "has metadata that cannot be read", error, "executorch") from error


def _save(program: Any, job: Lowering, path: Path, rung: str = "fp32") -> None:
    exir = library("executorch.exir", EXTRA)
    partition = library("executorch.backends.xnnpack.partition.xnnpack_partitioner", EXTRA)
    refuse_text(job, "ExecuTorch")
    entries = declaration(job, *signatures(program, job))
    text = json.dumps(entries, sort_keys=True, ensure_ascii=False)
    try:
        with quiet():
            edge = exir.to_edge_transform_and_lower(
                program,
                partitioner=[partition.XnnpackPartitioner()],
                constant_methods={METADATA_METHOD: text},
            )
            content = edge.to_executorch().buffer
    except Exception as error:
        # Any type: passes and partitioners raise whatever the graph provokes.
        raise _refused(job, error) from error
    require_dynamic(edge.exported_program(METHOD), job, "ExecuTorch")
    with staged(path) as new:
        new.write_bytes(content)
        facts = inspect(new)
        if (rung != "fp32" and not facts["quantized"]) or (
            rung == "int8-dynamic" and not facts["dynamic_layers"]
        ):
            raise LoweringError(
                f"{rung} quantization changed nothing: no convolution or linear was quantized",
                fix="ship the float32 artefact of this model",
            )
        run = load(new)
        if job.dynamic:
            execute_at_extremes(run, job, "ExecuTorch")
        else:
            run(*job.example.values())


def _refused(job: Lowering, error: Exception) -> LoweringError:
    """The error for a model that cannot be lowered; dynamic axes are the usual reason."""
    problem = f"ExecuTorch cannot lower the model: {first_line(error)}"
    if job.dynamic:
        return not_kept(list(axes_of(job)), "ExecuTorch", problem)
    return LoweringError(problem, fix=OPERATOR_FIX)


def _read(path: Path) -> Any:
    serialize = library("executorch.exir._serialize._program", EXTRA)
    try:
        with quiet():
            return serialize.deserialize_pte_binary(path.read_bytes())
    except Exception as error:
        # Any type: flatc's failures, JSON's, and lookups in half a file.
        raise unusable(path, "cannot be read", error, "executorch") from error


def _xnnpack_graph(payload: bytes) -> dict[str, Any]:
    """One delegate's graph, decoded by the schema that ExecuTorch wrote it with."""
    serialization = "executorch.backends.xnnpack.serialization.xnnpack_graph_serialize"
    xnnpack = library(serialization, EXTRA)
    flatbuffer = library("executorch.exir._serialize._flatbuffer", EXTRA)
    header = xnnpack.XNNHeader.from_bytes(payload[: xnnpack.XNNHeader.EXPECTED_LENGTH])
    start = header.flatbuffer_offset
    with tempfile.TemporaryDirectory() as folder:
        schema, binary = Path(folder, "graph.fbs"), Path(folder, "graph.bin")
        schema.write_bytes(xnnpack._get_schema_bytes())
        binary.write_bytes(payload[start : start + header.flatbuffer_size])
        flatbuffer._flatc_decompile(folder, str(schema), str(binary))
        text = Path(folder, "graph.json").read_text()
    # flatc writes inf where Python's JSON says Infinity.
    graph: dict[str, Any] = json.loads(re.sub(r": (-?)inf\b", r": \1Infinity", text))
    return graph


def _tensors(graph: dict[str, Any]) -> list[dict[str, Any]]:
    """The tensors of a delegate's graph, by their number."""
    values = [value["xvalue_union"] for value in graph["xvalues"]]
    return [value.get("tensor_value", value) for value in values]


def _unsound(graph: dict[str, Any], stored: Any) -> Iterator[str]:
    """What is wrong with the constants of a delegate's graph, which lie in `stored` by name.

    NaN may end in a relu, which XNNPACK makes 0 of it, and a scale of 0 silences a channel: neither
    has to show on samples.
    """

    def numbers(index: int, kind: Any) -> NDArray[Any]:
        entry = stored.pte_data[graph["constant_data"][index]["named_key"]]
        return np.frombuffer(stored.buffers[entry.buffer_index], kind)

    for value in graph["xvalues"]:
        tensor = value["xvalue_union"].get("tensor_value", value["xvalue_union"])
        kind = FLOAT_TYPES.get(tensor["datatype"])
        index = tensor["constant_buffer_idx"]
        if kind and index and not np.isfinite(numbers(index, kind)).all():
            yield f"the constant {tensor['id_out']} holds NaN or Inf"
        rounding = value["xvalue_union"].get("quant_params", {})
        scales = np.atleast_1d(rounding.get("scale", []))
        if rounding.get("scale_buffer_idx"):
            scales = numbers(rounding["scale_buffer_idx"], np.float32)
        if not ((scales > 0) & np.isfinite(scales)).all():
            yield f"the tensor {tensor['id_out']} has a scale that is not above 0"


def _layers(graph: dict[str, Any]) -> list[tuple[str, str]]:
    """Types of the weight and of the input of each layer of a delegate's graph."""
    types = {tensor["id_out"]: tensor["datatype"] for tensor in _tensors(graph)}
    nodes = [node["xnode_union"] for node in graph["xnodes"]]
    return [
        (types[node["filter_id"]], types[node["input1_id"]])
        for node in nodes
        if "filter_id" in node
    ]


def _census(plan: Any, graphs: list[dict[str, Any]]) -> dict[str, int]:
    """How many constant numbers are stored, in XNNPACK's graphs and beside them, by type."""
    counts: Counter[str] = Counter()
    for graph in graphs:
        for tensor in _tensors(graph):
            if tensor["constant_buffer_idx"]:
                counts[STORED_TYPES[tensor["datatype"]]] += math.prod(tensor["dims"])
    for value in plan.values:
        if getattr(value.val, "data_buffer_idx", 0):
            counts[STORED_TYPES[value.val.scalar_type.name]] += math.prod(value.val.sizes)
    return dict(sorted(counts.items()))


def _shapes(path: Path, plans: dict[str, Any], kind: str, types: tuple[str, ...]) -> Signature:
    """Shapes of the method's inputs or outputs by position; see `exporter.formats.Format.inspect`.

    A tensor that varies has its upper bound's size in the file, and is marked as bounded.
    """
    plan = plans[METHOD]
    indices = plan.inputs if kind == "inputs" else plan.outputs
    try:
        shapes = declared(_metadata(path, plans), kind)
    except (LookupError, ValueError, TypeError) as error:
        raise unusable(path, "declares no readable shapes", error, "executorch") from error
    found: Signature = {}
    for position, index in enumerate(indices):
        tensor = plan.values[index].val
        if getattr(getattr(tensor, "scalar_type", None), "name", None) not in types:
            raise _malformed(path, f"one of its {kind} is not a tensor of {' or '.join(types)}")
        held = [int(size) for size in tensor.sizes]
        shape = held if shapes is None else list(shapes.values())[position]
        sizes = [read(size) for size in shape]
        varies = any(isinstance(size, Axis) for size in sizes)
        bounds = [size.most if isinstance(size, Axis) else size for size in sizes]
        if bounds != held or varies != (tensor.shape_dynamism.name == BOUNDED):
            raise _malformed(
                path,
                f"the {kind[:-1]} {position} declares {shape}, and is "
                f"{tensor.shape_dynamism.name} with at most {held}",
            )
        found[str(position)] = list(shape)
    return found


def _malformed(path: Path, reason: str) -> LoweringError:
    return LoweringError(
        f"{path.name} is not an ExecuTorch program as we ship them: {reason}",
        fix="export the model again with swipe-export executorch",
    )
