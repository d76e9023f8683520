"""Which architecture, and its numbers: a section of the configuration and of every checkpoint.

Each architecture has options of its own, so that one that belongs to another is refused by name
and not ignored. A record without a name is a TCN: it was the only one once.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from swipe.errors import ConfigError

DEFAULT: Final = "tcn"
UNKNOWN_MODEL: Final = "unknown_model"
"""Type of pydantic's error for a name that is none of these."""


class _Spec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready fields."""
        return self.model_dump(mode="json")


class TcnSpec(_Spec):
    """A `train.models.tcn.SwipeTcn`."""

    name: Literal["tcn"] = "tcn"
    channels: int = Field(48, ge=1, le=1024, description="trunk width")
    dilations: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (1, 2, 4, 8), min_length=1, description="one residual block each"
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="on the trunk's output, while training")


class TransformerSpec(_Spec):
    """A `train.models.transformer.SwipeTransformer`."""

    name: Literal["transformer"] = "transformer"
    width: int = Field(64, ge=2, le=2048, description="channels; even, a multiple of the heads")
    depth: int = Field(4, ge=1, le=64, description="encoder blocks")
    heads: int = Field(4, ge=1, le=64, description="of the attention")
    feedforward: int = Field(256, ge=1, le=8192, description="hidden width between attentions")
    dropout: float = Field(0.0, ge=0, lt=1, description="on each branch and the trunk's output")
    gain: float = Field(0.5, gt=0, le=10, description="of the Xavier initialisation")

    @model_validator(mode="after")
    def _divisible(self) -> TransformerSpec:
        if self.width % 2 or self.width % self.heads:
            raise ValueError(
                f"width {self.width} must be even and a multiple of its {self.heads} heads"
            )
        return self


def _name(fields: Any) -> Any:
    return (
        fields.get("name", DEFAULT) if isinstance(fields, dict) else getattr(fields, "name", None)
    )


ModelSpec = Annotated[
    Annotated[TcnSpec, Tag("tcn")] | Annotated[TransformerSpec, Tag("transformer")],
    Discriminator(
        _name,
        custom_error_type=UNKNOWN_MODEL,
        custom_error_message="unknown model: use tcn or transformer as model.name",
    ),
]
_ADAPTER: Final[TypeAdapter[TcnSpec | TransformerSpec]] = TypeAdapter(ModelSpec)


def spec_from_dict(fields: Any) -> TcnSpec | TransformerSpec:
    """Inverse of ``to_dict``.

    Raises:
        ConfigError: an unknown architecture or option, or a value out of range.
    """
    try:
        return _ADAPTER.validate_python(fields)
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(
            f"model {'.'.join(map(str, first['loc']))}: {first['msg']} (got {first['input']!r})",
            fix="use a checkpoint of this version of swipe-export",
        ) from error
