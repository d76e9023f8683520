"""TOML -> one frozen, validated configuration.

A run is described by a preset (``nano``, ``base``, ...) or a TOML file, then ``--set
section.key=value``, then the command's own options: later wins. Unknown keys and values out of
range are refused with their full name; the resolved configuration is saved with the run. What the
loop needs of any task is `LoopConfig`; swipe runs and other people's models add their own to it.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from swipe.errors import ConfigError
from swipe.files import write_text_atomic
from swipe.paths import is_file
from train.models.spec import DEFAULT, UNKNOWN_MODEL, ModelSpec, TcnSpec

PRESETS: Final = ("nano", "base", "large", "transformer", "nano-words", "base-words")


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Data(_Section):
    """Where swipes come from."""

    train: str = "synthetic"
    mix: dict[str, Annotated[float, Field(gt=0, le=100)]] = Field(
        {},
        max_length=100,
        description="other corpora to train on as well: rows of each per row of `train`",
    )
    dev: str = Field("", description="held-out corpus; empty: hold out writers of `train`")
    dev_share: float = Field(0.1, gt=0, lt=1)
    layout: str = "qwerty"
    max_letter_miss: float = Field(
        1.5, gt=0, description="training only: drop swipes that miss a letter by more key widths"
    )


class Augment(_Section):
    """Other keyboards, then one affine map per swipe; the key centres always move along."""

    layouts: float = Field(0.3, ge=0, le=1, description="share carried to a shuffled keyboard")
    rows: float = Field(0.1, ge=0, le=1, description="share seen on a keyboard of four rows")
    scale: float = Field(0.15, ge=0, lt=1)
    shear: float = Field(0.15, ge=0, lt=1)
    translate: float = Field(0.1, ge=0, lt=1)
    mirror: float = Field(0.0, ge=0, le=1, description="probability of a left-right mirror")
    noise: float = Field(0.004, ge=0, lt=0.5, description="sigma of the coordinate noise")


class Optimizer(_Section):
    """AdamW, and how many samples one update sees."""

    learning_rate: float = Field(3e-3, gt=0, le=100)
    weight_decay: float = Field(0.01, ge=0)
    batch_size: int = Field(256, ge=1, description="samples of one forward pass, per process")
    accumulate: int = Field(1, ge=1, description="forward passes per update")
    clip_norm: float = Field(1.0, gt=0)


class Schedule(_Section):
    """Learning rate over the run; see `train.schedule`."""

    name: Literal["cosine", "plateau", "one-cycle"] = "cosine"
    warmup_steps: int = Field(200, ge=0, description="at most a tenth of the run; not one-cycle")
    rise: float = Field(0.3, gt=0, lt=1, description="one-cycle: share of the run until the peak")
    patience: int = Field(2, ge=1, description="plateau: evaluations without a better score")
    factor: float = Field(0.5, gt=0, lt=1, description="plateau: the rate is multiplied by this")


class Length(_Section):
    """When to stop: exactly one of the first two, or earlier when the score stops rising."""

    steps: int = Field(0, ge=0)
    minutes: float = Field(0.0, ge=0)
    patience: int = Field(0, ge=0, description="evaluations without a better score; 0: go on")

    @model_validator(mode="after")
    def _one_of_two(self) -> Length:
        if (self.steps > 0) == (self.minutes > 0):
            raise ValueError("set exactly one of length.steps and length.minutes above 0")
        return self


class Evaluation(_Section):
    """How often the model is judged."""

    times: int = Field(4, ge=1, description="evaluations, evenly spaced over the run")


class SwipeEvaluation(Evaluation):
    """How the best checkpoint is chosen: beam top-1 on held-out swipes."""

    swipes: int = Field(2000, ge=1)
    lexicon: str = "wordfreq"
    beam_width: int = Field(100, ge=1)


class WordLossConfig(_Section):
    """The decoder's own objective beside CTC; see `train.word_loss`."""

    share: float = Field(0.0, ge=0, le=1, description="of the loss; the rest is CTC; 0: CTC alone")
    candidates: int = Field(12, ge=2, le=100, description="words of each swipe, the right one too")
    beam_width: int = Field(32, ge=1, description="of the search for them")
    sharpness: float = Field(1.5, gt=0, description="multiplies the decoder's scores")


class Guard(_Section):
    """What happens when steps cannot be taken; see `train.policy`."""

    max_skips_in_a_row: int = Field(20, ge=1)
    max_skip_share: float = Field(0.05, gt=0, le=1, description="of an epoch's steps")
    max_rollbacks: int = Field(3, ge=0, description="back to the last good state, half the rate")


class Record(_Section):
    """What is written down while training; see `train.journal`."""

    every: int = Field(10, ge=1, description="steps between two lines of metrics.jsonl")
    tensorboard: bool = Field(True, description="also for TensorBoard, when it is installed")
    save_minutes: float = Field(5.0, gt=0, description="longest time that a killed run loses")


