"""ExecuTorch: a .pte whose arithmetic runs in XNNPACK, float32 or static int8.

The metadata travels as the constant method ``get_metadata``, which returns a JSON string. The
int8 rung is PT2E with XNNPACK's own quantizer, per channel. A graph that XNNPACK refuses is only
noticed when a method is loaded, so each artefact is executed once before it is put in place.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from exporter.formats import Lowering, Runner
from exporter.formats.build import (
    calibration_calls,
    first_line,
    known_rung,
    library,
    quiet,
    staged,
    unusable,
)
from swipe.errors import LoweringError

EXTRA: Final = "executorch"
RUNGS: Final = ("int8",)
METHOD: Final = "forward"
METADATA_METHOD: Final = "get_metadata"
DELEGATE: Final = "XnnpackBackend"
FLOAT_TYPE_NAME: Final = "FLOAT"


def lower(job: Lowering, path: Path) -> None:
    """Write the float32 program; see `exporter.formats.Format.lower`."""
    _save(_exported(job.module, job), job, path, quantized=False)


def quantize(job: Lowering, path: Path, rung: str) -> None:
    """Write the int8 program; see `exporter.formats.Format.quantize`."""
    known_rung(rung, RUNGS, "ExecuTorch")
    _save(_quantized(job), job, path, quantized=True)


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

    def __call__(self, *inputs: NDArray[np.float32]) -> NDArray[np.float32]:
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
    program = _read(path)
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
    except Exception as error:
        # Any type: flatc's failures, JSON's, and lookups in half a graph.
        raise unusable(path, "has a delegate that cannot be read", error, "executorch") from error
    kinds = Counter(node["xnode_union_type"] for graph in graphs for node in graph["xnodes"])
    quantized = sum(_int8_weights(graph) for graph in graphs)
    return {
        "methods": sorted(plans),
        "inputs": _signature(path, plan, plan.inputs),
        "outputs": _signature(path, plan, plan.outputs),
        "delegates": dict(sorted(delegates.items())),
        "delegated_operators": dict(sorted(kinds.items())),
        "portable_operators": sorted(".".join((op.name, op.overload)) for op in plan.operators),
        "quantized": quantized > 0,
        "quantized_layers": quantized,
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
    for plan in _read(path).execution_plan:
        if plan.name == METADATA_METHOD:
            try:
                text = plan.values[plan.outputs[0]].val.string_val
                return {str(key): str(value) for key, value in json.loads(text).items()}
            except (AttributeError, LookupError, ValueError) as error:
                raise unusable(
                    path, "has metadata that cannot be read", error, "executorch"
                ) from error
    raise _malformed(path, f"it holds no metadata: there is no method {METADATA_METHOD!r}")


def _exported(module: Any, job: Lowering) -> Any:
    import torch

    try:
        with quiet(), torch.no_grad():
            return torch.export.export(module, tuple(map(torch.from_numpy, job.example.values())))
    except Exception as error:
        # Any type: a model can provoke all that Python code raises.
        raise LoweringError(
            f"torch cannot export the model: {first_line(error)}",
            fix="run with --debug for the exporter's own report",
        ) from error


def _quantized(job: Lowering) -> Any:
    """The exported program with its inner convolutions and linears in static int8.

    The first layer reads raw kinematics, whose rare fast strokes stretch an int8 range until slow
    ones round to nothing (greedy accuracy -9 points on How We Swipe); the last one writes the
    logits. Both are small and stay float, as do additions: a residual stream that is rounded at
    every block loses what the blocks add. What `float_inputs` reach stays float altogether.
    """
    import torch

    quantizers = library("executorch.backends.xnnpack.quantizer.xnnpack_quantizer", EXTRA)
    pt2e = library("torchao.quantization.pt2e.quantize_pt2e", "executorch")
    calls = calibration_calls(job)
    exported = _exported(job.module, job)
    config = quantizers.get_symmetric_quantization_config(is_per_channel=True)
    quantizer = quantizers.XNNPACKQuantizer()
    for operator in _layer_operators():
        quantizer.set_operator_type(operator, config)
    quantizer.set_filter_function(lambda node: _is_inner(node, job))
    try:
        with quiet(), torch.no_grad():
            observed = pt2e.prepare_pt2e(exported.module(), quantizer)
            for call in calls:
                observed(*map(torch.from_numpy, call.values()))
            converted = _with_relu_kept_apart(pt2e.convert_pt2e(observed))
    except Exception as error:
        # Any type: observers raise bare asserts.
        raise LoweringError(
            f"torchao cannot quantize the model: {first_line(error)}",
            fix="ship the float32 artefact, or run with --debug for the library's own report",
        ) from error
    return _exported(converted, job)


def _layer_operators() -> tuple[Any, ...]:
    import torch

    aten = torch.ops.aten
    return (aten.conv1d.default, aten.conv2d.default, aten.linear.default)


def _is_inner(node: Any, job: Lowering) -> bool:
    """Whether `Lowering.float_inputs` do not reach `node`, and it is not an end.

    Ends are the first and the last of the layers that they do not reach, where there are more than
    two of these.
    """
    inputs = [other for other in node.graph.nodes if other.op == "placeholder"]
    reached = {
        other for name, other in zip(job.example, inputs, strict=True) if name in job.float_inputs
    }
    layers = []
    for other in node.graph.nodes:
        if reached.intersection(other.all_input_nodes):
            reached.add(other)
        elif other.target in _layer_operators():
            layers.append(other)
    ends = (layers[0], layers[-1]) if len(layers) > 2 else ()
    return node not in reached and node not in ends


def _with_relu_kept_apart(module: Any) -> Any:
    """Write relu between a float layer and a quantize as clamp(min=0), which XNNPACK won't fuse.

    ExecuTorch takes a conv1d whose only readers are quantize nodes for a quantized one, and relu
    is fused into the convolution first: the file lowers without complaint and cannot be loaded
    ("Failed to create convolution node"). Clamp is not fused and computes the same.
    """
    import torch

    aten = torch.ops.aten
    for node in module.graph.nodes:
        if node.target is not torch.ops.quantized_decomposed.quantize_per_tensor.default:
            continue
        source = node.args[0]
        if source.target in (aten.relu.default, aten.relu_.default) and _is_float_layer(
            source.args[0]
        ):
            source.target, source.args = aten.clamp.default, (source.args[0], 0.0)
    module.recompile()
    return module


def _is_float_layer(node: Any) -> bool:
    # The weight of a quantized layer comes out of a dequantize, that of a float one is stored.
    return node.target in _layer_operators() and node.args[1].op == "get_attr"


def _save(exported: Any, job: Lowering, path: Path, *, quantized: bool) -> None:
    exir = library("executorch.exir", EXTRA)
    partition = library("executorch.backends.xnnpack.partition.xnnpack_partitioner", EXTRA)
    text = json.dumps(dict(job.metadata), sort_keys=True, ensure_ascii=False)
    try:
        with quiet():
            program = exir.to_edge_transform_and_lower(
                exported,
                partitioner=[partition.XnnpackPartitioner()],
                constant_methods={METADATA_METHOD: text},
            ).to_executorch()
    except Exception as error:
        # Any type: passes and partitioners raise whatever the graph provokes.
        raise LoweringError(
            f"ExecuTorch cannot lower the model: {first_line(error)}",
            fix="run with --debug for the library's own report",
        ) from error
    with staged(path) as new:
        new.write_bytes(program.buffer)
        facts = inspect(new)
        if quantized and not facts["quantized"]:
            raise LoweringError(
                "int8 quantization changed nothing: no convolution or linear was quantized",
                fix="ship the float32 artefact of this model",
            )
        load(new)(*job.example.values())


def _read(path: Path) -> Any:
    serialize = library("executorch.exir._serialize._program", EXTRA)
    try:
        with quiet():
            return serialize.deserialize_pte_binary(path.read_bytes()).program
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


def _int8_weights(graph: dict[str, Any]) -> int:
    """Number of per-channel int8 tensors: the weights of quantized layers."""
    values = [value["xvalue_union"] for value in graph["xvalues"]]
    tensors = [value.get("tensor_value", value) for value in values]
    return sum(tensor["datatype"] == "xnn_datatype_qcint8" for tensor in tensors)


def _signature(path: Path, plan: Any, indices: list[int]) -> dict[str, list[int]]:
    shapes = {}
    for position, index in enumerate(indices):
        tensor = plan.values[index].val
        if getattr(getattr(tensor, "scalar_type", None), "name", None) != FLOAT_TYPE_NAME:
            raise _malformed(path, f"{METHOD} takes or gives something that is no float32 tensor")
        shapes[str(position)] = [int(size) for size in tensor.sizes]
    return shapes


def _malformed(path: Path, reason: str) -> LoweringError:
    return LoweringError(
        f"{path.name} is not an ExecuTorch program as we ship them: {reason}",
        fix="export the model again with swipe-export executorch",
    )
