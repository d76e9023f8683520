"""EEG source imaging: sensor signals -> activity of each region, a sequence-to-vector regression.

What keeps it finite: the input is clamped to a few standard deviations, since one electrode that
pops is a hundred times the signal, and the weights start out small.
"""

from __future__ import annotations

from typing import Final, cast

from torch import Tensor, nn
from torch.nn import functional as F

from train.models.transformer import Encoder

CLAMP: Final = 8.0
"""Standard deviations; EEG beyond them is an artefact."""
KERNEL: Final = 8
"""Samples that become one frame of the encoder."""
GAIN: Final = 0.5


class EegTransformer(nn.Module):
    """Signals ``[B, C, T]`` of unit variance -> activity of each region ``[B, R]``.

    Args:
        sensors: C; other signals are refused.
        regions: R.
        width: channels of the encoder.
        depth: blocks of the encoder.
        heads: of its attention.
    """

    def __init__(self, sensors: int, regions: int, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.unmix = nn.Conv1d(sensors, width, 1)
        self.patches = nn.Conv1d(width, width, KERNEL, KERNEL)
        self.encoder = Encoder(width, depth, heads, 2 * width, gain=GAIN)
        self.head = nn.Linear(width, regions)
        for layer in (self.unmix, self.patches, self.head):
            nn.init.xavier_uniform_(layer.weight, GAIN)

    def forward(self, signals: Tensor) -> Tensor:
        """Root mean square activity of each region, for any T of at least `KERNEL`.

        Raises:
            ValueError: the signals are not of the model's sensors, or too short.
        """
        sensors = self.unmix.in_channels
        if signals.ndim != 3 or signals.shape[1] != sensors or signals.shape[2] < KERNEL:
            raise ValueError(
                f"expected signals [B, {sensors}, T >= {KERNEL}], got {list(signals.shape)}"
            )
        # Activity has no sign, sensors do: rectify what the spatial filters see, then average.
        unmixed = F.relu(self.unmix(signals.clamp(-CLAMP, CLAMP)))
        return cast(Tensor, self.head(self.encoder(self.patches(unmixed)).mean(dim=2)))


def build(
    sensors: int = 32, regions: int = 32, width: int = 96, depth: int = 2, heads: int = 4
) -> EegTransformer:
    """A freshly initialised model; seed torch first to make it repeatable."""
    return EegTransformer(sensors, regions, width, depth, heads)
