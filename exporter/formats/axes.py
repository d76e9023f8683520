"""Axes that vary: what a job may ask for, and how an artefact says what it was given.

No format holds all of it: ONNX knows an axis' name and no bounds, ExecuTorch the upper bound, Core
ML both bounds and no name. So `declaration` goes into the metadata of an artefact with dynamic
axes, and `inspect` reports it once the file's own structure agrees with it.

What it leaves out: torch, which is `exporter.formats.program`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Final

from exporter.formats import Axis, Inputs, Lowering
from swipe.errors import LoweringError, UsageError

DECLARATION_KEY: Final = "dynamic_shapes"
"""Metadata key of a declaration; artefacts of static shapes have none."""

Shape = list[int | str]
"""Sizes of a tensor as JSON; one that varies is ``"<axis>:<least>..<most>"``, e.g. "T:4..200"."""

Signature = dict[str, Shape]

_VARYING: Final = re.compile(r"(?P<name>[^:]+):(?P<least>\d+)\.\.(?P<most>\d+)")


def spell(axis: Axis) -> str:
    """`axis` as a `Shape` has it."""
    return f"{axis.name}:{axis.least}..{axis.most}"


def read(size: int | str) -> Axis | int:
    """What `spell` wrote, or the size itself.

    Raises:
        ValueError: it is neither.
    """
    if isinstance(size, int):
        return size
    match = _VARYING.fullmatch(size)
    if match is None:
        raise ValueError(f"{size!r} is no axis")
    return Axis(match["name"], int(match["least"]), int(match["most"]))


def axes_of(job: Lowering) -> dict[str, Axis]:
    """The axes of `job` by name.

    Raises:
        UsageError: one is unlike the example, has no valid name, or has two pairs of bounds.
    """
    axes: dict[str, Axis] = {}
    for name, dimensions in job.dynamic.items():
        for dimension, axis in dimensions.items():
            sizes = job.example[name].shape if name in job.example else ()
            if not 0 <= dimension < len(sizes):
                raise _unfit(axis, f"there is no dimension {dimension} of an input {name!r}")
            if not axis.name.isidentifier():
                raise _unfit(axis, "an axis' name is letters, digits and underscores")
            if not axis.least <= sizes[dimension] <= axis.most:
                raise _unfit(axis, f"the example's {name} has {sizes[dimension]} along it")
            if axes.setdefault(axis.name, axis) != axis:
                raise _unfit(axis, f"elsewhere it is {spell(axes[axis.name])}")
    return axes


def _unfit(axis: Axis, reason: str) -> UsageError:
    return UsageError(
        f"the dynamic axis {spell(axis)} does not fit the model's inputs: {reason}",
        fix="name an input, a dimension, and bounds that the example is within",
    )


def extreme_calls(job: Lowering) -> list[Inputs]:
    """The example, and the calls of the calibration that are shortest and longest along each axis.

    They are what an artefact with dynamic axes is executed on before it is put in place.
    """
    chosen = [job.example]
    for name, dimensions in job.dynamic.items():
        for dimension in dimensions:
            by_size = sorted(job.calibration, key=lambda call: int(call[name].shape[dimension]))
            chosen += [by_size[0], by_size[-1]] if by_size else []
    return list({id(call): call for call in chosen}.values())


def declaration(job: Lowering, inputs: Signature, outputs: Signature) -> dict[str, str]:
    """The metadata to embed: the job's, and the shapes where any of them varies."""
    if not job.dynamic:
        return dict(job.metadata)
    # In the module's order, which is what formats without names go by.
    shapes = json.dumps({"inputs": inputs, "outputs": outputs})
    return {**job.metadata, DECLARATION_KEY: shapes}


def declared(metadata: Mapping[str, str], kind: str) -> Signature | None:
    """The shapes of `kind`, "inputs" or "outputs", that `metadata` declares, in order; or None.

    Raises:
        ValueError: it declares what cannot be read.
    """
    text = metadata.get(DECLARATION_KEY)
    if text is None:
        return None
    found: Signature = json.loads(text)[kind]
    for shape in found.values():
        for size in shape:
            read(size)
    return found


def require_bounds(metadata: Mapping[str, str], call: Inputs, name: str) -> None:
    """Refuse a call beyond the axes that the artefact `name` declares in `metadata`.

    For runtimes whose files cannot hold bounds: a host has to look at the declaration as well.

    Raises:
        LoweringError: names the input and its size.
    """
    shapes = declared(metadata, "inputs") or {}
    for source, shape in shapes.items():
        for size, given in zip(map(read, shape), call[source].shape, strict=True):
            if isinstance(size, Axis) and not size.least <= given <= size.most:
                raise LoweringError(
                    f"{name} takes {source} of {spell(size)}, and got {given}",
                    fix="cut the sample, or export with other bounds of the axis",
                )


def not_kept(names: Sequence[str], where: str, reason: str) -> LoweringError:
    """The error for axes that a format would fix at the example's size."""
    return LoweringError(
        f"{where} cannot keep {', '.join(names)} dynamic: {reason}",
        fix=f"fix {', '.join(names)} at one size, and pad and mask shorter inputs",
    )
