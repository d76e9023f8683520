"""Tiny ML Programs, saved as packages by coremltools' own builder: what the interpreter reads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import coremltools
import numpy as np
from coremltools.converters.mil.mil import Builder, Function, types
from coremltools.converters.mil.mil import Program as Draft
from numpy.typing import NDArray

from exporter.formats.build import quiet
from exporter.mil import Interpreter

Array = NDArray[Any]
mb: Any = Builder
"""As it is called wherever programs are written with it."""

TYPES = {np.dtype(np.float32): types.fp32, np.dtype(np.int32): types.int32}
SPECIFICATION = Path("Data", "com.apple.CoreML", "model.mlmodel")
WEIGHT_FILE = Path("Data", "com.apple.CoreML", "weights", "weight.bin")


@dataclass(frozen=True)
class Case:
    """A piece of a program.

    Attributes:
        name: of its results, which are ``name``, or ``name_0``, ``name_1`` ... if there are more.
        build: symbolic inputs -> symbolic results.
        arrays: its inputs.
        wanted: what it has to compute; a list if it has more than one result.
    """

    name: str
    build: Callable[..., Any]
    arrays: tuple[Array, ...]
    wanted: Any = None

    @property
    def inputs(self) -> dict[str, Array]:
        return {f"{self.name}_in{i}": array for i, array in enumerate(self.arrays)}


def save(cases: Sequence[Case], folder: Path, target: str = "iOS17") -> Path:
    """The package of one program that holds all `cases`.

    No pass of the converter runs, so the operations in the file are those that were built.
    """
    opset = getattr(coremltools.target, target)
    path = folder / "program.mlpackage"
    with quiet():
        draft = Draft()
        placeholders = {
            name: Builder.placeholder(shape=array.shape, dtype=TYPES[array.dtype])
            for case in cases
            for name, array in case.inputs.items()
        }
        with Function(placeholders, opset_version=opset) as function:
            outputs = []
            for case in cases:
                made = case.build(*(function.inputs[name] for name in case.inputs))
                results = made if isinstance(made, tuple | list) else [made]
                for index, result in enumerate(results):
                    name = case.name if len(results) == 1 else f"{case.name}_{index}"
                    outputs.append(Builder.identity(x=result, name=name))
            function.set_outputs(outputs)
        draft.add_function("main", function)
        model = coremltools.convert(
            draft,
            convert_to="mlprogram",
            minimum_deployment_target=opset,
            compute_precision=coremltools.precision.FLOAT32,
            pass_pipeline=coremltools.PassPipeline.EMPTY,
            skip_model_load=True,
        )
        model.save(str(path))
    return path


def run(cases: Sequence[Case], folder: Path, target: str = "iOS17") -> dict[str, Array]:
    """All results of `cases`, saved, opened and executed as one program."""
    interpreter = Interpreter.open(save(cases, folder, target))
    inputs = {name: array for case in cases for name, array in case.inputs.items()}
    return interpreter.run(inputs)


def edit(package: Path, change: Callable[[Any], None]) -> None:
    """Let `change` rewrite the operations of the saved program, a protobuf list."""
    with quiet():
        specification = coremltools.utils.load_spec(str(package))
    function = specification.mlProgram.functions["main"]
    change(function.block_specializations[function.opset].operations)
    (package / SPECIFICATION).write_bytes(specification.SerializeToString())
