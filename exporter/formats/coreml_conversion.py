"""From a job to a coremltools model on one of the rungs: what computes and what is stored in what.

Known silent errors of the converter are refused here or kept out by construction (see
`_refuse_masked_attention`, `_runs_in_float16`). What it leaves out: the package on disk, which is
`exporter.formats.coreml`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from exporter.formats import Lowering
from exporter.formats.axes import Signature
from exporter.formats.build import OPERATOR_FIX, first_line, library, quiet
from exporter.formats.program import arguments, exported, layer_paths, require_known, signatures
from swipe.errors import LoweringError

EXTRA: Final = "coreml"
LAYERS: Final = frozenset({"conv", "conv_transpose", "gru", "linear", "lstm", "matmul"})
WEIGHTS: Final = ("weight", "weight_hh", "weight_ih", "x", "y")
"""Inputs of layers that may be constant; a matmul calls both of its own x and y."""

FRAGILE_IN_FLOAT16: Final = frozenset({"softmax", "log", "exp"})
"""log(softmax) of float16 is -inf for every class that is not likely."""

RECURRENT: Final = ("aten.lstm", "aten.gru", "aten.rnn_")
"""Operators that coremltools converts from a trace only."""

SMALLEST_QUANTIZED_WEIGHT: Final = 512
"""Elements. The library's 2048 skips layers of a small model."""

HALF_SUFFIX: Final = "_cast_fp16"
"""What coremltools adds to the name of an operation that it makes compute in float16."""


@dataclass(frozen=True, slots=True)
class Converted:
    """A job in coremltools' hands.

    Attributes:
        model: the MLModel.
        paths: of the torch modules that operations are, by the operation's name.
        shapes: of its inputs and its output.
    """

    model: Any
    paths: Mapping[str, str]
    shapes: tuple[Signature, Signature]

    def path_of(self, operation: Any) -> str:
        """Path of the module that `operation` is; its own name where torch knows none."""
        return _path_of(operation, self.paths)

    def operations(self) -> list[Any]:
        """What the program computes, in order."""
        return list(self.model._mil_program.functions["main"].operations)


def convert(job: Lowering, rung: str) -> Converted:
    """The job on `rung`, one of "fp32", "fp16" and "int8".

    Raises:
        UsageError: `Lowering.float_layers` holds a name that is no layer.
        LoweringError: coremltools cannot convert or quantize it.
    """
    converted = _converted(job, rung)
    if rung != "fp32":
        require_known(job, [converted.path_of(layer) for layer in _layers(converted, job)])
    return _quantized(converted, job) if rung == "int8" else converted


def reduced_paths(converted: Converted, rung: str) -> tuple[str, ...]:
    """Paths of the layers that are quantized in what `convert` gave for `rung`, each once."""
    reduced = [
        converted.path_of(operation)
        for operation in converted.operations()
        if is_layer(operation, "constexpr_")
        or (rung == "fp16" and is_layer(operation, "const") and gives_float16(operation))
    ]
    return tuple(dict.fromkeys(reduced))


def _path_of(operation: Any, paths: Mapping[str, str]) -> str:
    name = str(operation.name).removesuffix(HALF_SUFFIX)
    # The first operation that torch calls like its type is given a number.
    return paths.get(name) or paths.get(name.removesuffix("_0"), name)


def is_layer(operation: Any, kind: str) -> bool:
    """Whether it is a layer whose weight comes from a constant of the `kind`.

    Args:
        operation: of a MIL program.
        kind: "const", or "constexpr_" for a compressed one.
    """
    sources = [getattr(operation.inputs.get(name), "op", None) for name in WEIGHTS]
    return operation.op_type in LAYERS and any(
        source is not None and source.op_type.partition("_")[0] == kind.partition("_")[0]
        for source in sources
    )


def gives_float16(operation: Any) -> bool:
    """Whether what an operation of a MIL program gives is float16."""
    types = library("coremltools.converters.mil.mil.types", EXTRA)
    return any(types.builtin_to_string(value.dtype) == "fp16" for value in operation.outputs)


def _layers(converted: Converted, job: Lowering) -> list[Any]:
    """The layers that `float_inputs` do not reach, in order."""
    return [
        operation
        for operation in converted.operations()
        if is_layer(operation, "const")
        and not _upstream(operation)[1].intersection(job.float_inputs)
    ]


