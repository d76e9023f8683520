"""Anyone's .onnx: NaN is found wherever ONNX can store a number, and a missing library is said."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from exporter.inspection import ONNX
from swipe.errors import MissingError
from train.inspection.verdict import Inspection

onnx = pytest.importorskip("onnx")
helper, numpy_helper, F = onnx.helper, onnx.numpy_helper, onnx.TensorProto

SOUND = np.arange(4, dtype=np.float32)
BAD = np.array([1, np.nan, 2, np.inf], dtype=np.float32)


def _inspect(path: Path, *, stats: bool = False) -> Inspection:
    assert ONNX.claims(path)
    return ONNX.inspect(path, stats)


def _tensor(name: str, values: np.ndarray) -> Any:
    return numpy_helper.from_array(values, name)


def _save(
    path: Path,
    weight: Any = None,
    *,
    nodes: tuple[Any, ...] = (),
    initializers: tuple[Any, ...] = (),
    **fields: Any,
) -> Path:
    """x + w -> y, with `nodes` and `initializers` added."""
    weight = _tensor("w", SOUND) if weight is None else weight
    graph = helper.make_graph(
        [*nodes, helper.make_node("Add", ["x", "w"], ["y"], name="add")],
        "main",
        [helper.make_tensor_value_info("x", F.FLOAT, [4])],
        [helper.make_tensor_value_info("y", F.FLOAT, [4])],
        [weight, *initializers],
    )
    opsets = [helper.make_opsetid("", 21)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10, **fields)
    onnx.save(model, path)
    return path


def test_a_sound_file_is_valid_with_its_stats(tmp_path: Path) -> None:
    found = _inspect(_save(tmp_path / "x.onnx"), stats=True)
    assert found.verdict == "VALID"
    assert not found.warnings
    (row,) = found.stats
    assert (row.name, row.shape, row.minimum, row.maximum, row.mean) == ("w", (4,), 0, 3, 1.5)
    assert _inspect(_save(tmp_path / "y.onnx")).sha256 == found.sha256
    other = _inspect(_save(tmp_path / "z.onnx", _tensor("w", SOUND + 1)))
    assert other.sha256 != found.sha256


def _branch(values: np.ndarray) -> Any:
    output = helper.make_tensor_value_info("b", F.FLOAT, [4])
    add = helper.make_node("Add", ["deep", "w"], ["b"])
    return helper.make_graph([add], "branch", [], [output], [_tensor("deep", values)])


HIDING_PLACES = {
    "initializer": ({"weight": _tensor("w", BAD)}, "w"),
    "float_data": ({"weight": helper.make_tensor("w", F.FLOAT, [4], BAD)}, "w"),
    "Constant": (
        {"nodes": (helper.make_node("Constant", [], ["c"], name="k", value=_tensor("", BAD)),)},
        "k.value",
    ),
    "Constant floats": (
        {"nodes": (helper.make_node("Constant", [], ["c"], value_floats=BAD.tolist()),)},
        "c.value_floats",
    ),
    "Constant float": (
        {"nodes": (helper.make_node("Constant", [], ["c"], value_float=float("nan")),)},
        "c.value_float",
    ),
    "subgraph": (
        {
            "nodes": (
                helper.make_node(
                    "If", ["yes"], ["i"], name="choose",
                    then_branch=_branch(BAD), else_branch=_branch(SOUND),
                ),
            ),
            "initializers": (_tensor("yes", np.array(True)),),
        },
        "choose/then_branch/deep",
    ),
}  # fmt: skip


@pytest.mark.parametrize("place", HIDING_PLACES)
def test_nan_is_found_wherever_it_hides(tmp_path: Path, place: str) -> None:
    changes, name = HIDING_PLACES[place]
    found = _inspect(_save(tmp_path / "x.onnx", **changes), stats=True)
    assert found.reasons[0].startswith(f"not finite: {name}: 1 NaN and "), found.reasons
    assert not found.stats


def test_nan_in_a_function_of_the_model_is_found(tmp_path: Path) -> None:
    constant = helper.make_node("Constant", [], ["c"], name="k", value=_tensor("", BAD))
    add = helper.make_node("Add", ["a", "c"], ["b"])
    opsets = [helper.make_opsetid("", 21)]
    function = helper.make_function("own", "Shift", ["a"], ["b"], [constant, add], opsets)
    found = _inspect(_save(tmp_path / "x.onnx", functions=[function]))
    assert found.reasons == ("not finite: Shift/k.value: 1 NaN and 1 Inf of 4 values",)


SMALL_TYPES = [
    F.FLOAT16, F.BFLOAT16, F.DOUBLE, F.FLOAT8E4M3FN, F.FLOAT8E4M3FNUZ, F.FLOAT8E5M2,
    F.FLOAT8E5M2FNUZ, F.COMPLEX64,
]  # fmt: skip


@pytest.mark.parametrize("kind", SMALL_TYPES, ids=F.DataType.Name)
def test_nan_is_found_in_every_type(tmp_path: Path, kind: int) -> None:
    for values, name in ((BAD[:3], "bad"), (SOUND, "sound")):
        extra = helper.make_tensor("e", kind, [len(values)], values)
        found = _inspect(_save(tmp_path / f"{name}.onnx", initializers=(extra,)), stats=True)
        assert found.valid == (name == "sound"), found.reasons
    assert _inspect(tmp_path / "bad.onnx").reasons == (
        "not finite: e: 1 NaN and 0 Inf of 3 values",
    )


@pytest.mark.parametrize("kind", [F.INT4, F.UINT4, F.FLOAT4E2M1, F.INT8, F.BOOL, F.STRING])
def test_types_that_cannot_hold_nan_are_read_all_the_same(tmp_path: Path, kind: int) -> None:
    values = ["a", "b", "c"] if kind == F.STRING else [1, 0, 1]
    extra = helper.make_tensor("e", kind, [3], values)
    found = _inspect(_save(tmp_path / "x.onnx", initializers=(extra,)), stats=True)
    assert found.tensors == 2
    assert not any("cannot be read" in reason for reason in found.reasons)


def _external(folder: Path, values: np.ndarray) -> Path:
    path = _save(folder / "x.onnx", _tensor("w", values))
    model = onnx.load(path)
    onnx.save(
        model, path, save_as_external_data=True, location="x.data", size_threshold=0,
        convert_attribute=True,
    )  # fmt: skip
    assert (folder / "x.data").is_file()
    return path


def test_values_in_another_file_are_read(tmp_path: Path) -> None:
    assert _inspect(_external(tmp_path, SOUND)).valid
    found = _inspect(_external(tmp_path, BAD))
    assert found.reasons == ("not finite: w: 1 NaN and 1 Inf of 4 values",)


@pytest.mark.parametrize("damage", ["absent", "short"])
def test_a_torn_file_of_values_is_invalid_and_named(tmp_path: Path, damage: str) -> None:
    path = _external(tmp_path, SOUND)
    data = tmp_path / "x.data"
    data.unlink() if damage == "absent" else data.write_bytes(data.read_bytes()[:7])
    found = _inspect(path)
    assert found.verdict == "INVALID"
    assert any(r.startswith("w: its values in another file cannot be read") for r in found.reasons)


@pytest.mark.parametrize("location", ["../secret", "/etc/hostname"])
def test_values_outside_the_models_folder_are_not_read(tmp_path: Path, location: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret").write_bytes(SOUND.tobytes())
    path = _external(folder, SOUND)
    model = onnx.load(path, load_external_data=False)
    for entry in model.graph.initializer[0].external_data:
        if entry.key == "location":
            entry.value = location
    path.write_bytes(model.SerializeToString())
    assert _inspect(path).verdict == "INVALID"


def _quantized(scale: np.ndarray, *, constant: bool = False) -> dict[str, Any]:
    zero = _tensor("zero", np.zeros(scale.shape, np.uint8))
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"]),
    ]
    initializers = [zero]
    if constant:
        value = _tensor("", scale)
        nodes.insert(0, helper.make_node("Constant", [], ["scale"], name="s", value=value))
    else:
        initializers.append(_tensor("scale", scale))
    return {"nodes": tuple(nodes), "initializers": tuple(initializers)}


@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize(
    ("value", "fault"),
    [
        (0.0, "a scale of zero"),
        (-0.1, "a negative scale, -0.1"),
        (1e-40, "a denormal scale, 1e-40"),
        (np.nan, "not finite"),
    ],
)
def test_a_scale_that_nothing_can_be_divided_by_is_invalid(
    tmp_path: Path, value: float, fault: str, constant: bool
) -> None:
    changes = _quantized(np.array(value, np.float32), constant=constant)
    (reason,) = _inspect(_save(tmp_path / "x.onnx", **changes)).reasons
    assert fault in reason
    assert ("s.value" if constant else "scale") in reason
    assert _inspect(_save(tmp_path / "y.onnx", **_quantized(np.array(0.1, np.float32)))).valid


def test_one_bad_scale_among_many_is_found(tmp_path: Path) -> None:
    scale = np.array([0.1, 0.1, 0.0, 0.1], np.float32)
    changes = _quantized(scale)
    for node in changes["nodes"]:
        node.attribute.append(helper.make_attribute("axis", 0))
    assert _inspect(_save(tmp_path / "x.onnx", **changes)).reasons == ("scale: a scale of zero",)


def test_huge_values_are_warned_of_and_recorded_losses_read(tmp_path: Path) -> None:
    found = _inspect(_save(tmp_path / "x.onnx", _tensor("w", SOUND * 1e5)))
    assert found.warnings == ("w has values up to 3e+05",)
    model = onnx.load(tmp_path / "x.onnx")
    model.metadata_props.add(key="val_loss", value="nan")
    onnx.save(model, tmp_path / "x.onnx")
    assert _inspect(tmp_path / "x.onnx").reasons == ("recorded val_loss is nan",)


def test_a_file_that_the_checker_refuses_is_invalid(tmp_path: Path) -> None:
    node = helper.make_node("NoSuchOperator", ["x"], ["z"])
    found = _inspect(_save(tmp_path / "x.onnx", nodes=(node,)))
    assert found.reasons[0].startswith("onnx.checker: ")


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.99])
def test_a_truncated_file_is_invalid(tmp_path: Path, share: float) -> None:
    path = _save(tmp_path / "x.onnx", _tensor("w", np.zeros(4, np.float32)))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    assert _inspect(path).verdict == "INVALID"


def test_text_and_other_kinds_of_file_are_invalid(tmp_path: Path) -> None:
    for content in (b"weights", b"PK\x03\x04", b"\x00" * 100):
        (tmp_path / "x.onnx").write_bytes(content)
        assert _inspect(tmp_path / "x.onnx").verdict == "INVALID", content


def test_without_onnx_nothing_is_called_valid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _save(tmp_path / "x.onnx")
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingError) as caught:
        _inspect(path)
    assert caught.value.fix == "pip install 'swipe-export[onnx]'"


def test_bits_survive_the_way_into_torch(tmp_path: Path) -> None:
    from exporter.inspection.onnx_tensors import StoredTensors

    extra = helper.make_tensor("e", F.BFLOAT16, [3], [1.5, -2.0, 0.0])
    path = _save(tmp_path / "x.onnx", initializers=(extra,))
    stored = StoredTensors(onnx, onnx.load(path), tmp_path)
    assert torch.equal(stored["e"], torch.tensor([1.5, -2.0, 0.0], dtype=torch.bfloat16))
    assert torch.equal(stored["w"], torch.from_numpy(SOUND))
