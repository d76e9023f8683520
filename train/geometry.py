"""Does a model read the keyboard it is given, or has it learnt one by heart?

Two questions, both about the same swipes:

* Carried to another keyboard (`swipe.transplant`), do they stay readable there? Human noise stays
  as it was, so what is lost is lost to the geometry, not to the people.
* Left where they are, with the letters of the keyboard shuffled: do they become unreadable? A model
  that goes on reading them does not look at the keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from rich.table import Table
from torch import nn

from swipe.console import make_table
from swipe.contract import ModelContract
from swipe.errors import GateError
from swipe.features import trajectories
from swipe.gesture import Gesture
from swipe.layout import BUILT_IN, Layout, load_layout
from swipe.lexicon import Lexicon
from swipe.transplant import transplant
from train.evaluate import evaluate_words
from train.stream import encode

MAX_FALL: Final = 12.0
"""Points of strict top-1 that another keyboard may cost."""
MIN_RECORDED: Final = 2 * MAX_FALL
"""Percent of strict top-1 as recorded: who reads little has little to lose, and would pass."""
MAX_SHUFFLED: Final = 1.0
"""Percent of strict top-1 with shuffled letters: about what a frequent word scores by accident."""


@dataclass(frozen=True, slots=True)
class Geometry:
    """Strict top-1, in percent, of one model on one set of swipes.

    Attributes:
        swipes: how many.
        lexicon_sha256: hash of the lexicon.
        recorded: on the keyboard they were swiped on.
        carried: on each other keyboard, after residual transplant.
        shuffled: where they are, with the letters of the keyboard shuffled.
    """

    swipes: int
    lexicon_sha256: str
    recorded: float
    carried: dict[str, float]
    shuffled: float

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready fields."""
        return {name: getattr(self, name) for name in self.__slots__}


def measure_geometry(
    model: nn.Module,
    contract: ModelContract,
    gestures: Sequence[Gesture],
    lexicon: Lexicon,
    *,
    layouts: Sequence[str] = BUILT_IN,
    seed: int = 0,
) -> Geometry:
    """Judge `model` on `gestures` of the contract's keyboard, on `layouts`, and shuffled.

    Raises:
        DataError: there are no swipes, or no such layout.
        GateError: no layout is another than the contract's.
    """
    own = Layout.from_contract(contract)
    words = [gesture.word for gesture in gestures]
    points = trajectories(gestures)

    def top1(keys: NDArray[np.float64], moved: NDArray[np.float32]) -> float:
        centers = tuple((float(x), float(y)) for x, y in keys)
        features = np.clip(moved, 0.0, 1.0)
        result = evaluate_words(model, replace(contract, keys=centers), features, words, lexicon)
        return float(result.beam["strict"]["top_k"]["1"])

    def there(keys: NDArray[np.float64]) -> NDArray[np.float32]:
        letters, lengths = encode(words, own.letters, max(map(len, words), default=1))
        return transplant(points, own.centers[letters], keys[letters], lengths)

    others = [load_layout(name) for name in layouts if name != own.name]
    _require_others([other.name for other in others])  # before minutes of decoding
    shuffled = own.centers[np.random.default_rng(seed).permutation(len(own.centers))]
    return Geometry(
        swipes=len(words),
        lexicon_sha256=lexicon.sha256,
        recorded=top1(own.centers, points),
        carried={other.name: top1(other.centers, there(other.centers)) for other in others},
        shuffled=top1(shuffled, points),
    )


def require_geometry(found: Geometry) -> None:
    """Pass a model that reads the keyboard.

    Raises:
        GateError: another keyboard costs more than `MAX_FALL` points, shuffled letters leave more
            than `MAX_SHUFFLED` percent, less than `MIN_RECORDED` percent are read as recorded, or
            there is no other keyboard.
    """
    _require_others(list(found.carried))
    if found.shuffled > MAX_SHUFFLED:
        raise GateError(
            f"{found.shuffled:.1f} % of the swipes are still read with the letters of the keyboard "
            f"shuffled (at most {MAX_SHUFFLED:g} %)",
            fix="the model does not look at the keys: check that they reach it",
        )
    if not found.recorded >= MIN_RECORDED:
        raise GateError(
            f"only {found.recorded:.1f} % of the swipes are read as recorded, too few to tell what "
            f"another keyboard costs (at least {MIN_RECORDED:g} %)",
            fix="train further, or give swipes and a lexicon that the model reads",
        )
    falls = {name: found.recorded - top1 for name, top1 in found.carried.items()}
    worst = max(falls, key=lambda name: falls[name])
    if falls[worst] > MAX_FALL:
        raise GateError(
            f"{worst} costs {falls[worst]:.1f} points of top-1 (at most {MAX_FALL:g})",
            fix="train with a larger share of other keyboards: --set augment.layouts=0.5",
        )


def _require_others(names: Sequence[str]) -> None:
    if not names:
        raise GateError(
            "no other keyboard to carry the swipes to: that of the model is not one",
            fix=f"name another with --layout, or leave it out for {', '.join(BUILT_IN)}",
        )


def table(found: Geometry) -> Table:
    """What ``swipe-train geometry`` prints."""
    title = f"strict top-1 of {found.swipes:,} swipes; lexicon {found.lexicon_sha256[:16]}"
    shown = make_table(title, "keyboard", "top-1 %", "points")
    shown.add_row("as recorded", f"{found.recorded:.2f}", "")
    for name, top1 in found.carried.items():
        shown.add_row(f"carried to {name}", f"{top1:.2f}", f"{top1 - found.recorded:+.2f}")
    shown.add_row("letters shuffled, swipes not", f"{found.shuffled:.2f}", "must be about 0")
    return shown