def _converted(job: Lowering, rung: str) -> Converted:
    """The job in float32, or in float16 where that is safe and `rung` is not "fp32".

    Of anything recurrent coremltools knows only the traced form, in which a loop over time is one
    operation; everything else comes from torch's exported program.
    """
    import torch

    coremltools = library("coremltools", EXTRA)
    program = exported(job)
    _refuse_masked_attention(program)
    shapes = signatures(program, job)
    with quiet(), torch.no_grad():
        recurrent = _is_recurrent(program)
        source: Any = (
            torch.jit.trace(job.module, arguments(job.example))  # type: ignore[no-untyped-call]
            if recurrent
            else program.run_decompositions(_decompositions())
        )
    paths = {} if recurrent else layer_paths(source)
    # On int8 a layer's float is float16, as the rung below would have it.
    kept = job.float_layers if rung == "fp16" else frozenset[str]()
    precision = (
        coremltools.precision.FLOAT32
        if rung == "fp32"
        else coremltools.transform.FP16ComputePrecision(
            op_selector=lambda operation: (
                _path_of(operation, paths) not in kept and _runs_in_float16(operation, job)
            )
        )
    )
    try:
        with quiet(), torch.no_grad():
            model = coremltools.convert(
                source,
                source="pytorch",
                convert_to="mlprogram",
                minimum_deployment_target=coremltools.target.iOS17,
                compute_precision=precision,
                inputs=_input_types(job),
                outputs=[coremltools.TensorType(job.output_name, dtype=np.float32)],
                skip_model_load=True,
            )
    except Exception as error:
        # Any type: the converter raises whatever an unknown operator provokes.
        raise LoweringError(
            f"coremltools cannot convert the model: {first_line(error)}",
            fix=OPERATOR_FIX,
        ) from error
    return Converted(model, paths, shapes)


def _is_recurrent(program: Any) -> bool:
    return any(str(node.target).startswith(RECURRENT) for node in program.graph.nodes)


def _input_types(job: Lowering) -> list[Any]:
    """The inputs as coremltools declares them; it has no int64.

    The boundary stays float32: without dtypes a float16 model also wants float16 inputs.
    """
    coremltools = library("coremltools", EXTRA)
    types = []
    for name, value in job.example.items():
        shape: list[Any] = list(value.shape)
        for dimension, axis in job.dynamic.get(name, {}).items():
            # No symbol: after a failed conversion the library takes it for used.
            shape[dimension] = coremltools.RangeDim(axis.least, axis.most, shape[dimension])
        dtype = np.int32 if value.dtype.kind == "i" else np.float32
        types.append(coremltools.TensorType(name, shape=tuple(shape), dtype=dtype))
    return types


def _decompositions() -> dict[Any, Any]:
    """How to write operators that coremltools does not know with those that it does."""
    import torch

    def where(condition: torch.Tensor, kept: torch.Tensor, other: float) -> torch.Tensor:
        return torch.where(condition, kept, torch.full_like(kept, other))

    return {torch.ops.aten.where.ScalarOther: where}


def _refuse_masked_attention(exported: Any) -> None:
    """Refuse what coremltools 9 converts wrongly and silently: it inverts attention masks."""
    import torch

    attention = torch.ops.aten.scaled_dot_product_attention.default
    for node in exported.graph.nodes:
        mask = node.args[3] if len(node.args) > 3 else node.kwargs.get("attn_mask")
        if node.target is attention and mask is not None:
            raise LoweringError(
                f"{node.name} has an attention mask, which coremltools inverts without a word",
                fix="write it with matmul and softmax, and add a float mask of 0 and -1e4",
            )


def _runs_in_float16(operation: Any, job: Lowering) -> bool:
    """Whether a MIL operation may compute in float16: from the first layer on.

    What comes before builds features as differences of coordinates, where float16's 11 bits cost
    four times the error of all layers together (max |diff| of logits 0.30 against 0.07). What
    `float_inputs` reach stays float32.
    """
    if operation.op_type in FRAGILE_IN_FLOAT16:
        return False
    operators, names = _upstream(operation)
    return bool(operators & LAYERS) and not names.intersection(job.float_inputs)


def _upstream(operation: Any) -> tuple[set[str], set[str]]:
    """Types of `operation` and of all that it depends on, and the names of what they read."""
    operators, names = set(), set()
    waiting, seen = [operation], set()
    while waiting:
        current = waiting.pop()
        operators.add(current.op_type)
        for value in current.inputs.values():
            for source in value if isinstance(value, tuple | list) else [value]:
                names.add(getattr(source, "name", ""))
                producer = getattr(source, "op", None)
                if producer is not None and id(producer) not in seen:
                    seen.add(id(producer))
                    waiting.append(producer)
    return operators, names


def _quantized(converted: Converted, job: Lowering) -> Converted:
    """`converted` with int8 weights in its layers, except those that are to stay float."""
    optimize = library("coremltools.optimize.coreml", EXTRA)
    config = optimize.OpLinearQuantizerConfig(
        mode="linear_symmetric",
        dtype="int8",
        granularity="per_channel",
        weight_threshold=SMALLEST_QUANTIZED_WEIGHT,
    )
    free = {
        layer.name
        for layer in _layers(converted, job)
        if converted.path_of(layer) not in job.float_layers
    }
    # Constants are not named: they are stored as the operations that read them want.
    operations = [o for o in converted.operations() if o.op_type != "const"]
    kept = [operation.name for operation in operations if operation.name not in free]
    try:
        with quiet():
            model = optimize.linear_quantize_weights(
                converted.model,
                optimize.OptimizationConfig(
                    global_config=config, op_name_configs=dict.fromkeys(kept)
                ),
            )
    except Exception as error:
        # Any type: as for the converter.
        raise LoweringError(
            f"coremltools cannot quantize the model: {first_line(error)}",
            fix="ship the fp16 artefact of this model",
        ) from error
    return replace(converted, model=model)
