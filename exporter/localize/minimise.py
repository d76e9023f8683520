"""The smallest piece of an artefact that fails on its own, as files for someone else.

The piece ends with the first bad row and starts at the nearest tensors before it. It is fed with
PyTorch's values of these, so errors that came in from before are gone: if it is close enough now,
the loss was gathered on the way, and the piece starts further up, until it fails again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from exporter.formats import Inputs
from exporter.localize.alignment import Divergence, Table
from exporter.localize.survey import matched_sources, trace
from exporter.localize.taps import Piece, Tapped, Tensor
from swipe.errors import GateError, LoweringError

if TYPE_CHECKING:
    from exporter.localize.reference import Environment, Reference

INPUTS: Final = "inputs.npz"
EXPECTED: Final = "expected.npy"
SHOW: Final = "show.py"

_SHOW: Final = '''\
"""Runs {file} on {inputs} and compares it with {expected}, which PyTorch computed.

{what}
Exit code 1: it is further from PyTorch than {floor:g} dB allow.
"""

import math
import sys
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).resolve().parent
FLOOR_DB = {floor!r}


{run}

def sqnr_db(expected, value):
    if not (np.isfinite(expected) & np.isfinite(value)).all():
        return math.nan
    signal, noise = np.square(expected).sum(), np.square(value - expected).sum()
    if noise == 0.0:
        return math.inf
    return -math.inf if signal == 0.0 else 10.0 * math.log10(signal / noise)


inputs = dict(np.load(FOLDER / "{inputs}"))
expected = np.load(FOLDER / "{expected}").astype(np.float64)
value = np.asarray(run(str(FOLDER / "{file}"), inputs), dtype=np.float64)
distance = sqnr_db(expected, value)
print("inputs: " + ", ".join(f"{{name}} {{list(array.shape)}}" for name, array in inputs.items()))
print("PyTorch: ", expected.ravel()[:6])
print("artefact:", value.ravel()[:6])
print(f"max |delta| {{np.abs(value - expected).max():.3g}}, SQNR {{distance:.1f}} dB")
sys.exit(0 if distance >= FLOOR_DB else 1)
'''


@dataclass(frozen=True, slots=True)
class Minimised:
    """What was written.

    Attributes:
        path: the piece.
        tensor: the artefact's tensor that it ends with.
        starts: the names of its inputs.
        divergence: its distance from PyTorch on those inputs.
    """

    path: Path
    tensor: str
    starts: tuple[str, ...]
    divergence: Divergence


def minimise(
    tapped: Tapped, reference: Reference, table: Table, calls: Sequence[Inputs], folder: Path
) -> Minimised:
    """Write the smallest piece that fails to `folder`: itself, its inputs, and a script.

    Args:
        tapped: the artefact.
        reference: torch's graph, from `Tapped.program`.
        table: what `survey` found on `calls`.
        calls: the same samples.
        folder: made if needed; files of these names in it are replaced.

    Raises:
        GateError: no row is bad, or no piece fails on one sample alone.
        LoweringError: no piece can be written.
    """
    if table.first_bad is None:
        raise GateError(
            f"no row of {table.artefact} is below {table.floor_db:g} dB: nothing to minimise",
            fix="raise the floor with --floor-db",
        )
    matched = {row.tensor: row.node for row in table.rows if row.node is not None}
    matched |= dict(zip(calls[0], reference.inputs, strict=True))
    tensors = {tensor.name: tensor for tensor in tapped.tensors}
    bad = tensors[table.rows[table.first_bad].tensor]
    expected = _worst(tapped, reference, calls, bad, matched[bad.name])
    wanted = _array(expected, matched[bad.name])
    folder.mkdir(parents=True, exist_ok=True)
    names = matched_sources(bad, tapped.tensors, matched)
    problem: LoweringError | None = None
    tried: set[tuple[str, ...]] = set()
    while names not in tried:
        tried.add(names)
        starts = {
            tensors[name].entry if name in tensors else name: _array(expected, matched[name])
            for name in names
        }
        try:
            piece = tapped.cut(starts, bad, folder / "piece")
            found = Divergence.between(wanted, piece.run())
        except LoweringError as error:
            problem = error
        else:
            if not (found.sqnr_db >= table.floor_db):
                _write(piece, wanted, table, bad, folder)
                return Minimised(piece.path, bad.name, tuple(piece.inputs), found)
        names = _further(names, tensors, tapped.tensors, matched)
    if problem is not None:
        raise problem
    raise GateError(
        f"no piece of {table.artefact} up to {bad.name} is below {table.floor_db:g} dB on one "
        "sample alone",
        fix="raise the floor with --floor-db",
    )


def _further(
    names: Sequence[str],
    tensors: dict[str, Tensor],
    order: Sequence[Tensor],
    matched: dict[str, str],
) -> tuple[str, ...]:
    """The starts one step before `names`; the inputs stay."""
    found: dict[str, None] = {}
    for name in names:
        before = (name,) if name not in tensors else matched_sources(tensors[name], order, matched)
        found |= dict.fromkeys(before)
    return tuple(found)


def _worst(
    tapped: Tapped, reference: Reference, calls: Sequence[Inputs], tensor: Tensor, node: str
) -> Environment:
    """PyTorch's values of the sample on which `tensor` is furthest from them."""
    worst, least = calls[0], math.inf
    for call in calls:
        value = trace(tapped, call)[0][tensor.name]
        found = Divergence.between(_array(reference.run(call), node), value).sqnr_db
        found = -math.inf if math.isnan(found) else found
        if found < least:
            worst, least = call, found
    return reference.run(worst)


def _array(values: Environment, node: str) -> NDArray[Any]:
    from exporter.localize.reference import array

    return array(values[node])


def _write(
    piece: Piece, expected: NDArray[Any], table: Table, tensor: Tensor, folder: Path
) -> None:
    arrays: dict[str, Any] = piece.inputs
    np.savez(folder / INPUTS, **arrays)
    np.save(folder / EXPECTED, expected)
    what = (
        f"It is the part of {table.artefact} ({table.format} {table.rung}, view {table.view}) that "
        f"computes\n{tensor.name} ({tensor.operator}) from {', '.join(piece.inputs)}."
    )
    text = _SHOW.format(
        file=piece.path.name, inputs=INPUTS, expected=EXPECTED, what=what, run=piece.script,
        floor=table.floor_db,
    )  # fmt: skip
    (folder / SHOW).write_text(text)
