"""Small ONNX graphs for tests of the runner."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx
from onnx import TensorProto, helper

Shape = Sequence[int | str]


def save_graph(
    path: Path,
    nodes: Sequence[tuple[str, Sequence[str], Sequence[str], Mapping[str, object]]],
    inputs: Mapping[str, tuple[int, Shape]],
    outputs: Mapping[str, tuple[int, Shape | None]],
    constants: Mapping[str, Sequence[int]] | None = None,
) -> Path:
    """Write a graph of `nodes`, (operator, inputs, outputs, attributes) each, to `path`."""

    def declare(values: Mapping[str, tuple[int, Shape | None]]) -> list[onnx.ValueInfoProto]:
        return [helper.make_tensor_value_info(k, *value) for k, value in values.items()]

    graph = helper.make_graph(
        [helper.make_node(op, ins, outs, **attributes) for op, ins, outs, attributes in nodes],
        "small",
        declare({name: value for name, value in inputs.items()}),
        declare(outputs),
        [
            helper.make_tensor(name, TensorProto.INT64, [len(values)], values)
            for name, values in (constants or {}).items()
        ],
    )
    opset = helper.make_opsetid("", 17)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=8), path)
    return path
