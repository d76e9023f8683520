"""manifest.json: what a bundle holds, what it was built from, and what is known of it.

The file carries a hash over itself, so that an edit is noticed even where nothing can be
recomputed. That detects accidents, not forgers: who edits it can hash it again.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from swipe.errors import GateError, UsageError
from swipe.files import cannot_read, hash_of, write_text_atomic

SCHEMA: Final = "swipe-export/bundle/4"
FILE: Final = "manifest.json"
CHECKPOINT: Final = "checkpoint.safetensors"
VERIFICATION: Final = "verification.npz"
REPORT: Final = "report.md"
PAGE: Final = "report.html"
BENCH: Final = "bench.json"
"""Where ``swipe-bench`` writes what it measured; no part of what was exported."""

FAMILY: Final = SCHEMA.rpartition("/")[0]
"""What the schemas of all versions begin with."""

SEAL: Final = "sha256"
"""Key of the manifest's hash over itself."""


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
    build: int
    """Which of `Manifest.builds` made it."""
    rungs: tuple[RungEntry, ...]

    @property
    def taken(self) -> RungEntry:
        """The artefact to ship.

        Raises:
            GateError: there is none; no export publishes that.
        """
        for rung in self.rungs:
            if rung.taken:
                return rung
        raise GateError(f"{self.format} {self.view} ships no artefact", fix="export again")


class Recipe(_Record):
    """Every option that shaped what one export built, see `exporter.bundle.Request`.

    What was asked for is named as the user named it, absolute paths by their last part.
    """

    formats: tuple[str, ...]
    views: tuple[str, ...]
    policy: dict[str, Any]
    asked: dict[str, Any]
    """Of the model, see `exporter.origins.Request.recipe`."""


class Build(_Record):
    """One export: when, with what, and where; see `exporter.provenance`."""

    created: str
    platform: str
    processor: str
    processor_flags: tuple[str, ...]
    threads: int
    versions: dict[str, str]
    commit: str | None
    uncommitted_changes: bool | None
    recipe: Recipe


class Source(_Record, ABC):
    """What everything in a bundle was built from and judged by, whatever the model."""

    weights_sha256: str
    parameters: int
    samples: str
    """What artefacts are judged by, in words."""
    calibration_samples: int
    calibration_sha256: str
    """Of the samples in order; they are not in the bundle."""
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
    """`swipe.presets.DecoderPreset` that words were decoded with, for hosts; None is infinite."""
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
    builds: tuple[Build, ...]
    """Newest first; earlier ones made what was kept from the bundle before."""
    source: AnySource
    accuracy_budget: float
    """Points of accuracy that quantization was allowed to cost."""
    views: tuple[ViewEntry, ...]
    formats: tuple[FormatEntry, ...]

    def save(self, folder: Path) -> None:
        """Write ``manifest.json`` atomically, with its hash over itself."""
        fields = json.loads(self.model_dump_json())
        sealed = {**fields, SEAL: digest_of(fields)}
        write_text_atomic(folder / FILE, json.dumps(sealed, indent=2, allow_nan=False) + "\n")


def digest_of(fields: dict[str, Any]) -> str:
    """SHA-256 of `fields` as canonical JSON: sorted keys, no spaces."""
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def is_bundle(path: Path) -> bool:
    """Whether `path` is a folder that swipe-export published, however damaged it is now."""
    manifest = path / FILE
    if not path.is_dir() or not manifest.is_file():
        return False
    if (path / CHECKPOINT).exists() and (path / VERIFICATION).exists():
        return True
    try:
        return FAMILY.encode() in manifest.read_bytes()
    except OSError:
        return False


def load_manifest(folder: Path) -> Manifest:
    """Read a bundle's manifest.

    Raises:
        UsageError: there is no bundle, or it may not be read.
        GateError: the manifest is damaged, edited, or of another schema.
    """
    manifest, sealed = read_manifest(folder)
    if not sealed:
        raise GateError(
            f"{folder / FILE} was edited: its hash over itself is another",
            fix="bring back the file that was published, or export again",
        )
    return manifest


def read_manifest(folder: Path) -> tuple[Manifest, bool]:
    """A bundle's manifest, and whether it is as it was written.

    Raises:
        UsageError: there is no bundle, or it may not be read.
        GateError: the manifest is damaged, or of another schema.
    """
    path = folder / FILE
    if not path.is_file():
        raise UsageError(f"no bundle at {folder}", fix="build one: swipe-export all --quantize")
    try:
        fields = json.loads(path.read_bytes())
    except OSError as error:
        raise cannot_read(path, error) from error
    except ValueError as error:
        raise _unreadable(path, f"not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise _unreadable(path, "it holds no record")
    # Before anything else: fields of a later schema are not damage.
    schema = fields.get("schema_name")
    if schema != SCHEMA:
        raise GateError(
            f"{path} has schema {schema!r}, this version reads {SCHEMA!r}",
            fix="use the version of swipe-export that wrote it, or export again",
        )
    seal = fields.pop(SEAL, None)
    try:
        # By way of JSON: only there may a tuple be given as an array.
        return Manifest.model_validate_json(json.dumps(fields)), seal == digest_of(fields)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise _unreadable(path, f"{where}: {first['msg']}") from error


def _unreadable(path: Path, reason: str) -> GateError:
    return GateError(
        f"{path} is not a manifest this version can read ({reason})",
        fix="export again with this version",
    )


def require_unaltered(folder: Path, entry: RungEntry) -> Path:
    """The artefact's path, after its hash was recomputed.

    Raises:
        UsageError: the file may not be read.
        GateError: the file is absent or is not the one the manifest speaks of.
    """
    path = folder / str(entry.file)
    if entry.file is None or not path.exists() or hash_of(path) != entry.sha256:
        raise GateError(f"{path} is not the artefact that {FILE} describes", fix="export again")
    return path
