"""The inside of an ExecuTorch program: its tensors as outputs of the same program, lowered again.

A .pte hides what XNNPACK computes: ETDump has the delegate as one event. So the program that the
file was lowered from, quantized as the rung is, is lowered once more with its tensors as further
outputs, and XNNPACK computes them. Where it fuses (layer, relu, rounding to int8) only the end is
looked at, so that the kernels stay the same. The last row is the file itself, and the table says
how far its output is from the tapped program's.

What it leaves out: whatever happened to the file after it was lowered, except in that last row.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from exporter.formats import Inputs, Lowering, executorch
from exporter.formats.build import first_line, library, quiet
from exporter.formats.executorch_quantization import EXTRA, quantized
from exporter.formats.program import arguments, exported
from exporter.localize.reference import functional
from exporter.localize.taps import ROUNDED, Piece, Tensor, Values, nearest
from swipe.errors import LoweringError

if TYPE_CHECKING:
    from torch.fx import Graph, GraphModule, Node

SUFFIX: Final = ".pte"
FUSED: Final = ("relu", "relu_", "hardtanh", "hardtanh_", "clamp")
SCRIPT: Final = """\
def run(path, inputs):
    import torch
    from executorch.runtime import Runtime

    method = Runtime.get().load_program(path).load_method("forward")
    return method.execute([torch.from_numpy(value) for value in inputs.values()])[0].numpy()
"""


class ExecuTorchTaps:
    """A .pte as `exporter.localize.taps.Tapped`.

    Args:
        path: the file.
        job: what it was lowered from.
        rung: which rung it is.
        reference: the job that answers for PyTorch; `job` unless a test altered that.
    """

    note: Final = "tensors as XNNPACK computes them in a second lowering; the output from the file"

    def __init__(
        self, path: Path, job: Lowering, rung: str, reference: Lowering | None = None
    ) -> None:
        self._run = executorch.load(path)
        self.program = functional(reference or job)
        with quiet():
            lowered = exported(job) if rung == "fp32" else quantized(job, rung)
            self._module: GraphModule = lowered.module()
        self._graph = self._module.graph
        placeholders = [node for node in self._graph.nodes if node.op == "placeholder"]
        self._inputs = dict(zip((node.name for node in placeholders), job.example, strict=True))
        self._live = _live(self._graph)
        self._seen = {node.name: node for node in self._graph.nodes if self._is_seen(node)}
        self._by_name = {node.name: node for node in self._graph.nodes}
        self._answer = _answer(self._graph)
        ordered = [name for name in self._seen if name != self._answer.name]
        self.tensors = tuple(map(self._tensor, [*ordered, self._answer.name]))
        self._execute = _lowered(self._tapped(), arguments(job.example))[1]

    def trace(self, call: Inputs) -> Values:
        """See `Tapped.trace`."""
        values = self._execute(list(call.values()))
        return dict(zip((tensor.name for tensor in self.tensors), values, strict=True))

    def output(self, call: Inputs) -> NDArray[Any]:
        """See `Tapped.output`."""
        return self._run(*call.values())

    def cut(self, starts: Values, tensor: Tensor, path: Path) -> Piece:
        """See `Tapped.cut`."""
        import torch

        graph = torch.fx.Graph()
        copies: dict[Node, Node] = {}
        placeholders = {name: node for node, name in self._inputs.items()}
        given = {placeholders.get(name, name): value for name, value in starts.items()}
        above = _above(self._by_name[tensor.name], set(given))
        inputs = {
            node.name: given[node.name]
            for node in self._graph.nodes
            if node in above and node.name in given
        }
        for name in inputs:
            copies[self._by_name[name]] = graph.placeholder(name)
        for node in self._graph.nodes:
            if node in above and node not in copies:
                copies[node] = graph.node_copy(node, lambda other: copies[other])
        graph.output((_visible(graph, copies[self._by_name[tensor.name]]),))
        module = torch.fx.GraphModule(self._module, graph)
        values = [np.ascontiguousarray(value) for value in inputs.values()]
        content, execute = _lowered(module, tuple(map(torch.from_numpy, values)))
        path = path.with_suffix(SUFFIX)
        path.write_bytes(content)
        named = dict(zip(inputs, values, strict=True))
        return Piece(path, named, lambda: execute(values)[0], SCRIPT)

    def _is_seen(self, node: Node) -> bool:
        """Whether `node` is a tensor to look at; see the module."""
        if node.op != "call_function" or node not in self._live or "val" not in node.meta:
            return False
        operator = _operator(node)
        if operator == "quantize_per_tensor":
            return True
        if operator.startswith(("quantize", "dequantize", "choose_qparams")):
            return False
        if not hasattr(node.meta["val"], "shape") or not node.meta["val"].is_floating_point():
            return False
        return not _is_hidden(node)

    def _tensor(self, name: str) -> Tensor:
        node = self._seen[name]
        source: Any = node
        operator = _operator(node)
        if operator == "quantize_per_tensor":
            source = node.args[0]
            before = _operator(source) if source.op == "call_function" else "input"
            operator = before + ROUNDED
        counterpart = self._counterpart(source)
        if node is self._answer:
            (counterpart,) = self.program.graph_signature.user_outputs
        seen = self._seen.keys() | self._inputs.keys()
        sources = nearest(
            (other.name for other in node.all_input_nodes),
            lambda other: other in seen,
            lambda other: [n.name for n in self._by_name[other].all_input_nodes],
        )
        names = tuple(self._inputs.get(other, other) for other in sources)
        return Tensor(name, operator, counterpart, names, source.name)

    def _counterpart(self, node: Node) -> str:
        """Name in torch's graph: what the node was called before it was quantized.

        Quantization folds a BatchNorm into the layer before it, which then computes its result.
        """
        name = _root(node)
        kept = {_root(other) for other in self._graph.nodes}
        named = {other.name: other for other in self.program.graph.nodes}
        while name in named:
            users = list(named[name].users)
            folded = len(users) == 1 and "batch_norm" in str(users[0].target)
            if not folded or users[0].name in kept:
                break
            name = users[0].name
        return name

    def _tapped(self) -> GraphModule:
        """The module with every tensor as an output, in their order."""
        import torch

        graph = torch.fx.Graph()
        copies: dict[Any, Any] = {}
        graph.graph_copy(self._graph, copies)
        graph.output(tuple(_visible(graph, copies[self._by_name[t.name]]) for t in self.tensors))
        return torch.fx.GraphModule(self._module, graph)


def _live(graph: Graph) -> set[Node]:
    """The nodes that the inputs reach."""
    live: set[Node] = set()
    for node in graph.nodes:
        if node.op == "placeholder" or live.intersection(node.all_input_nodes):
            live.add(node)
    return live


def _answer(graph: Graph) -> Node:
    results: Any = graph.output_node().args[0]
    answer: Node = results[0] if isinstance(results, tuple | list) else results
    return answer


def _above(node: Node, starts: set[str]) -> set[Node]:
    """`node` and what it is computed from, back to `starts`."""
    found: set[Node] = set()
    waiting = [node]
    while waiting:
        current = waiting.pop()
        if current not in found:
            found.add(current)
            if current.name not in starts:
                waiting.extend(current.all_input_nodes)
    return found


def _is_hidden(node: Node) -> bool:
    """Whether XNNPACK computes `node` inside a kernel that ends with rounding to int8."""
    readers = list(node.users)
    if readers and all(_operator(other) == "quantize_per_tensor" for other in readers):
        return True
    return len(readers) == 1 and _operator(readers[0]) in FUSED and _is_hidden(readers[0])


def _visible(graph: Graph, node: Node) -> Node:
    """`node` as float32: a rounded one behind a dequantize of its own, as at a model's end."""
    import torch

    if _operator(node) != "quantize_per_tensor":
        return node
    operator = torch.ops.quantized_decomposed.dequantize_per_tensor.default
    return graph.call_function(operator, (node, *node.args[1:]))


