"""Network architectures, and the record that says which one a checkpoint holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from swipe.errors import ConfigError
from train.models.tcn import SwipeTcn

__all__ = ["ModelSpec", "build_model"]


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """Architecture by numbers.

    Attributes:
        name: architecture; "tcn" is the only one.
        channels: trunk width.
        dilations: one residual block each.
        dropout: probability on the trunk's output while training.
    """

    name: str = "tcn"
    channels: int = 48
    dilations: tuple[int, ...] = (1, 2, 4, 8)
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.name != "tcn":
            raise ConfigError(f"unknown model {self.name!r}", fix='use model.name = "tcn"')
        if not 1 <= self.channels <= 1024 or not self.dilations or min(self.dilations) < 1:
            raise ConfigError(
                f"model of {self.channels} channels with dilations {list(self.dilations)}",
                fix="use 1 to 1024 channels and at least one dilation, each 1 or more",
            )
        if not 0.0 <= self.dropout < 1.0:
            raise ConfigError(f"dropout {self.dropout}", fix="use a value in [0, 1)")

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready fields."""
        return {**asdict(self), "dilations": list(self.dilations)}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> ModelSpec:
        """Inverse of `to_dict`."""
        return cls(**{**fields, "dilations": tuple(fields["dilations"])})


def build_model(spec: ModelSpec) -> SwipeTcn:
    """A freshly initialised model of `spec`; seed torch first to make it repeatable."""
    return SwipeTcn(spec.channels, spec.dilations, spec.dropout)
