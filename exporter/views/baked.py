"""One keyboard, whose key embeddings are constants: swipe in, raw logits out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from exporter.views.keyboard import Keyboard
from exporter.views.view import View
from swipe.contract import ModelContract

if TYPE_CHECKING:
    from torch import nn

    from train.models import SwipeModel


class Baked(View):
    name, stem, output_name = "baked", "model", "logits"

    def module(self, model: SwipeModel, contract: ModelContract) -> nn.Module:
        import torch

        from train.models import bake

        return bake(model, torch.tensor(contract.keys))

    def context(self, contract: ModelContract) -> dict[str, NDArray[np.float32]]:
        return {}

    def outputs(self, logits: NDArray[np.float32], contract: ModelContract) -> NDArray[np.float32]:
        return logits

    def classes(self, contract: ModelContract) -> list[int]:
        return list(range(contract.classes))

    def keyboards(self, contract: ModelContract) -> Iterator[tuple[str, ModelContract, Keyboard]]:
        yield from ()

    @property
    def conventions(self) -> dict[str, str]:
        return {
            "features": "x and y of the resampled swipe, in letter-area units",
            "logits": "raw, the alphabet's letters in order, then the CTC blank",
        }


BAKED: Final[View] = Baked()
