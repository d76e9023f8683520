"""TOML -> one frozen, validated configuration.

A run is described by a preset (``nano``, ``base``, ``large``) or a TOML file, then ``--set
section.key=value``, then the command's own options: later wins. Unknown keys and values out of
range are refused with their full name; the resolved configuration is saved with the run.
"""

from __future__ import annotations

import tomllib
from importlib import resources
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from swipe.errors import ConfigError
from swipe.files import write_text_atomic

PRESETS: Final = ("nano", "base", "large")


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Data(_Section):
    """Where swipes come from."""

    train: str = "synthetic"
    dev: str = Field("", description="held-out corpus; empty: hold out writers of `train`")
    dev_share: float = Field(0.1, gt=0, lt=1)
    layout: str = "qwerty"
    max_letter_miss: float = Field(
        1.5, gt=0, description="training only: drop swipes that miss a letter by more key widths"
    )


class Model(_Section):
    """Architecture; see `train.models.ModelSpec`."""

    name: str = "tcn"
    channels: int = Field(48, ge=1, le=1024)
    dilations: tuple[int, ...] = (1, 2, 4, 8)
    dropout: float = Field(0.0, ge=0, lt=1)


class Augment(_Section):
    """One affine map per swipe, applied to the trajectory and the key centres alike."""

    scale: float = Field(0.15, ge=0, lt=1)
    shear: float = Field(0.15, ge=0, lt=1)
    translate: float = Field(0.1, ge=0, lt=1)
    mirror: float = Field(0.0, ge=0, le=1, description="probability of a left-right mirror")
    noise: float = Field(0.004, ge=0, lt=0.5, description="sigma of the coordinate noise")


class Optimizer(_Section):
    """AdamW with linear warm-up and cosine decay to zero."""

    learning_rate: float = Field(3e-3, gt=0, le=100)
    weight_decay: float = Field(0.01, ge=0)
    batch_size: int = Field(256, ge=1)
    clip_norm: float = Field(1.0, gt=0)
    warmup_steps: int = Field(200, ge=0)


class Length(_Section):
    """When to stop: exactly one of the two."""

    steps: int = Field(0, ge=0)
    minutes: float = Field(0.0, ge=0)

    @model_validator(mode="after")
    def _one_of_two(self) -> Length:
        if (self.steps > 0) == (self.minutes > 0):
            raise ValueError("set exactly one of length.steps and length.minutes above 0")
        return self


class Evaluation(_Section):
    """How the best checkpoint is chosen: beam top-1 on held-out swipes."""

    times: int = Field(4, ge=1, description="evaluations, evenly spaced over the run")
    swipes: int = Field(2000, ge=1)
    lexicon: str = "wordfreq"
    beam_width: int = Field(100, ge=1)


class Guard(_Section):
    """What happens when a step is not finite."""

    max_skips_in_a_row: int = Field(20, ge=1)


class TrainConfig(_Section):
    """One training run."""

    seed: int = Field(0, ge=0)
    threads: int = Field(1, ge=1, description="torch threads; 1 is often fastest on small models")
    data: Data = Data()
    model: Model = Model()
    augment: Augment = Augment()
    optimizer: Optimizer = Optimizer()
    length: Length
    evaluation: Evaluation = Evaluation()
    guard: Guard = Guard()


def load_config(name: str, overrides: dict[str, Any] | None = None) -> TrainConfig:
    """Read a preset or a TOML file and apply dotted `overrides` (e.g. ``{"model.channels": 80}``).

    Raises:
        ConfigError: no such preset or file, not TOML, an unknown key, or a value out of range.
    """
    fields = _read(name)
    for key, value in (overrides or {}).items():
        _assign(fields, key, value)
    try:
        return TrainConfig.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or name
        raise ConfigError(
            f"configuration {where}: {first['msg']} (got {first['input']!r})",
            fix=f"mend {where} in {name} or with --set {where}=VALUE",
        ) from error


def save_config(config: TrainConfig, path: Path) -> None:
    """Write the resolved configuration of a run as JSON, atomically."""
    write_text_atomic(path, config.model_dump_json(indent=2) + "\n")


def load_saved_config(path: Path) -> TrainConfig:
    """Inverse of `save_config`.

    Raises:
        ConfigError: the file is damaged or of another version.
    """
    try:
        return TrainConfig.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(
            f"{path} is not a saved configuration: {where} {first['msg']}",
            fix="start the run again without --resume",
        ) from error


def parse_override(text: str) -> tuple[str, Any]:
    """``section.key=value`` -> (dotted key, value); the value is TOML, a bare word is a string.

    Raises:
        ConfigError: no key or no equals sign.
    """
    key, equals, value = text.partition("=")
    key, value = key.strip(), value.strip()
    if not equals or not key:
        raise ConfigError(
            f"--set {text!r} is not key=value", fix="write e.g. --set optimizer.learning_rate=1e-3"
        )
    try:
        return key, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key, value


def _read(name: str) -> dict[str, Any]:
    if name in PRESETS:
        text = resources.files("train").joinpath("configs", f"{name}.toml").read_text("utf-8")
    else:
        path = Path(name)
        if not path.is_file():
            raise ConfigError(
                f"no configuration {name!r}",
                fix=f"use one of {', '.join(PRESETS)}, or the path of a TOML file",
            )
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{name} cannot be read: {error}", fix="give a TOML file") from error
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{name} is not TOML: {error}", fix="mend that line") from error


def _assign(fields: dict[str, Any], key: str, value: Any) -> None:
    *sections, last = key.split(".")
    for section in sections:
        fields = fields.setdefault(section, {})
        if not isinstance(fields, dict):
            raise ConfigError(f"{key}: {section} is not a section", fix="check the dotted name")
    fields[last] = value
