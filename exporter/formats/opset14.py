"""Rewrite an ONNX model from opset 18, which torch's exporter writes, to opset 14.

Opset 14 is what the keyboards' bundled runtimes read, torch's supported exporter starts at 18, and
onnx's own version converter stops at the first LayerNormalization. So: one small rewrite per
operator whose meaning can be kept (`REWRITES`), one general rule for attributes that opset 14 does
not know (dropped while they hold their default), and a typed error for all else.

Leaves out local functions, control flow and operators of other domains: they are refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from swipe.errors import LoweringError

SOURCE_OPSET: Final = 18
TARGET_OPSET: Final = 14
TARGET_IR: Final = 7
"""The IR version of onnx 1.9, the last release before opset 15."""


class Rewriting:
    """The graph being rewritten: answers about its tensors, and collects what a rewrite adds."""

    def __init__(self, model: Any) -> None:
        from onnx import numpy_helper, shape_inference

        inferred = shape_inference.infer_shapes(model, data_prop=True).graph
        self._constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self._shapes: dict[str, list[int]] = {
            value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
            for value in (*inferred.input, *inferred.value_info, *inferred.output)
            if value.type.tensor_type.HasField("shape")
        }
        self._shapes |= {name: list(tensor.dims) for name, tensor in self._constants.items()}
        for node in model.graph.node:
            if node.op_type == "Constant" and node.attribute[0].name == "value":
                self._constants[node.output[0]] = node.attribute[0].t
        self._to_array: Callable[[Any], NDArray[Any]] = numpy_helper.to_array
        self.initializers: list[Any] = []

    def shape(self, name: str, node: Any) -> list[int]:
        """Shape of the tensor `name`, an input of `node`; 0 where it is not static."""
        if name not in self._shapes:
            raise _refusal(node, f"the shape of its input {name!r} is unknown")
        return self._shapes[name]

    def constant(self, name: str, node: Any) -> NDArray[Any]:
        """Value of the tensor `name`, an input of `node`, known while exporting."""
        if name not in self._constants:
            raise _refusal(node, f"its input {name!r} is computed at run time")
        return self._to_array(self._constants[name])

    def add_constant(self, name: str, value: NDArray[Any]) -> str:
        """Make `value` an initializer called `name`, and return the name."""
        from onnx import numpy_helper

        self.initializers.append(numpy_helper.from_array(value, name))
        return name


def _layer_normalization(node: Any, graph: Rewriting) -> list[Any]:
    """(x - mean) / sqrt(mean((x - mean)^2) + epsilon) * scale + bias, written out.

    LayerNormalization is new in 17.
    """
    from onnx import helper

    if any(node.output[1:]):
        raise _refusal(node, "its outputs Mean and InvStdDev are used")
    attributes = _attributes(node)
    axis = attributes.get("axis", -1)
    if axis >= 0:
        axis -= len(graph.shape(node.input[0], node))
    axes = list(range(axis, 0))
    x, scale, *bias = node.input
    y = node.output[0]
    epsilon = np.array(attributes.get("epsilon", 1e-5), np.float32)
    nodes = [
        helper.make_node("ReduceMean", [x], [f"{y}.mean"], axes=axes, keepdims=1),
        helper.make_node("Sub", [x, f"{y}.mean"], [f"{y}.centred"]),
        helper.make_node("Mul", [f"{y}.centred", f"{y}.centred"], [f"{y}.squared"]),
        helper.make_node("ReduceMean", [f"{y}.squared"], [f"{y}.variance"], axes=axes, keepdims=1),
        helper.make_node(
            "Add", [f"{y}.variance", graph.add_constant(f"{y}.epsilon", epsilon)], [f"{y}.guarded"]
        ),
        helper.make_node("Sqrt", [f"{y}.guarded"], [f"{y}.deviation"]),
        helper.make_node("Div", [f"{y}.centred", f"{y}.deviation"], [f"{y}.normal"]),
    ]
    if any(bias):
        nodes.append(helper.make_node("Mul", [f"{y}.normal", scale], [f"{y}.scaled"]))
        nodes.append(helper.make_node("Add", [f"{y}.scaled", bias[0]], [y]))
    else:
        nodes.append(helper.make_node("Mul", [f"{y}.normal", scale], [y]))
    return nodes


def _shape(node: Any, graph: Rewriting) -> list[Any]:
    """Shape(start, end), new in 15, is a slice of Shape."""
    from onnx import helper

    attributes = _attributes(node)
    if not attributes:
        return [node]
    y = node.output[0]
    # Slice clamps its end like Shape does, and reads negative indices the same way.
    bounds = [
        graph.add_constant(f"{y}.{name}", np.array([attributes.get(name, default)], np.int64))
        for name, default in (("start", 0), ("end", np.iinfo(np.int64).max))
    ]
    return [
        helper.make_node("Shape", [node.input[0]], [f"{y}.whole"]),
        helper.make_node("Slice", [f"{y}.whole", *bounds], [y]),
    ]


def _reduction(node: Any, graph: Rewriting) -> list[Any]:
    """Reduce* took its axes as an attribute until 18 (ReduceSum changed in 13: left alone)."""
    from onnx import helper

    attributes = _attributes(node)
    noop = attributes.pop("noop_with_empty_axes", 0)
    axes = [int(a) for a in graph.constant(node.input[1], node)] if len(node.input) > 1 else []
    if not axes and noop:
        return [helper.make_node("Identity", [node.input[0]], list(node.output))]
    if axes:
        attributes["axes"] = axes
    return [helper.make_node(node.op_type, [node.input[0]], list(node.output), **attributes)]


def _split(node: Any, graph: Rewriting) -> list[Any]:
    """Split(num_outputs), new in 18, becomes explicit sizes: its last part may be smaller."""
    from onnx import helper

    attributes = _attributes(node)
    if "num_outputs" not in attributes:
        return [node]
    axis, parts = attributes.get("axis", 0), attributes["num_outputs"]
    length = graph.shape(node.input[0], node)[axis]
    if length == 0:
        raise _refusal(node, "the axis it splits has no static length")
    part = -(-length // parts)
    sizes = np.array([part] * (parts - 1) + [length - part * (parts - 1)], np.int64)
    name = graph.add_constant(f"{node.output[0]}.sizes", sizes)
    return [helper.make_node("Split", [node.input[0], name], list(node.output), axis=axis)]


def _pad(node: Any, graph: Rewriting) -> list[Any]:
    """Pad(axes), new in 18, pads only the axes it lists: opset 14 wants all of them."""
    from onnx import helper

    if len(node.input) < 4 or not node.input[3]:
        return [node]
    rank = len(graph.shape(node.input[0], node))
    axes = [int(a) % rank for a in graph.constant(node.input[3], node)]
    begin, end = graph.constant(node.input[1], node).reshape(2, len(axes))
    pads = np.zeros((2, rank), np.int64)
    pads[0, axes], pads[1, axes] = begin, end
    name = graph.add_constant(f"{node.output[0]}.pads", pads.reshape(-1))
    inputs = [node.input[0], name, *filter(None, node.input[2:3])]
    return [helper.make_node("Pad", inputs, list(node.output), **_attributes(node))]


REWRITES: Final[dict[str, Callable[[Any, Rewriting], list[Any]]]] = {
    "LayerNormalization": _layer_normalization,
    "Pad": _pad,
    "Shape": _shape,
    "Split": _split,
    **dict.fromkeys(
        (
            "ReduceL1",
            "ReduceL2",
            "ReduceLogSum",
            "ReduceLogSumExp",
            "ReduceMax",
            "ReduceMean",
            "ReduceMin",
            "ReduceProd",
            "ReduceSumSquare",
        ),
        _reduction,
    ),
}
"""Operator -> the nodes that mean the same in opset 14."""

CHANGED_MEANING: Final = frozenset({"RoiAlign"})
"""Operators whose default behaviour changed after 14, so that dropping an attribute lies."""


def to_opset14(model: Any) -> Any:
    """The same computation as an opset 14, IR 7 ModelProto.

    Args:
        model: ModelProto of opset 18, default domain only; it stays as it is.

    Raises:
        LoweringError: an operator, attribute or input has no equal in opset 14; it is named.
    """
    from onnx import helper

    imports = {entry.domain: entry.version for entry in model.opset_import if entry.domain == ""}
    if imports.get("") != SOURCE_OPSET or model.functions:
        raise LoweringError(
            f"expected a plain opset {SOURCE_OPSET} model, got opset imports {imports} and "
            f"{len(model.functions)} local functions",
            fix="export with torch.onnx.export(dynamo=True, opset_version=18)",
        )
    for node in model.graph.node:
        if node.domain not in ("", "ai.onnx"):
            raise _refusal(node, f"it belongs to the domain {node.domain!r}")
    graph = Rewriting(model)
    nodes: list[Any] = []
    for node in model.graph.node:
        rewritten = REWRITES[node.op_type](node, graph) if node.op_type in REWRITES else [node]
        nodes.extend(_fitted(new) for new in rewritten)
    down = type(model)()
    down.CopyFrom(model)
    del down.graph.node[:], down.graph.value_info[:], down.opset_import[:]
    down.graph.node.extend(nodes)
    down.graph.initializer.extend(graph.initializers)
    down.opset_import.append(helper.make_opsetid("", TARGET_OPSET))
    down.ir_version = TARGET_IR
    return _without_unused_constants(down)


def _fitted(node: Any) -> Any:
    """`node` as opset 14 spells it: attributes it does not know are dropped at their default."""
    from onnx import defs, helper

    if node.op_type in CHANGED_MEANING:
        raise _refusal(node, "its default behaviour changed after opset 14")
    try:
        old = defs.get_schema(node.op_type, TARGET_OPSET, "")
    except defs.SchemaError:
        raise _refusal(node, "the operator is newer") from None
    new = defs.get_schema(node.op_type, SOURCE_OPSET, "")
    if len(node.input) > old.max_input:
        raise _refusal(node, f"it has {len(node.input)} inputs, opset 14 takes {old.max_input}")
    kept = []
    for attribute in node.attribute:
        value = helper.get_attribute_value(attribute)
        if attribute.HasField("g") or attribute.graphs:
            raise _refusal(node, "control flow is not rewritten")
        if attribute.name in old.attributes:
            kept.append(attribute)
        elif value != _default(new, attribute.name):
            raise _refusal(node, f"its attribute {attribute.name}={value!r} is newer")
    fitted = type(node)()
    fitted.CopyFrom(node)
    del fitted.attribute[:]
    fitted.attribute.extend(kept)
    return fitted


def _default(schema: Any, attribute: str) -> object:
    from onnx import helper

    if attribute not in schema.attributes:
        return None
    default = schema.attributes[attribute].default_value
    return helper.get_attribute_value(default) if default.name else None


def _without_unused_constants(model: Any) -> Any:
    used = {name for node in model.graph.node for name in node.input}
    used |= {value.name for value in model.graph.output}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    return model


def _attributes(node: Any) -> dict[str, Any]:
    from onnx import helper

    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def _refusal(node: Any, reason: str) -> LoweringError:
    return LoweringError(
        f"opset 14 cannot express {node.op_type} ({node.name or node.output[0]}): {reason}",
        fix="write this part of the model with older operators, or deploy it in another format",
    )
