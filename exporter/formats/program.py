"""A job as torch's exported program: dynamic axes kept or refused, layers named by their module.

torch can fix an axis at the example's size, with an error for some models and without a word for
others; either way a file that only works at one length must not be written. A layer's name is the
path of the torch module that it is, so it is the same in every format and on every rung.

`remembered` keeps what one model cost to prepare, for those who build it many times.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final, TypeVar
from weakref import WeakKeyDictionary

import numpy as np

from exporter.formats import Lowering, Runner
from exporter.formats.axes import Signature, axes_of, extreme_calls, not_kept, spell
from exporter.formats.build import OPERATOR_FIX, first_line, quiet
from swipe.errors import LoweringError, UsageError

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram

Value = TypeVar("Value")

_remembered: Final[WeakKeyDictionary[Any, tuple[str, dict[str, Any]]]] = WeakKeyDictionary()


def arguments(call: Any) -> tuple[torch.Tensor, ...]:
    """One call's arrays as torch takes them."""
    import torch

    return tuple(map(torch.from_numpy, call.values()))


def exported(job: Lowering, module: torch.nn.Module | None = None) -> ExportedProgram:
    """The program of the job's module, or of `module`, which takes the same calls.

    Raises:
        UsageError: `Lowering.dynamic` does not fit the example.
        LoweringError: torch cannot export it, or fixes an axis that was to vary.
    """
    import torch

    axes = axes_of(job)
    dims = {name: torch.export.Dim(name, min=a.least, max=a.most) for name, a in axes.items()}
    shapes = tuple(
        {dimension: dims[axis.name] for dimension, axis in job.dynamic.get(name, {}).items()}
        for name in job.example
    )
    try:
        with quiet(), torch.no_grad():
            program = torch.export.export(
                job.module if module is None else module,
                arguments(job.example),
                dynamic_shapes=shapes if axes else None,
            )
    except Exception as error:
        # Any type: a model can provoke all that Python code raises.
        if "Constraints violated" in str(error):
            named = [name for name in axes if re.search(rf"\b{name}\b", str(error))]
            raise not_kept(named or list(axes), "torch", _complaint(error)) from error
        raise LoweringError(
            f"torch cannot export the model: {first_line(error)}",
            fix=OPERATOR_FIX,
        ) from error
    require_dynamic(program, job, "torch")
    return program


def _complaint(error: Exception) -> str:
    """What torch says about an axis: the first item of its list."""
    items = [line.strip(" -") for line in str(error).splitlines() if line.startswith("  - ")]
    return items[0].partition(". ")[0] if items else first_line(error)


def require_dynamic(program: ExportedProgram, job: Lowering, where: str) -> None:
    """Refuse a program in which an axis that was to vary has one size.

    Raises:
        LoweringError: names the axis and `where` it was lost.
    """
    shapes = _input_shapes(program, job)
    for name, dimensions in job.dynamic.items():
        for dimension, axis in dimensions.items():
            size = shapes[name][dimension]
            if isinstance(size, int):
                raise not_kept([axis.name], where, f"{name} has exactly {size} along it")


def signatures(program: ExportedProgram, job: Lowering) -> tuple[Signature, Signature]:
    """Shapes of the program's inputs and of its output, by the job's names for them."""
    (output,) = program.graph.output_node().args[0]
    shapes = _input_shapes(program, job)
    names = {
        shapes[name][dimension].node.expr: axis
        for name, dimensions in job.dynamic.items()
        for dimension, axis in dimensions.items()
    }
    inputs = {name: [_size(size, names) for size in shape] for name, shape in shapes.items()}
    values: Any = output
    return inputs, {job.output_name: [_size(size, names) for size in values.meta["val"].shape]}


def _input_shapes(program: ExportedProgram, job: Lowering) -> dict[str, Any]:
    placeholders = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    inputs = [placeholders[name] for name in program.graph_signature.user_inputs]
    return {name: node.meta["val"].shape for name, node in zip(job.example, inputs, strict=True)}


def _size(size: Any, names: Any) -> int | str:
    """One size of a `Shape`: a number, or an expression of axes with its bounds."""
    if isinstance(size, int):
        return size
    from torch.utils._sympy.value_ranges import ValueRanges, bound_sympy

    expression = size.node.expr
    ranges = {symbol: ValueRanges(axis.least, axis.most) for symbol, axis in names.items()}
    bounds = bound_sympy(expression, ranges)
    spelled = str(expression)
    for symbol, axis in names.items():
        spelled = re.sub(rf"\b{symbol}\b", axis.name, spelled)
    return f"{spelled}:{int(bounds.lower)}..{int(bounds.upper)}"


def execute_at_extremes(run: Runner, job: Lowering, where: str) -> None:
    """Refuse an artefact that cannot be executed at every size in the job.

    A size that an exporter baked into the graph shows nowhere else.

    Raises:
        LoweringError: an execution fails, or gives another shape than the module; names the axes.
    """
    import torch

    for call in extreme_calls(job):
        with torch.no_grad():
            wanted = tuple(job.module(*arguments(call)).shape)
        try:
            found = run(*call.values()).shape
        except LoweringError as error:
            raise not_kept(list(axes_of(job)), where, str(error)) from error
        if found != wanted:
            reason = f"it gives the shape {found} where the module gives {wanted}"
            raise not_kept(list(axes_of(job)), where, reason)


def layer_paths(program: ExportedProgram) -> dict[str, str]:
    """Operators of `program` by name -> path of the module each is in; its own name at the top."""
    return {
        node.name: module_path(node) for node in program.graph.nodes if node.op == "call_function"
    }


def module_path(node: Any) -> str:
    """Path of the torch module that the operator `node` is in; its own name at the top."""
    stack = list(node.meta.get("nn_module_stack", {}).values())
    path = str(stack[-1][0]) if stack else ""
    return path or str(node.name)


def require_known(job: Lowering, known: Iterable[str]) -> None:
    """Refuse names in `Lowering.float_layers` that are no layer of the model.

    Raises:
        UsageError: names them, and the layers that there are.
    """
    names = list(dict.fromkeys(known))
    unknown = sorted(job.float_layers.difference(names))
    if unknown:
        raise UsageError(
            f"the model has no layer {', '.join(map(repr, unknown))} to keep in float",
            fix=f"choose among: {', '.join(names) or 'none, there is nothing to quantize'}",
        )


def remembered(job: Lowering, what: str, build: Callable[[], Value]) -> Value:
    """`build()`, or what it gave the last time for the same model, inputs and calibration.

    The value must not be changed by whoever gets it. It lives as long as the job's module. Which
    layers stay float and what the metadata says make no difference; a changed weight does.
    """
    fingerprint = _fingerprint(job)
    kept = _remembered.get(job.module)
    if kept is None or kept[0] != fingerprint:
        kept = _remembered[job.module] = (fingerprint, {})
    if what not in kept[1]:
        kept[1][what] = build()
    value: Value = kept[1][what]
    return value


def _fingerprint(job: Lowering) -> str:
    digest = hashlib.sha256()
    tensors = {**dict(job.module.named_parameters()), **dict(job.module.named_buffers())}
    arrays = [(name, tensor.detach().numpy()) for name, tensor in tensors.items()]
    for call in (job.example, *job.calibration):
        arrays += call.items()
    for name, array in arrays:
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).data)
    shapes = {
        name: {dimension: spell(axis) for dimension, axis in dimensions.items()}
        for name, dimensions in job.dynamic.items()
    }
    digest.update(json.dumps([job.output_name, sorted(job.float_inputs), shapes]).encode())
    return digest.hexdigest()
