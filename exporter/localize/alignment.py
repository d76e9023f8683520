"""Tensors of an artefact against PyTorch's: which belong together, and how far apart they are.

A tensor is matched when it carries the name of an operator of torch's graph (every exporter here
keeps these), has its shape, and is computed from nothing that the operator does not depend on.
What is not matched is a row with the reason; its neighbours are still compared. numpy only.

What it leaves out: where the numbers come from (`exporter.localize.taps`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from exporter.localize.taps import Tensor

FLOORS_DB: Final[Mapping[str, float]] = {
    "fp32": 80.0,
    "fp16": 40.0,
    "fp16-weights": 40.0,
    "int8-weights": 25.0,
    "int8": 20.0,
    "int8-dynamic": 20.0,
}
"""Below this a row is bad, by rung. On real swipes the released models keep more than 130 dB in
float32, and no less than 27 dB in static int8 where the words survive."""

MASKED_BELOW: Final = -5e3
"""Places where both sides are lower are a mask, and masks differ by nothing that matters: float16
holds -1e4 to the nearest 8."""

WORST_KNOWN_DB: Final = 20.0
"""For rungs that have no entry."""


@dataclass(frozen=True, slots=True)
class Divergence:
    """How far one tensor is from PyTorch's; figures of several samples are merged, not averaged.

    Attributes:
        max_abs_delta: largest |value - reference|; infinite where either alone is not finite.
        signal: sum of squares of the reference.
        noise: sum of squares of the difference.
        elements: how many numbers.
        broken: how many are NaN, or Inf where the other side has another number.
    """

    max_abs_delta: float
    signal: float
    noise: float
    elements: int
    broken: int

    @classmethod
    def between(cls, reference: NDArray[Any], value: NDArray[Any]) -> Divergence:
        """That of `value` from `reference`, which has the same shape.

        The same infinity on both sides is no difference, nor signal, and where both are masked
        there is no noise or signal: a mask is legal, and would outweigh all that it leaves.
        """
        wanted, given = reference.astype(np.float64), value.astype(np.float64)
        same = np.isinf(wanted) & (wanted == given)
        sound = np.isfinite(wanted) & np.isfinite(given)
        broken = int((~(same | sound)).sum())
        open_ = sound & ~((wanted <= MASKED_BELOW) & (given <= MASKED_BELOW))
        delta = np.abs(given[sound] - wanted[sound])
        largest = float(delta.max()) if delta.size else 0.0
        return cls(
            max_abs_delta=math.inf if broken else largest,
            signal=float(np.square(wanted[open_]).sum()),
            noise=float(np.square(given[open_] - wanted[open_]).sum()),
            elements=wanted.size,
            broken=broken,
        )

    def merged(self, other: Divergence) -> Divergence:
        """That of both tensors laid end to end."""
        return Divergence(
            max(self.max_abs_delta, other.max_abs_delta),
            self.signal + other.signal,
            self.noise + other.noise,
            self.elements + other.elements,
            self.broken + other.broken,
        )

    @property
    def sqnr_db(self) -> float:
        """Signal to noise in decibels; higher is closer, and shape and order make no difference.

        NaN when any number is broken, so that no comparison with a limit holds; else infinite
        without noise, even without signal; else minus infinite without signal.
        """
        if self.broken:
            return math.nan
        if self.noise == 0.0:
            return math.inf
        if self.signal == 0.0:
            return -math.inf
        return 10.0 * (math.log10(self.signal) - math.log10(self.noise))


@dataclass(frozen=True, slots=True)
class Row:
    """One tensor of the artefact.

    Attributes:
        tensor: its name in the artefact.
        operator: what computes it there.
        module: path of the torch module that its counterpart is computed in; None if unmatched.
        node: its counterpart in torch's graph; likewise.
        unmatched: why there is none; empty if there is.
        total: distance from PyTorch, all errors before it included.
        own: distance from what PyTorch makes of the artefact's own inputs of this row.
        flips: best classes that change when PyTorch continues from this tensor.
    """

    tensor: str
    operator: str
    module: str | None = None
    node: str | None = None
    unmatched: str = ""
    total: Divergence | None = None
    own: Divergence | None = None
    flips: int | None = None

    def is_bad(self, floor_db: float) -> bool:
        """Whether it was compared and is not as close as `floor_db`; NaN is bad."""
        return self.total is not None and not (self.total.sqnr_db >= floor_db)

    def to_dict(self) -> dict[str, Any]:
        """Fields by name: figures instead of sums; what was not measured is None."""
        figures = asdict(self)
        total, own = figures.pop("total"), figures.pop("own")
        return figures | {
            "max_abs_delta": None if total is None else total["max_abs_delta"],
            "sqnr_db": None if self.total is None else self.total.sqnr_db,
            "own_sqnr_db": None if own is None or self.own is None else self.own.sqnr_db,
            "broken": None if total is None else total["broken"],
        }


@dataclass(frozen=True, slots=True)
class Table:
    """An artefact's rows in the order of its execution.

    Attributes:
        artefact: its file name.
        format: of it.
        view: what was lowered.
        rung: which rung it is.
        floor_db: below this a row is bad.
        samples: how many calls were compared.
        frames: how many best classes they have; None for outputs that are no classes.
        tap_delta: largest |difference| that looking inside made to the output.
        note: where the tensors come from.
        rows: at least one of them matched.
    """

    artefact: str
    format: str
    view: str
    rung: str
    floor_db: float
    samples: int
    frames: int | None
    tap_delta: float
    note: str
    rows: tuple[Row, ...]

    @property
    def first_bad(self) -> int | None:
        """Index of the first bad row; None when all that was compared is close enough."""
        bad = (index for index, row in enumerate(self.rows) if row.is_bad(self.floor_db))
        return next(bad, None)

    @property
    def costliest(self) -> int | None:
        """Index of the row whose own error is largest against its signal; broken ones first."""
        ratios = [
            (index, -math.inf if math.isnan(row.own.sqnr_db) else row.own.sqnr_db)
            for index, row in enumerate(self.rows)
            if row.own is not None
        ]
        index, ratio = min(ratios, key=lambda pair: pair[1], default=(None, math.inf))
        return None if ratio == math.inf else index

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready except for numbers that are not finite."""
        fields = {name: getattr(self, name) for name in self.__slots__ if name != "rows"}
        first, costliest = self.first_bad, self.costliest
        return {
            **fields,
            "first_bad": None if first is None else self.rows[first].tensor,
            "costliest": None if costliest is None else self.rows[costliest].tensor,
            "rows": [row.to_dict() for row in self.rows],
        }


