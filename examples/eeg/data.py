"""Generated EEG: a few active regions of a fixed, random head, seen by noisy sensors.

Each sample is a function of (seed, number). Some recordings have an artefact a hundred times as
large as the signal, as real ones do: what the model's clamp is there for.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

RATE_HZ: Final = 128.0
BAND_HZ: Final = (4.0, 30.0)
ACTIVE: Final = 2
NOISE: Final = 0.1
ARTEFACTS: Final = 0.05
"""Share of the recordings that have one."""
ARTEFACT: Final = 100.0
"""Its size, in standard deviations of the signal."""


@dataclass(frozen=True)
class Head:
    """Sensors over regions whose activity is to be found.

    Attributes:
        seed: of the head and of every recording.
        sensors: C.
        regions: R.
        samples: T, at 128 Hz.
    """

    seed: int
    sensors: int
    regions: int
    samples: int

    @cached_property
    def _leadfield(self) -> NDArray[np.float32]:
        """What each sensor sees of each region, ``[C, R]``."""
        rng = np.random.default_rng([self.seed, 0])
        field = rng.standard_normal((self.sensors, self.regions), dtype=np.float32)
        return field / np.float32(np.sqrt(ACTIVE))

    def recording(self, number: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Recording `number`: ``float32[C, T]`` of about unit variance, and ``float32[R]``.

        The latter is the root mean square of each region's activity, what is to be found.
        """
        rng = np.random.default_rng([self.seed, 1, number])
        t = np.arange(self.samples) / RATE_HZ
        sources = np.zeros((self.regions, self.samples), dtype=np.float32)
        for region in rng.choice(self.regions, size=ACTIVE, replace=False):
            amplitude, frequency = rng.uniform(0.4, 2.0), rng.uniform(*BAND_HZ)
            sources[region] = amplitude * np.sin(
                2 * np.pi * frequency * t + rng.uniform(0, 2 * np.pi)
            )
        seen = self._leadfield @ sources
        seen += NOISE * rng.standard_normal(seen.shape, dtype=np.float32)
        if rng.uniform() < ARTEFACTS:
            seen[rng.integers(self.sensors), rng.integers(self.samples)] += ARTEFACT
        return seen, np.sqrt((sources**2).mean(axis=1))
