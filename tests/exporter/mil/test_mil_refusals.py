"""What is not known is refused when the package is opened, and by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("coremltools")

from hypothesis import given, settings
from hypothesis import strategies as st
from mil_programs import SPECIFICATION, WEIGHT_FILE, Case, edit, mb, save

from exporter.mil import KNOWN, Interpreter
from swipe.errors import LoweringError

X = np.ones((1, 4, 8), dtype=np.float32)
FILTERS = np.ones((4, 4, 3), dtype=np.float32)


def one(build: Callable[..., Any], folder: Path, *arrays: Any, target: str = "iOS17") -> Path:
    return save([Case("y", build, arrays or (X,))], folder, target)


def rename(old: str, new: str) -> Callable[[Any], None]:
    def change(operations: Any) -> None:
        (found,) = [operation for operation in operations if operation.type == old]
        found.type = new

    return change


def test_an_unknown_operation_is_refused_by_name_before_anything_runs(tmp_path: Path) -> None:
    package = one(lambda x: mb.relu(x=x, name="bend"), tmp_path)
    edit(package, rename("relu", "resurrect"))
    with pytest.raises(LoweringError) as caught:
        Interpreter.open(package)
    message = str(caught.value)
    assert "'bend' (resurrect)" in message
    assert ", ".join(sorted(KNOWN)) in message


def test_an_unknown_option_is_refused_by_name(tmp_path: Path) -> None:
    package = one(lambda x: mb.softmax(x=x, name="share"), tmp_path)

    def change(operations: Any) -> None:
        (found,) = [operation for operation in operations if operation.type == "softmax"]
        found.inputs["temperature"].CopyFrom(found.inputs["axis"])

    edit(package, change)
    with pytest.raises(LoweringError, match=r"'share' \(softmax\) has an option temperature"):
        Interpreter.open(package)


UNIMPLEMENTED = [
    ("batch_dims", lambda x: mb.gather(x=x, indices=np.zeros((1, 2), np.int32), batch_dims=1)),
    ("ceil_mode", lambda x: mb.max_pool(x=x, kernel_sizes=[3], strides=[2], pad_type="valid",
                                        ceil_mode=True)),
    ("pad_type 'same'", lambda x: mb.conv_transpose(x=x, weight=FILTERS, pad_type="same")),
    ("output_shape", lambda x: mb.conv_transpose(x=x, weight=FILTERS, strides=[2],
                                                 output_shape=[1, 4, 18])),
    ("clip", lambda x: mb.lstm(x=x, initial_h=np.zeros((4, 2), np.float32),
                               initial_c=np.zeros((4, 2), np.float32), clip=np.float32(1),
                               weight_ih=np.ones((8, 8), np.float32),
                               weight_hh=np.ones((8, 2), np.float32))[0]),
    ("recurrent_activation 'hard_sigmoid'",
     lambda x: mb.lstm(x=x, initial_h=np.zeros((4, 2), np.float32),
                       initial_c=np.zeros((4, 2), np.float32),
                       recurrent_activation="hard_sigmoid",
                       weight_ih=np.ones((8, 8), np.float32),
                       weight_hh=np.ones((8, 2), np.float32))[0]),
]  # fmt: skip


@pytest.mark.parametrize(("named", "build"), UNIMPLEMENTED, ids=lambda value: str(value)[:12])
def test_an_option_that_is_not_implemented_is_refused_by_name(
    named: str, build: Callable[..., Any], tmp_path: Path
) -> None:
    with pytest.raises(LoweringError, match=f"operation .* has .*{named}"):
        Interpreter.open(one(build, tmp_path))


def test_a_missing_operand_is_refused(tmp_path: Path) -> None:
    package = one(lambda x: mb.add(x=x, y=np.float32(1)), tmp_path)

    def change(operations: Any) -> None:
        (found,) = [operation for operation in operations if operation.type == "add"]
        del found.inputs["y"]

    edit(package, change)
    with pytest.raises(LoweringError, match=r"\(add\) has no y"):
        Interpreter.open(package)


def test_inputs_that_the_package_does_not_declare_are_refused(tmp_path: Path) -> None:
    interpreter = Interpreter.open(one(lambda x: mb.relu(x=x), tmp_path))
    assert [str(feature) for feature in interpreter.inputs] == ["fp32[1, 4, 8]"]
    for wrong in (X[:, :, :7], X.astype(np.float64), X[0]):
        with pytest.raises(LoweringError, match=r"takes fp32\[1, 4, 8\] as y_in0 and got"):
            interpreter.run({"y_in0": wrong})
    for names in ({}, {"x": X}, {"y_in0": X, "x": X}):
        with pytest.raises(LoweringError, match="takes y_in0 and got"):
            interpreter.run(names)


def test_a_shape_other_than_the_declared_one_is_refused(tmp_path: Path) -> None:
    package = one(lambda x: mb.relu(x=x, name="bend"), tmp_path)

    def change(operations: Any) -> None:
        for operation in operations:
            if operation.type in ("relu", "identity"):
                size = operation.outputs[0].type.tensorType.dimensions[2]
                size.constant.size = 9

    edit(package, change)
    with pytest.raises(LoweringError, match=r"'bend' \(relu\) gives \[1, 4, 8\], declared as"):
        Interpreter.open(package).run({"y_in0": X})


def test_an_index_outside_is_refused(tmp_path: Path) -> None:
    values = np.array([5, 6, 7], np.float32)
    case = Case("y", lambda x, i: mb.gather(x=x, indices=i), (values, np.zeros(1, np.int32)))
    new, old = (Interpreter.open(save([case], tmp_path / t, t)) for t in ("iOS17", "iOS16"))

    def inputs(index: int) -> dict[str, Any]:
        return {"y_in0": values, "y_in1": np.array([index], np.int32)}

    for interpreter, index in ((new, 3), (new, -1), (old, 3), (old, -4)):
        with pytest.raises(LoweringError, match=r"\(gather\) failed: an index is outside"):
            interpreter.run(inputs(index))
    # Until iOS 16, a negative one counts from the end.
    assert old.run(inputs(-1))["y"].tolist() == [7]


def test_integers_divide_without_remainder_or_not_at_all(tmp_path: Path) -> None:
    counts = np.array([6, 9], np.int32)
    package = one(lambda x: mb.real_div(x=x, y=np.int32(3)), tmp_path, counts)
    interpreter = Interpreter.open(package)
    assert interpreter.run({"y_in0": counts})["y"].tolist() == [2, 3]
    with pytest.raises(LoweringError, match=r"\(real_div\) failed: integers do not divide"):
        interpreter.run({"y_in0": counts + 1})


@pytest.fixture(scope="module")
def weighted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    weight = np.arange(4 * 4 * 30, dtype=np.float32).reshape(4, 4, 30)
    wide = np.ones((1, 4, 40), dtype=np.float32)
    return one(lambda x: mb.conv(x=x, weight=weight), tmp_path_factory.mktemp("w"), wide)


@settings(deadline=None, max_examples=40)
@given(share=st.floats(0, 1, exclude_max=True))
def test_a_weight_file_cut_anywhere_is_refused(weighted: Path, share: float) -> None:
    file = weighted / WEIGHT_FILE
    whole = file.read_bytes()
    try:
        # What follows the last weight is padding.
        file.write_bytes(whole[: int(share * (64 + 64 + 4 * 4 * 30 * 4))])
        with pytest.raises(LoweringError, match="weights that cannot be read"):
            Interpreter.open(weighted)
    finally:
        file.write_bytes(whole)
    Interpreter.open(weighted)


def test_a_missing_weight_file_is_refused(tmp_path: Path) -> None:
    package = one(lambda x: mb.conv(x=x, weight=np.ones((4, 4, 5), np.float32)), tmp_path)
    (package / WEIGHT_FILE).unlink()
    with pytest.raises(LoweringError, match="weights that cannot be read"):
        Interpreter.open(package)


def test_what_is_no_package_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LoweringError, match=r"none\.mlpackage cannot be read"):
        Interpreter.open(tmp_path / "none.mlpackage")
    package = one(lambda x: mb.relu(x=x), tmp_path)
    (package / SPECIFICATION).write_bytes(b"")
    with pytest.raises(LoweringError, match="only an ML Program can be interpreted"):
        Interpreter.open(package)
