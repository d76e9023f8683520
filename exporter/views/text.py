"""One keyboard, and text out: what greedy CTC spells, written inside the graph.

The string is what the model heard, without a lexicon; the logits come with it, for a host that
wants words, and as what the artefact is judged by. Joining letters to a string takes one operator
of onnxruntime-extensions, so this view is for ONNX only.
"""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from exporter.evidence import Evidence
from exporter.formats import Spelling
from exporter.parity.outputs import Outputs
from exporter.views.baked import Baked
from exporter.words import Words
from swipe.contract import ModelContract

if TYPE_CHECKING:
    from train.checkpoint import Checkpoint


class Text(Baked):
    """See the module."""

    name, stem = "text", "model-text"
    formats: ClassVar = ("onnx",)
    why_only: ClassVar = "only ONNX has strings in its graphs"
    libraries: ClassVar = MappingProxyType({"onnxruntime_extensions": "text"})

    def spelling(self, contract: ModelContract) -> Spelling:
        return Spelling(tuple(contract.alphabet))

    def evidence(
        self,
        checkpoint: Checkpoint,
        rows: NDArray[np.float32],
        logits: NDArray[np.float32],
        words: Words,
        rounding: float = 0.0,
    ) -> Evidence:
        """As for every view; the word is what greedy CTC spells, since that is what is given.

        On every rung the text has to be what the artefact's own logits spell. So whatever is
        measured of the strings of these logits holds of the text.
        """
        from swipe.decode import greedy

        letters = checkpoint.contract.alphabet

        def spell(outputs: Outputs) -> list[str]:
            return greedy(np.stack(outputs), letters)

        spelled = replace(words, decode=lambda rows: [[text] for text in spell(list(rows))])
        evidence = super().evidence(checkpoint, rows, logits, spelled, rounding)
        return replace(evidence, texts=spell)

    @property
    def conventions(self) -> dict[str, str]:
        return super().conventions | {"text": "what greedy CTC spells; empty where all is blank"}


TEXT: Final = Text()