class Distributed(_Section):
    """Several processes under torchrun; see `train.distributed`."""

    sync_norm: bool = Field(True, description="BatchNorm over all processes' samples")


class LoopConfig(_Section):
    """What the training loop needs to know of any task."""

    seed: int = Field(0, ge=0, lt=2**31)
    threads: int = Field(1, ge=1, description="torch threads; 1 is often fastest on small models")
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    precision: Literal["float32", "bfloat16"] = "float32"
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    length: Length
    evaluation: Evaluation = Evaluation()
    guard: Guard = Guard()
    record: Record = Record()
    distributed: Distributed = Distributed()


class TrainConfig(LoopConfig):
    """One training run of a swipe model."""

    data: Data = Data()
    model: ModelSpec = TcnSpec()
    init: str = Field("", description="checkpoint whose weights to start from; empty: random")
    augment: Augment = Augment()
    words: WordLossConfig = WordLossConfig()
    evaluation: SwipeEvaluation = SwipeEvaluation()


class CustomConfig(LoopConfig):
    """One training run of anyone's model."""

    task: str = Field(description='"module:factory"; the factory returns a `train.task.Task`')
    options: dict[str, Any] = Field({}, description="keyword arguments of the factory")


def load_config(name: str, overrides: dict[str, Any] | None = None) -> TrainConfig | CustomConfig:
    """Read a preset or a TOML file and apply dotted `overrides` (e.g. ``{"model.channels": 80}``).

    A file that names a ``task`` configures anyone's model, any other one a swipe model. Overriding
    ``model.name`` with another architecture drops the file's [model]: its options mean nothing to
    that one.

    Raises:
        ConfigError: no such preset or file, not TOML, an unknown key, or a value out of range.
        DataError: the file's name is too long, or it lies where it may not be looked at.
    """
    fields, overrides = _read(name), overrides or {}
    described = fields.get("model", {})
    architecture = described.get("name", DEFAULT) if isinstance(described, dict) else None
    if overrides.get("model.name", architecture) != architecture:
        fields["model"] = {}
    for key, value in overrides.items():
        _assign(fields, key, value)
    try:
        return _kind(fields).model_validate(fields)
    except ValidationError as error:
        where, what = _first(error)
        where = where or name
        raise ConfigError(
            f"configuration {where}: {what}",
            fix=f"mend {where} in {name} or with --set {where}=VALUE",
        ) from error


def save_config(config: LoopConfig, path: Path) -> None:
    """Write the resolved configuration of a run as JSON, atomically."""
    write_text_atomic(path, config.model_dump_json(indent=2) + "\n")


def load_saved_config(path: Path) -> TrainConfig | CustomConfig:
    """Inverse of `save_config`.

    Raises:
        ConfigError: the file is damaged or of another version.
    """
    fix = "start the run again without --resume"
    try:
        fields = json.loads(path.read_bytes())
        return _kind(fields).model_validate_json(json.dumps(fields))
    except ValidationError as error:
        where, what = _first(error)
        raise ConfigError(
            f"{path} is not a saved configuration: {where}: {what}", fix=fix
        ) from error
    except ValueError as error:
        raise ConfigError(f"{path} is not a saved configuration: {error}", fix=fix) from error


def _kind(fields: Any) -> type[TrainConfig] | type[CustomConfig]:
    return CustomConfig if isinstance(fields, dict) and "task" in fields else TrainConfig


def _first(error: ValidationError) -> tuple[str, str]:
    """Where the first mistake is, dotted, and what it is."""
    first = error.errors()[0]
    where = list(first["loc"])
    # pydantic puts the architecture between "model" and the option, where no file has it.
    if where[:1] == ["model"]:
        where[1:2] = ["name"] if first["type"] == UNKNOWN_MODEL else []
    return ".".join(map(str, where)), f"{first['msg']} (got {first['input']!r})"


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


def parse_mix(texts: Iterable[str]) -> dict[str, float]:
    """``CORPUS=WEIGHT`` each -> weight by corpus; a corpus may hold equals signs, a weight none.

    Raises:
        ConfigError: no such pair, or a corpus is named twice.
    """
    weights: dict[str, float] = {}
    for text in texts:
        corpus, _, weight = text.rpartition("=")
        try:
            number = float(weight)
        except ValueError:
            corpus = ""
        if not corpus or corpus in weights:
            raise ConfigError(
                f"--mix {text!r} is not CORPUS=WEIGHT, or names a corpus again",
                fix="write e.g. --mix more.jsonl.gz=0.3",
            )
        weights[corpus] = number
    return weights


def _read(name: str) -> dict[str, Any]:
    if name in PRESETS:
        text = resources.files("train").joinpath("configs", f"{name}.toml").read_text("utf-8")
    else:
        path = Path(name)
        if not is_file(path):
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
