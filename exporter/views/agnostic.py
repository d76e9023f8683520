"""Any keyboard of up to 64 keys, passed at run time; masked log-probabilities out.

The shape that FUTO Keyboard and CleverKeys consume.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from exporter.views.keyboard import SLOTS, Keyboard
from exporter.views.view import View
from swipe.contract import ModelContract
from swipe.layout import BUILT_IN, load_layout

if TYPE_CHECKING:
    from torch import nn

    from train.models import SwipeModel


class Agnostic(View):
    name, stem, output_name = "agnostic", "model-agnostic", "log_emissions"

    def module(self, model: SwipeModel, contract: ModelContract) -> nn.Module:
        from train.models import agnostic

        return agnostic(model)

    def context(self, contract: ModelContract) -> dict[str, NDArray[np.float32]]:
        return Keyboard.in_order(contract).inputs

    def outputs(self, logits: NDArray[np.float32], contract: ModelContract) -> NDArray[np.float32]:
        return Keyboard.in_order(contract).emissions(logits)

    def classes(self, contract: ModelContract) -> list[int]:
        return [*Keyboard.in_order(contract).slots, SLOTS]

    def keyboards(self, contract: ModelContract) -> Iterator[tuple[str, ModelContract, Keyboard]]:
        yield f"{contract.layout} in shuffled slots", contract, Keyboard.shuffled(contract)
        for name in BUILT_IN:
            if name != contract.layout:
                other = load_layout(name).contract()
                yield name, other, Keyboard.in_order(other)

    @property
    def conventions(self) -> dict[str, str]:
        return {
            "features": "x and y of the resampled swipe, in letter-area units",
            "layout_keys": "key centres (cx, cy) in letter-area units, any order; empty slots "
            "hold any finite value",
            "layout_mask": "1 = the slot holds a key, 0 = it is empty",
            "log_emissions": f"log-softmax over the {SLOTS} slots and the CTC blank, which is "
            f"class {SLOTS}; an empty slot scores -1e4 before it",
        }


AGNOSTIC: Final[View] = Agnostic()