def _operator(node: Node) -> str:
    """Name of the operator without its overload; static rounding only is quantize_per_tensor."""
    name = str(node.target).removeprefix("aten.").removeprefix("quantized_decomposed.")
    operator, _, overload = name.partition(".")
    if operator == "quantize_per_tensor" and overload == "tensor":
        return "quantize_dynamically"
    return operator


def _root(node: Node) -> str:
    """What `node` was called in the graph that all the others were made from."""
    sources = node.meta.get("from_node") or []
    while sources:
        name = str(sources[-1].name)
        sources = sources[-1].from_node
        if not sources:
            return name
    return node.name


def _lowered(module: GraphModule, example: tuple[Any, ...]) -> tuple[bytes, Any]:
    """`module` as a .pte, and how to execute it.

    Raises:
        LoweringError: it cannot be lowered, or not be executed.
    """
    import torch

    exir = library("executorch.exir", EXTRA)
    partition = library("executorch.backends.xnnpack.partition.xnnpack_partitioner", EXTRA)
    runtime = library("executorch.runtime", EXTRA)
    try:
        with quiet(), torch.no_grad():
            program = torch.export.export(module, example)
            edge = exir.to_edge_transform_and_lower(
                program, partitioner=[partition.XnnpackPartitioner()]
            )
            content = bytes(edge.to_executorch().buffer)
            loaded = runtime.Runtime.get().load_program(content)
            method = loaded.load_method(executorch.METHOD)
    except Exception as error:
        # Any type: passes and partitioners raise whatever the graph provokes.
        raise LoweringError(
            f"ExecuTorch cannot lower the program with its tensors as outputs: {first_line(error)}",
            fix="run with --debug for the library's own report",
        ) from error

    def execute(values: list[NDArray[Any]], keep: Any = loaded) -> list[NDArray[Any]]:
        try:
            given = [torch.from_numpy(np.ascontiguousarray(value)) for value in values]
            # Copies: the runtime writes the next result into the same memory.
            return [np.array(value.numpy()) for value in method.execute(given)]
        except (RuntimeError, ValueError) as error:
            raise LoweringError(
                f"the program with its tensors as outputs cannot be executed: {first_line(error)}",
                fix="run with --debug for the library's own report",
            ) from error

    execute(list(map(np.asarray, (value.numpy() for value in example))))
    return content, execute
