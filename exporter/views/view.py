"""What every form of deployment has: how it is lowered, what it takes and gives, how it is judged.

What it leaves out: the forms themselves, each a module beside this one, and their arithmetic, which
is `train.models`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar, Final, Literal

import numpy as np
from numpy.typing import NDArray

from exporter.evidence import Evidence, Trial
from exporter.formats import Lowering, Spelling, calls_of
from exporter.manifest import TensorEntry, ViewEntry
from exporter.parity import Kind, Reading
from exporter.views.keyboard import Keyboard
from exporter.words import Words
from swipe.contract import ModelContract

if TYPE_CHECKING:
    from torch import nn

    from train.checkpoint import Checkpoint
    from train.models import SwipeModel

CONTRACT_KEY: Final = "contract_id"
"""Metadata key under which every artefact carries the contract it was built for."""

TRIAL_SWIPES: Final = 100


class View(ABC):
    """One form of deployment.

    Attributes:
        name: what the command line and the manifest call it.
        stem: of its artefacts' file names.
        takes: the first input, one of the kinds of rows in `exporter.samples.Rows`.
        output_name: what artefacts call their output.
        formats: those that can have it; empty for all.
        why_only: the reason, where `formats` names some.
        libraries: needed besides those of the format, each with the extra that brings it.
    """

    name: ClassVar[str]
    stem: ClassVar[str]
    takes: ClassVar[Literal["features", "points"]] = "features"
    output_name: ClassVar[str]
    formats: ClassVar[tuple[str, ...]] = ()
    why_only: ClassVar[str] = ""
    libraries: ClassVar[Mapping[str, str]] = MappingProxyType({})

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
        """What each input and output means, by name; embedded in every artefact."""

    def taken(self, contract: ModelContract) -> tuple[int, ...]:
        """Shape of the first input."""
        return (1, 2, contract.points)

    def spelling(self, contract: ModelContract) -> Spelling | None:
        """The text that artefacts write besides their numbers, None for numbers only."""
        return None

    def excluded(self, target: str) -> str | None:
        """Why the format `target` cannot have this view, None if it can."""
        if not self.formats or target in self.formats:
            return None
        return f"{target} has no {self.name} view: {self.why_only}"

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
        """The job for the formats, see `exporter.formats.Lowering`; rows are what it `takes`."""
        contract = checkpoint.contract
        context = self.context(contract)
        return Lowering(
            module=self.module(checkpoint.model(), contract),
            example=calls_of(example, context, name=self.takes)[0],
            calibration=calls_of(calibration, context, name=self.takes),
            metadata=self.metadata(contract, checkpoint.weights_sha256),
            output_name=self.output_name,
            float_inputs=frozenset(context),
            spelling=self.spelling(contract),
        )

    def evidence(
        self,
        checkpoint: Checkpoint,
        rows: NDArray[np.float32],
        logits: NDArray[np.float32],
        words: Words,
        rounding: float = 0.0,
    ) -> Evidence:
        """What artefacts of this view are judged by.

        Args:
            checkpoint: the trained model, which answers for every keyboard that is tried.
            rows: float32[N, ...], the verification swipes as the view `takes` them.
            logits: the trained model's answers ``[N, T, K + 1]`` to them.
            words: what was meant by them, and how words are decoded.
            rounding: as in `Evidence`.
        """
        from train.evaluate import predict

        contract, some = checkpoint.contract, rows[:TRIAL_SWIPES]
        classes = self.classes(contract)
        trials = []
        for name, other, keyboard in self.keyboards(contract):
            expected = keyboard.emissions(predict(checkpoint.model(), other, some))
            trials.append(Trial(name, calls_of(some, keyboard.inputs), list(expected)))
        reference = list(self.outputs(logits, contract))
        return Evidence(
            calls=calls_of(rows, self.context(contract), name=self.takes),
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
        shapes: dict[str, tuple[int, ...]] = {self.takes: self.taken(contract)}
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
            text=self._text(contract),
            only_in=self.formats,
            also_tried=tuple(name for name, _, _ in self.keyboards(contract)),
        )

    def _text(self, contract: ModelContract) -> TensorEntry | None:
        spelling = self.spelling(contract)
        if spelling is None:
            return None
        meaning = self.conventions[spelling.name]
        return TensorEntry(name=spelling.name, shape=(1,), dtype="string", meaning=meaning)
