"""Greedy CTC at the end of an ONNX graph: scores in, one string out, in opset 14.

Best class of each frame, repeats merged, blanks dropped, letters joined. All but the joining is
plain ONNX; `JOIN` is an operator of onnxruntime-extensions, which a session has to register.

The nodes are appended to a finished graph, after quantization: quantizing runs the graph, in a
session of its own that knows no custom operator.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np

from exporter.formats import Spelling
from exporter.formats.build import library
from swipe.errors import LoweringError

EXTRA: Final = "text"
DOMAIN: Final = "ai.onnx.contrib"
DOMAIN_VERSION: Final = 1
JOIN: Final = "StringJoin"


def append_text(model: Any, spelling: Spelling, scores: str) -> None:
    """Give `model` a first output that spells its output ``scores [1, T, K + 1]``, blank last.

    Raises:
        LoweringError: the output has another number of classes.
    """
    onnx = library("onnx", "onnx")
    graph = model.graph
    (output,) = (value for value in graph.output if value.name == scores)
    classes = output.type.tensor_type.shape.dim[2].dim_value
    if classes != len(spelling.letters) + 1:
        raise LoweringError(
            f"{scores} has {classes} classes, {len(spelling.letters)} letters and a blank were to "
            "be written",
            fix="give one letter for each class but the last, the blank",
        )
    name, blank = spelling.name, np.array([classes - 1])
    # The blank writes nothing: with one in front the string of a silent swipe is empty, and joining
    # no letters at all is an error.
    constants = {
        "letters": np.array([*spelling.letters, ""], dtype=object),
        "blank": blank,
        "line": np.array([-1]),
        "start": np.array([0]),
        "last": np.array([-1]),
        "nothing": np.array([""], dtype=object),
    }
    for key, value in constants.items():
        graph.initializer.append(onnx.numpy_helper.from_array(value, f"{name}.{key}"))
    graph.node.extend(_nodes(onnx.helper.make_node, name, scores))
    graph.output.insert(0, onnx.helper.make_tensor_value_info(name, onnx.TensorProto.STRING, [1]))
    model.opset_import.append(onnx.helper.make_opsetid(DOMAIN, DOMAIN_VERSION))


def _nodes(node: Any, name: str, scores: str) -> Iterator[Any]:
    def of(*parts: str) -> list[str]:
        return [f"{name}.{part}" for part in parts]

    steps: tuple[tuple[str, list[str], str, dict[str, int]], ...] = (
        ("ArgMax", [scores], "frames", {"axis": 2, "keepdims": 0}),
        ("Reshape", of("frames", "line"), "best", {}),
        ("Slice", of("best", "start", "last"), "but_last", {}),
        ("Concat", of("blank", "but_last"), "previous", {"axis": 0}),
        ("Equal", of("best", "previous"), "repeated", {}),
        ("Equal", of("best", "blank"), "silent", {}),
        ("Or", of("repeated", "silent"), "dropped", {}),
        ("Not", of("dropped"), "kept", {}),
        ("Compress", of("best", "kept"), "spoken", {}),
        ("Concat", of("blank", "spoken"), "classes", {"axis": 0}),
        ("Gather", of("letters", "classes"), "characters", {}),
    )
    for operator, inputs, output, attributes in steps:
        yield node(operator, inputs, of(output), name=f"{name}.{output}", **attributes)
    joined = of("characters", "nothing", "start")
    yield node(JOIN, joined, [name], name=name, domain=DOMAIN)


def register(options: Any) -> None:
    """Make the session `options` know the operators of onnxruntime-extensions.

    Raises:
        MissingError: it is not installed.
    """
    extensions = library("onnxruntime_extensions", EXTRA)
    options.register_custom_ops_library(extensions.get_library_path())
