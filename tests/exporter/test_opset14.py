"""Each rewrite to opset 14 computes what the opset 18 model, and torch, compute."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from exporter.formats.build import quiet
from exporter.formats.opset14 import to_opset14
from swipe.errors import LoweringError

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

helper: Any = onnx.helper
X = np.random.default_rng(0).normal(size=(2, 3, 5)).astype(np.float32)


def graph(*nodes: Any, constants: dict[str, Any] | None = None, outputs: int = 1) -> Any:
    """An opset 18 model from x [2, 3, 5] to y (or y0, y1, ...), their shapes left open."""
    names = ["y"] if outputs == 1 else [f"y{i}" for i in range(outputs)]
    kind = onnx.TensorProto.INT64 if nodes[-1].op_type == "Shape" else onnx.TensorProto.FLOAT
    made = helper.make_graph(
        list(nodes),
        "test",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, X.shape)],
        [helper.make_tensor_value_info(name, kind, None) for name in names],
        [
            onnx.numpy_helper.from_array(np.asarray(value), name)
            for name, value in (constants or {}).items()
        ],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def run(model: Any) -> list[NDArray[Any]]:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return list(session.run(None, {session.get_inputs()[0].name: X}))


def check_valid(model: Any) -> None:
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 14)]
    assert model.ir_version == 7
    onnx.checker.check_model(model, full_check=True)


def int64(*values: int) -> NDArray[np.int64]:
    return np.array(values, dtype=np.int64)


SCALE = np.array([0.5, 1.0, 2.0, -1.0, 3.0], np.float32)
GRAPHS = {
    "layer norm": graph(
        helper.make_node("LayerNormalization", ["x", "s", "b"], ["y"], epsilon=1e-3),
        constants={"s": SCALE, "b": SCALE + 1},
    ),
    "layer norm over two axes, no bias": graph(
        helper.make_node("LayerNormalization", ["x", "s"], ["y"], axis=1),
        constants={"s": np.outer([1.0, 2.0, 3.0], SCALE).astype(np.float32)},
    ),
    "shape slice": graph(helper.make_node("Shape", ["x"], ["y"], start=-2)),
    "shape slice with end": graph(helper.make_node("Shape", ["x"], ["y"], start=0, end=2)),
    "shape": graph(helper.make_node("Shape", ["x"], ["y"])),
    "mean over an axis": graph(
        helper.make_node("ReduceMean", ["x", "a"], ["y"], keepdims=0), constants={"a": int64(-1)}
    ),
    "max over a Constant node": graph(
        helper.make_node("Constant", [], ["a"], value=onnx.numpy_helper.from_array(int64(0, 2))),
        helper.make_node("ReduceMax", ["x", "a"], ["y"]),
    ),
    "mean over everything": graph(helper.make_node("ReduceMean", ["x"], ["y"], keepdims=1)),
    "mean over nothing": graph(
        helper.make_node("ReduceMean", ["x", "a"], ["y"], noop_with_empty_axes=1),
        constants={"a": int64()},
    ),
    "sum keeps its axes input": graph(
        helper.make_node("ReduceSum", ["x", "a"], ["y"]), constants={"a": int64(1)}
    ),
    "split with a smaller last part": graph(
        helper.make_node("Split", ["x"], ["y0", "y1", "y2"], axis=-1, num_outputs=3), outputs=3
    ),
    "split by sizes": graph(
        helper.make_node("Split", ["x", "z"], ["y0", "y1"], axis=2),
        constants={"z": int64(1, 4)},
        outputs=2,
    ),
    "pad some axes": graph(
        helper.make_node("Pad", ["x", "p", "v", "a"], ["y"]),
        constants={"p": int64(1, 2, 3, 0), "v": np.float32(7), "a": int64(-1, 0)},
    ),
    "pad some axes with zeros": graph(
        helper.make_node("Pad", ["x", "p", "", "a"], ["y"]),
        constants={"p": int64(2, 1), "a": int64(1)},
    ),
    "pad all axes": graph(
        helper.make_node("Pad", ["x", "p"], ["y"], mode="edge"),
        constants={"p": int64(0, 0, 1, 0, 0, 2)},
    ),
    "scatter without reduction": graph(
        helper.make_node("ScatterElements", ["x", "i", "u"], ["y"], axis=2, reduction="none"),
        constants={"i": np.zeros((2, 3, 1), np.int64), "u": np.ones((2, 3, 1), np.float32)},
    ),
    "reshape": graph(
        helper.make_node("Reshape", ["x", "z"], ["y"], allowzero=0), constants={"z": int64(6, 5)}
    ),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_the_rewritten_graph_computes_the_same(name: str) -> None:
    before = onnx.shape_inference.infer_shapes(GRAPHS[name], data_prop=True)
    untouched = before.SerializeToString(deterministic=True)

    after = to_opset14(before)

    check_valid(after)
    assert before.SerializeToString(deterministic=True) == untouched
    for old, new in zip(run(before), run(after), strict=True):
        np.testing.assert_allclose(new, old, rtol=1e-5, atol=1e-6)


REFUSED = {
    "operator": (graph(helper.make_node("Mish", ["x"], ["y"])), "Mish"),
    "attribute": (
        graph(
            helper.make_node("ScatterElements", ["x", "i", "u"], ["y"], reduction="add"),
            constants={"i": np.zeros((1, 1, 1), np.int64), "u": np.ones((1, 1, 1), np.float32)},
        ),
        "reduction=b'add'",
    ),
    "axes known at run time only": (
        graph(
            helper.make_node("Cast", ["x"], ["a"], to=onnx.TensorProto.INT64),
            helper.make_node("ReduceMax", ["x", "a"], ["y"]),
        ),
        "computed at run time",
    ),
    "used statistics": (
        graph(
            helper.make_node("LayerNormalization", ["x", "s"], ["y0", "y1"]),
            constants={"s": SCALE},
            outputs=2,
        ),
        "InvStdDev",
    ),
    "foreign domain": (
        graph(helper.make_node("Gelu", ["x"], ["y"], domain="com.microsoft")),
        "com.microsoft",
    ),
    "changed default": (
        graph(
            helper.make_node("RoiAlign", ["x", "r", "i"], ["y"]),
            constants={"r": np.zeros((1, 4), np.float32), "i": int64(0)},
        ),
        "RoiAlign",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_opset_14_cannot_express_is_named(name: str) -> None:
    model, named = REFUSED[name]
    with pytest.raises(LoweringError, match=named):
        to_opset14(model)


def test_a_model_of_another_opset_is_refused() -> None:
    model = graph(helper.make_node("Relu", ["x"], ["y"]))
    model.opset_import[0].version = 17
    with pytest.raises(LoweringError, match="opset 18"):
        to_opset14(model)


class Function(nn.Module):
    """A function of x as a module."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.function(x)
        return result


