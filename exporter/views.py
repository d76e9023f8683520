"""The two forms in which a model is deployed: what they take and give, and how they are judged.

* **baked**: one keyboard, whose key embeddings are constants. Swipe in, raw logits out.
* **agnostic**: any keyboard of up to 64 keys, passed at run time. Masked log-probabilities out, in
  the shape that FUTO Keyboard and CleverKeys consume.

What it leaves out: their arithmetic, which is `train.models.views`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from exporter.evidence import Evidence, Trial
from exporter.formats import Lowering, calls_of
from exporter.manifest import TensorEntry, ViewEntry
from exporter.parity import Kind, Reading
from exporter.words import Words
from swipe.contract import ModelContract
from swipe.errors import UsageError
from swipe.layout import BUILT_IN, load_layout

if TYPE_CHECKING:
    from torch import nn

    from train.checkpoint import Checkpoint
    from train.models import SwipeModel

SLOTS: Final = 64
"""Key slots of the agnostic view; the blank is the class after them."""

CONTRACT_KEY: Final = "contract_id"
"""Metadata key under which every artefact carries the contract it was built for."""

TRIAL_SWIPES: Final = 100
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


class View(ABC):
    """One form of deployment.

    Attributes:
        name: what the command line and the manifest call it.
        stem: of its artefacts' file names.
        output_name: what artefacts call their output.
    """

    name: str
    stem: str
    output_name: str

    @abstractmethod
    def module(self, model: SwipeModel, contract: ModelContract) -> nn.Module:
        """What is lowered: `model` with its constants folded."""

    @abstractmethod
    def context(self, contract: ModelContract) -> dict[str, NDArray[np.float32]]:
        """The inputs after the features, for the contract's keyboard."""

    @abstractmethod
    def outputs(self, logits: NDArray[np.float32], contract: ModelContract) -> NDArray[np.float32]:
        """What the trained model's ``logits [N, T, K + 1]`` look like in this view."""

    @abstractmethod
    def classes(self, contract: ModelContract) -> list[int]:
        """Output class of each letter, in the alphabet's order, then of the blank."""

    @abstractmethod
    def keyboards(self, contract: ModelContract) -> Iterator[tuple[str, ModelContract, Keyboard]]:
        """The keyboards to try besides the contract's own: name, contract and inputs of each."""

    @property
    @abstractmethod
    def conventions(self) -> dict[str, str]:
        """What each input and the output mean, by name; embedded in every artefact."""

    def metadata(self, contract: ModelContract, weights_sha256: str) -> dict[str, str]:
        """What every artefact of this view carries, by key."""
        return {
            CONTRACT_KEY: contract.contract_id,
            "contract": contract.to_json(),
            "weights_sha256": weights_sha256,
            "view": self.name,
            **self.conventions,
        }

    def lowering(
        self,
        checkpoint: Checkpoint,
        example: NDArray[np.float32],
        calibration: NDArray[np.float32],
    ) -> Lowering:
        """The job for the formats, see `exporter.formats.Lowering`."""
        contract = checkpoint.contract
        context = self.context(contract)
        return Lowering(
            module=self.module(checkpoint.model(), contract),
            example=calls_of(example, context)[0],
            calibration=calls_of(calibration, context),
            metadata=self.metadata(contract, checkpoint.weights_sha256),
            output_name=self.output_name,
            float_inputs=frozenset(context),
        )

    def evidence(
        self,
        checkpoint: Checkpoint,
        features: NDArray[np.float32],
        logits: NDArray[np.float32],
        words: Words,
        rounding: float = 0.0,
    ) -> Evidence:
        """What artefacts of this view are judged by.

        Args:
            checkpoint: the trained model, which answers for every keyboard that is tried.
            features: float32[N, 2, 64], the verification swipes.
            logits: the trained model's answers ``[N, T, K + 1]`` to them.
            words: what was meant by them, and how words are decoded.
            rounding: as in `Evidence`.
        """
        from train.evaluate import predict

        contract, some = checkpoint.contract, features[:TRIAL_SWIPES]
        classes = self.classes(contract)
        trials = []
        for name, other, keyboard in self.keyboards(contract):
            expected = keyboard.emissions(predict(checkpoint.model(), other, some))
            trials.append(Trial(name, calls_of(some, keyboard.inputs), list(expected)))
        reference = list(self.outputs(logits, contract))
        return Evidence(
            calls=calls_of(features, self.context(contract)),
            population=words.population,
            reading=Reading(Kind.CTC, classes[-1]),
            # Decoded from the model's own logits: rearranging them is part of what is verified.
            reference=replace(words.answer(list(logits)), outputs=reference),
            answer=lambda outputs: replace(
                words.answer([row[:, classes] for row in outputs]), outputs=outputs
            ),
            rounding=rounding,
            trials=tuple(trials),
        )

    def describe(self, contract: ModelContract) -> ViewEntry:
        """The view as the manifest lists it."""
        shapes = {"features": (1, 2, contract.points)}
        shapes |= {name: value.shape for name, value in self.context(contract).items()}
        shape = (1, contract.frames, max(self.classes(contract)) + 1)
        *inputs, output = (
            TensorEntry(name=name, shape=shape, dtype="float32", meaning=self.conventions[name])
            for name, shape in (shapes | {self.output_name: shape}).items()
        )
        return ViewEntry(
            name=self.name,
            inputs=tuple(inputs),
            output=output,
            also_tried=tuple(name for name, _, _ in self.keyboards(contract)),
        )


class _Baked(View):
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


class _Agnostic(View):
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


BAKED: Final[View] = _Baked()
AGNOSTIC: Final[View] = _Agnostic()
VIEWS: Final = (BAKED, AGNOSTIC)


def find_view(name: str) -> View:
    """The view called `name`.

    Raises:
        UsageError: there is none.
    """
    for view in VIEWS:
        if view.name == name:
            return view
    raise UsageError(
        f"no view {name!r}", fix=f"choose among {', '.join(view.name for view in VIEWS)}"
    )
