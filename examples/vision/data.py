"""Generated images: striped discs on noise, told apart by the stripes' direction and the colour.

Each image is a function of (seed, number): nothing to download or store. Place, size, phase and
brightness vary, so that a class is none of its pixels.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

COLOURS: Final = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [0, 1, 1]], dtype=np.float32)
CHANNELS: Final = 3
NOISE: Final = 0.3


def label_of(number: int, classes: int) -> int:
    """The class of image `number`."""
    return number * 7919 % classes


def picture(seed: int, number: int, classes: int, size: int) -> NDArray[np.float32]:
    """Image `number`, ``float32[3, size, size]``, roughly in [-1, 2].

    Args:
        seed: of everything random.
        number: of the image.
        classes: colours times directions.
        size: height and width in pixels.
    """
    rng = np.random.default_rng([seed, number])
    direction, colour = divmod(label_of(number, classes), len(COLOURS))
    angle = np.pi * direction / -(-classes // len(COLOURS)) + rng.uniform(-0.1, 0.1)
    axis = np.linspace(-1.0, 1.0, size, dtype=np.float32)
    x, y = axis[None, :] - rng.uniform(-0.3, 0.3), axis[:, None] - rng.uniform(-0.3, 0.3)
    across = x * np.cos(angle) + y * np.sin(angle)
    stripes = np.cos(2 * np.pi * 6 * across + rng.uniform(0, 2 * np.pi))
    disc = (x**2 + y**2 < rng.uniform(0.4, 0.7) ** 2) * rng.uniform(0.7, 1.0)
    image = COLOURS[colour][:, None, None] * (disc * (0.5 + 0.5 * stripes))
    noise = rng.standard_normal((CHANNELS, size, size), dtype=np.float32)
    mixed: NDArray[np.float32] = (image + NOISE * noise).astype(np.float32)
    return mixed
