"""manifest.json: what a bundle holds, what it was built from, and what is known of it."""

from __future__ import annotations

import importlib.metadata
import platform
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from swipe.errors import GateError, UsageError
from swipe.files import sha256_file, write_text_atomic

SCHEMA: Final = "swipe-export/bundle/4"
FILE: Final = "manifest.json"
CHECKPOINT: Final = "checkpoint.safetensors"
VERIFICATION: Final = "verification.npz"

_LIBRARIES: Final = (
    "swipe-export", "torch", "torchao", "executorch", "coremltools",
    "onnx", "onnxscript", "onnxruntime", "onnxruntime-extensions", "numpy",
)  # fmt: skip


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Verdict(_Record):
    """See `exporter.parity.Verdict`."""

    status: Literal["PASS", "FAIL", "UNVERIFIED"]
    level: Literal["structural", "reference", "host", "arm64", "device"]
    reasons: tuple[str, ...]
    metrics: dict[str, Any] | None


class SpeedEntry(_Record):
    """See `exporter.speed.Speed`."""

    ratio: float
    calls: int


class RungEntry(_Record):
    """One rung that was tried; see `exporter.ladder.RungRecord`."""

    rung: str
    taken: bool
    verdict: Verdict
    file: str | None
    size_bytes: int | None
    sha256: str | None
    facts: dict[str, Any]
    seconds: float
    speed: SpeedEntry | None = None
    float_layers: tuple[str, ...] = ()


class TensorEntry(_Record):
    """One input or output; formats without names have the inputs in this order."""

    name: str
    shape: tuple[int | str, ...]
    """A size that varies is a string, e.g. "T:4..200"."""
    dtype: str
    meaning: str


class ViewEntry(_Record):
    """What the artefacts of one form of a model take and give, e.g. of `exporter.views`."""

    name: str
    inputs: tuple[TensorEntry, ...]
    output: TensorEntry
    text: TensorEntry | None = None
    """What is spelled inside the graph, where the view has that; formats give it first."""
    only_in: tuple[str, ...] = ()
    """The formats that can have this view; empty: all."""
    also_tried: tuple[str, ...]
    """What had to agree with PyTorch besides the verification samples, and what be refused."""


class FormatEntry(_Record):
    """The ladder of one view in one format, in the order the rungs were tried."""

    format: str
    view: str
    rungs: tuple[RungEntry, ...]

    @property
    def taken(self) -> RungEntry:
        """The artefact to ship."""
        return next(rung for rung in self.rungs if rung.taken)


class Source(_Record, ABC):
    """What everything in a bundle was built from and judged by, whatever the model."""

    weights_sha256: str
    parameters: int
    samples: str
    """What artefacts are judged by, in words."""
    calibration_samples: int
    verification_samples: int
    verification_sha256: str
    reference_rounding: float

    @property
    @abstractmethod
    def identity(self) -> dict[str, str]:
        """What tells the model from others, besides its weights."""

    @abstractmethod
    def lines(self) -> tuple[str, ...]:
        """The record for a person."""


class SwipeSource(Source):
    """A swipe model's checkpoint, and the lexicon that its words were decoded with."""

    kind: Literal["swipe"] = "swipe"
    checkpoint_step: int
    contract_id: str
    contract: dict[str, Any]
    trained_on: dict[str, Any]
    lexicon: str
    lexicon_sha256: str
    decoder: dict[str, float | None]
    """`swipe.decode.DecoderPreset` that words were decoded with, for hosts; None is infinite."""
    preset: dict[str, Any] | None = None
    """`swipe.presets.TunedPreset` that these settings come from; None: they are the default."""

    @property
    def identity(self) -> dict[str, str]:
        """The contract."""
        return {"contract_id": self.contract_id}

    def lines(self) -> tuple[str, ...]:
        """Weights, swipes, decoder."""
        settings = ", ".join(
            f"{k} {'infinite' if v is None else f'{v:g}'}" for k, v in self.decoder.items()
        )
        return (
            f"Weights `{self.weights_sha256[:16]}`, step {self.checkpoint_step:,}, "
            f"{self.parameters:,} parameters, contract `{self.contract_id}`.",
            f"Judged on {self.verification_samples:,} swipes ({self.samples}), lexicon "
            f"`{self.lexicon}` (`{self.lexicon_sha256[:16]}`).",
            f"Decoder: {settings}.",
        )


class ModelSource(Source):
    """Anyone's model, see `exporter.adapter`."""

    kind: Literal["model"] = "model"
    factory: str
    weights: str
    """Where they come from, in words."""
    checkpoint_step: int | None
    outputs: Literal["ctc", "classes", "values"]
    blank: int | None
    metric: str | None
    """What the accuracy budget is about; None: nobody knows what is right."""

    @property
    def identity(self) -> dict[str, str]:
        """The factory."""
        return {"factory": self.factory}

    def lines(self) -> tuple[str, ...]:
        """Factory, weights, samples."""
        judged = (
            "nothing says which outputs are right, so only their agreement with PyTorch was judged"
            if self.metric is None
            else f"accuracy is {self.metric}"
        )
        blank = "" if self.blank is None else f", the blank is class {self.blank}"
        return (
            f"Model `{self.factory}`, {self.parameters:,} parameters, weights "
            f"`{self.weights_sha256[:16]}` ({self.weights}); outputs are {self.outputs}{blank}.",
            f"Judged on {self.verification_samples:,} samples ({self.samples}); {judged}.",
        )


AnySource = Annotated[SwipeSource | ModelSource, Field(discriminator="kind")]


class Manifest(_Record):
    """The whole bundle."""

    schema_name: str = SCHEMA
    created: str
    platform: str
    versions: dict[str, str]
    source: AnySource
    accuracy_budget: float
    """Points of accuracy that quantization was allowed to cost."""
    views: tuple[ViewEntry, ...]
    formats: tuple[FormatEntry, ...]

    def save(self, folder: Path) -> None:
        """Write ``manifest.json`` atomically."""
        write_text_atomic(folder / FILE, self.model_dump_json(indent=2) + "\n")


def load_manifest(folder: Path) -> Manifest:
    """Read a bundle's manifest.

    Raises:
        UsageError: there is no bundle.
        GateError: the manifest is damaged, or of another schema.
    """
    path = folder / FILE
    if not path.is_file():
        raise UsageError(f"no bundle at {folder}", fix="build one: swipe-export all --quantize")
    try:
        manifest = Manifest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise GateError(
            f"{path} is not a manifest this version can read ({where}: {first['msg']})",
            fix="export again with this version",
        ) from error
    if manifest.schema_name != SCHEMA:
        raise GateError(
            f"{path} has schema {manifest.schema_name!r}, this version reads {SCHEMA!r}",
            fix="use the version of swipe-export that wrote it, or export again",
        )
    return manifest


def require_unaltered(folder: Path, entry: RungEntry) -> Path:
    """The artefact's path, after its hash was recomputed.

    Raises:
        GateError: the file is absent or is not the one the manifest speaks of.
    """
    path = folder / str(entry.file)
    if entry.file is None or not path.exists() or sha256_file(path) != entry.sha256:
        raise GateError(f"{path} is not the artefact that {FILE} describes", fix="export again")
    return path


def library_versions() -> dict[str, str]:
    """Versions of Python and of every library that shapes an artefact and is installed."""
    versions = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
