"""ModelContract: what a host must feed the model and what it gets back.

A checkpoint and an artefact fit together exactly when their ``contract_id`` is the same, so a
feature skew is refused when files are loaded instead of shipping as low accuracy.
The contract holds meaning only (shapes, alphabet, frame, feature recipe), never weights.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from dataclasses import asdict, dataclass

from swipe.errors import ConfigError

POINTS = 64
"""Resampled points per swipe."""

FRAMES = 32
"""Output frames: one stride-2 convolution over `POINTS`."""

SAMPLE_PERIOD_MS = 16.667
"""Period of the uniform 60 Hz grid that step 2 of the feature recipe resamples to."""

ALPHABET = "abcdefghijklmnopqrstuvwxyz"

FEATURE_RECIPE = "dedup-60hz-linspace64-clip01/1"
"""Name and revision of the recipe in `swipe.features`; a change of either is a new contract."""


@dataclass(frozen=True, slots=True)
class ModelContract:
    """Shapes, alphabet and frame of one model.

    Attributes:
        alphabet: letters in class order; class ``i`` is ``alphabet[i]``.
        layout: name of the keyboard whose key centres are baked in.
        keys: key centres in letter-area units, one ``(cx, cy)`` per letter of `alphabet`.
        points: input length T_in of ``features float32[B, 2, points]``.
        frames: output length of ``logits float32[B, frames, classes]``.
        features: name of the feature recipe.
    """

    alphabet: str
    layout: str
    keys: tuple[tuple[float, float], ...]
    points: int = POINTS
    frames: int = FRAMES
    features: str = FEATURE_RECIPE

    def __post_init__(self) -> None:
        if not self.alphabet or len(set(self.alphabet)) != len(self.alphabet):
            raise ConfigError(
                f"the alphabet {self.alphabet!r} is empty or repeats a letter",
                fix="give each class exactly one letter; the blank has its own class",
            )
        if len(self.keys) != len(self.alphabet):
            raise ConfigError(
                f"{len(self.keys)} key centres for {len(self.alphabet)} letters",
                fix="give one (cx, cy) per letter, in the order of the alphabet",
            )

    @property
    def blank(self) -> int:
        """Class index of the CTC blank: always last."""
        return len(self.alphabet)

    @property
    def classes(self) -> int:
        """Number of output classes, blank included."""
        return len(self.alphabet) + 1

    def to_json(self) -> str:
        """Canonical JSON: sorted keys, no spaces, so equal contracts give equal bytes."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> ModelContract:
        """Inverse of `to_json`.

        Raises:
            ConfigError: the text is not a contract.
        """
        try:
            fields = json.loads(text)
            fields["keys"] = tuple((float(x), float(y)) for x, y in fields["keys"])
            return cls(**fields)
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(
                f"not a model contract: {error}",
                fix="use a checkpoint or bundle written by swipe-train or swipe-export",
            ) from error

    @property
    def contract_id(self) -> str:
        """First 16 hex digits of the SHA-256 of the canonical JSON."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:16]


def frames_needed(word: str) -> int:
    """Least number of CTC frames that can spell `word`: doubled letters need a blank between."""
    repeats = sum(a == b for a, b in itertools.pairwise(word))
    return len(word) + repeats