def layer_norm() -> nn.Module:
    torch.manual_seed(0)
    norm = nn.LayerNorm(5)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    return norm


MODULES = {
    "LayerNorm": layer_norm(),
    "chunk": Function(lambda x: torch.cat(torch.chunk(x, 2, dim=2)[::-1], dim=2)),
    "split": Function(lambda x: torch.cat(torch.split(x, 2, dim=1)[::-1], dim=1)),
    "mean": Function(lambda x: x.mean(dim=(0, 2), keepdim=True)),
    "amax": Function(lambda x: x - x.amax(-1, keepdim=True)),
    "logsumexp": Function(lambda x: torch.logsumexp(x, dim=1)),
    "norm": Function(lambda x: torch.linalg.vector_norm(x, dim=2)),
    "pad": Function(lambda x: F.pad(x, (1, 2), value=3.0)),
    "scatter": Function(lambda x: x.scatter(2, torch.zeros(2, 3, 1, dtype=torch.int64), 4.0)),
    "log_softmax": Function(lambda x: F.log_softmax(x, dim=-1)),
    "flatten": Function(lambda x: x.flatten(1)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MODULES)
def test_a_torch_module_survives_the_whole_route(name: str) -> None:
    module = MODULES[name].eval()
    x = torch.from_numpy(X)
    with quiet(), torch.no_grad():
        expected = module(x).numpy()
        exported = torch.onnx.export(module, (x,), dynamo=True, opset_version=18, verbose=False)
    assert exported is not None

    after = to_opset14(exported.model_proto)

    check_valid(after)
    np.testing.assert_allclose(run(after)[0], expected, rtol=1e-5, atol=1e-6)
