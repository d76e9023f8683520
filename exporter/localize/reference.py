"""The model as torch's exported graph, operator by operator, in float32.

Three things are asked of it: every operator's value; what one operator makes of other values of
its inputs; and what the model answers when it continues from another value of one tensor.

What it leaves out: models that change their inputs in place. Exporting a program for a format
removes that.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from exporter.formats import Inputs, Lowering
from exporter.formats.build import quiet
from exporter.formats.program import arguments, exported, remembered

if TYPE_CHECKING:
    from torch.export import ExportedProgram
    from torch.fx import Node

Environment = dict[str, Any]
"""Values by node name."""


class Reference:
    """A program that can be entered anywhere.

    Attributes:
        inputs: names of the nodes that a call's arrays go to, in the call's order.
        output: name of the node that is the answer.
        modules: path of the module that each operator is in, by node name; empty at the top.
    """

    def __init__(self, program: ExportedProgram) -> None:
        with quiet():
            self._module: Any = program.module()
        graph = self._module.graph
        self._nodes: list[Node] = [
            node for node in graph.nodes if node.op in ("placeholder", "get_attr", "call_function")
        ]
        self.inputs = [node.name for node in self._nodes if node.op == "placeholder"]
        self._by_name = {node.name: node for node in self._nodes}
        results: Any = graph.output_node().args[0]
        self.output: str = (results[0] if isinstance(results, tuple | list) else results).name
        self.modules = {node.name: _module_of(node) for node in self._nodes}
        self._ancestors: dict[str, frozenset[str]] = {}
        for node in self._nodes:
            above = {node.name}.union(*(self._ancestors[n.name] for n in node.all_input_nodes))
            self._ancestors[node.name] = frozenset(above)

    @torch.inference_mode()
    def run(self, call: Inputs) -> Environment:
        """Every node's value."""
        values: Environment = dict(zip(self.inputs, arguments(call), strict=True))
        for node in self._nodes:
            if node.op != "placeholder":
                values[node.name] = self._compute(node, values)
        return values

    def depends(self, node: str, other: str) -> bool:
        """Whether `node` is `other` or is computed from it."""
        return other in self._ancestors[node]

    @torch.inference_mode()
    def recompute(
        self, node: str, given: Mapping[str, NDArray[Any]], values: Environment
    ) -> NDArray[Any]:
        """What `node` is when some of the nodes before it are `given`, and the rest is `values`."""
        known = {name: _like(value, values[name]) for name, value in given.items()}
        for other in self._nodes:
            if other.name in self._ancestors[node] and other.name not in known:
                touched = any(i.name in known for i in other.all_input_nodes)
                if touched:
                    known[other.name] = self._compute(other, {**values, **known})
        return array(known[node] if node in known else values[node])

    @torch.inference_mode()
    def resume(self, node: str, value: NDArray[Any], values: Environment) -> NDArray[Any]:
        """The answer when `node` is `value` and everything after it is computed anew."""
        changed = {**values, node: _like(value, values[node])}
        for other in self._nodes:
            if other.name != node and node in self._ancestors[other.name]:
                changed[other.name] = self._compute(other, changed)
        return array(changed[self.output])

    def _compute(self, node: Node, values: Environment) -> Any:
        if node.op == "get_attr":
            found: Any = self._module
            for part in str(node.target).split("."):
                found = getattr(found, part)
            return found
        operands, named = torch.fx.node.map_arg(
            (node.args, node.kwargs), lambda other: values[other.name]
        )
        operator: Any = node.target
        return operator(*operands, **named)


def functional(job: Lowering) -> ExportedProgram:
    """The program of `job` in which no operator changes its inputs, with the names it had."""

    def build() -> ExportedProgram:
        with quiet():
            program: ExportedProgram = exported(job).run_decompositions({})
        return program

    return remembered(job, "functional program", build)


def tensors_of(values: Environment) -> dict[str, tuple[int, ...]]:
    """Shapes of those `values` that are tensors, by name."""
    return {n: tuple(v.shape) for n, v in values.items() if isinstance(v, torch.Tensor)}


def array(value: torch.Tensor) -> NDArray[Any]:
    """The numbers of a tensor."""
    return np.asarray(value.detach().numpy())


def _like(value: NDArray[Any], wanted: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(value)).to(wanted.dtype)


def _module_of(node: Node) -> str:
    stack = list(node.meta.get("nn_module_stack", {}).values())
    return str(stack[-1][0]) if stack else ""
