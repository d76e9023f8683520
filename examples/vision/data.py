"""Generated images: a disc on a ground, told apart by the ordered pair of their two colours.

An image is a function of (seed, number), so there is nothing to download or store. Place, radius,
brightness and noise vary, and red on green is another class than green on red: neither a pixel nor
the colours alone tell a class. To train on your own images, write another `label_of` and
`picture`.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

CHANNELS: Final = 3
NOISE: Final = 0.3
"""Standard deviation of the noise on every pixel; colours range over [-0.5, 0.5]."""


def label_of(number: int, classes: int) -> int:
    """The class of image `number`; all are equally frequent."""
    return number * 7919 % classes


def picture(seed: int, number: int, classes: int, size: int) -> NDArray[np.float32]:
    """Image `number`, ``float32[3, size, size]``, roughly in [-1.5, 1.5].

    Args:
        seed: of everything random.
        number: of the image.
        classes: how many; 30 are the ordered pairs of 6 hues.
        size: height and width in pixels.
    """
    rng = np.random.default_rng([seed, number])
    hues = math.ceil(0.5 + math.sqrt(0.25 + classes))  # the fewest with that many ordered pairs
    disc, other = divmod(label_of(number, classes), hues - 1)
    ground = (disc + 1 + other) % hues
    axis = np.linspace(-1.0, 1.0, size, dtype=np.float32)
    x, y = axis[None, :] - rng.uniform(-0.4, 0.4), axis[:, None] - rng.uniform(-0.4, 0.4)
    inside = x**2 + y**2 < rng.uniform(0.3, 0.6) ** 2
    lit = [rng.uniform(0.6, 1.0) * _colour(hue / hues) for hue in (disc, ground)]
    image = np.where(inside, lit[0][:, None, None], lit[1][:, None, None])
    noise = rng.standard_normal((CHANNELS, size, size), dtype=np.float32)
    mixed: NDArray[np.float32] = (image + NOISE * noise).astype(np.float32)
    return mixed


def _colour(hue: float) -> NDArray[np.float64]:
    """Red, green and blue of a `hue` in turns, each around 0."""
    return 0.5 * np.cos(2 * np.pi * (hue - np.arange(CHANNELS) / CHANNELS))