def floor_of(rung: str) -> float:
    """What a row of `rung` has to reach, in dB."""
    return FLOORS_DB.get(rung, WORST_KNOWN_DB)


def match(
    tensors: Sequence[Tensor],
    shapes: Mapping[str, tuple[int, ...]],
    nodes: Mapping[str, tuple[int, ...]],
    depends: Callable[[str, str], bool],
    inputs: Mapping[str, str],
) -> tuple[dict[str, str], dict[str, str]]:
    """Which node of torch's graph each tensor is, and why the others are none.

    Args:
        tensors: the artefact's, each after its sources.
        shapes: theirs, by name.
        nodes: shapes of torch's nodes and inputs, by name.
        depends: whether the first node is the second or is computed from it.
        inputs: torch's names of the inputs, by the artefact's.

    Returns:
        Nodes by tensor and by input, and reasons by unmatched tensor.
    """
    matched = dict(inputs)
    reasons: dict[str, str] = {}
    # What a tensor stands on: the nodes of its nearest sources that have one.
    stands_on: dict[str, set[str]] = {}
    for tensor in tensors:
        below: set[str] = set()
        for source in tensor.sources:
            below |= {matched[source]} if source in matched else stands_on[source]
        stands_on[tensor.name] = below
        node, shape = tensor.node, shapes[tensor.name]
        if node not in nodes:
            reasons[tensor.name] = f"PyTorch's graph has no {node}"
        elif nodes[node] != shape:
            reasons[tensor.name] = f"its shape is {list(shape)}, PyTorch's {list(nodes[node])}"
        elif foreign := sorted(other for other in below if not depends(node, other)):
            reasons[tensor.name] = f"PyTorch's {node} does not depend on {', '.join(foreign)}"
        else:
            matched[tensor.name] = node
    return matched, reasons
