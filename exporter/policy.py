"""What the user decides about an export; imported by the command line, so it imports nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

DEFAULT_BUDGET: Final = 0.5
"""Points of decoded top-1 that quantization may cost."""


@dataclass(frozen=True, slots=True)
class Policy:
    """How rungs are chosen.

    Attributes:
        quantize: whether quantized rungs are tried.
        budget: points of accuracy that quantization may cost.
        require_quantized: falling back to float is a failure.
        require_faster: a quantized rung that is slower than float is refused.
        tune_minutes: time per format and view to find the layers that have to stay float, when a
            rung costs too much.
    """

    quantize: bool = True
    budget: float = DEFAULT_BUDGET
    require_quantized: bool = False
    require_faster: bool = False
    tune_minutes: float = 0.0
