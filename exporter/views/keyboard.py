"""A keyboard as a host passes it at run time: key centres in slots, some of them empty."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from swipe.contract import ModelContract

SLOTS: Final = 64
"""Key slots of the agnostic view; the blank is the class after them."""

SHUFFLE_SEED: Final = 0


@dataclass(frozen=True, slots=True, eq=False)
class Keyboard:
    """A keyboard as a host passes it.

    Attributes:
        slots: which slot holds each letter, in the alphabet's order.
        keys: float32[1, SLOTS, 2], key centres in letter-area units; anything in empty slots.
        mask: float32[1, SLOTS], 1 where there is a key, 0 where the slot is empty.
    """

    slots: tuple[int, ...]
    keys: NDArray[np.float32]
    mask: NDArray[np.float32]

    @classmethod
    def in_order(cls, contract: ModelContract) -> Keyboard:
        """Letters in the first slots, zeros in the others."""
        return cls._filled(contract, range(len(contract.keys)), np.zeros((SLOTS, 2)))

    @classmethod
    def shuffled(cls, contract: ModelContract) -> Keyboard:
        """Letters in any slots, and a decoy in every empty one: the centre of some letter's key.

        Whoever ignores the mask finds two keys in one place.
        """
        generator = np.random.default_rng(SHUFFLE_SEED)
        slots = generator.permutation(SLOTS)[: len(contract.keys)]
        return cls._filled(contract, slots.tolist(), generator.choice(contract.keys, SLOTS))

    @classmethod
    def _filled(
        cls, contract: ModelContract, slots: Sequence[int], empty: NDArray[np.float64]
    ) -> Keyboard:
        # Filled, not empty[None]: its stride of 0 is one that ExecuTorch refuses.
        keys = np.empty((1, SLOTS, 2), dtype=np.float32)
        keys[0] = empty
        mask = np.zeros((1, SLOTS), dtype=np.float32)
        keys[0, list(slots)] = contract.keys
        mask[0, list(slots)] = 1.0
        return cls(tuple(slots), keys, mask)

    @property
    def inputs(self) -> dict[str, NDArray[np.float32]]:
        """The agnostic view's inputs after the features."""
        return {"layout_keys": self.keys, "layout_mask": self.mask}

    def emissions(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """``log_emissions [N, T, SLOTS + 1]`` that ``logits [N, T, K + 1]`` amount to."""
        from swipe.decode import log_softmax
        from train.models.views import MASKED

        scores = np.full((*logits.shape[:2], SLOTS + 1), MASKED)
        scores[:, :, [*self.slots, SLOTS]] = logits
        return log_softmax(scores).astype(np.float32)
