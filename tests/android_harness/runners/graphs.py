"""Small ONNX graphs for tests of the runner."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx
from onnx import TensorProto, helper

Shape = Sequence[int | str] | None
Declared = Mapping[str, tuple[int, Shape]]


def save_graph(
    path: Path,
    nodes: Sequence[tuple[str, Sequence[str], Sequence[str], Mapping[str, object]]],
    inputs: Declared,
    outputs: Declared,
    constants: Mapping[str, Sequence[int]] | None = None,
) -> Path:
    """Write a graph of `nodes`, (operator, inputs, outputs, attributes) each, to `path`."""

    def declare(values: Declared) -> list[onnx.ValueInfoProto]:
        return [helper.make_tensor_value_info(k, *value) for k, value in values.items()]

    graph = helper.make_graph(
        [helper.make_node(op, ins, outs, **attributes) for op, ins, outs, attributes in nodes],
        "small",
        declare(inputs),
        declare(outputs),
        [
            helper.make_tensor(name, TensorProto.INT64, [len(values)], values)
            for name, values in (constants or {}).items()
        ],
    )
    opset = helper.make_opsetid("", 17)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=8), path)
    return path
